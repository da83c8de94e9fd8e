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

from rtseg.inference import Backend, check_images


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
    """Stands before a backend that computes several pictures at once in less time than one after the other."""

    def __init__(self, backend: Backend) -> None:
        """Of the backend's pictures all have to come through here from now on."""
        self._backend = backend
        self._engine = threading.Lock()
        self._guard = threading.Lock()
        self._waiting: deque[_Asked] = deque()

    @property
    def streams(self) -> int:
        """How many callers keep the backend busy: twice its batch, so that the next gathers while one is computed."""
        return 2 * self._backend.batch

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Class maps, uint8 `[N, H, W]`, of pictures uint8 `[N, H, W, 3]`; see `Backend.infer`.

        What the backend raises is raised to all callers whose pictures were computed together.
        """
        backend = self._backend
        check_images(
            images, None if backend.free_size else backend.input_size
        )  # a wrong picture is its own caller's trouble
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

    def _next(self) -> list[_Asked]:
        """Who comes first, and who fits in with them."""
        with self._guard:
            together = [self._waiting.popleft()]
            room = self._backend.batch - len(together[0].images)
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
