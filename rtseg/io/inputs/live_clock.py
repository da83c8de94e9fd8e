"""Continuous clock for a live stream, across jumps of the sender's clock and reconnections."""

from __future__ import annotations

from fractions import Fraction

TIME_BASE = Fraction(1, 90_000)
"""Unit of all time stamps of live streams, as in MPEG transport streams."""

_OUTLIER_SECONDS = 1.0
"""Largest step back, and largest lead over the elapsed time, of a regular stamp. Any other stamp is an outlier."""

TS_WRAP_SECONDS = 2**33 / 90_000
"""Period after which the clock of MPEG-TS wraps. FFmpeg interprets a step back as a wrap."""

RTP_WRAP_SECONDS = 2**32 / 90_000
"""Period after which the clock of RTP video wraps."""

_GAP_SECONDS = 10.0
"""Largest step forward that is treated as lost frames, not as another clock."""


class LiveClock:
    """Clock that maps the time stamps of a live stream to increasing times, across jumps and reconnections.

    Within a stream, intervals are those of the stream. At a jump of its clock, and at a new connection, the times advance
    by the elapsed time. A single stamp that fits neither the previous nor the next one is an outlier, not a jump: its frame
    gets a time based on the elapsed time.
    """

    def __init__(self) -> None:
        self.jumps: list[float] = []
        """Size of each jump so far in seconds: the difference to the elapsed time, negative for a step back."""
        self._wrap = TS_WRAP_SECONDS
        self._offset: int | None = None
        self._followed_count = 0
        self._last_regular: tuple[int, int] = (0, 0)  # stamp and arrival of the newest frame that followed the clock
        self._lead = 0
        """Largest lead of a stamp of this clock over its arrival time: that of the frame with the shortest delay."""
        self._outlier: tuple[int, int, int] | None = None  # stamp, arrival and mapped time of an outlier
        self._last: int | None = None
        self._last_ns = 0

    def restart(self, wrap_seconds: float = TS_WRAP_SECONDS) -> None:
        """Begin a new connection with another clock, which wraps after `wrap_seconds`. Jumps are recorded modulo that period."""
        self._offset = self._outlier = None
        self._wrap = wrap_seconds

    def place(self, stamp_seconds: Fraction | None, captured_ns: int) -> int:
        """Return the time of a frame in units of `TIME_BASE`, 0 for the first.

        Args:
            stamp_seconds: time stamp in the stream; None: missing.
            captured_ns: capture time, as `time.monotonic_ns()` measures it.
        """
        stamp = None if stamp_seconds is None else round(stamp_seconds / TIME_BASE)
        ticks = 0 if self._last is None else self._last + max(1, _ticks(captured_ns - self._last_ns))
        if stamp is not None:
            ticks = self._follow(stamp, captured_ns, ticks)
        if self._last is not None:
            ticks = max(ticks, self._last + 1)
        self._last, self._last_ns = ticks, captured_ns
        return ticks

    def _follow(self, stamp: int, captured_ns: int, expected: int) -> int:
        """Return the mapped time of a stamp; for an outlier, `expected`, which is based on the elapsed time."""
        lead = stamp - _ticks(captured_ns)
        if self._offset is None:
            self._offset, self._followed_count, self._lead = expected - stamp, 0, lead
        elif not self._is_regular(stamp, captured_ns):
            outlier, self._outlier = self._outlier, (stamp, captured_ns, expected)
            if outlier is None or not _follows(stamp, captured_ns, *outlier[:2]):
                return expected
            # The second outlier in a row confirms another clock.
            size = float((outlier[0] - self._last_regular[0] - _ticks(outlier[1] - self._last_regular[1])) * TIME_BASE)
            if self._followed_count == 1 or not 0 < size <= _GAP_SECONDS:
                self._offset, self._lead = outlier[2] - outlier[0], lead
                size -= self._wrap * round(size / self._wrap)
                # A wrap is no jump. One stamp of this clock is not enough to measure a jump.
                if self._followed_count > 1 and abs(size) > _OUTLIER_SECONDS:
                    self.jumps.append(size)
        self._outlier = None
        self._last_regular = stamp, captured_ns
        self._followed_count += 1
        self._lead = max(self._lead, lead)
        return stamp + self._offset

    def _is_regular(self, stamp: int, captured_ns: int) -> bool:
        """Return whether a stamp follows the newest regular one, or after late frames those that were not late."""
        if _follows(stamp, captured_ns, *self._last_regular):
            return True
        limit = round(_OUTLIER_SECONDS / TIME_BASE)
        return stamp >= self._last_regular[0] - limit and stamp - _ticks(captured_ns) <= self._lead + limit


def _ticks(nanoseconds: int) -> int:
    return round(Fraction(max(0, nanoseconds), 1_000_000_000) / TIME_BASE)


def _follows(stamp: int, captured_ns: int, before: int, before_ns: int) -> bool:
    """Return whether a stamp can belong to a later frame of the same clock."""
    step = (stamp - before) * TIME_BASE
    return -_OUTLIER_SECONDS <= step <= _ticks(captured_ns - before_ns) * TIME_BASE + _OUTLIER_SECONDS
