"""Packets of a healthy file written anew by FFmpeg's muxers: other times, order, streams, container. The result is a valid file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from fuzz_seeds import REAR

_FORMATS = {"mp4": ".mp4", "mov": ".mov", "matroska": ".mkv", "mpegts": ".ts", "mpeg": ".mpg", "fragments": ".mp4"}


@dataclass
class Piece:
    """A packet on its way, its times in seconds."""

    stream: int
    packet: Any
    pts: Fraction
    dts: Fraction
    key: bool


def remux(path: Path, files: Sequence[Path], random: np.random.Generator) -> tuple[str, str, bytes]:
    """What was changed in `path`, with streams of others of `files`; the ending of the new file's name, and its bytes.

    Raises:
        av.FFmpegError, ValueError: no muxer takes this.
    """
    rear = [file for file in files if file.name.startswith(REAR)]
    second = rear[int(random.integers(0, len(rear)))] if random.integers(0, 5) == 0 else None
    form = str(random.choice(list(_FORMATS)))
    with av.open(str(path)) as source:
        if second is None:
            return _write([source], form, random)
        with av.open(str(second)) as other:
            return _write([source, other], form, random)


def _write(sources: Sequence[Any], form: str, random: np.random.Generator) -> tuple[str, str, bytes]:
    streams = list(sources[0].streams)
    pieces = _pieces(sources[0], {stream.index: stream.index for stream in streams})
    told = [f"as {form}"]
    if len(sources) > 1:
        # A second camera: FFmpeg's choice must not matter, the larger or else the first is taken.
        extra = [stream for stream in sources[1].streams if stream.type in ("video", "audio")]
        pieces += _pieces(sources[1], {stream.index: len(streams) + at for at, stream in enumerate(extra)})
        streams += extra
        told.append(f"{len(extra)} streams of {Path(sources[1].name).name} added")
    for _ in range(int(random.integers(1, 3))):
        told.append(_change(pieces, [stream.type for stream in streams], random))
    order = list(range(len(streams)))
    if random.integers(0, 3) == 0:
        random.shuffle(order)
        told.append(f"streams in the order {order}")
    data = io.BytesIO()
    options = {"max_interleave_delta": "1", "fflags": "+bitexact"}  # without, Matroska files get random identifiers
    if random.integers(0, 2):
        options["avoid_negative_ts"] = "disabled"
        told.append("negative times kept")
    if form == "fragments":
        options["movflags"] = "frag_keyframe+empty_moov"
    name = "mp4" if form == "fragments" else form
    flags = random.integers(0, 4) == 0
    with av.open(data, "w", format=name, container_options=options) as out:
        made: dict[int, Any] = {}
        for at in order:
            made[at] = out.add_stream_from_template(streams[at], opaque=True)
            if flags:
                made[at].disposition = Disposition(int(random.choice([0, 1, 0x40, 0x41])))
        if flags:
            told.append(f"dispositions {[int(made[at].disposition) for at in order]}")
        arranged, how = _arranged(pieces, random)
        told.append(how)
        for piece in arranged:
            packet = piece.packet
            tick = Fraction(packet.time_base.numerator, packet.time_base.denominator)
            packet.pts, packet.dts = round(piece.pts / tick), round(piece.dts / tick)
            packet.stream = made[piece.stream]
            out.mux(packet)
    return ", ".join(part for part in told if part), _FORMATS[form], data.getvalue()


def _pieces(source: Any, indices: dict[int, int]) -> list[Piece]:
    found = []
    for packet in source.demux([stream for stream in source.streams if stream.index in indices]):
        if packet.size and packet.dts is not None:
            tick = Fraction(packet.time_base.numerator, packet.time_base.denominator)
            pts = packet.pts if packet.pts is not None else packet.dts
            found.append(Piece(indices[packet.stream_index], packet, pts * tick, packet.dts * tick, packet.is_keyframe))
    return found


def _arranged(pieces: list[Piece], random: np.random.Generator) -> tuple[list[Piece], str]:
    """The order in which packets are written: rising in each stream, far apart between them."""
    match int(random.integers(0, 6)):
        case 0:
            return sorted(pieces, key=lambda piece: (piece.stream, piece.dts)), "one stream behind the other"
        case 1:
            return sorted(pieces, key=lambda piece: (-piece.stream, piece.dts)), "last stream first"
        case 2:
            late = int(random.integers(0, 2))
            by = Fraction(int(random.integers(1, 12)), 10)
            key = {late: by}
            return (
                sorted(pieces, key=lambda piece: piece.dts + key.get(piece.stream, 0)),
                f"stream {late} written {float(by)} s late",
            )
        case _:
            return sorted(pieces, key=lambda piece: piece.dts), ""


def _change(pieces: list[Piece], kinds: list[str], random: np.random.Generator) -> str:
    stream = int(random.integers(0, len(kinds)))
    chosen = [piece for piece in pieces if piece.stream == stream]
    seconds = Fraction(int(random.choice([20, 40, 250, 700, 1500, 6000, 3_600_000, 95_442_000])), 1000)
    kind = f"{kinds[stream]} {stream}"
    at = Fraction(int(random.integers(1, 12)), 10)
    match int(random.integers(0, 9)):
        case 0:
            sign = -1 if seconds < 2 and random.integers(0, 2) else 1
            _move(pieces, sign * seconds)
            return f"all {float(sign * seconds):+} s"
        case 1:
            seconds = min(seconds, Fraction(6))
            _move(chosen, seconds)
            return f"{kind} {float(seconds):+} s"
        case 2:
            _move([piece for piece in pieces if piece.dts >= at], seconds)
            return f"from {float(at)} s on all {float(seconds):+} s"
        case 3:
            seconds = min(seconds, Fraction(6))
            _move([piece for piece in chosen if piece.dts >= at], seconds)
            return f"from {float(at)} s on {kind} {float(seconds):+} s"
        case 4:
            factor = Fraction(str(random.choice(["1.001", "1.5", "3", "0.5"])))
            for piece in pieces:
                piece.pts, piece.dts = piece.pts * factor, piece.dts * factor
            return f"slower by {float(factor)}"
        case 5:
            for piece in chosen:
                by = Fraction(int(random.integers(0, 15)), 1000)
                piece.pts, piece.dts = piece.pts + by, piece.dts + by
            return f"{kind} jitter of 14 ms"
        case 6 if kinds[stream] != "video":
            pieces[:] = [piece for piece in pieces if piece.stream != stream or piece.dts >= at]
            return f"{kind} begins at {float(at)} s"
        case 7:
            pieces[:] = [piece for piece in pieces if piece.stream != stream or piece.dts < at]
            return f"{kind} ends at {float(at)} s"
        case 8 if kinds[stream] == "video" and len(chosen) > 3:
            pieces.remove(chosen[0])
            return f"{kind} without its first packet"
        case _:
            return ""


def _move(pieces: Sequence[Piece], seconds: Fraction) -> None:
    for piece in pieces:
        piece.pts, piece.dts = piece.pts + seconds, piece.dts + seconds
