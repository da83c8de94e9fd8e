"""Memory that is used again: never while somebody still looks at it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rtseg.core.buffer_pool import BufferPool


def test_memory_is_used_again_once_the_array_is_gone() -> None:
    memory = BufferPool()
    first = memory.empty(720, 1280)
    place = first.ctypes.data
    assert (first.shape, first.dtype, first.flags.c_contiguous, first.flags.writeable) == (
        (720, 1280),
        np.uint8,
        True,
        True,
    )
    del first
    assert memory.empty(720, 1280).ctypes.data == place
    assert memory.empty(1280, 720).ctypes.data == place  # the same bytes in another shape


LOOKS: dict[str, Callable[[Any], Any]] = {
    "view": lambda array: array[1:, ::2],
    "view of a view": lambda array: array[1:][:, 1:],
    "buffer": lambda array: np.asarray(memoryview(array)),
    "reshaped": lambda array: array.reshape(-1),
}


@pytest.mark.parametrize("style", LOOKS)
def test_whoever_still_looks_keeps_the_picture(style: str) -> None:
    memory = BufferPool()
    array = memory.empty(4, 6)
    array[:] = 7
    kept = LOOKS[style](array)
    del array
    others = [memory.empty(4, 6) for _ in range(3)]
    for other in others:
        other[:] = 9
    assert (kept == 7).all()


def test_two_arrays_at_once_do_not_share() -> None:
    memory = BufferPool()
    arrays = [memory.empty(3, 5) for _ in range(40)]
    for number, array in enumerate(arrays):
        array[:] = number
    assert [int(array.min()) for array in arrays] == [int(array.max()) for array in arrays] == list(range(40))


def test_what_is_kept_is_bounded() -> None:
    memory = BufferPool()
    arrays = [memory.empty(10, 10) for _ in range(200)]
    del arrays
    for side in range(1, 100):
        memory.empty(side, 3)
    assert sum(len(free) for free in memory._free.values()) <= 32 * 8
    assert len(memory._free) <= 8


@pytest.mark.timeout(180)
def test_threads_never_see_each_others_pictures() -> None:
    memory = BufferPool()
    wrong = []

    def work(value: int) -> None:
        for _ in range(2000):
            array = memory.empty(8, 8)
            array[:] = value
            if not (array == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
