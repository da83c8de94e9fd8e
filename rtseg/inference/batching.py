"""Dynamic batching: requests of several callers that wait at the same time are computed in one batch.

There is no thread and no timer. The caller that gets the engine computes a batch of the waiting requests, its own among them;
meanwhile the other callers queue for the next batch. A single caller never waits for others.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.inference import Backend, check_images


@dataclass(eq=False)
class _Request:
    """Images of one caller, and the future of their outputs."""

    images: npt.NDArray[np.uint8]
    outputs: Future[npt.NDArray[Any]] = field(default_factory=Future)


class DynamicBatcher:
    """Batching front end of a backend that computes a batch faster than its images in sequence."""

    def __init__(self, backend: Backend) -> None:
        """Wrap a backend; from now on all its images must pass through this object."""
        self._backend = backend
        self._engine_lock = threading.Lock()
        self._queue_lock = threading.Lock()
        self._waiting: deque[_Request] = deque()

    @property
    def streams(self) -> int:
        """Number of callers that keep the backend busy: twice its batch, so that the next batch fills during the current one."""
        return 2 * self._backend.batch

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Run the network on images, uint8 `[N, H, W, 3]`; see `Backend.infer`.

        An error of the backend is raised in all callers of the batch.

        Raises:
            ValueError: `images` has another dtype or shape; no other caller is affected.
            BackendError: the runtime failed.
        """
        backend = self._backend
        check_images(images, None if backend.free_size else backend.input_size)
        request = _Request(images)
        with self._queue_lock:
            self._waiting.append(request)
        with self._engine_lock:
            while not request.outputs.done():
                self._compute(self._next_batch())
        return request.outputs.result()

    def _next_batch(self) -> list[_Request]:
        """Take the first request, and those after it that have the same image size and fit into the batch."""
        with self._queue_lock:
            requests = [self._waiting.popleft()]
            capacity = self._backend.batch - len(requests[0].images)
            while self._waiting and self._waiting[0].images.shape[1:] == requests[0].images.shape[1:]:
                capacity -= len(self._waiting[0].images)
                if capacity < 0:
                    break
                requests.append(self._waiting.popleft())
            return requests

    def _compute(self, requests: list[_Request]) -> None:
        try:
            images = [request.images for request in requests]
            outputs = self._backend.infer(images[0] if len(images) == 1 else np.concatenate(images))
            parts = np.split(outputs, np.cumsum([len(part) for part in images])[:-1])
        except BaseException as error:  # raised again in the thread of each caller
            for request in requests:
                request.outputs.set_exception(error)
            return
        for request, part in zip(requests, parts, strict=True):
            request.outputs.set_result(part)
