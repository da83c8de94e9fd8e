"""Presentation times of a copied H.264 stream in AVI. AVI does not store them; a decoder provides the frame order."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

import av
from av import CodecContext, Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

_MAX_HELD = 32
"""Largest number of packets that wait for their frame. Larger than the reorder delay of H.264 (16)."""


class AviFrameOrder:
    """Buffer that sets the presentation times of packets: the n-th displayed frame has the n-th time of the stream."""

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
