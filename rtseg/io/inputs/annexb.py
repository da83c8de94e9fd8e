"""Reader for live streams of raw H.264 and HEVC, which returns each packet as soon as the next one begins.

FFmpeg's demuxer reads up to two dozen frames before it returns the first. All of them would have the same arrival time, and
a slow stream would not open within the time limit.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any

import av
from av import Packet
from av.codec.context import Flags

from rtseg.io.inputs.byte_stream import ByteStream
from rtseg.io.inputs.opened_file import MAX_PIXELS
from rtseg.io.inputs.packets import Packets

_READ_BYTES = 1 << 16
_HEVC_UNITS = {kind << 1 for kind in (0, 1, 19, 20, 21, 32, 33, 34, 35, 39)}
"""First byte of the HEVC units that may begin a stream: slices, parameter sets, access unit delimiter, SEI."""

_UNIT = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)


def raw_codec(head: bytes) -> str | None:
    """Return the codec of raw H.264 or HEVC, as FFmpeg names it, by the first bytes of the data; None: another format."""
    start = re.match(rb"\x00{2,3}\x01(.)(.)", head, re.DOTALL)
    if start is None:
        return None
    first, second = start[1][0], start[2][0]
    if second == 0x01 and first in _HEVC_UNITS:
        return "hevc"
    if first in (0x06, 0x09) or (first < 0x80 and first & 0x1F in (1, 5, 7, 8)):
        return "h264"  # SEI, access unit delimiter; slice, IDR slice, sequence and picture parameter sets
    return None


class RawPackets(Packets):
    """Reader for the packets of a raw stream."""

    def __init__(self, stream: ByteStream, codec: str, timeout_seconds: float) -> None:
        """Take over a byte stream of this codec. `timeout_seconds` is the longest time without a complete packet."""
        self.codec = codec
        self._stream, self._timeout = stream, timeout_seconds
        self._ready: deque[Packet[Any]] = deque()
        self._ended = False
        context: Any = av.CodecContext.create(codec, "r")
        context.thread_type = "SLICE"  # with frame threads, each thread adds a delay of one frame
        context.flags |= Flags.low_delay
        context.options = {"max_pixels": str(MAX_PIXELS)}
        self.codec_context = context

    def read(self) -> Packet[Any] | None:
        """Return the next packet; None: the stream ended.

        Raises:
            Disconnected: the connection failed, or no complete packet arrived in time.
        """
        self._stream.set_time_limit(self._timeout)
        while not self._ready and not self._ended:
            data = self._stream.read(_READ_BYTES)
            self._ended = not data
            self._ready.extend(self.codec_context.parse(data or None))
        if not self._ready:
            return None
        packet = self._ready.popleft()
        packet.pts = packet.dts = None
        packet.duration = 0
        packet.is_keyframe = packet.is_keyframe or self._is_key(bytes(packet))  # PyAV 17 does not set it
        return packet

    def _is_key(self, data: bytes) -> bool:
        """Return whether decoding can begin with a packet, because it contains parameter sets or a frame without references."""
        headers = (match[1][0] for match in _UNIT.finditer(data))
        if self.codec == "h264":
            return any(header & 0x1F in (5, 7) for header in headers)
        return any((header >> 1 & 0x3F) in (*range(16, 24), 32, 33) for header in headers)

    def close(self) -> None:
        """Close the connection. May be called from any thread."""
        self._stream.close()
