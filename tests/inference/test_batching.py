"""Dynamic batching: requests of several callers are computed together; each gets its own result."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from rtseg.core.errors import BackendError
from rtseg.core.model_info import ModelInfo
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.inference.batching import DynamicBatcher

SIZE = (10, 8)


class FakeEngine:
    """Returns each pixel's red channel as its class and stores the batch sizes.

    With `held`, the first call returns after `released` is set. The call with the number `fails` raises an error.
    """

    name, device, precision, free_size, streams, batch = "engine", "none", "fp16", False, 1, 4
    input_size = SIZE
    description = ModelInfo("red", CAMVID_CLASSES, SIZE)

    def __init__(self, held: bool = False, fails: int = 0) -> None:
        self.batch_sizes: list[int] = []
        self.released = threading.Event()
        self._held, self._fails = held, fails
        self._inside = threading.Lock()

    def infer(self, images: Any) -> Any:
        assert self._inside.acquire(blocking=False), "two concurrent calls of the engine"
        try:
            self.batch_sizes.append(len(images))
            if self._held and len(self.batch_sizes) == 1:
                assert self.released.wait(120)
            if len(self.batch_sizes) == self._fails:
                raise BackendError("the GPU has fallen off the bus")
            return images[..., 0].copy()
        finally:
            self._inside.release()

    def close(self) -> None:
        pass


def image(value: int, count: int = 1) -> Any:
    return np.full((count, SIZE[1], SIZE[0], 3), value, np.uint8)


def infer_concurrently(engine: FakeEngine, count: int) -> list[Any]:
    """Infer `count` values in threads, all but the first queued during its run; return the results or errors in order."""
    backend = DynamicBatcher(engine)

    def infer(value: int) -> Any:
        try:
            return backend.infer(image(value))
        except BackendError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        results = pool.map(infer, range(count), timeout=120)
        for _ in range(20_000):
            if len(backend._waiting) == count - 1:
                break
            time.sleep(0.005)
        queued = len(backend._waiting)
        engine.released.set()
        assert queued == count - 1
        return list(results)


def test_single_caller_is_not_delayed() -> None:
    engine = FakeEngine()
    backend = DynamicBatcher(engine)
    for value in range(5):
        assert (backend.infer(image(value)) == value).all()
    assert engine.batch_sizes == [1] * 5


def test_requests_during_a_run_are_computed_together() -> None:
    engine = FakeEngine(held=True)
    results = infer_concurrently(engine, 9)
    assert engine.batch_sizes == [1, 4, 4]
    assert [int(a.min()) for a in results] == [int(a.max()) for a in results] == list(range(9))
    results[0][:] = 99  # each result is a separate array
    assert (results[1] == 1).all()


def test_request_larger_than_a_batch_is_not_split() -> None:
    engine = FakeEngine()
    assert (DynamicBatcher(engine).infer(image(7, count=11)) == 7).all()
    assert engine.batch_sizes == [11]


def test_engine_error_is_raised_in_all_callers_of_the_batch_only() -> None:
    engine = FakeEngine(held=True, fails=2)
    results = infer_concurrently(engine, 7)
    failed = [result for result in results if isinstance(result, BackendError)]
    assert len(failed) == 4
    assert {str(error) for error in failed} == {"the GPU has fallen off the bus"}
    assert engine.batch_sizes == [1, 4, 2]
    assert sum(isinstance(result, np.ndarray) for result in results) == 3


def test_invalid_image_affects_only_its_caller() -> None:
    engine = FakeEngine()
    with pytest.raises(ValueError, match=r"must be uint8 \[N, 8, 10, 3\]"):
        DynamicBatcher(engine).infer(np.zeros((1, 8, 9, 3), np.uint8))
    assert not engine.batch_sizes


def test_streams_is_twice_the_batch_size() -> None:
    assert DynamicBatcher(FakeEngine()).streams == 8
