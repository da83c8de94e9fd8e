"""Several callers, one engine: what they ask for at the same time is computed together.

There is no thread and no clock: whoever finds the engine free computes all that waits, its own picture among it, while the
others queue up for the next batch. A caller that is alone waits for nobody.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rtseg.backends import Backend, check_images
from rtseg.description import ModelDescription


@dataclass(eq=False, slots=True)
class _Asked:
    """What one caller waits for."""

    images: npt.NDArray[np.uint8]
    answer: npt.NDArray[np.uint8] | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.answer is not None or self.error is not None


class Batching:
    """A backend in front of one that computes several pictures at once in less time than one after the other."""

    def __init__(self, backend: Backend) -> None:
        """Takes the backend over: nobody else may use it."""
        self._backend = backend
        self._engine = threading.Lock()
        self._guard = threading.Lock()
        self._waiting: deque[_Asked] = deque()

    @property
    def name(self) -> str:
        """The backend's."""
        return self._backend.name

    @property
    def device(self) -> str:
        """The backend's."""
        return self._backend.device

    @property
    def precision(self) -> str:
        """The backend's."""
        return self._backend.precision

    @property
    def description(self) -> ModelDescription:
        """The model's."""
        return self._backend.description

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the input."""
        return self._backend.input_size

    @property
    def free_size(self) -> bool:
        """The backend's."""
        return self._backend.free_size

    @property
    def batch(self) -> int:
        """Pictures that are computed together at most."""
        return self._backend.batch

    @property
    def streams(self) -> int:
        """Twice the batch: while one is computed, the next gathers."""
        return 2 * self._backend.batch

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Class maps, uint8 `[N, H, W]`, of pictures uint8 `[N, H, W, 3]`; see `Backend.infer`.

        What the backend raises is raised to all callers whose pictures were computed together.
        """
        check_images(images, None if self.free_size else self.input_size)  # a wrong picture is its own caller's trouble
        asked = _Asked(images)
        with self._guard:
            self._waiting.append(asked)
        with self._engine:
            while not asked.done:
                self._compute(self._next())
        if asked.error is not None:
            raise asked.error
        assert asked.answer is not None
        return asked.answer

    def close(self) -> None:
        """Gives the backend's memory back."""
        with self._engine:
            self._backend.close()

    def _next(self) -> list[_Asked]:
        """Who comes first, and who fits in with them."""
        with self._guard:
            together = [self._waiting.popleft()]
            room = self.batch - len(together[0].images)
            while self._waiting and self._waiting[0].images.shape[1:] == together[0].images.shape[1:]:
                room -= len(self._waiting[0].images)
                if room < 0:
                    break
                together.append(self._waiting.popleft())
            return together

    def _compute(self, together: list[_Asked]) -> None:
        try:
            if len(together) == 1:
                together[0].answer = self._backend.infer(together[0].images)
                return
            answers = self._backend.infer(np.concatenate([asked.images for asked in together]))
            begin = 0
            for asked in together:
                asked.answer = answers[begin : begin + len(asked.images)]
                begin += len(asked.images)
        except BaseException as error:  # raised again in the thread of each of them
            for asked in together:
                asked.error = error
