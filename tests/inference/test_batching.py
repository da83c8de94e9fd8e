"""Dynamic batching: requests of several callers are computed together; each gets its own result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rtseg.core.errors import BackendError
from rtseg.core.model_info import ModelInfo
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.inference.batching import DynamicBatcher

SIZE = (10, 8)


class FakeEngine:
    """Returns each pixel's red channel as its class and stores the batch sizes. Calls `gate` before it returns."""

    name, device, precision, free_size, streams, batch = "engine", "none", "fp16", False, 1, 4
    input_size = SIZE
    description = ModelInfo("red", CAMVID_CLASSES, SIZE)

    def __init__(self, gate: Callable[[int], None] = lambda _: None) -> None:
        self.batch_sizes: list[int] = []
        self.closed = False
        self._gate = gate
        self._inside = threading.Lock()

    def infer(self, images: Any) -> Any:
        assert self._inside.acquire(blocking=False), "two concurrent calls of the engine"
        try:
            self.batch_sizes.append(len(images))
            self._gate(len(self.batch_sizes))
            return images[..., 0].copy()
        finally:
            self._inside.release()

    def close(self) -> None:
        self.closed = True


def image(value: int, count: int = 1) -> Any:
    return np.full((count, SIZE[1], SIZE[0], 3), value, np.uint8)


def infer_concurrently(
    backend: DynamicBatcher, values: list[int], after_start: Callable[[], None] = lambda: None
) -> list[Any]:
    """Infer each value in its own thread; return the results or errors in the order of `values`."""
    results: list[Any] = [None] * len(values)

    def infer(index: int) -> None:
        try:
            results[index] = backend.infer(image(values[index]))
        except BackendError as error:
            results[index] = error

    threads = [threading.Thread(target=infer, args=(index,)) for index in range(len(values))]
    for thread in threads:
        thread.start()
    after_start()
    for thread in threads:
        thread.join(120)
    return results


def wait_for_queue(backend: DynamicBatcher, count: int) -> None:
    """Block until `count` requests are queued."""
    for _ in range(20_000):
        if len(backend._waiting) >= count:
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"{len(backend._waiting)} of {count} requests are queued")


def test_single_caller_is_not_delayed() -> None:
    engine = FakeEngine()
    backend = DynamicBatcher(engine)
    for value in range(5):
        assert (backend.infer(image(value)) == value).all()
    assert engine.batch_sizes == [1] * 5


def test_requests_during_a_run_are_computed_together() -> None:
    released = threading.Event()
    engine = FakeEngine(lambda number: None if number > 1 else bool(released.wait(120)) and None)
    backend = DynamicBatcher(engine)

    def release() -> None:
        wait_for_queue(backend, 8)
        released.set()

    results = infer_concurrently(backend, list(range(9)), release)
    assert engine.batch_sizes == [1, 4, 4]
    assert [int(a.min()) for a in results] == [int(a.max()) for a in results] == list(range(9))
    results[0][:] = 99  # each result is a separate array
    assert (results[1] == 1).all()


def test_request_larger_than_a_batch_is_not_split() -> None:
    engine = FakeEngine()
    assert (DynamicBatcher(engine).infer(image(7, count=11)) == 7).all()
    assert engine.batch_sizes == [11]


def test_engine_error_is_raised_in_all_callers_of_the_batch_only() -> None:
    released = threading.Event()

    def gate(number: int) -> None:
        if number == 1:
            released.wait(120)
        if number == 2:
            raise BackendError("the GPU has fallen off the bus")

    engine = FakeEngine(gate)
    backend = DynamicBatcher(engine)

    def release() -> None:
        wait_for_queue(backend, 6)
        released.set()

    results = infer_concurrently(backend, list(range(7)), release)
    failed = [result for result in results if isinstance(result, BackendError)]
    assert len(failed) == 4
    assert {str(error) for error in failed} == {"the GPU has fallen off the bus"}
    assert engine.batch_sizes == [1, 4, 2]
    assert (backend.infer(image(3)) == 3).all()


def test_invalid_image_affects_only_its_caller() -> None:
    engine = FakeEngine()
    with pytest.raises(ValueError, match=r"must be uint8 \[N, 8, 10, 3\]"):
        DynamicBatcher(engine).infer(np.zeros((1, 8, 9, 3), np.uint8))
    assert not engine.batch_sizes


def test_streams_is_twice_the_batch_size() -> None:
    assert DynamicBatcher(FakeEngine()).streams == 8
