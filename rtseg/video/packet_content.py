"""Content of a packet, without the parts that containers add or change."""

from __future__ import annotations

from typing import Any

from av import Packet


def packet_content(codec: str, packet: Packet[Any], adts: bool) -> bytes | None:
    """Return the part of a packet that no container changes; None if it contains nothing usable.

    Args:
        codec: FFmpeg's name of the codec.
        packet: the packet.
        adts: whether the stream is AAC with ADTS headers.
    """
    payload = bytes(packet)
    if codec in ("mov_text", "text", "subrip") and payload == b"\0\0":
        return None  # MP4 fills the gaps between subtitles with empty ones.
    if codec == "aac" and len(payload) > 7 and payload[0] == 0xFF and payload[1] & 0xF6 == 0xF0:
        # MPEG-TS puts an ADTS header before each packet (ISO/IEC 13818-7, 6.2): 7 bytes, 9 with a checksum.
        known_rate = payload[2] >> 2 & 15 < 13
        return payload[7 if payload[1] & 1 else 9 :] if known_rate or not adts else None
    if adts:
        return None
    if codec in ("h264", "hevc"):
        return _slices(payload, codec)
    return payload


def _slices(payload: bytes, codec: str) -> bytes:
    """Return the slices of an H.264 or HEVC packet, with 4-byte lengths (MP4, Matroska) or start codes (MPEG-TS).

    Parameter sets, delimiters and similar units are left out: some containers repeat them, others store them elsewhere.
    """
    units: list[bytes] = []
    position = 0
    while position + 4 <= len(payload):
        size = int.from_bytes(payload[position : position + 4], "big")
        units.append(payload[position + 4 : position + 4 + size].rstrip(b"\0"))
        position += 4 + size
    if position != len(payload):
        units = [unit.rstrip(b"\0") for unit in payload.split(b"\0\0\1")[1:]]
    # ITU-T H.264, table 7-1; H.265, table 7-1.
    types, mask, shift = (range(1, 6), 31, 0) if codec == "h264" else (range(32), 63, 1)
    return b"".join(unit for unit in units if unit and unit[0] >> shift & mask in types)
