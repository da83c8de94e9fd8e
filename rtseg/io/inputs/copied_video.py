"""A second camera's stream, which is copied: it may begin between two key frames, in a part or behind an edit list."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from typing import Any

from av import Packet

_SHORTEST_SECONDS = Fraction(1, 1000)
"""Matroska counts in milliseconds."""

_REORDERED = 16
"""At most so many pictures are decoded before one that is shown before them: H.264's and HEVC's largest picture buffer."""


class CopiedVideo:
    """Gives the packets of a video stream from the first one that is shown on, and those that are needed to decode it.

    The packets that are needed, from a key frame on, have times of a millisecond each right before the first one that is
    shown. Some of them may come behind it: B-frames. MP4 and MOV hide them by an edit list; elsewhere they flash by.

    Args:
        first: the first presentation time of the part that was asked for, in ticks; None: the whole file.
        start: the presentation time at which the stream begins, in ticks.
        unit: seconds in a tick.
    """

    def __init__(self, first: int | None, start: int, unit: Fraction) -> None:
        self._first, self._start, self._unit = first, start, unit
        self._held: list[tuple[Packet[Any], bool]] = []
        self._begun = self._cut = False
        self._together = True
        self._hidden = 0
        self.left_out = 0
        """Packets that would be shown, and can't be decoded: the file was entered behind their key frame."""

        self.hidden_between = 0
        """Packets that an edit list hides between others: no container has a place for them."""

    def take(self, packet: Packet[Any]) -> Iterator[tuple[Packet[Any], bool]]:
        """Yield the packets that are ready, and whether each lies before the part, and is needed to decode it."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        before = self._first is not None and stamp is not None and stamp < self._first
        hidden = packet.is_discard or before
        if hidden and not self._begun:
            self._cut = True
            if packet.is_keyframe:
                self._held.clear()
            if packet.is_keyframe or self._held:
                self._held.append((packet, True))
            return
        if packet.is_discard:
            self._hidden += 1
            return
        if not self._begun and packet.is_keyframe:
            self._held.clear()
        elif not self._begun and not self._held and (self._cut or self._first is not None):
            self.left_out += 1
            return
        if not packet.is_keyframe and not hidden:
            self.hidden_between += self._hidden
        if not hidden:
            self._hidden = 0
        self._begun = True
        if not self._together:
            yield packet, hidden
            return
        self._held.append((packet, hidden))
        shown = sum(not early for _, early in self._held)
        if self._first is None or shown > _REORDERED or (packet.dts is not None and packet.dts >= self._first):
            yield from self.flush()

    def flush(self) -> Iterator[tuple[Packet[Any], bool]]:
        """Yield what waits: the beginning, once all that is decoded in it and shown before it is there."""
        held, self._held, self._together = self._held, [], False
        if self._begun:
            self._move_before(held)
            yield from held

    def _move_before(self, held: list[tuple[Packet[Any], bool]]) -> None:
        """Set the times of the packets that are needed right before the first time that is shown.

        Where the part begins between two frames, the one before goes on at its beginning: readers of MP4 begin a track with
        the first frame that is not hidden, wherever that is.
        """
        early = [number for number, (_, hidden) in enumerate(held) if hidden]
        if not early:
            return
        step = ceil(_SHORTEST_SECONDS / self._unit)
        begin = self._start if self._first is None else self._first
        stamps = {number: held[number][0].pts or held[number][0].dts or 0 for number in early}
        ranks = {number: rank for rank, number in enumerate(sorted(early, key=lambda number: stamps[number]))}
        shown = min((packet.pts for packet, hidden in held if not hidden and packet.pts is not None), default=begin)
        goes_on = self._first is not None and shown > begin
        # Matroska's first packets have no times of decoding.
        end = 1 + max(number for number, (packet, hidden) in enumerate(held) if hidden or packet.dts is None)
        decoded = held[end][0].dts if end < len(held) else None
        behind = begin if decoded is None else min(begin, decoded)
        # No packet is shown before it is decoded.
        delay = max(0, *((len(early) - ranks[number]) - (end - number) for number in early))
        for number, (packet, hidden) in enumerate(held[:end]):
            packet.dts = behind - (end - number + delay) * step
            if hidden:
                later = len(early) - ranks[number] - goes_on
                packet.pts = begin - later * step
                packet.duration = step if later else shown - begin
