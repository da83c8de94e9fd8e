"""Modification of timestamps inside valid MPEG-TS, MPEG-PS and Matroska files, including changes that no muxer writes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

WRAP = 1 << 33
"""Period of the clock of MPEG-TS and MPEG-PS in ticks of 90 kHz."""


@dataclass
class Stamp:
    """Timestamps of one packet in ticks; None if missing."""

    stream: int
    at: int
    """Position in the file, in bytes."""

    pts: int | None
    dts: int | None


_CHANGES = "offset", "jump", "jump in one", "outlier", "swap", "same", "missing", "jitter", "late dts", "wrap", "slow"


def restamp(stamps: list[Stamp], second: int, random: np.random.Generator) -> str:
    """Change timestamps, which are in file order with `second` ticks per second. Return a description of the change."""
    streams = sorted({stamp.stream for stamp in stamps})
    one = int(random.choice(streams))
    chosen = [stamp for stamp in stamps if stamp.stream == one]
    at = int(random.integers(1, max(2, len(chosen) - 1)))
    change = str(random.choice(_CHANGES))
    ticks = round(second * float(random.choice([0.04, 0.3, 0.9, 1.5, 5, 30, 3600])) * int(random.choice([-1, 1])))
    location = f"stream {one} from packet {at}"
    match change:
        case "offset":
            _move(stamps, ticks)
            location = "all"
        case "wrap":
            # The clock wraps (in Matroska: approaches its maximum) in the middle of the file.
            middle = chosen[at].pts or chosen[at].dts or 0 if at < len(chosen) else 0
            _move(stamps, WRAP - middle if second == 90_000 else 30_000 - middle)
            location = f"all, at packet {at} of stream {one}"
        case "jump":
            mark = chosen[min(at, len(chosen) - 1)].at
            _move([stamp for stamp in stamps if stamp.at >= mark], ticks)
            location = f"all from packet {at} of stream {one}"
        case "jump in one":
            _move(chosen[at:], ticks)
        case "outlier":
            _move(chosen[at : at + 1], ticks)
        case "swap":
            for first, second_ in zip(chosen[at : at + 1], chosen[at + 1 : at + 2], strict=False):
                first.pts, second_.pts = second_.pts, first.pts
                if random.integers(0, 2):
                    first.dts, second_.dts = second_.dts, first.dts
        case "same":
            for stamp in chosen[at + 1 : at + 2]:
                stamp.pts, stamp.dts = chosen[at].pts, chosen[at].dts
        case "missing":
            for stamp in chosen[at : at + int(random.choice([1, 3, 1000]))]:
                stamp.pts = None if random.integers(0, 2) or stamp.dts is None else stamp.pts
                stamp.dts = None
        case "jitter":
            for stamp in chosen:
                _move([stamp], int(random.integers(-second // 50, second // 50 + 1)))
        case "late dts":
            for stamp in chosen[at : at + 3]:
                stamp.dts = None if stamp.dts is None else stamp.dts + abs(ticks)
        case "slow":
            factor = float(random.choice([0.5, 0.999, 1.001, 2, 10]))
            begin = next((stamp.pts for stamp in stamps if stamp.pts is not None), 0)
            for stamp in stamps:
                stamp.pts = None if stamp.pts is None else round(begin + (stamp.pts - begin) * factor)
                stamp.dts = None if stamp.dts is None else round(begin + (stamp.dts - begin) * factor)
            return f"slow by {factor}"
    return f"{change} {ticks / second:+.2f} s, {location}"


def _move(stamps: list[Stamp], ticks: int) -> None:
    for stamp in stamps:
        stamp.pts = None if stamp.pts is None else stamp.pts + ticks
        stamp.dts = None if stamp.dts is None else stamp.dts + ticks


# MPEG-TS and MPEG-PS: a PES header contains PTS and DTS (ISO/IEC 13818-1, 2.4.3.6)


def _pes(data: bytes, at: int) -> Stamp | None:
    if data[at : at + 3] != b"\0\0\1" or at + 19 > len(data):
        return None
    stream = data[at + 3]
    if not (0xC0 <= stream <= 0xEF or stream == 0xBD) or data[at + 6] & 0xC0 != 0x80 or not data[at + 7] & 0x80:
        return None
    both = data[at + 7] & 0x40
    return Stamp(stream, at, _clock(data, at + 9), _clock(data, at + 14) if both else None)


def _clock(data: bytes, at: int) -> int:
    a, b, c = data[at], *struct.unpack_from(">HH", data, at + 1)
    return (a >> 1 & 7) << 30 | (b >> 1) << 15 | c >> 1


def _clock_bytes(value: int, mark: int) -> bytes:
    value %= WRAP
    high, middle, low = value >> 30, value >> 15 & 0x7FFF, value & 0x7FFF
    return struct.pack(">BHH", mark << 4 | high << 1 | 1, middle << 1 | 1, low << 1 | 1)


def _write_pes(data: bytearray, stamp: Stamp, had_both: bool) -> None:
    at = stamp.at
    if stamp.pts is None:
        data[at + 7] &= 0x3F  # no timestamps; their bytes become stuffing
        data[at + 9 : at + (19 if had_both else 14)] = b"\xff" * (10 if had_both else 5)
    elif stamp.dts is None:
        data[at + 7] = data[at + 7] & 0x3F | 0x80
        data[at + 9 : at + 14] = _clock_bytes(stamp.pts, 2)
        if had_both:
            data[at + 14 : at + 19] = b"\xff" * 5
    else:
        data[at + 9 : at + 14] = _clock_bytes(stamp.pts, 3)
        data[at + 14 : at + 19] = _clock_bytes(stamp.dts, 1)


def _pes_in_ts(data: bytes) -> Iterator[Stamp]:
    for at in range(0, len(data) - 187, 188):
        if data[at] != 0x47 or not data[at + 1] & 0x40 or not data[at + 3] & 0x10:
            continue
        begin = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
        stamp = _pes(data, begin) if begin < at + 170 else None
        if stamp is not None:
            stamp.stream = (data[at + 1] & 0x1F) << 8 | data[at + 2]
            yield stamp


def _pes_in_ps(data: bytes) -> Iterator[Stamp]:
    at = data.find(b"\0\0\1")
    while at >= 0:
        stamp = _pes(data, at)
        if stamp is not None:
            yield stamp
        at = data.find(b"\0\0\1", at + 3)


def change_mpeg(data: bytes, random: np.random.Generator, transport: bool) -> tuple[str, bytes]:
    """Return a description of a change and an MPEG-TS or MPEG-PS with it. If all times move, the system clock moves too.

    Raises:
        ValueError: the file has fewer than three timestamps.
    """
    changed = bytearray(data)
    stamps = list((_pes_in_ts if transport else _pes_in_ps)(data))
    both = {stamp.at: stamp.dts is not None for stamp in stamps}
    if len(stamps) < 3:
        raise ValueError("no PES packets")
    before = stamps[0].pts
    change = restamp(stamps, 90_000, random)
    if change.startswith(("offset", "wrap")) and transport and before is not None and stamps[0].pts is not None:
        _move_pcr(changed, stamps[0].pts - before)
    for stamp in stamps:
        _write_pes(changed, stamp, both[stamp.at])
    return change, bytes(changed)


def _move_pcr(data: bytearray, ticks: int) -> None:
    for at in range(0, len(data) - 187, 188):
        if data[at] == 0x47 and data[at + 3] & 0x20 and data[at + 4] >= 7 and data[at + 5] & 0x10:
            high, low = struct.unpack_from(">IB", data, at + 6)
            value = ((high << 1 | low >> 7) + ticks) % WRAP
            struct.pack_into(">IB", data, at + 6, value >> 1, (value & 1) << 7 | low & 0x7F)


# Matroska: a block's time is 16 bits relative to its cluster's


def change_matroska(data: bytes, random: np.random.Generator) -> tuple[str, bytes]:
    """Return a description of a change and a Matroska or WebM file with it in its block times.

    Raises:
        ValueError: the file has fewer than three blocks.
    """
    changed = bytearray(data)
    stamps: list[Stamp] = []
    clusters: dict[int, int] = {}
    _walk(data, 0, len(data), stamps, clusters, [0])
    if len(stamps) < 3:
        raise ValueError("no blocks")
    change = restamp(stamps, 1000, random)
    for stamp in stamps:
        value = (stamp.pts or 0) - clusters[stamp.at]
        struct.pack_into(">h", changed, stamp.at, max(-32768, min(value, 32767)))
    return change, bytes(changed)


_INSIDE = {0x18538067, 0x1F43B675, 0xA0}  # Segment, Cluster, BlockGroup


def _walk(data: bytes, at: int, end: int, stamps: list[Stamp], clusters: dict[int, int], time: list[int]) -> None:
    while at < end - 2:
        name, at = _number(data, at, with_marker=True)
        size, at = _number(data, at, with_marker=False)
        after = min(end, at + size) if size >= 0 else end
        if name in _INSIDE:
            _walk(data, at, after, stamps, clusters, time)
        elif name == 0xE7:
            time[0] = int.from_bytes(data[at:after], "big")
        elif name in (0xA3, 0xA1):
            track, position = _number(data, at, with_marker=False)
            (relative,) = struct.unpack_from(">h", data, position)
            stamps.append(Stamp(track, position, time[0] + relative, None))
            clusters[position] = time[0]
        at = after


def _number(data: bytes, at: int, with_marker: bool) -> tuple[int, int]:
    """Return an EBML number, with or without its length marker, and the position after it; -1 for an unknown size."""
    first = data[at]
    length = 9 - first.bit_length()
    if not first or at + length > len(data):
        raise ValueError("not EBML")
    value = int.from_bytes(data[at : at + length], "big")
    if with_marker:
        return value, at + length
    mask = (1 << 7 * length) - 1
    return (-1 if value & mask == mask else value & mask), at + length


CHANGES: dict[str, Callable[[bytes, np.random.Generator], tuple[str, bytes]]] = {
    ".ts": lambda data, random: change_mpeg(data, random, transport=True),
    ".mpg": lambda data, random: change_mpeg(data, random, transport=False),
    ".mkv": change_matroska,
    ".webm": change_matroska,
}
"""Functions that change timestamps, by file name suffix."""
