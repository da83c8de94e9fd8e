"""Stage of a pipeline: a queue, and threads that pass its items to a function."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from rtseg.pipeline.frame_queue import FrameQueue

T = TypeVar("T")


class Stage(Generic[T]):
    """Threads that pass the items of a queue to a function.

    The threads are daemons: one that is blocked in a native call does not keep the process alive.
    """

    def __init__(
        self,
        name: str,
        queue: FrameQueue[T],
        work: Callable[[T], None],
        *,
        workers: int = 1,
        on_end: Callable[[], None] = lambda: None,
        on_error: Callable[[BaseException], None],
    ) -> None:
        """Start the threads.

        Args:
            name: suffix of the threads' name, after `rtseg-`.
            queue: the items; the stage ends when it has ended.
            work: called with each item.
            workers: number of threads; 0: the owner calls `run_once`, as a window needs the main thread.
            on_end: called after the last item, by the last thread.
            on_error: called with the exception of `work` or `on_end`, which ends the stage: the waiting items are dropped.
        """
        self._queue, self._work, self._on_end, self._on_error = queue, work, on_end, on_error
        self._lock = threading.Lock()
        self._running = max(1, workers)
        self._ended = threading.Event()
        for _ in range(workers):
            threading.Thread(target=self._run, name=f"rtseg-{name}", daemon=True).start()

    def join(self, timeout_seconds: float) -> bool:
        """Block until the stage has ended; return False after the timeout."""
        return self._ended.wait(max(0.0, timeout_seconds))

    def run_once(self, timeout_seconds: float | None = None) -> bool:
        """Work on one item, blocking at most `timeout_seconds` for it; return False once the queue has ended or `work` failed."""
        if self._ended.is_set():
            return False
        try:
            item = self._queue.get(timeout_seconds)
            if item is not None:
                self._work(item)
                return True
            if not self._queue.ended:
                return True
            with self._lock:
                self._running -= 1
            if self._running == 0:
                self._on_end()
                self._ended.set()
        except BaseException as error:  # reported by the owner
            self._queue.close(discard=True)
            try:
                self._on_error(error)
            finally:
                self._ended.set()
        return False

    def _run(self) -> None:
        while self.run_once():
            pass
