"""Rising time stamps for frames and packets, and the requested part of a recording."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import Any, Generic, TypeVar

from av import Packet, VideoFrame

T = TypeVar("T")

_HELD_FRAMES = 32
"""Largest number of frames that wait for one with a time stamp. Larger than any codec's reorder delay (16)."""

_GAP_STEPS = 4
"""If a gap is this many times longer than the frames without a time stamp before it need, they follow the frame before."""


def fraction(value: Any) -> Fraction:
    """Return a rational of PyAV as `Fraction`, 0 for None. From 19.0 on PyAV has its own class."""
    return Fraction(value.numerator, value.denominator) if value else Fraction(0)


@dataclass(slots=True)
class PacketTimes:
    """Rising decoding times for a copied stream. Times that do not rise are set to one tick after the last one."""

    missing: int = 0
    """Number of packets without a time stamp."""

    moved: int = 0
    """Number of packets whose time stamp was not later than the one before."""

    last: int | None = None
    step: int = 1

    held: list[Packet[Any]] = field(default_factory=list)
    """First packets of a stream with reordered frames: they have no decoding time yet (Matroska)."""

    def place(self, packet: Packet[Any], reordered: bool = False) -> list[Packet[Any]]:
        """Give a packet time stamps later than those of the last one, and return the packets that are ready.

        `reordered`: presentation times may decrease from packet to packet, as in video.
        """
        if reordered and packet.dts is None and packet.pts is not None and self.last is None and len(self.held) < 32:
            self.held.append(packet)
            return []
        ready = self.flush(packet.dts)
        self._set(packet)
        return [*ready, packet]

    def flush(self, before: int | None = None) -> list[Packet[Any]]:
        """Return the packets that are held, with decoding times before `before`, the decoding time of the next packet."""
        ready, self.held = self.held, []
        steps = [max(1, packet.duration or 1) for packet in ready]
        earliest = min((packet.pts or 0 for packet in ready), default=0)
        stamp = min(earliest, earliest if before is None else before) - sum(steps)
        for packet, step in zip(ready, steps, strict=True):
            packet.dts = stamp
            stamp += step
            self._set(packet)
        return ready

    def _set(self, packet: Packet[Any]) -> None:
        pts, dts = packet.pts, packet.dts
        stamp = dts if dts is not None else pts
        if stamp is None:
            self.missing += 1
            stamp = 0 if self.last is None else self.last + self.step
        elif self.last is not None and stamp <= self.last and (stamp < self.last or self.step > 1):
            self.moved += 1
            stamp = self.last + 1
        packet.dts = stamp
        packet.pts = stamp if pts is None else max(stamp, pts + (0 if dts is None else stamp - dts))
        self.last, self.step = stamp, max(1, packet.duration or 1)

    def warnings(self, subject: str) -> Iterator[str]:
        """Yield one line for each kind of repair so far; `subject` is such as `packets of audio stream 1`."""
        if self.missing:
            yield f"{subject} without a time stamp: {self.missing}, set from the durations"
        if self.moved:
            yield f"{subject} with a time stamp not later than the one before: {self.moved}, set right after it"


