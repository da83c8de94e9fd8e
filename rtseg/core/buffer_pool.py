"""Pool of frame buffers, which are reused as soon as no view of them is left.

The C library returns new memory for each frame-sized block (see `rtseg.core.process_setup`), and the kernel clears and maps
it page by page. A pool avoids that.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

_MAX_SIZES = 8
"""Number of different sizes in the pool: the planes of a frame, and those of the last frame before a change of resolution."""

_MAX_FREE_BLOCKS = 32
"""Number of unused blocks per size: more than the stages of a run have in their queues."""


def _allocate(size: int) -> npt.NDArray[np.uint8]:
    return np.empty(size, dtype=np.uint8)


class BufferPool:
    """Pool of uint8 arrays. A buffer returns to the pool when its last view is deleted. Thread-safe."""

    def __init__(self, allocate: Callable[[int], npt.NDArray[np.uint8]] = _allocate) -> None:
        """Create an empty pool. A block of `allocate`, which gets a number of bytes, must stay valid while a view of it exists."""
        self._allocate = allocate
        self._free: dict[int, list[npt.NDArray[np.uint8]]] = {}

    def empty(self, *shape: int) -> npt.NDArray[np.uint8]:
        """Return an uninitialized contiguous uint8 array of a shape. Its memory is not reused while a view of it exists."""
        size = int(np.prod(shape))
        free = self._free.get(size)
        if free is None:
            if len(self._free) >= _MAX_SIZES:
                self._free = {}
            free = self._free[size] = []
        try:
            block = free.pop()
        except IndexError:
            block = self._allocate(size)
        # Because of the memoryview, every view keeps a reference to this array and none to the block behind it.
        array = np.frombuffer(memoryview(block), dtype=np.uint8)  # type: ignore[arg-type]
        weakref.finalize(array, _release, free, block).atexit = False
        return array.reshape(shape)


def _release(free: list[npt.NDArray[np.uint8]], block: npt.NDArray[np.uint8]) -> None:
    if len(free) < _MAX_FREE_BLOCKS:
        free.append(block)
