"""Several callers of one engine: computed together, answered apart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rtseg.core.errors import BackendError
from rtseg.core.model_info import ModelInfo
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.inference.batching import Batching

pytestmark = pytest.mark.timeout(180)
SIZE = (10, 8)


class Engine:
    """Says of each pixel its red, and keeps how many pictures came together. Waits for `gate` before each answer."""

    name, device, precision, free_size, streams, batch = "engine", "none", "fp16", False, 1, 4
    input_size = SIZE
    description = ModelInfo("red", CAMVID_CLASSES, SIZE)

    def __init__(self, gate: Callable[[int], None] = lambda _: None) -> None:
        self.together: list[int] = []
        self.closed = False
        self._gate = gate
        self._inside = threading.Lock()

    def infer(self, images: Any) -> Any:
        assert self._inside.acquire(blocking=False), "two callers in the engine"
        try:
            self.together.append(len(images))
            self._gate(len(self.together))
            return images[..., 0].copy()
        finally:
            self._inside.release()

    def close(self) -> None:
        self.closed = True


def picture(value: int, count: int = 1) -> Any:
    return np.full((count, SIZE[1], SIZE[0], 3), value, np.uint8)


def ask(backend: Batching, values: list[int], before: Callable[[], None] = lambda: None) -> list[Any]:
    """Each value in a thread of its own; what came back, or the error, in the values' order."""
    answers: list[Any] = [None] * len(values)

    def one(place: int) -> None:
        try:
            answers[place] = backend.infer(picture(values[place]))
        except BackendError as error:
            answers[place] = error

    threads = [threading.Thread(target=one, args=(place,)) for place in range(len(values))]
    for thread in threads:
        thread.start()
    before()
    for thread in threads:
        thread.join(120)
    return answers


def waiting(backend: Batching, count: int) -> None:
    """Until so many are in the queue."""
    for _ in range(20_000):
        if len(backend._waiting) >= count:
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"{len(backend._waiting)} of {count} came")


def test_who_is_alone_waits_for_nobody() -> None:
    engine = Engine()
    backend = Batching(engine)
    for value in range(5):
        assert (backend.infer(picture(value)) == value).all()
    assert engine.together == [1] * 5


def test_what_comes_while_the_engine_works_is_computed_together() -> None:
    go = threading.Event()
    engine = Engine(lambda number: None if number > 1 else bool(go.wait(120)) and None)
    backend = Batching(engine)

    def release() -> None:
        waiting(backend, 8)
        go.set()

    answers = ask(backend, list(range(9)), release)
    assert engine.together == [1, 4, 4]
    assert [int(a.min()) for a in answers] == [int(a.max()) for a in answers] == list(range(9))
    answers[0][:] = 99  # each caller's own
    assert (answers[1] == 1).all()


def test_more_than_a_batch_from_one_caller_goes_through_whole() -> None:
    engine = Engine()
    assert (Batching(engine).infer(picture(7, count=11)) == 7).all()
    assert engine.together == [11]


def test_a_failing_engine_is_told_to_all_whose_pictures_it_had_and_works_on() -> None:
    go = threading.Event()

    def gate(number: int) -> None:
        if number == 1:
            go.wait(120)
        if number == 2:
            raise BackendError("the GPU has fallen off the bus")

    engine = Engine(gate)
    backend = Batching(engine)

    def release() -> None:
        waiting(backend, 6)
        go.set()

    answers = ask(backend, list(range(7)), release)
    failed = [answer for answer in answers if isinstance(answer, BackendError)]
    assert len(failed) == 4
    assert {str(error) for error in failed} == {"the GPU has fallen off the bus"}
    assert engine.together == [1, 4, 2]
    assert (backend.infer(picture(3)) == 3).all()


def test_a_wrong_picture_is_its_own_callers_trouble() -> None:
    engine = Engine()
    with pytest.raises(ValueError, match=r"must be uint8 \[N, 8, 10, 3\]"):
        Batching(engine).infer(np.zeros((1, 8, 9, 3), np.uint8))
    assert not engine.together


def test_as_many_callers_as_two_batches_are_wanted() -> None:
    assert Batching(Engine()).streams == 8