class FrameTimes(Generic[T]):
    """Presentation times of frames in presentation order. Times that do not rise are set between their neighbors.

    Args:
        step: default number of ticks between two frames, at least 1.
        timed: whether frames can have time stamps; False: no frame waits for one.
    """

    def __init__(self, step: int, *, timed: bool = True) -> None:
        self._step, self._timed = step, timed
        self._held: deque[tuple[T, int | None]] = deque()
        self._last: int | None = None
        self._decoding_times: deque[int | None] = deque()
        self.has_presentation_times = False
        """True if a packet had one. If a format has none (AVI), the decoder outputs frames in the order of the decoding times."""
        self.missing = 0
        """Number of frames without a time stamp."""
        self.wrong = 0
        """Number of frames whose time stamp was out of order."""

    def expect(self, packet: Packet[Any]) -> None:
        """Take a packet before it is decoded to a frame."""
        self.has_presentation_times |= packet.pts is not None
        self._decoding_times.append(None if self.has_presentation_times else packet.dts)

    def stamp_of(self, frame: VideoFrame, *, sparse: bool = True) -> tuple[int | None, bool]:
        """Return the time stamp of the next decoded frame, and whether it is guessed; see `put`.

        `sparse` states whether decoding times may replace missing presentation times.
        """
        decoding_time = self._decoding_times.popleft() if self._decoding_times else None
        guessed = frame.pts is None and self.has_presentation_times
        if frame.pts is not None or not sparse:
            return frame.pts, guessed
        # FFmpeg's best effort: the decoding time of the packet after which the decoder output this frame.
        return frame.dts if guessed else decoding_time, guessed

    def put(self, frame: T, stamp: int | None, *, guessed: bool = False) -> Iterator[tuple[T, int]]:
        """Take the next frame in presentation order and yield those whose times are certain, mostly all but this one.

        Args:
            stamp: its time stamp; None: missing.
            guessed: whether the stamp is that of the packet after which the decoder output the frame. After a gap such
                a stamp is ignored.
        """
        if guessed and stamp is not None:
            before = next((s for _, s in reversed(self._held) if s is not None), self._last)
            if before is not None and stamp - before > _GAP_STEPS * self._step:
                stamp = None
        self.missing += stamp is None
        self._held.append((frame, stamp))
        yield from self._ready(end=False)

    def flush(self) -> Iterator[tuple[T, int]]:
        """Yield the frames that are held at the end."""
        yield from self._ready(end=True)

    def _ready(self, end: bool) -> Iterator[tuple[T, int]]:
        while self._held:
            stamp = self._held[0][1]
            if stamp is not None and self._last is not None and stamp <= self._last:
                self._reject(0)
                continue
            later = next((n for n, (_, s) in enumerate(self._held) if n and s is not None), None)
            if stamp is None:
                if later is not None:
                    yield from self._interpolate(later)
                elif end or not self._timed or len(self._held) > _HELD_FRAMES:
                    yield self._emit(0 if self._last is None else self._last + self._step)
                else:
                    return
                continue
            if later is None:
                if not end and len(self._held) <= _HELD_FRAMES:
                    return
            else:
                in_order = self._in_order(stamp, later, end)
                if in_order is None:
                    return
                if not in_order:
                    continue
            yield self._emit(stamp)

    def _in_order(self, stamp: int, later: int, end: bool) -> bool | None:
        """Return whether the first stamp is earlier than the next one; if not, reject the one that fits worse.

        None: one more frame is needed.
        """
        following = self._held[later][1]
        assert following is not None
        if following > stamp:
            return True
        third = next((s for _, s in list(self._held)[later + 1 :] if s is not None), None)
        if third is None and not end and len(self._held) <= _HELD_FRAMES:
            return None
        if self._last is None:
            # The first two stamps: the third one decides which of them is wrong.
            self._reject(0 if third is not None and following < third < stamp else later)
            return False
        # Reject the stamp without which the steps are more even. If equal, keep the first, as FFmpeg does.
        without_first = self._unevenness(self._last, following, later + 1)
        without_later = self._unevenness(self._last, stamp, 1)
        if third is not None:
            without_first += self._unevenness(following, third, 1)
            without_later += self._unevenness(stamp, third, later + 1)
        self._reject(0 if without_first < without_later and following > self._last else later)
        return False

    def _unevenness(self, earlier: int, later: int, steps: int) -> int:
        return abs(later - earlier - steps * self._step)

    def _reject(self, number: int) -> None:
        self.wrong += 1
        self._held[number] = (self._held[number][0], None)

    def _interpolate(self, later: int) -> Iterator[tuple[T, int]]:
        """Set the times of the frames before the one at `later` evenly between it and the last one."""
        after = self._held[later][1]
        assert after is not None
        if self._last is None:
            first = after - later * self._step
            stamps = [first + number * self._step for number in range(later)]
        elif after <= self._last + later:
            self._reject(later)
            return
        elif after - self._last > _GAP_STEPS * (later + 1) * self._step:
            stamps = [self._last + (number + 1) * self._step for number in range(later)]
        else:
            distance = after - self._last
            stamps = [self._last + distance * (number + 1) // (later + 1) for number in range(later)]
        for stamp in stamps:
            yield self._emit(stamp)

    def _emit(self, stamp: int) -> tuple[T, int]:
        frame, _ = self._held.popleft()
        self._last = stamp
        return frame, stamp


@dataclass(frozen=True, slots=True)
class Span:
    """Part of a recording from `--start` to `--start` plus `--duration`, the same for all its streams."""

    start: Fraction
    """Seconds from the beginning of the recording."""

    duration: Fraction | None
    """Seconds; None: to the end."""

    origin: Fraction = Fraction(0)
    """Time stamp of the beginning of the recording, in seconds."""

    @property
    def whole(self) -> bool:
        """True if it is the whole recording."""
        return not self.start and self.duration is None

    def first(self, time_base: Fraction) -> int:
        """Return the first time stamp in it."""
        return ceil((self.origin + self.start) / time_base)

    def contains(self, stamp: int, time_base: Fraction) -> bool:
        """Return whether a time stamp is in it."""
        return not (self.start and stamp < self.first(time_base)) and not self.ended(stamp, time_base)

    def ended(self, stamp: int, time_base: Fraction, tail_seconds: int = 0) -> bool:
        """Return whether a time stamp is at or after its end plus `tail_seconds`."""
        if self.duration is None:
            return False
        return stamp >= ceil((self.origin + self.start + self.duration + tail_seconds) / time_base)

    def clip(self, start: int, end: int, time_base: Fraction) -> tuple[int, int] | None:
        """Return the begin and end of a chapter within it, shifted like its stamps; None: the chapter is outside."""
        if self.whole:
            return start, end
        first, shift = self.first(time_base), self.shift(time_base)
        after = end if self.duration is None else first + round(self.duration / time_base)
        inside = max(start, first), min(end, after)
        return (inside[0] - shift, inside[1] - shift) if inside[0] < inside[1] else None

    def shift(self, time_base: Fraction) -> int:
        """Return the number of ticks to subtract from stamps, so that the part begins where the recording did."""
        return round(self.start / time_base)
