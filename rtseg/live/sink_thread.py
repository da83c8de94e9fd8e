"""Sink in its own thread: frames that the sink can't take in time are dropped and counted, without blocking the pipeline."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from rtseg.core.errors import RtsegError
from rtseg.core.frame import ProcessedFrame
from rtseg.core.secrets import redact
from rtseg.io.outputs import Sink

OnDone = Callable[[float | None], None]
"""Called once for each offered item with the time in seconds that the sink took to write it, None if it was dropped."""


class SinkThread:
    """Passes items to a sink in a separate thread.

    At most `capacity` items wait; a further item displaces the oldest, so that the age stays bounded. A sink that raises is
    aborted and gets no more items: all further items count as dropped.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        capacity: int = 1,
        block_when_full: bool = False,
        start_thread: bool = True,
        closing_seconds: float = 0.0,
        on_error: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        """Start the thread.

        Args:
            sink: used only by that thread from now on.
            capacity: maximum number of waiting items.
            block_when_full: `offer` blocks while the queue is full instead of displacing an item, unless the sink has failed.
                For runs that need every frame.
            start_thread: False for a window, which belongs to the main thread: that calls `run_once` repeatedly.
            closing_seconds: time limit for closing the sink on a busy machine, even if the run ends in a hurry.
            on_error: called once with the sink's name and its exception, in the sink's thread.
        """
        self.name = sink.name
        self.closing_seconds = closing_seconds
        """Time limit for closing the sink at the end of the run."""
        self._dropped = 0
        self.busy_seconds = 0.0
        """Time spent writing."""
        self.failure: BaseException | None = None
        """Exception that ended the sink; None while it works."""
        self._sink = sink
        self._capacity = capacity
        self._block_when_full = block_when_full
        self._on_error = on_error
        self._changed = threading.Condition()
        self._waiting: deque[tuple[ProcessedFrame, OnDone]] = deque()
        self._ending = False
        self._ended = threading.Event()
        if start_thread:
            threading.Thread(target=self._work, name=f"rtseg-{self.name}", daemon=True).start()

    @property
    def written(self) -> int:
        """Number of items written by the sink."""
        return self._sink.written

    @property
    def dropped(self) -> int:
        """Number of offered items that were not written, including those that the sink itself dropped."""
        dropped_by_sink: int = getattr(self._sink, "dropped", 0)
        return self._dropped + dropped_by_sink

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems so far that did not end the sink, one line each."""
        return tuple(getattr(self._sink, "warnings", ()))

    @property
    def unfinished_message(self) -> str | None:
        """Message for a sink that did not end in time; None if that is not a failure."""
        message: str | None = getattr(self._sink, "unfinished_message", "not complete in time")
        return message

    @property
    def url(self) -> str | None:
        """URL of a web page; None for other sinks."""
        url: str | None = getattr(self._sink, "url", None)
        return url

    @property
    def error(self) -> str | None:
        """Reason for the failure of the sink, in one line; None while it works."""
        if self.failure is None:
            return None
        text = redact(" ".join(str(self.failure).split()))
        return text if isinstance(self.failure, RtsegError) else f"{type(self.failure).__name__}: {text}"

    def offer(self, item: ProcessedFrame, on_done: OnDone) -> None:
        """Queue an item. Does not block, except with `block_when_full`."""
        displaced: list[OnDone] = []
        with self._changed:
            if self._block_when_full:
                self._changed.wait_for(lambda: len(self._waiting) < self._capacity or self._stopped)
            if self._stopped:
                displaced.append(on_done)
            else:
                while len(self._waiting) >= self._capacity:
                    displaced.append(self._waiting.popleft()[1])
                self._waiting.append((item, on_done))
                self._changed.notify_all()
            self._dropped += len(displaced)
        for callback in displaced:
            callback(None)

    def finish(self) -> None:
        """Accept no more items, write the waiting ones and close the sink. Does not block; see `join`."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def join(self, timeout_seconds: float) -> bool:
        """Block until the sink is closed or has failed; return False after the timeout."""
        return self._ended.wait(max(0.0, timeout_seconds))

    def run_once(self, timeout_seconds: float | None = None) -> bool:
        """Write one item, blocking at most `timeout_seconds` for it; return False once the sink is closed or has failed."""
        if self._ended.is_set():
            return False
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending, timeout_seconds)
                taken = self._waiting.popleft() if self._waiting else None
                ended = taken is None and self._ending
                self._changed.notify_all()
            if taken is not None:
                self._write(*taken)
            elif ended:
                self._sink.close()
                self._ended.set()
        except BaseException as failure:  # reported through `on_error`; the other sinks continue
            self._fail(failure)
        return not self._ended.is_set()

    @property
    def _stopped(self) -> bool:
        return self._ending or self.failure is not None

    def _work(self) -> None:
        while self.run_once():
            pass

    def _write(self, item: ProcessedFrame, on_done: OnDone) -> None:
        begin = time.perf_counter()
        try:
            self._sink.write(item)
        except BaseException:
            with self._changed:
                self._dropped += 1
            on_done(None)
            raise
        seconds = time.perf_counter() - begin
        self.busy_seconds += seconds
        on_done(seconds)

    def _fail(self, failure: BaseException) -> None:
        with self._changed:
            self.failure = failure
            displaced = [on_done for _, on_done in self._waiting]
            self._waiting.clear()
            self._dropped += len(displaced)
            self._changed.notify_all()
        for callback in displaced:
            callback(None)
        self._sink.abort()
        self._ended.set()
        if self._on_error is not None:
            self._on_error(self.name, failure)
