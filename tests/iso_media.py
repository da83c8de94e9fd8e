"""Presentation times of the samples of an MP4 according to the standard (ISO/IEC 14496-12), read without FFmpeg."""

from __future__ import annotations

import struct
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from fuzz_boxes import Box, _rows, _timescale, parse


class Track(NamedTuple):
    kind: str
    times: list[Fraction]
    """Sorted presentation times in seconds, without the samples that the edit list hides."""


def tracks(path: Path) -> list[Track]:
    """Return the tracks of a file with an index at its end and without fragments."""
    data = path.read_bytes()
    moov = parse(data, data.rindex(b"moov") - 4)[0]
    return [_track(track, _timescale(moov, b"mvhd")) for track in moov.all(b"trak")]


def _track(track: Box, movie_scale: int) -> Track:
    scale = _timescale(track, b"mdhd")
    durations = [step for count, step in _rows(track.one(b"stts")) for _ in range(count)]
    offsets = [offset for table in track.all(b"ctts") for count, offset in _rows(table) for _ in range(count)]
    decoding = accumulate(durations[:-1], initial=0)
    composed = [time + offset for time, offset in zip(decoding, offsets or [0] * len(durations), strict=True)]
    edits = [(Fraction(sum(durations), scale), 0)]
    for table in track.all(b"elst"):
        rows = struct.iter_unpack(">Qqi" if table.payload[0] else ">Iii", table.payload[8:])
        edits = [(Fraction(length, movie_scale), media_time) for length, media_time, _ in rows]
    times, begin = [], Fraction(0)
    for length, media_time in edits:
        if media_time >= 0:
            edited = [Fraction(time - media_time, scale) for time in composed]
            times += [begin + time for time in edited if 0 <= time < length]
        begin += length
    return Track(track.one(b"hdlr").payload[8:12].decode(), sorted(times))
