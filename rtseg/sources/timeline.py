"""Time stamps that always rise, and the part of a recording that was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any


def fraction(value: Any) -> Fraction:
    """A rational of PyAV as Python's own: from 19.0 on PyAV has a class for them; 0 for None."""
    return Fraction(value.numerator, value.denominator) if value else Fraction(0)


@dataclass(slots=True)
class Timeline:
    """The time stamps of one stream, in its own time base: kept exactly where they rise, else repaired and counted."""

    nominal: int
    """Ticks between two stamps where nothing else is known, at least 1."""

    second: int
    """Ticks in a second, at least 1."""

    missing: int = 0
    """Stamps that were not there."""

    backwards: int = 0
    """Stamps that were not later than the one before, by less than a second."""

    jumps: int = 0
    """Times that the clock was set back by a second or more, as where recordings were joined."""

    offset: int = 0
    """Ticks that the last jump moved everything behind it."""

    last: int | None = None

    def place(self, stamp: int | None, guess: int | None = None) -> int:
        """The stamp itself where it is later than the last one, else one that is.

        Args:
            stamp: as the stream has it; None: missing.
            guess: what it may be where it is missing.
        """
        if stamp is None:
            stamp = guess
        if stamp is None:
            self.missing += 1
            stamp = 0 if self.last is None else self.last + self.nominal
        else:
            stamp += self.offset
        if self.last is not None and stamp <= self.last:
            if self.last - stamp >= self.second:
                self.jumps += 1
                self.offset += self.last + self.nominal - stamp
                stamp = self.last + self.nominal
            else:
                self.backwards += 1
                stamp = self.last + 1
        self.last = stamp
        return stamp

    def warnings(self, what: str) -> tuple[str, ...]:
        """What was mended so far, for people; `what` is `frames` or `packets of audio stream 1`."""
        lines = []
        if self.missing:
            lines.append(f"{what} without a time stamp: {self.missing}, set from the rate")
        if self.backwards:
            lines.append(
                f"{what} with a time stamp not later than the one before: {self.backwards}, moved just behind it"
            )
        if self.jumps:
            lines.append(
                f"the clock of the {what} was set back {self.jumps} times: what follows is moved behind what came before"
            )
        return tuple(lines)


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a recording between `--start` and `--start` plus `--duration`, the same for all its streams."""

    start: Fraction
    """Seconds from the beginning."""

    duration: Fraction | None
    """Seconds; None: to the end."""

    origin: Fraction = Fraction(0)
    """The time stamp of the beginning, in seconds."""

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return not self.start and self.duration is None

    def first(self, time_base: Fraction) -> int:
        """The first time stamp that belongs to it."""
        return round((self.origin + self.start) / time_base)

    def holds(self, stamp: int, time_base: Fraction) -> bool:
        """Whether a time stamp belongs to it."""
        return self.whole or (not (self.start and stamp < self.first(time_base)) and not self.ended(stamp, time_base))

    def ended(self, stamp: int, time_base: Fraction, seconds_ago: int = 0) -> bool:
        """Whether a time stamp lies behind it, by so many seconds or more."""
        if self.duration is None:
            return False
        return stamp >= round((self.origin + self.start + self.duration + seconds_ago) / time_base)

    def clip(self, start: int, end: int, time_base: Fraction) -> tuple[int, int] | None:
        """A chapter's begin and end within it, moved as its stamps are; None: the chapter lies outside."""
        if self.whole:
            return start, end
        first, shift = self.first(time_base), self.shift(time_base)
        after = end if self.duration is None else first + round(self.duration / time_base)
        inside = max(start, first), min(end, after)
        return (inside[0] - shift, inside[1] - shift) if inside[0] < inside[1] else None

    def shift(self, time_base: Fraction) -> int:
        """Ticks that stamps are moved earlier by, so that the part begins where the whole did."""
        return round(self.start / time_base)
