"""Presentation times of the samples of an MP4 according to the standard (ISO/IEC 14496-12), read without FFmpeg."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple


class Track(NamedTuple):
    kind: str
    samples: int
    times: list[Fraction]
    """Sorted presentation times in seconds, without the samples that the edit list hides."""


def tracks(path: Path) -> list[Track]:
    """Return the tracks of a file with an index and without fragments."""
    data = path.read_bytes()
    moov = next(_find(data, 0, len(data), "moov"))
    movie_scale = _timescale(data, next(_find(data, *moov, "mvhd"))[0])
    result = []
    for trak in _find(data, *moov, "trak"):
        handler = next(_find(data, *trak, "mdia", "hdlr"))[0]
        scale = _timescale(data, next(_find(data, *trak, "mdia", "mdhd"))[0])
        decoding, now = [], 0
        for count, step in _table(data, next(_find(data, *trak, "mdia", "minf", "stbl", "stts"))[0], ">II"):
            for _ in range(count):
                decoding.append(now)
                now += step
        offsets: list[int] = []
        for box in _find(data, *trak, "mdia", "minf", "stbl", "ctts"):
            for count, offset in _table(data, box[0], ">Ii"):
                offsets += [offset] * count
        composed = [time + offset for time, offset in zip(decoding, offsets or [0] * len(decoding), strict=True)]
        edits = [(Fraction(now, scale), 0)]
        for box in _find(data, *trak, "edts", "elst"):
            rows = _table(data, box[0], ">Qqi" if data[box[0]] else ">Iii")
            edits = [(Fraction(length, movie_scale), media_time) for length, media_time, _ in rows]
        times, begin = [], Fraction(0)
        for length, media_time in edits:
            if media_time >= 0:
                edited = [Fraction(time - media_time, scale) for time in composed]
                times += [begin + time for time in edited if 0 <= time < length]
            begin += length
        result.append(Track(data[handler + 8 : handler + 12].decode(), len(decoding), sorted(times)))
    return result


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    while start + 8 <= end:
        size, name = struct.unpack(">I4s", data[start : start + 8])
        header = 8
        if size == 1:
            (size,), header = struct.unpack(">Q", data[start + 8 : start + 16]), 16
        yield name.decode("latin1"), start + header, start + (size or end - start)
        start += size or end - start


def _find(data: bytes, start: int, end: int, *path: str) -> Iterator[tuple[int, int]]:
    for name, payload, after in _boxes(data, start, end):
        if name == path[0]:
            if len(path) == 1:
                yield payload, after
            else:
                yield from _find(data, payload, after, *path[1:])


def _timescale(data: bytes, box: int) -> int:
    return int(struct.unpack(">I", data[box + (20 if data[box] else 12) :][:4])[0])


def _table(data: bytes, box: int, layout: str) -> list[tuple[int, ...]]:
    size = struct.calcsize(layout)
    (count,) = struct.unpack(">I", data[box + 4 : box + 8])
    return [struct.unpack(layout, data[box + 8 + size * row : box + 8 + size * (row + 1)]) for row in range(count)]
