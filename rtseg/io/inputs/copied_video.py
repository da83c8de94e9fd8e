"""Packets of a copied video stream (a second camera) that may begin between two key frames."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from typing import Any

from av import Packet

_MIN_DURATION_SECONDS = Fraction(1, 1000)
"""Matroska counts in milliseconds."""

_MAX_REORDERED = 16
"""Largest number of frames that are decoded before one that is displayed before them (H.264, HEVC)."""


class CopiedVideo:
    """Filter for the packets of a video stream from the first displayed one on, and those that are needed to decode it.

    The needed packets, starting at a key frame, last a millisecond each and end right before the first displayed one.
    Some of them may be stored after it: B-frames. MP4 and MOV hide them with an edit list; elsewhere they are displayed
    for a millisecond.

    Args:
        first: first presentation time of the requested part, in ticks; None: the whole file.
        start: presentation time at which the stream begins, in ticks.
        unit: seconds per tick.
    """

    def __init__(self, first: int | None, start: int, unit: Fraction) -> None:
        self._first, self._start, self._unit = first, start, unit
        self._held: list[tuple[Packet[Any], bool]] = []
        self._begun = self._cut = False
        self._collecting = True
        self._hidden = 0
        self.left_out = 0
        """Number of displayed packets that can't be decoded: reading began after their key frame."""

        self.hidden_between = 0
        """Number of packets that an edit list hides between others. No container can store them."""

    def take(self, packet: Packet[Any]) -> Iterator[tuple[Packet[Any], bool]]:
        """Take a packet and yield those that are ready, each with whether it is before the part and needed to decode it."""
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
        if not self._collecting:
            yield packet, hidden
            return
        self._held.append((packet, hidden))
        displayed = sum(not is_lead_in for _, is_lead_in in self._held)
        if self._first is None or displayed > _MAX_REORDERED or (packet.dts is not None and packet.dts >= self._first):
            yield from self.flush()

    def flush(self) -> Iterator[tuple[Packet[Any], bool]]:
        """Yield the beginning of the stream, which is held until it is complete."""
        held, self._held, self._collecting = self._held, [], False
        if self._begun:
            self._set_lead_in_times(held)
            yield from held

    def _set_lead_in_times(self, held: list[tuple[Packet[Any], bool]]) -> None:
        """Set the times of the needed packets right before the first displayed time.

        If the part begins between two frames, the frame before it is displayed from its beginning on: readers of MP4 begin
        a track with the first frame that is not hidden, wherever that is.
        """
        lead_in = [number for number, (_, hidden) in enumerate(held) if hidden]
        if not lead_in:
            return
        step = ceil(_MIN_DURATION_SECONDS / self._unit)
        begin = self._start if self._first is None else self._first
        in_order = sorted(lead_in, key=lambda number: held[number][0].pts or held[number][0].dts or 0)
        ranks = {number: rank for rank, number in enumerate(in_order)}
        displayed = min((packet.pts for packet, hidden in held if not hidden and packet.pts is not None), default=begin)
        extends_into_part = self._first is not None and displayed > begin
        # Matroska's first packets have no decoding times.
        end = 1 + max(number for number, (packet, hidden) in enumerate(held) if hidden or packet.dts is None)
        decoded = held[end][0].dts if end < len(held) else None
        latest = begin if decoded is None else min(begin, decoded)
        # No packet is displayed before it is decoded.
        delay = max(0, *((len(lead_in) - ranks[number]) - (end - number) for number in lead_in))
        for number, (packet, hidden) in enumerate(held[:end]):
            packet.dts = latest - (end - number + delay) * step
            if hidden:
                steps_before = len(lead_in) - ranks[number] - extends_into_part
                packet.pts = begin - steps_before * step
                packet.duration = step if steps_before else displayed - begin
