"""Packets of a copied video stream (a second camera): a beginning between two key frames, and presentation times in AVI."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from math import ceil
from typing import Any

import av
from av import CodecContext, Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

_MIN_DURATION_SECONDS = Fraction(1, 1000)
"""Matroska counts in milliseconds."""

_MAX_REORDERED = 16
"""Largest number of frames that are decoded before one that is displayed before them (H.264, HEVC)."""

_MAX_HELD = 32
"""Largest number of packets that wait for their frame. Larger than the reorder delay of H.264 (16)."""


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


class AviFrameOrder:
    """Buffer that sets the presentation times of H.264 in AVI, which does not store them.

    A decoder provides the frame order: the n-th displayed frame has the n-th time of the stream.
    """

    def __init__(self, template: VideoStream) -> None:
        decoder = CodecContext.create("h264", "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.extradata = template.codec_context.extradata
        decoder.thread_count = 1
        decoder.options = {"skip_loop_filter": "all", "skip_idct": "all"}  # The pixels are not used.
        self._decoder = decoder
        self._held: deque[tuple[int, Packet[Any]]] = deque()
        self._times: list[int] = []
        self._ranks: dict[int, int] = {}
        self._next = 0
        self._taken: set[int] = set()
        self._delay: int | None = None

    def take(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Take a packet and return those whose presentation time is known."""
        if packet.dts is None:
            return [packet]
        number = len(self._times)
        self._times.append(packet.dts)
        self._held.append((number, packet))
        copy: Packet[Any] = Packet(bytes(packet))
        copy.pts = copy.dts = number
        self._decode(copy)
        return self._ready(_MAX_HELD)

    def flush(self) -> list[Packet[Any]]:
        """Return the packets that are held."""
        self._decode(None)
        return self._ready(0)

    def _decode(self, packet: Packet[Any] | None) -> None:
        with suppress(av.FFmpegError):  # Damaged packets are copied, and displayed in decoding order.
            for frame in self._decoder.decode(packet):
                if frame.pts is not None:
                    if self._delay is None:
                        # The frame that is displayed first is decoded first: packets before it are damaged.
                        self._delay = len(self._times) - 1 - frame.pts
                    # The decoder outputs one frame for each packet: if it outputs none, one is missing.
                    rank = self._free(max(self._next, len(self._times) - 1 - self._delay))
                    self._ranks[frame.pts], self._next = rank, rank + 1

    def _ready(self, held: int) -> list[Packet[Any]]:
        ready = []
        while self._held and (self._held[0][0] in self._ranks or len(self._held) > held):
            number, packet = self._held.popleft()
            rank = self._ranks.pop(number, None)
            packet.pts = self._time(self._free(number) if rank is None else rank)
            packet.dts = self._time(number - (self._delay or 0))
            ready.append(packet)
        return ready

    def _free(self, rank: int) -> int:
        """Return the first position in presentation order, from `rank` on, that no packet has."""
        while rank in self._taken:
            rank += 1
        self._taken.add(rank)
        return rank

    def _time(self, position: int) -> int:
        """Return the time at a position in presentation order, extrapolated before the first and after the last.

        No frame is displayed before it is decoded: each is decoded earlier by the number of frames that the decoder delays.
        """
        inside = min(max(position, 0), len(self._times) - 1)
        step = self._times[1] - self._times[0] if len(self._times) > 1 else 1
        return self._times[inside] + (position - inside) * step
