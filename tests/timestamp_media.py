"""Helpers that read and change the timestamps of test videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
from fuzz_stamps import _pes_in_ps, _pes_in_ts, _write_pes
from media import Result, number_of, read

Times = dict[int, list[float]]


def presentation_times(path: Path) -> Times:
    """Return the presentation times of all packets by stream index, seconds. Times of video are in display order."""
    times: Times = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size and packet.pts is not None and not packet.is_discard:
                times.setdefault(packet.stream_index, []).append(float(packet.pts * packet.time_base))
        for stream in container.streams.video:
            times.get(stream.index, []).sort()
    return times


def remux(source: Path, target: Path, change: Callable[[av.Packet, int], bool | None]) -> Path:
    """Copy a file and call `change(packet, number)` for each packet. `number` counts the packets of its stream.

    Packets for which it returns False are left out.
    """
    counts: dict[int, int] = {}
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if not packet.size:
                continue
            number = counts[packet.stream_index] = counts.get(packet.stream_index, -1) + 1
            index = packet.stream_index
            if change(packet, number) is not False:
                packet.stream = streams[index]
                out.mux(packet)
    return target


def to_ticks(packet: av.Packet, seconds: float) -> int:
    """Convert seconds to the time base of a packet."""
    return round(seconds / packet.time_base)


def shift_timestamps(seconds: float) -> Callable[[av.Packet, int], None]:
    """Return a function for `remux` that adds seconds to all timestamps."""

    def change(packet: av.Packet, _: int) -> None:
        packet.pts, packet.dts = packet.pts + to_ticks(packet, seconds), packet.dts + to_ticks(packet, seconds)

    return change


def shift_pes_timestamp(source: Path, target: Path, seconds: float, kind: str, number: int) -> Path:
    """Copy an MPEG-TS or MPEG-PS file and add seconds to the timestamps of one PES packet. No muxer writes such a file."""
    data = bytearray(source.read_bytes())
    transport = source.suffix == ".ts"
    stamps = list((_pes_in_ts if transport else _pes_in_ps)(bytes(data)))
    stream_ids = {"video": range(0xE0, 0xF0), "audio": range(0xC0, 0xE0)}[kind]
    packets = [stamp for stamp in stamps if (data[stamp.at + 3] if transport else stamp.stream) in stream_ids]
    stamp = packets[number]
    has_dts = stamp.dts is not None
    assert stamp.pts is not None
    stamp.pts += round(seconds * 90_000)
    stamp.dts = None if stamp.dts is None else stamp.dts + round(seconds * 90_000)
    _write_pes(data, stamp, has_dts)
    target.write_bytes(data)
    return target


def concatenate(path: Path, *parts: Path) -> Path:
    """Write the bytes of several files to one file, as `cat` does."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def audio_offsets(path: Path) -> tuple[float, float]:
    """Return the delay of the audio relative to the video at its beginning and at its end, seconds."""
    with av.open(str(path)) as container:
        kinds = {stream.type: stream.index for stream in container.streams}
    times = presentation_times(path)
    video, audio = times[kinds["video"]], times[kinds["audio"]]
    return audio[0] - video[0], audio[-1] - video[-1]


def assert_equal_intervals(result: Result, path: Path, step: float = 0.04, tolerance: float = 0.025) -> None:
    """Assert that all frames are present, in order, and at equal intervals."""
    frames = read(path)
    assert [number_of(frame) for frame in frames] == [number_of(frame) for frame in result.frames]
    assert np.abs(np.diff([frame.pts_seconds for frame in frames]) - step).max() <= tolerance


def fake_packet(stream: int, stamp: int, duration: int) -> Any:
    """Return a packet with the attributes that `Clock` reads."""
    return SimpleNamespace(is_discard=False, stream_index=stream, pts=stamp, dts=stamp, duration=duration, size=1)
