"""Detection of audio streams whose parameters change. A container with one header per stream can't store copies of them."""

from __future__ import annotations

from contextlib import suppress

import av
from av.container import InputContainer


def changing_audio(container: InputContainer) -> frozenset[int]:
    """Return the indices of AAC streams whose profile, rate or channels change. Reads the file to its end or to damage."""
    streams = [stream for stream in container.streams.audio if has_adts(stream)]
    first: dict[int, tuple[int, int]] = {}
    changing = set()
    with suppress(av.FFmpegError):  # Decoding the video meets the same damage and reports it.
        for packet in container.demux(streams):
            head = bytes(memoryview(packet)[:4]) if packet.size > 7 else b""
            if head[:1] == b"\xff" and head[1] & 0xF6 == 0xF0:
                # Profile, sampling frequency index and channel configuration (ISO/IEC 13818-7, 6.2.1) without the private bit.
                parameters = head[2] & 0xFD, head[3] & 0xC0
                if first.setdefault(packet.stream_index, parameters) != parameters:
                    changing.add(packet.stream_index)
    return frozenset(changing)


def has_adts(stream: object) -> bool:
    """Return whether a stream is AAC with its parameters only in the header of each packet (ADTS), as in MPEG-TS."""
    context = getattr(stream, "codec_context", None)
    return context is not None and context.name == "aac" and not context.extradata
