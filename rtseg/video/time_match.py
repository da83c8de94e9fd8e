"""Times that went in against times that came out: what was moved, by how much, and whether the input gives a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import gcd

_RETURNS_WITHIN = 65
"""Times that are looked at to tell a few wrong ones from a jump of the clock: MPEG-TS has one for up to 16 AAC packets."""

_FITTING = 9
"""Times that are looked at to find where the output begins in the input."""


@dataclass(slots=True)
class Segment:
    """A run of times that were all moved by the same."""

    shift: int
    """Units that were added."""

    first_in: int
    first_out: int
    last_in: int
    last_out: int
    first: int
    """Number of its first time among those that went in."""

    last: int
    count: int = 1


@dataclass(slots=True)
class Match:
    """How times that came out belong to times that went in. All in units of `unit` seconds."""

    unit: Fraction
    segments: list[Segment] = field(default_factory=list)
    """In the order of showing; more than one where the input's clock jumps."""

    lost: int = 0
    """Times that went in and did not come out."""

    extra: int = 0
    """Times that came out and did not go in."""

    set_between: int = 0
    """Missing or wrong times that were set between their neighbors."""

    worst: int = 0
    """Largest difference within a segment."""


def common_unit(first: Fraction, second: Fraction) -> Fraction:
    """Return the largest unit in which both time bases are whole numbers."""
    denominator = first.denominator * second.denominator
    return Fraction(gcd(first.numerator * second.denominator, second.numerator * first.denominator), denominator)


def match_times(
    going_in: Sequence[int | None],
    coming_out: Sequence[int],
    base_in: Fraction,
    base_out: Fraction,
    *,
    tolerance: Fraction,
    gap: Fraction,
) -> Match:
    """Match two sequences of times in the order of showing.

    Args:
        going_in: in ticks of `base_in`; None: there is none.
        coming_out: in ticks of `base_out`.
        base_in: seconds.
        base_out: seconds.
        tolerance: seconds; what a container may round.
        gap: seconds; a longer step forward in the input is a jump of its clock.
    """
    unit = common_unit(base_in, base_out)
    scale_in, scale_out = int(base_in / unit), int(base_out / unit)
    ins = [None if time is None else time * scale_in for time in going_in]
    outs = [time * scale_out for time in coming_out]
    matcher = _Matcher(Match(unit), ins, outs, max(1, int(tolerance / unit)), int(gap / unit))
    return matcher.run()


@dataclass(slots=True)
class _Matcher:
    match: Match
    ins: list[int | None]
    outs: list[int]
    tolerance: int
    gap: int
    shift: int | None = None
    highest: int = 0
    """The latest time of the segment that went in."""

    def run(self) -> Match:
        i = self.match.lost = self._lost_first()
        j = 0
        while j < len(self.outs):
            if i >= len(self.ins):
                self.match.extra = len(self.outs) - j
                break
            time = self.ins[i]
            if time is None:
                self.match.set_between += 1
            elif self.shift is None or self._fits(i, j, self.shift):
                self._add(i, time, self.outs[j])
            else:
                skipped = self._skipped(i, j)
                if skipped:
                    self.match.lost += skipped
                    i += skipped
                    continue
                self._differs(i, j, time)
            i += 1
            j += 1
        self.match.lost += max(0, len(self.ins) - i)
        self.match.segments = self._of_substance()
        return self.match

    def _lost_first(self) -> int:
        """How many times that went in are missing before the first that came out: as many as make the next ones fit."""
        room = len(self.ins) - len(self.outs)
        if room <= 0 or not self.outs:
            return 0

        def rank(skipped: int) -> tuple[int, int]:
            time = self.ins[skipped]
            shift = self.outs[0] - (time or 0)
            fitting = sum(self._fits(skipped + n, n, shift) for n in range(min(_FITTING, len(self.outs))))
            return (-fitting, abs(shift))

        return min(range(room + 1), key=rank)

    def _fits(self, i: int, j: int, shift: int) -> bool:
        time = self.ins[i] if i < len(self.ins) else None
        return time is not None and j < len(self.outs) and abs(self.outs[j] - time - shift) <= self.tolerance

    def _skipped(self, i: int, j: int) -> int:
        """How many times that went in are missing before the next one that came out; 0: that does not explain it."""
        assert self.shift is not None
        room = (len(self.ins) - i) - (len(self.outs) - j)
        return next((n for n in range(1, room + 1) if self._fits(i + n, j, self.shift)), 0)

    def _differs(self, i: int, j: int, time: int) -> None:
        """A time that was moved by something else than those before it."""
        assert self.shift is not None
        shift = self.outs[j] - time
        known = [t for t in self.ins[i : i + _RETURNS_WITHIN] if t is not None]
        steps_back = any(after <= before for before, after in pairwise(known))
        jumps = time <= self.highest or time - self.highest > self.gap
        returns = i + 1 == len(self.ins) or any(self._fits(i + n, j + n, self.shift) for n in range(1, _RETURNS_WITHIN))
        if jumps and not returns:
            self.match.segments.append(Segment(shift, time, self.outs[j], time, self.outs[j], i, i))
            self.shift, self.highest = shift, time
        elif jumps or steps_back:
            self.match.set_between += 1
        else:
            self.match.worst = max(self.match.worst, abs(shift - self.shift))

    def _add(self, i: int, time: int, out: int) -> None:
        if self.shift is None:
            self.shift = out - time
            self.match.segments.append(Segment(self.shift, time, out, time, out, i, i))
            self.highest = time
            return
        self.match.worst = max(self.match.worst, abs(out - time - self.shift))
        segment = self.match.segments[-1]
        self.highest = max(self.highest, time)
        segment.last_in, segment.last_out, segment.last, segment.count = time, out, i, segment.count + 1

    def _of_substance(self) -> list[Segment]:
        """The segments without those of a single frame: wrong times that a jump followed."""
        if len(self.match.segments) == 1:
            return self.match.segments
        kept = [segment for segment in self.match.segments if segment.count > 1]
        self.match.set_between += len(self.match.segments) - len(kept)
        return kept or self.match.segments[:1]
