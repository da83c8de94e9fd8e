"""Memory for pictures that is used again as soon as nobody looks at the last picture in it.

A picture's memory from the C library is new to the process every time (see `rtseg.core.process_setup`), and the system clears and maps it
page by page.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

_SIZES = 8
"""Different sizes that are kept at the same time: the planes of a picture and of the one before it, where sizes change."""

_FREE = 32
"""Unused blocks of a size that are kept: more than wait between the stages of a run."""


class BufferPool:
    """Gives arrays; takes their memory back when the last view of it is gone. For any number of threads."""

    def __init__(self, allocate: Callable[[int], npt.NDArray[np.uint8]] | None = None) -> None:
        """`allocate` gives so many bytes of another kind of memory, which must live until nobody looks at them; None: NumPy's."""
        self._allocate = allocate or _fresh
        self._free: dict[int, list[npt.NDArray[np.uint8]]] = {}

    def empty(self, *shape: int) -> npt.NDArray[np.uint8]:
        """A uint8 array of a shape, contiguous, its contents arbitrary. It is the caller's for as long as it lives."""
        size = int(np.prod(shape))
        free = self._free.get(size)
        if free is None:
            if len(self._free) >= _SIZES:
                self._free = {}
            free = self._free[size] = []
        try:
            block = free.pop()
        except IndexError:
            block = self._allocate(size)
        # Through a memoryview: all views of the array hold on to the array then, none to the block behind it.
        array = np.frombuffer(memoryview(block), dtype=np.uint8)  # type: ignore[arg-type]
        weakref.finalize(array, _give_back, free, block).atexit = False
        return array.reshape(shape)


def _fresh(size: int) -> npt.NDArray[np.uint8]:
    return np.empty(size, dtype=np.uint8)


def _give_back(free: list[npt.NDArray[np.uint8]], block: npt.NDArray[np.uint8]) -> None:
    if len(free) < _FREE:
        free.append(block)
