"""Number of frames of a stream by state."""

from __future__ import annotations

import threading

from rtseg.core.report import FrameCounts


class FrameCounter:
    """Number of frames of a stream by state.

    A frame is in exactly one state: queued, in work, segmented, dropped or corrupt. Each method moves one frame to its next
    state. `end` drops the frames that are queued or in work; later moves have no effect. All methods are thread-safe.
    """

    def __init__(self, total: FrameCounter | None = None) -> None:
        """Start at zero. `total` is the counter of all streams together, which is updated too."""
        self._lock = threading.Lock()
        self._total = total
        self._queued = self._in_work = self.segmented = self.dropped = self.corrupt = 0
        self._ended = False

    @property
    def decoded(self) -> int:
        """Number of decoded frames."""
        return self._queued + self._in_work + self.segmented + self.dropped

    def add(self) -> None:
        """Count a decoded frame as queued."""
        with self._lock:
            self._queued += 1
            if self._ended:
                self._drop_unfinished()
            if self._total:
                self._total.add()

    def begin(self) -> None:
        """Move a queued frame into work."""
        with self._lock:
            if not self._ended:
                self._queued -= 1
                self._in_work += 1
            if self._total:
                self._total.begin()

    def finish(self, *, segmented: bool = True) -> bool:
        """Move a frame in work to segmented or dropped; return False if `end` has dropped it."""
        with self._lock:
            if self._ended:
                return False
            self._in_work -= 1
            self.segmented += segmented
            self.dropped += not segmented
            if self._total:
                self._total.finish(segmented=segmented)
        return True

    def drop(self) -> None:
        """Move a queued frame to dropped."""
        with self._lock:
            if not self._ended:
                self._queued -= 1
                self.dropped += 1
            if self._total:
                self._total.drop()

    def set_corrupt(self, count: int) -> None:
        """Set the number of frames that could not be decoded."""
        with self._lock:
            added, self.corrupt = count - self.corrupt, count
            if self._total:
                self._total.set_corrupt(self._total.corrupt + added)

    def end(self) -> None:
        """Drop the frames that are queued or in work."""
        with self._lock:
            self._ended = True
            self._drop_unfinished()

    def report(self, written: int, stale: int | None = None) -> FrameCounts:
        """Return the counts. `read` leaves out the frames that are queued or in work, so that it is always the sum."""
        with self._lock:
            segmented, dropped, corrupt = self.segmented, self.dropped, self.corrupt
        return FrameCounts(
            read=segmented + dropped + corrupt,
            segmented=segmented,
            written=written,
            dropped=dropped,
            corrupt=corrupt,
            stale=stale,
        )

    def _drop_unfinished(self) -> None:
        self.dropped += self._queued + self._in_work
        self._queued = self._in_work = 0
