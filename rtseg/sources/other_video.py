"""A second camera's stream, which is copied: it may begin between two key frames, in a part or behind an edit list."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from typing import Any

from av import Packet

_SHORTEST_SECONDS = Fraction(1, 1000)
"""Matroska counts in milliseconds."""


class OtherVideo:
    """Gives the packets of a video stream from the first one that is shown on, and before them what is needed to decode it.

    The packets that are needed, from a key frame on, have times of a millisecond each right before the first one that is
    shown. MP4 and MOV hide them by an edit list; elsewhere they flash by.

    Args:
        first: the first presentation time of the part that was asked for, in ticks; None: the whole file.
        start: the presentation time at which the stream begins, in ticks.
        unit: seconds in a tick.
    """

    def __init__(self, first: int | None, start: int, unit: Fraction) -> None:
        self._first, self._start, self._unit = first, start, unit
        self._held: list[Packet[Any]] = []
        self._begun = self._cut = False
        self._hidden = 0
        self.left_out = 0
        """Packets that would be shown, and can't be decoded: the file was entered behind their key frame."""

        self.hidden_between = 0
        """Packets that an edit list hides between others: no container has a place for them."""

    def take(self, packet: Packet[Any]) -> Iterator[tuple[Packet[Any], bool]]:
        """Yield the packets that are ready, and whether each lies before the part, and is needed to decode it."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        before = self._first is not None and stamp is not None and stamp < self._first
        if packet.is_discard or before:
            if self._begun:
                if packet.is_discard:
                    self._hidden += 1
                else:
                    yield packet, True
                return
            self._cut = True
            if packet.is_keyframe:
                self._held = [packet]
            elif self._held:
                self._held.append(packet)
            return
        held, self._held = self._held, []
        if not self._begun and not packet.is_keyframe:
            if held and packet.dts is not None:
                yield from ((early, True) for early in self._before(held, packet.dts))
            elif self._cut or self._first is not None:
                self.left_out += 1
                return
        if not packet.is_keyframe:
            self.hidden_between += self._hidden
        self._begun, self._hidden = True, 0
        yield packet, False

    def _before(self, held: list[Packet[Any]], decoded: int) -> Iterator[Packet[Any]]:
        """The packets that are held, their times right before the first time that is shown."""
        step = ceil(_SHORTEST_SECONDS / self._unit)
        begin = self._start if self._first is None else self._first
        stamps = [packet.pts if packet.pts is not None else packet.dts or 0 for packet in held]
        ranks = {number: rank for rank, number in enumerate(sorted(range(len(held)), key=lambda n: stamps[n]))}
        # No packet is shown before it is decoded.
        delay = max(number - ranks[number] for number in ranks)
        for number, packet in enumerate(held):
            packet.pts = begin - (len(held) - ranks[number]) * step
            packet.dts = min(begin, decoded) - (len(held) - number + delay) * step
            packet.duration = step
            yield packet
