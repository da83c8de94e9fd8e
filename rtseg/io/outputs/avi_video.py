"""Copied video streams in AVI: start codes, one time for each packet, and a beginning at zero."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from heapq import heappop, heappush
from math import ceil
from typing import Any

from av import Packet
from av.bitstream import BitStreamFilterContext

_TICK_SECONDS = Fraction(1, 600)
"""Finest unit of time of FFmpeg's muxer."""


class AviVideo:
    """Converter of the packets of a copied video stream for AVI.

    H.264 gets start codes, and its n-th packet gets the n-th presentation time: AVI has no presentation times, and players
    that handle reordering show the n-th frame at the time of the n-th packet. For other codecs FFmpeg and players derive
    presentation times from decode times, which are kept.

    Args:
        template: stream of the input.
        codec: name of its codec in FFmpeg.
        stream: stream of the output; gets the parameters of the converted packets.
    """

    def __init__(self, template: Any, codec: str, stream: Any) -> None:
        self._reorders = codec == "h264"
        extradata = template.codec_context.extradata if self._reorders else None
        self._filter: BitStreamFilterContext | None = None
        if extradata and bytes(extradata)[0] == 1:  # ISO/IEC 14496-15, 5.3.3.1: lengths, as in MP4 and Matroska
            self._filter = BitStreamFilterContext("h264_mp4toannexb", template, stream)
            stream.codec_context.codec_tag = "\0\0\0\0"  # the tag of the input means length prefixes
        self._packets: deque[Packet[Any]] = deque()
        self._times: list[int] = []
        self._last: int | None = None
        self._begun = False

    def take(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Return the packets whose time is certain. May raise av.FFmpegError."""
        time_base = packet.time_base or Fraction(1)
        for filtered in [packet] if self._filter is None else self._filter.filter(packet):
            filtered.time_base = time_base
            self._packets.append(filtered)
            if self._reorders:
                heappush(self._times, filtered.pts or 0)
        ready = []
        # Later packets have presentation times after the decode time of the last packet.
        while self._packets and (not self._reorders or self._times[0] <= (self._packets[-1].dts or 0)):
            ready.append(self._next())
        return self._from_zero(ready)

    def flush(self) -> list[Packet[Any]]:
        """Return the remaining packets."""
        return self._from_zero([self._next() for _ in range(len(self._packets))])

    def _next(self) -> Packet[Any]:
        packet = self._packets.popleft()
        if self._reorders:
            time = heappop(self._times)
            if self._last is not None:  # two fields of a frame may have the same time
                time = max(time, self._last + ceil(_TICK_SECONDS / (packet.time_base or 1)))
            packet.pts = packet.dts = self._last = time
        return packet

    def _from_zero(self, packets: list[Packet[Any]]) -> list[Packet[Any]]:
        """Insert an empty packet before a late first packet, because each stream in AVI begins at zero."""
        if self._begun or not packets:
            return packets
        self._begun = True
        if (packets[0].dts or 0) <= 0:
            return packets
        empty: Packet[Any] = Packet()
        empty.time_base = packets[0].time_base or Fraction(1)
        empty.pts = empty.dts = 0
        return [empty, *packets]
