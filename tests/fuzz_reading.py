"""Reading of a file with plain FFmpeg. Independent of rtseg's code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

LENIENT: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}
"""Options to ignore damage in metadata. PyAV 19.0 and later ignore it by default."""

BITS = 8
GENERATE_PTS = 1
"""AVFMT_FLAG_GENPTS, which PyAV sets and plain FFmpeg does not."""

_MAX_ERRORS = 64


@dataclass
class FrameRecord:
    """One frame as a player displays it."""

    number: int | None
    """Number that is drawn into the frame; None if it is unreadable."""

    time: Fraction | None

    certain: bool = True
    """False if the file contains no time, or if FFmpeg ignores the presentation timestamp after earlier wrong ones."""


@dataclass
class Track:
    """Stream other than the displayed one."""

    index: int
    kind: str
    codec: str
    default: bool
    packets: list[bytes] = field(default_factory=list)
    """Hash of the payload of each visible packet."""

    hidden: list[tuple[bytes, Fraction | None]] = field(default_factory=list)
    """Packets before the first visible one that an edit list hides, such as those that prime a decoder."""

    times: list[Fraction | None] = field(default_factory=list)
    tick: Fraction = Fraction(1, 1000)


@dataclass
class Reading:
    """Content of a file."""

    format: str
    frames: list[FrameRecord] = field(default_factory=list)
    errors: int = 0
    tick: Fraction = Fraction(1, 1000)
    tracks: list[Track] = field(default_factory=list)


def read(path: Path, *, largest: bool, threads: bool = False) -> Reading:
    """Decode a file with plain FFmpeg.

    Args:
        path: the file.
        largest: read the largest video stream (of several equal ones the default one), like rtseg; otherwise the stream that
            players open: the default one, or the first.
        threads: use frame threading, which is the default of FFmpeg.

    Raises:
        av.FFmpegError: the file can't be opened.
        ValueError: the file has no video.
    """
    with av.open(f"file:{path}", **LENIENT) as container:
        container.flags &= ~GENERATE_PTS
        known = [stream for stream in container.streams.video if stream.codec_context is not None]
        videos = [stream for stream in known if not stream.disposition & Disposition.attached_pic]
        if not videos:
            raise ValueError("no video")
        if largest:
            video = max(videos, key=lambda s: (s.codec_context.width * s.codec_context.height, s.disposition & 1))
        else:
            video = next((stream for stream in videos if stream.disposition & Disposition.default), videos[0])
        video.codec_context.thread_type = "FRAME" if threads else "NONE"
        reading = Reading(container.format.name, tick=video.time_base or Fraction(1))
        tracks = {}
        for stream in container.streams:
            if stream.index != video.index and stream.type in ("audio", "video"):
                codec = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
                default = bool(stream.disposition & Disposition.default)
                tick = stream.time_base or Fraction(1)
                tracks[stream.index] = Track(stream.index, stream.type, codec, default, tick=tick)
        reading.tracks = list(tracks.values())
        effort = BestEffort()
        last_duration = Fraction(0)
        for packet in (*_packets(container, reading), None):
            if packet is not None and packet.stream_index != video.index:
                if packet.stream_index in tracks:
                    _add_packet(tracks[packet.stream_index], packet)
                continue
            for frame in _decode(video, packet, reading):
                if frame.is_corrupt:
                    continue
                ticks = effort.time(frame.pts, frame.dts)
                # Like the ffmpeg program: a frame without a time follows the frame before it by one duration.
                before = reading.frames[-1].time if reading.frames else None
                time = None if ticks is None else ticks * reading.tick
                certain = ticks is not None and frame.pts in (None, ticks)
                if time is None and before is not None and last_duration:
                    time = before + last_duration
                if time is not None and before is not None and time - before > 0:
                    last_duration = time - before
                reading.frames.append(FrameRecord(_number(frame), time, certain))
        return reading


class BestEffort:
    """FFmpeg's `best_effort_timestamp` (libavcodec/decode.c, guess_correct_pts), which PyAV does not expose."""

    def __init__(self) -> None:
        self._faulty_pts = self._faulty_dts = 0
        self._last_pts = self._last_dts = -(1 << 63)

    def time(self, pts: int | None, dts: int | None) -> int | None:
        """Return the time of a frame from the timestamps of its packet."""
        if dts is not None:
            self._faulty_dts += dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._faulty_pts += pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        return pts if pts is not None and (self._faulty_pts <= self._faulty_dts or dts is None) else dts


def _packets(container: Any, reading: Reading) -> Iterator[Any]:
    while reading.errors < _MAX_ERRORS:
        try:
            yield from (packet for packet in container.demux(list(container.streams)) if packet.size)
            return
        except (av.FFmpegError, OSError, IndexError):  # IndexError: PyAV, if a stream begins in the middle of a file
            reading.errors += 1


def _decode(video: Any, packet: Any, reading: Reading) -> list[Any]:
    try:
        return list(video.codec_context.decode(packet))
    except av.EOFError:
        return []
    except (av.FFmpegError, OSError):
        reading.errors += 1
        return []


def _add_packet(track: Track, packet: Any) -> None:
    data = bytes(packet)
    if track.codec == "aac" and len(data) > 7 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:
        data = data[7 if data[1] & 1 else 9 :]  # the ADTS header of MPEG-TS
    if track.codec in _PARAMETERS:
        data = b"".join(unit for unit in _units(data) if not _PARAMETERS[track.codec](unit))
    payload = data if track.codec.startswith("pcm_") else hashlib.blake2b(data, digest_size=8).digest()
    stamp = packet.pts if packet.pts is not None else packet.dts
    time = None if stamp is None else stamp * (packet.time_base or Fraction(1))
    if not packet.is_discard:
        track.packets.append(payload)
        track.times.append(time)
    elif not track.packets:
        track.hidden.append((payload, time))


_PARAMETERS = {
    "h264": lambda unit: unit[0] & 31 in (7, 8, 9),
    "hevc": lambda unit: unit[0] >> 1 & 63 in (32, 33, 34, 35),
}
"""Predicates for the NAL units that containers add or move to their header: parameter sets and delimiters."""


def _units(data: bytes) -> list[bytes]:
    """Return the NAL units of an H.264 or H.265 packet, with start codes as in MPEG-TS or with lengths as in MP4."""
    units, at = [], 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        units.append(data[at + 4 : at + 4 + length].rstrip(b"\0"))
        at += 4 + length
    if at != len(data):
        units = [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1")]
    return [unit for unit in units if unit]


def _number(frame: Any) -> int | None:
    try:
        image = frame.to_ndarray(format="gray")
    except (av.FFmpegError, OSError, ValueError):
        return None
    rotation = int(getattr(frame, "rotation", 0) or 0)
    if rotation % 90 == 0:
        image = np.rot90(image, rotation // 90)
    height, width = image.shape
    numbers = set()
    for row in (height * 5 // 12, height // 2, height * 7 // 12):
        values = [int(image[row, width * (2 * bit + 1) // (2 * BITS)]) for bit in range(BITS)]
        if any(70 < value < 185 for value in values):
            return None
        numbers.add(sum(1 << bit for bit, value in enumerate(values) if value > 127))
    return numbers.pop() if len(numbers) == 1 else None  # several: the number is damaged
