"""Times of H.264 in MPEG program streams where a picture begins at the end of a PES packet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from av import Packet

_MOST_HELD = 64
"""Packets of other streams that wait for the next picture, at most."""


def without_duplicate_timestamps(packets: Iterable[Packet[Any]], video: int) -> Iterator[Packet[Any]]:
    """Yield all packets; of two pictures with the same time the first has none.

    The time of a PES packet is that of the first picture that begins in it (ISO/IEC 13818-1, 2.4.3.7). FFmpeg gives it to the
    picture that ends in it too.

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
        elif held and len(held) < _MOST_HELD:
            held.append(packet)
        else:
            yield from held
            held = []
            yield packet
    yield from held
