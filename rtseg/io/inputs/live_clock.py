"""Continuous clock for a live stream, across jumps of the sender's clock and reconnections."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

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


class _Arrival(NamedTuple):
    stamp: int
    captured_ns: int
    arrival_ns: int
    """The same without the time for which FFmpeg held the frame."""


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
        self._outlier: tuple[int, int, int] | None = None  # stamp, arrival and mapped time of an outlier
        self._last: int | None = None
        self._last_ns = 0
        self._previous: _Arrival | None = None
        """The previous frame of this connection."""
        self.held_frames = 0
        """Number of the newest frames that arrived late without a gap in the stream: FFmpeg held them, or the network."""

    def restart(self, wrap_seconds: float = TS_WRAP_SECONDS) -> None:
        """Begin a new connection with another clock, which wraps after `wrap_seconds`. Jumps are recorded modulo that period."""
        self._offset = self._outlier = self._previous = None
        self._wrap = wrap_seconds

    def place(self, stamp_seconds: Fraction | None, captured_ns: int) -> int:
        """Return the time of a frame in units of `TIME_BASE`, 0 for the first.

        Args:
            stamp_seconds: time stamp in the stream; None: missing.
            captured_ns: capture time, as `time.monotonic_ns()` measures it.
        """
        stamp = None if stamp_seconds is None else round(stamp_seconds / TIME_BASE)
        captured_ns = self._without_delay(stamp, captured_ns)
        ticks = 0 if self._last is None else self._last + max(1, _ticks(captured_ns - self._last_ns))
        if stamp is not None:
            ticks = self._follow(stamp, captured_ns, ticks)
        if self._last is not None:
            ticks = max(ticks, self._last + 1)
        self._last, self._last_ns = ticks, captured_ns
        return ticks

    def _without_delay(self, stamp: int | None, captured_ns: int) -> int:
        """Return the arrival time of a frame, without the time for which FFmpeg held it.

        FFmpeg may return the last one or two frames before a silence only when data arrives again, or at its timeout: MPEG-TS
        packets and H.264 frames end where the next one begins.
        """
        previous, self._previous = self._previous, None
        held, self.held_frames = self.held_frames, 0
        if stamp is None:
            return captured_ns
        arrival_ns = captured_ns
        if previous is not None and stamp > previous.stamp:
            step_ns = int((stamp - previous.stamp) * TIME_BASE * 1_000_000_000)
            comes_with_it = captured_ns - previous.captured_ns < step_ns // 2
            expected_ns = (previous.arrival_ns if comes_with_it else previous.captured_ns) + step_ns
            if captured_ns - expected_ns > _OUTLIER_SECONDS * 1e9:
                arrival_ns, self.held_frames = expected_ns, held + 1
        self._previous = _Arrival(stamp, captured_ns, arrival_ns)
        return arrival_ns

    def _follow(self, stamp: int, captured_ns: int, expected: int) -> int:
        """Return the mapped time of a stamp; for an outlier, `expected`, which is based on the elapsed time."""
        if self._offset is None:
            self._offset, self._followed_count = expected - stamp, 0
        elif not _follows(stamp, captured_ns, *self._last_regular):
            outlier, self._outlier = self._outlier, (stamp, captured_ns, expected)
            if outlier is None or not _follows(stamp, captured_ns, *outlier[:2]):
                return expected
            # The second outlier in a row confirms another clock.
            size = float((outlier[0] - self._last_regular[0] - _ticks(outlier[1] - self._last_regular[1])) * TIME_BASE)
            if self._followed_count == 1 or not 0 < size <= _GAP_SECONDS:
                self._offset = outlier[2] - outlier[0]
                size -= self._wrap * round(size / self._wrap)
                # A wrap is no jump. One stamp of this clock is not enough to measure a jump.
                if self._followed_count > 1 and abs(size) > _OUTLIER_SECONDS:
                    self.jumps.append(size)
        self._outlier = None
        self._last_regular = stamp, captured_ns
        self._followed_count += 1
        return stamp + self._offset


def _ticks(nanoseconds: int) -> int:
    return round(Fraction(max(0, nanoseconds), 1_000_000_000) / TIME_BASE)


def _follows(stamp: int, captured_ns: int, before: int, before_ns: int) -> bool:
    """Return whether a stamp can belong to a later frame of the same clock."""
    step = (stamp - before) * TIME_BASE
    return -_OUTLIER_SECONDS <= step <= _ticks(captured_ns - before_ns) * TIME_BASE + _OUTLIER_SECONDS
