"""Sink in its own thread: frames that the sink can't take in time are dropped and counted, without blocking the pipeline."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from rtseg.core.errors import RtsegError
from rtseg.core.frame import ProcessedFrame
from rtseg.core.live_report import SinkReport
from rtseg.core.secrets import redact
from rtseg.io.outputs import Sink
from rtseg.pipeline.frame_queue import FrameQueue

_log = logging.getLogger("rtseg.live")

OnDone = Callable[[float | None], None]
"""Called once for each offered item with the time in seconds that the sink took to write it, None if it was dropped."""


class SinkThread:
    """Passes items to a sink in a separate thread. A sink that raises is aborted and gets no more items."""

    def __init__(
        self,
        sink: Sink,
        *,
        capacity: int = 1,
        block_when_full: bool = False,
        start_thread: bool = True,
        closing_seconds: float = 0.0,
    ) -> None:
        """Start the thread.

        Args:
            sink: used only by that thread from now on.
            capacity: maximum number of waiting items.
            block_when_full: `offer` blocks while the queue is full instead of dropping the oldest item, unless the sink has
                failed. For runs that need every frame.
            start_thread: False for a window, which belongs to the main thread: that calls `run_once` repeatedly.
            closing_seconds: time limit for closing the sink on a busy machine, even if the run ends in a hurry.
        """
        self.name = sink.name
        self.closing_seconds = closing_seconds
        """Time limit for closing the sink at the end of the run."""
        self.error: str | None = None
        """Reason for the failure of the sink, in one line; None while it works."""
        self._sink = sink
        self._dropped = 0
        self._busy_seconds = 0.0
        self._queue: FrameQueue[tuple[ProcessedFrame, OnDone]] = FrameQueue(
            capacity, "block" if block_when_full else "latest", on_drop=self._drop
        )
        self._ended = threading.Event()
        if start_thread:
            # A daemon: one that is blocked by a disk or a socket does not keep the process alive.
            threading.Thread(target=self._run, name=f"rtseg-{sink.name}", daemon=True).start()

    @property
    def written(self) -> int:
        """Number of items written by the sink."""
        return self._sink.written

    @property
    def dropped(self) -> int:
        """Number of offered items that were not written, including those that the sink itself dropped."""
        return self._dropped + self._sink.dropped

    @property
    def failure(self) -> str | None:
        """Failure of the sink, or of its end in time, in one line; None if the run did not fail because of it."""
        reason = self.error or (None if self._ended.is_set() else self._sink.unfinished_message)
        return f"{self.name}: {reason}" if reason else None

    def report(self) -> SinkReport:
        """Return the counts of the sink."""
        return SinkReport(
            written=self.written,
            dropped=self.dropped,
            mean_ms=round(self._busy_seconds / max(1, self.written) * 1e3, 2),
            warnings=self._sink.warnings,
            error=self.error,
        )

    def offer(self, item: ProcessedFrame, on_done: OnDone) -> None:
        """Queue an item. Does not block, except with `block_when_full`."""
        if not self._queue.put((item, on_done)):
            self._drop((item, on_done))

    def finish(self) -> None:
        """Accept no more items, write the waiting ones and close the sink. Does not block; see `join`."""
        self._queue.close()

    def join(self, timeout_seconds: float) -> bool:
        """Block until the sink is closed or has failed; return False after the timeout."""
        return self._ended.wait(timeout_seconds)

    def run_once(self, timeout_seconds: float | None = None) -> bool:
        """Write one item, blocking at most `timeout_seconds` for it; return False once the sink is closed or has failed."""
        if self._ended.is_set():
            return False
        try:
            entry = self._queue.get(timeout_seconds)
            if entry is not None:
                self._write(*entry)
            elif self._queue.ended:
                self._sink.close()
                self._ended.set()
        except BaseException as failure:  # reported by `error`
            text = redact(" ".join(str(failure).split()))
            self.error = text if isinstance(failure, RtsegError) else f"{type(failure).__name__}: {text}"
            self._queue.close(discard=True)
            self._sink.abort()
            _log.warning("%s has failed and gets no more frames: %s", self.name, self.error)
            self._ended.set()
        return not self._ended.is_set()

    def _run(self) -> None:
        while self.run_once():
            pass

    def _write(self, item: ProcessedFrame, on_done: OnDone) -> None:
        begin = time.perf_counter()
        try:
            self._sink.write(item)
        except BaseException:
            self._drop((item, on_done))
            raise
        seconds = time.perf_counter() - begin
        self._busy_seconds += seconds
        on_done(seconds)

    def _drop(self, entry: tuple[ProcessedFrame, OnDone]) -> None:
        self._dropped += 1
        entry[1](None)
