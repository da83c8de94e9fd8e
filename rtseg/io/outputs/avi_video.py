"""Copied video streams in AVI: H.264 start codes, one time per packet, and a start at zero."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from heapq import heappop, heappush
from math import ceil
from typing import Any

from av import Packet
from av.bitstream import BitStreamFilterContext

_TICK_SECONDS = Fraction(1, 600)
"""Smallest time step of FFmpeg's AVI muxer, seconds."""


class AviVideo:
    """Packet converter for a copied video stream in AVI.

    H.264 packets get start codes, and the n-th packet gets the n-th presentation time. AVI stores no presentation times, and
    players that support reordering display the n-th frame at the time of the n-th packet. For other codecs FFmpeg and players
    derive presentation times from decode times, which are kept. The stream of the output gets the parameters of the converted
    packets.
    """

    def __init__(self, template: Any, codec: str, stream: Any) -> None:
        self._reorders = codec == "h264"
        extradata = template.codec_context.extradata if self._reorders else None
        self._filter: BitStreamFilterContext | None = None
        if extradata and bytes(extradata)[0] == 1:  # ISO/IEC 14496-15, 5.3.3.1: length prefixes, as in MP4 and Matroska
            self._filter = BitStreamFilterContext("h264_mp4toannexb", template, stream)
            stream.codec_context.codec_tag = "\0\0\0\0"  # the tag of the input means length prefixes
        self._packets: deque[Packet[Any]] = deque()
        self._times: list[int] = []
        self._last_time: int | None = None
        self._started = False

    def process(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Add a packet of the input and return the packets whose time is final. May raise av.FFmpegError."""
        time_base = packet.time_base or Fraction(1)
        for filtered in [packet] if self._filter is None else self._filter.filter(packet):
            filtered.time_base = time_base
            self._packets.append(filtered)
            if self._reorders:
                heappush(self._times, filtered.pts or 0)
        ready = []
        # Presentation times of later packets are after the decode time of the last packet.
        while self._packets and (not self._reorders or self._times[0] <= (self._packets[-1].dts or 0)):
            ready.append(self._next())
        return self._pad_to_zero(ready)

    def flush(self) -> list[Packet[Any]]:
        """Return the remaining packets."""
        return self._pad_to_zero([self._next() for _ in range(len(self._packets))])

    def _next(self) -> Packet[Any]:
        packet = self._packets.popleft()
        if self._reorders:
            time = heappop(self._times)
            if self._last_time is not None:  # two fields of one frame may have the same time
                time = max(time, self._last_time + ceil(_TICK_SECONDS / (packet.time_base or 1)))
            packet.pts = packet.dts = self._last_time = time
        return packet

    def _pad_to_zero(self, packets: list[Packet[Any]]) -> list[Packet[Any]]:
        """Insert an empty packet at zero if the first packet is later, because each stream in AVI starts at zero."""
        if self._started or not packets:
            return packets
        self._started = True
        if (packets[0].dts or 0) <= 0:
            return packets
        empty: Packet[Any] = Packet()
        empty.time_base = packets[0].time_base or Fraction(1)
        empty.pts = empty.dts = 0
        return [empty, *packets]
