"""Remuxing of a healthy file with FFmpeg: other times, order, streams or container. The result is a valid file."""

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
class TimedPacket:
    """Packet with its times in seconds."""

    stream: int
    packet: Any
    pts: Fraction
    dts: Fraction


def remux(path: Path, files: Sequence[Path], random: np.random.Generator) -> tuple[str, str, bytes]:
    """Remux a file with random changes; streams of a rear camera in `files` may be added.

    Returns:
        Description of the changes, suffix of the new file, and its bytes.

    Raises:
        av.FFmpegError, ValueError: the muxer refuses the changes.
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
    items = _items(sources[0], {stream.index: stream.index for stream in streams})
    changes = [f"as {form}"]
    if len(sources) > 1:
        # A second camera: rtseg processes the larger video, or the first of equal ones, independently of FFmpeg's choice.
        extra = [stream for stream in sources[1].streams if stream.type in ("video", "audio")]
        items += _items(sources[1], {stream.index: len(streams) + at for at, stream in enumerate(extra)})
        streams += extra
        changes.append(f"{len(extra)} streams of {Path(sources[1].name).name} added")
    for _ in range(int(random.integers(1, 3))):
        changes.append(_change(items, [stream.type for stream in streams], random))
    order = list(range(len(streams)))
    if random.integers(0, 3) == 0:
        random.shuffle(order)
        changes.append(f"streams in the order {order}")
    data = io.BytesIO()
    options = {"max_interleave_delta": "1", "fflags": "+bitexact"}  # without, Matroska files get random identifiers
    if random.integers(0, 2):
        options["avoid_negative_ts"] = "disabled"
        changes.append("negative times kept")
    if form == "fragments":
        options["movflags"] = "frag_keyframe+empty_moov"
    name = "mp4" if form == "fragments" else form
    flags = random.integers(0, 4) == 0
    with av.open(data, "w", format=name, container_options=options) as out:
        outputs: dict[int, Any] = {}
        for at in order:
            outputs[at] = out.add_stream_from_template(streams[at], opaque=True)
            if flags:
                outputs[at].disposition = Disposition(int(random.choice([0, 1, 0x40, 0x41])))
        if flags:
            changes.append(f"dispositions {[int(outputs[at].disposition) for at in order]}")
        ordered, description = _ordered(items, random)
        changes.append(description)
        for item in ordered:
            packet = item.packet
            packet.pts, packet.dts = round(item.pts / packet.time_base), round(item.dts / packet.time_base)
            packet.stream = outputs[item.stream]
            out.mux(packet)
    return ", ".join(part for part in changes if part), _FORMATS[form], data.getvalue()


def _items(source: Any, indices: dict[int, int]) -> list[TimedPacket]:
    items = []
    for packet in source.demux([stream for stream in source.streams if stream.index in indices]):
        if packet.size and packet.dts is not None:
            pts = packet.pts if packet.pts is not None else packet.dts
            seconds = pts * packet.time_base, packet.dts * packet.time_base
            items.append(TimedPacket(indices[packet.stream_index], packet, *seconds))
    return items


def _ordered(items: list[TimedPacket], random: np.random.Generator) -> tuple[list[TimedPacket], str]:
    """Return the packets in writing order, which increases in each stream, and a description of it."""
    match int(random.integers(0, 6)):
        case 0:
            return sorted(items, key=lambda item: (item.stream, item.dts)), "one stream after the other"
        case 1:
            return sorted(items, key=lambda item: (-item.stream, item.dts)), "last stream first"
        case 2:
            delayed = int(random.integers(0, 2))
            delay = Fraction(int(random.integers(1, 12)), 10)
            ordered = sorted(items, key=lambda item: item.dts + delay * (item.stream == delayed))
            return ordered, f"stream {delayed} written {float(delay)} s late"
        case _:
            return sorted(items, key=lambda item: item.dts), ""


def _change(items: list[TimedPacket], kinds: list[str], random: np.random.Generator) -> str:
    stream = int(random.integers(0, len(kinds)))
    chosen = [item for item in items if item.stream == stream]
    seconds = Fraction(int(random.choice([20, 40, 250, 700, 1500, 6000, 3_600_000, 95_442_000])), 1000)
    kind = f"{kinds[stream]} {stream}"
    at = Fraction(int(random.integers(1, 12)), 10)
    match int(random.integers(0, 9)):
        case 0:
            sign = -1 if seconds < 2 and random.integers(0, 2) else 1
            _move(items, sign * seconds)
            return f"all {float(sign * seconds):+} s"
        case 1:
            seconds = min(seconds, Fraction(6))
            _move(chosen, seconds)
            return f"{kind} {float(seconds):+} s"
        case 2:
            _move([item for item in items if item.dts >= at], seconds)
            return f"from {float(at)} s on all {float(seconds):+} s"
        case 3:
            seconds = min(seconds, Fraction(6))
            _move([item for item in chosen if item.dts >= at], seconds)
            return f"from {float(at)} s on {kind} {float(seconds):+} s"
        case 4:
            factor = Fraction(str(random.choice(["1.001", "1.5", "3", "0.5"])))
            for item in items:
                item.pts, item.dts = item.pts * factor, item.dts * factor
            return f"slower by {float(factor)}"
        case 5:
            for item in chosen:
                by = Fraction(int(random.integers(0, 15)), 1000)
                item.pts, item.dts = item.pts + by, item.dts + by
            return f"{kind} jitter of 14 ms"
        case 6 if kinds[stream] != "video":
            items[:] = [item for item in items if item.stream != stream or item.dts >= at]
            return f"{kind} begins at {float(at)} s"
        case 7:
            items[:] = [item for item in items if item.stream != stream or item.dts < at]
            return f"{kind} ends at {float(at)} s"
        case 8 if kinds[stream] == "video" and len(chosen) > 3:
            items.remove(chosen[0])
            return f"{kind} without its first packet"
        case _:
            return ""


def _move(items: Sequence[TimedPacket], seconds: Fraction) -> None:
    for item in items:
        item.pts, item.dts = item.pts + seconds, item.dts + seconds
