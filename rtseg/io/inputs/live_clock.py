"""One clock for a live stream, whatever its own does."""

from __future__ import annotations

from fractions import Fraction

TIME_BASE = Fraction(1, 90_000)
"""The unit of all live time stamps, as in MPEG transport streams."""

_ODD_SECONDS = 1.0
"""A stamp that is set back by more, or is further ahead of the time that passed, is odd: the next one tells what it is."""

TS_WRAP_SECONDS = 2**33 / 90_000
"""After so long the clock of MPEG-TS begins anew; FFmpeg takes a clock that is set back for one that did."""

RTP_WRAP_SECONDS = 2**32 / 90_000
"""The same of the video of RTP."""

_GAP_SECONDS = 10.0
"""Up to this far ahead a stream's clock tells of frames that were lost on the way, not of another clock."""


class LiveClock:
    """Turns a live stream's own time stamps into ones that always rise, across jumps and reconnections.

    Within a stream the distances are the stream's own. Where its clock is set back or leaps ahead, and where another
    connection begins, the new stamps are joined to the old with the distance that really passed. A single stamp that fits
    neither the one before nor the one behind it is no jump: its frame is placed by the time that passed.
    """

    def __init__(self) -> None:
        self.jumps: list[float] = []
        """Size in seconds of each jump so far: how much less (set back) or more than the time that passed."""
        self._wrap = TS_WRAP_SECONDS
        self._offset: int | None = None
        self._agreed = 0
        self._good: tuple[int, int] = (0, 0)  # own stamp and arrival of the newest frame that followed the clock
        self._odd: tuple[int, int, int] | None = None  # the same of one that did not, and where it was placed
        self._last: int | None = None
        self._last_ns = 0

    def restart(self, wrap_seconds: float = TS_WRAP_SECONDS) -> None:
        """Another connection begins: its clock is another one, and begins anew after so long. A jump is told modulo that."""
        self._offset = self._odd = None
        self._wrap = wrap_seconds

    def place(self, stamp_seconds: Fraction | None, captured_ns: int) -> int:
        """Return where a frame stands, in units of `TIME_BASE`, from 0 for the first.

        Args:
            stamp_seconds: as the stream has it; None: missing.
            captured_ns: when it was captured, by the monotonic clock.
        """
        ticks = 0 if self._last is None else self._last + max(1, _ticks(captured_ns - self._last_ns))
        if stamp_seconds is not None:
            ticks = self._follow(round(stamp_seconds / TIME_BASE), captured_ns, ticks)
        if self._last is not None:
            ticks = max(ticks, self._last + 1)
        self._last, self._last_ns = ticks, captured_ns
        return ticks

    def _follow(self, own: int, captured_ns: int, expected: int) -> int:
        """Where a stamp puts its frame; `expected` where it is odd, by the time that passed."""
        if self._offset is None:
            self._offset, self._agreed = expected - own, 0
        elif not _follows(own, captured_ns, *self._good):
            odd, self._odd = self._odd, (own, captured_ns, expected)
            if odd is None or not _follows(own, captured_ns, *odd[:2]):
                return expected
            # The second that tells of another clock.
            size = float((odd[0] - self._good[0] - _ticks(odd[1] - self._good[1])) * TIME_BASE)
            if self._agreed == 1 or not 0 < size <= _GAP_SECONDS:
                self._offset = odd[2] - odd[0]
                size -= self._wrap * round(size / self._wrap)
                if self._agreed > 1 and abs(size) > _ODD_SECONDS:  # not the clock's very first stamp, and no wrap
                    self.jumps.append(size)
        self._odd = None
        self._good = own, captured_ns
        self._agreed += 1
        return own + self._offset


def _ticks(nanoseconds: int) -> int:
    return round(Fraction(max(0, nanoseconds), 1_000_000_000) / TIME_BASE)


def _follows(own: int, captured_ns: int, before: int, before_ns: int) -> bool:
    """Whether a stamp can be that of a later frame of the same clock."""
    step = (own - before) * TIME_BASE
    return -_ODD_SECONDS <= step <= _ticks(captured_ns - before_ns) * TIME_BASE + _ODD_SECONDS
