"""Removal of duplicate times of H.264 and HEVC in MPEG program streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from av import Packet

_MAX_HELD = 64
"""Largest number of packets of other streams that wait for the next frame."""


def without_duplicate_timestamps(packets: Iterable[Packet[Any]], video: int) -> Iterator[Packet[Any]]:
    """Yield all packets; of two video packets with the same time the first one loses it.

    The time of a PES packet is that of the first frame that begins in it (ISO/IEC 13818-1, 2.4.3.7). FFmpeg also gives it to
    the frame that ends in it.

    Args:
        packets: in reading order.
        video: index of the stream.
    """
    held: list[Packet[Any]] = []
    for packet in packets:
        if packet.stream_index == video:
            if held and packet.pts is not None and packet.pts == held[0].pts:
                held[0].pts = held[0].dts = None
            yield from held
            held = [packet]
        elif held and len(held) < _MAX_HELD:
            held.append(packet)
        else:
            yield from held
            held = []
            yield packet
    yield from held
