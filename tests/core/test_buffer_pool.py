"""Tests of the buffer pool: buffers are reused, but never while a view of them exists."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from rtseg.core.buffer_pool import BufferPool


def test_memory_is_reused_after_the_array_is_deleted() -> None:
    pool = BufferPool()
    first = pool.empty(720, 1280)
    address = first.ctypes.data
    assert (first.shape, first.dtype) == ((720, 1280), np.uint8)
    assert first.flags.c_contiguous
    assert first.flags.writeable
    del first
    assert pool.empty(720, 1280).ctypes.data == address
    assert pool.empty(1280, 720).ctypes.data == address  # the same number of bytes in another shape


VIEWS: dict[str, Callable[[Any], Any]] = {
    "view": lambda array: array[1:, ::2],
    "view of a view": lambda array: array[1:][:, 1:],
    "buffer": lambda array: np.asarray(memoryview(array)),
    "reshaped": lambda array: array.reshape(-1),
}


@pytest.mark.parametrize("view_type", VIEWS)
def test_buffer_is_not_reused_while_a_view_exists(view_type: str) -> None:
    pool = BufferPool()
    array = pool.empty(4, 6)
    array[:] = 7
    view = VIEWS[view_type](array)
    del array
    others = [pool.empty(4, 6) for _ in range(3)]
    for other in others:
        other[:] = 9
    assert (view == 7).all()


def test_live_arrays_do_not_share_memory() -> None:
    pool = BufferPool()
    arrays = [pool.empty(3, 5) for _ in range(40)]
    for number, array in enumerate(arrays):
        array[:] = number
    assert [int(array.min()) for array in arrays] == [int(array.max()) for array in arrays] == list(range(40))


def test_number_of_free_buffers_is_limited() -> None:
    pool = BufferPool()
    arrays = [pool.empty(10, 10) for _ in range(200)]
    del arrays
    for side in range(1, 100):
        pool.empty(side, 3)
    assert sum(len(free) for free in pool._free.values()) <= 32 * 8
    assert len(pool._free) <= 8


@pytest.mark.timeout(180)
def test_concurrent_threads_get_separate_buffers() -> None:
    pool = BufferPool()

    def work(value: int) -> None:
        for _ in range(2000):
            array = pool.empty(8, 8)
            array[:] = value
            assert (array == value).all()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
