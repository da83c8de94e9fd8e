"""Matching of input timestamps with output timestamps: shifts, clock jumps, lost, extra and repaired timestamps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import gcd, lcm

_LOOKAHEAD = 65
"""Number of timestamps that are checked to separate single wrong ones from a jump of the clock. MPEG-TS has one timestamp for up
to 16 AAC packets."""

_START_WINDOW = 9
"""Number of timestamps that are checked to find the start of the output in the input."""


@dataclass(slots=True)
class Segment:
    """Run of timestamps with the same shift."""

    shift: int
    """Output time less input time, in units."""

    first_in: int
    first_out: int
    last_in: int
    last_out: int
    first: int
    """Index of the first timestamp of the segment in the input."""

    last: int
    count: int = 1


@dataclass(slots=True)
class Match:
    """Result of matching output timestamps with input timestamps. All times are in units of `unit` seconds."""

    unit: Fraction
    """The largest one of which both time bases are integer multiples."""

    segments: list[Segment] = field(default_factory=list)
    """In presentation order; more than one where the input's clock jumps."""

    lost: int = 0
    """Number of input timestamps that are missing in the output."""

    extra: int = 0
    """Number of output timestamps that are not in the input."""

    interpolated: int = 0
    """Number of missing or wrong input timestamps that were interpolated from their neighbors."""

    max_error: int = 0
    """Largest deviation from the shift of a segment."""


def match_times(
    times_in: Sequence[int | None],
    times_out: Sequence[int],
    base_in: Fraction,
    base_out: Fraction,
    *,
    tolerance: Fraction,
    gap: Fraction,
) -> Match:
    """Match two sequences of timestamps in presentation order.

    Args:
        times_in: timestamps in ticks of `base_in`; None: missing.
        times_out: timestamps in ticks of `base_out`.
        base_in: time base of the input in seconds.
        base_out: time base of the output in seconds.
        tolerance: rounding of the container in seconds.
        gap: a longer forward step in the input, in seconds, is a jump of its clock.
    """
    denominator = lcm(base_in.denominator, base_out.denominator)
    unit = Fraction(gcd(int(base_in * denominator), int(base_out * denominator)), denominator)
    scale_in, scale_out = int(base_in / unit), int(base_out / unit)
    ins = [None if time is None else time * scale_in for time in times_in]
    outs = [time * scale_out for time in times_out]
    matcher = _Matcher(Match(unit), ins, outs, max(1, int(tolerance / unit)), int(gap / unit))
    return matcher.run()


@dataclass(slots=True)
class _Matcher:
    match: Match
    ins: list[int | None]
    outs: list[int]
    tolerance: int
    gap: int
    shift: int = 0
    """That of the current segment."""

    highest: int = 0
    """Latest input time of the current segment."""

    def run(self) -> Match:
        i = self.match.lost = self._count_lost_at_start()
        j = 0
        while j < len(self.outs):
            if i >= len(self.ins):
                self.match.extra = len(self.outs) - j
                break
            time = self.ins[i]
            if time is None:
                self.match.interpolated += 1
            elif not self.match.segments:
                self._begin_segment(i, time, self.outs[j])
            elif self._fits(i, j, self.shift):
                self._continue_segment(i, time, self.outs[j])
            elif skipped := self._count_skipped(i, j):
                self.match.lost += skipped
                i += skipped
                continue
            else:
                self._handle_mismatch(i, j, time)
            i += 1
            j += 1
        self.match.lost += max(0, len(self.ins) - i)
        self.match.segments = self._drop_single_frames()
        return self.match

    def _count_lost_at_start(self) -> int:
        """Return the number of input timestamps before the first output timestamp: the one that makes most of the next ones fit."""
        max_skipped = len(self.ins) - len(self.outs)
        if max_skipped <= 0 or not self.outs:
            return 0

        def rank(skipped: int) -> tuple[int, int]:
            time = self.ins[skipped]
            shift = self.outs[0] - (time or 0)
            fits = sum(self._fits(skipped + n, n, shift) for n in range(min(_START_WINDOW, len(self.outs))))
            return (-fits, abs(shift))

        return min(range(max_skipped + 1), key=rank)

    def _fits(self, i: int, j: int, shift: int) -> bool:
        time = self.ins[i] if i < len(self.ins) else None
        return time is not None and j < len(self.outs) and abs(self.outs[j] - time - shift) <= self.tolerance

    def _count_skipped(self, i: int, j: int) -> int:
        """Return the number of input timestamps to skip so that the next output timestamp fits; 0 if there is none."""
        max_skipped = (len(self.ins) - i) - (len(self.outs) - j)
        return next((n for n in range(1, max_skipped + 1) if self._fits(i + n, j, self.shift)), 0)

    def _handle_mismatch(self, i: int, j: int, time: int) -> None:
        """Handle a timestamp with another shift: a jump of the clock, a repaired timestamp, or an error."""
        shift = self.outs[j] - time
        known = [t for t in self.ins[i : i + _LOOKAHEAD] if t is not None]
        steps_back = any(after <= before for before, after in pairwise(known))
        jumps = time <= self.highest or time - self.highest > self.gap
        returns = i + 1 == len(self.ins) or any(self._fits(i + n, j + n, self.shift) for n in range(1, _LOOKAHEAD))
        if jumps and not returns:
            self._begin_segment(i, time, self.outs[j])
        elif jumps or steps_back:
            self.match.interpolated += 1
        else:
            self.match.max_error = max(self.match.max_error, abs(shift - self.shift))

    def _begin_segment(self, i: int, time: int, out: int) -> None:
        self.shift, self.highest = out - time, time
        self.match.segments.append(Segment(self.shift, time, out, time, out, i, i))

    def _continue_segment(self, i: int, time: int, out: int) -> None:
        self.match.max_error = max(self.match.max_error, abs(out - time - self.shift))
        segment = self.match.segments[-1]
        self.highest = max(self.highest, time)
        segment.last_in, segment.last_out, segment.last, segment.count = time, out, i, segment.count + 1

    def _drop_single_frames(self) -> list[Segment]:
        """Return the segments without those of a single timestamp, which are wrong timestamps before a jump."""
        if len(self.match.segments) == 1:
            return self.match.segments
        kept = [segment for segment in self.match.segments if segment.count > 1]
        self.match.interpolated += len(self.match.segments) - len(kept)
        return kept or self.match.segments[:1]
