"""A sink in a thread of its own: what it can't take in time is dropped and counted, and nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from rtseg.core.errors import RtsegError
from rtseg.core.frame import SegmentedFrame
from rtseg.core.secrets import redact
from rtseg.io.outputs import Sink

Left = Callable[[float | None], None]
"""Told once for each item that was offered: the seconds that the sink took to write it, None where it was dropped."""


class SinkThread:
    """Gives a sink its items in a thread of its own.

    At most `capacity` items wait; one more pushes out the oldest, so that age stays bounded. A sink that raises is
    aborted and gets nothing any more: all further items count as dropped.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        capacity: int = 1,
        patient: bool = False,
        own_thread: bool = True,
        closing_seconds: float = 0.0,
        on_error: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        """Starts the thread.

        Args:
            sink: used by that thread alone from now on.
            capacity: items that may wait.
            patient: `offer` waits for room instead of pushing out, unless the sink is dead. For who wants every frame.
            own_thread: False for a window, which belongs to the main thread: that calls `turn` again and again.
            closing_seconds: how long closing may take on a busy machine, even where the run's end is in a hurry.
            on_error: told the sink's name and what it raised, once, in the sink's thread.
        """
        self.name = sink.name
        self.closing_seconds = closing_seconds
        """How long the end of the run may wait for the sink to be closed."""
        self._dropped = 0
        self.busy_seconds = 0.0
        """Time that the sink took for what it has written."""
        self.failure: BaseException | None = None
        """What ended the sink; None while it works."""
        self._sink = sink
        self._capacity = capacity
        self._patient = patient
        self._on_error = on_error
        self._changed = threading.Condition()
        self._waiting: deque[tuple[SegmentedFrame, Left]] = deque()
        self._ending = False
        self._ended = threading.Event()
        if own_thread:
            threading.Thread(target=self._work, name=f"rtseg-{self.name}", daemon=True).start()

    @property
    def written(self) -> int:
        """Items that the sink has written."""
        return self._sink.written

    @property
    def dropped(self) -> int:
        """Items offered that were not written, those among them that the sink itself left out."""
        own: int = getattr(self._sink, "dropped", 0)
        return self._dropped + own

    @property
    def warnings(self) -> tuple[str, ...]:
        """What went wrong so far and did not end it, one line each."""
        return tuple(getattr(self._sink, "warnings", ()))

    @property
    def late(self) -> str | None:
        """What it means that the sink did not end in time; None: that is no failure."""
        late: str | None = getattr(self._sink, "late", "not complete in time")
        return late

    @property
    def url(self) -> str | None:
        """Where the sink can be looked at; None unless it is a page."""
        url: str | None = getattr(self._sink, "url", None)
        return url

    @property
    def error(self) -> str | None:
        """Why the sink is dead, in one line; None while it works."""
        if self.failure is None:
            return None
        text = redact(" ".join(str(self.failure).split()))
        return text if isinstance(self.failure, RtsegError) else f"{type(self.failure).__name__}: {text}"

    def offer(self, item: SegmentedFrame, left: Left) -> None:
        """Gives an item without waiting for the sink (but see `patient`)."""
        pushed_out: list[Left] = []
        with self._changed:
            if self._patient:
                self._changed.wait_for(lambda: len(self._waiting) < self._capacity or self._stopped)
            if self._stopped:
                pushed_out.append(left)
            else:
                while len(self._waiting) >= self._capacity:
                    pushed_out.append(self._waiting.popleft()[1])
                self._waiting.append((item, left))
                self._changed.notify_all()
            self._dropped += len(pushed_out)
        for told in pushed_out:
            told(None)

    def finish(self) -> None:
        """No more items: what waits is still written, then the sink is closed. Does not wait; see `join`."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def join(self, timeout_seconds: float) -> bool:
        """Waits for the sink to be closed or dead; False if it still is neither after that time."""
        return self._ended.wait(max(0.0, timeout_seconds))

    def turn(self, timeout_seconds: float | None = None) -> bool:
        """Waits for one item, at most so long, and writes it; False once the sink is closed or dead."""
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
        except BaseException as failure:  # told to whoever runs this; the other sinks go on
            self._die(failure)
        return not self._ended.is_set()

    @property
    def _stopped(self) -> bool:
        return self._ending or self.failure is not None

    def _work(self) -> None:
        while self.turn():
            pass

    def _write(self, item: SegmentedFrame, left: Left) -> None:
        begin = time.perf_counter()
        try:
            self._sink.write(item)
        except BaseException:
            with self._changed:
                self._dropped += 1
            left(None)
            raise
        seconds = time.perf_counter() - begin
        self.busy_seconds += seconds
        left(seconds)

    def _die(self, failure: BaseException) -> None:
        with self._changed:
            self.failure = failure
            pushed_out = [left for _, left in self._waiting]
            self._waiting.clear()
            self._dropped += len(pushed_out)
            self._changed.notify_all()
        for left in pushed_out:
            left(None)
        self._sink.abort()
        self._ended.set()
        if self._on_error is not None:
            self._on_error(self.name, failure)
