"""Clocks that wrap, jump or are wrong: audio and video are moved together, and the report states the amount.

The expected times are those of the parts before they were joined or changed, or of a plain FFmpeg decode.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from field_video import luma_of, write_fields
from fuzz_stamps import _pes_in_ps, _pes_in_ts, _write_pes
from media import Audio, Result, copy_video, number_of, read, write_video

from rtseg.core.frame import Frame, Passthrough
from rtseg.io.inputs.file import FileSource
from rtseg.io.inputs.file_clock import Clock
from rtseg.io.outputs.video import VideoSink
from rtseg.video.verify import InputFile, Recorder, compare

Times = dict[int, list[float]]


def times_of(path: Path) -> Times:
    """Return the presentation times of all packets by stream, seconds; those of video in display order."""
    times: Times = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size and packet.pts is not None and not packet.is_discard:
                times.setdefault(packet.stream_index, []).append(float(packet.pts * packet.time_base))
        for stream in container.streams.video:
            times.get(stream.index, []).sort()
    return times


def remux(source: Path, target: Path, change: Callable[[av.Packet, int], None]) -> Path:
    """Copy a file and apply `change` to each packet; its arguments are the packet and its number in the stream."""
    counts: dict[int, int] = {}
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if not packet.size:
                continue
            number = counts[packet.stream_index] = counts.get(packet.stream_index, -1) + 1
            index = packet.stream_index
            change(packet, number)
            packet.stream = streams[index]
            after.mux(packet)
    return target


def ticks(packet: av.Packet, seconds: float) -> int:
    return round(seconds / packet.time_base)


def moved(seconds: float, video: range = range(0), audio: range = range(0)) -> Callable[[av.Packet, int], None]:
    def change(packet: av.Packet, number: int) -> None:
        if number in (video if packet.stream.type == "video" else audio):
            packet.pts, packet.dts = packet.pts + ticks(packet, seconds), packet.dts + ticks(packet, seconds)

    return change


def restamped(source: Path, target: Path, seconds: float, kind: str, number: int) -> Path:
    """Copy an MPEG-TS or MPEG-PS file with the timestamps of one PES packet moved, which no muxer would write."""
    data = bytearray(source.read_bytes())
    transport = source.suffix == ".ts"
    stamps = list((_pes_in_ts if transport else _pes_in_ps)(bytes(data)))
    stream_ids = {"video": range(0xE0, 0xF0), "audio": range(0xC0, 0xE0)}[kind]
    chosen = [stamp for stamp in stamps if (data[stamp.at + 3] if transport else stamp.stream) in stream_ids]
    stamp = chosen[number]
    both = stamp.dts is not None
    assert stamp.pts is not None
    stamp.pts += round(seconds * 90_000)
    stamp.dts = None if stamp.dts is None else stamp.dts + round(seconds * 90_000)
    _write_pes(data, stamp, both)
    target.write_bytes(data)
    return target


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def offsets(path: Path) -> tuple[float, float]:
    """Return by how many seconds the audio begins and ends after the video."""
    with av.open(str(path)) as container:
        kinds = {stream.type: stream.index for stream in container.streams}
    times = times_of(path)
    video, audio = times[kinds["video"]], times[kinds["audio"]]
    return audio[0] - video[0], audio[-1] - video[-1]


def assert_even(result: Result, path: Path, step: float = 0.04, within: float = 0.025) -> None:
    """Assert that all frames are present, in order, and at equal intervals."""
    frames = read(path)
    assert [number_of(frame) for frame in frames] == [number_of(frame) for frame in result.frames]
    assert np.abs(np.diff([frame.pts_seconds for frame in frames]) - step).max() <= within


# Joined recordings


@pytest.mark.parametrize("target", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("first", "second"), [(0.6, 1.2), (1.2, 0.6), (1.2, 1.2), (1.8, 1.2)], ids=["shorter", "late", "as long", "longer"]
)
def test_audio_stays_in_sync_after_a_join(tmp_path: Path, target: str, first: float, second: float) -> None:
    """`cat a.ts b.ts`, where the audio of the first recording ends before, with or after its video."""
    parts = [
        write_video(tmp_path / f"{n}.ts", frames=30, b_frames=2, after=[Audio(seconds=seconds)])
        for n, seconds in enumerate((first, second))
    ]
    result = copy_video(joined(tmp_path / "in.ts", *parts), tmp_path / f"out.{target}")
    assert result.report.ok, result.report.line()
    assert len(result.frames) == 60
    late = max(0.0, first - 1.2)  # The second recording begins after the longer stream.
    assert np.diff([frame.pts_seconds for frame in result.frames]) == pytest.approx(
        [0.04] * 29 + [0.04 + late] + [0.04] * 29, abs=0.045
    )
    for number, (place, part) in enumerate(((0, parts[0]), (-1, parts[1]))):
        assert offsets(tmp_path / f"out.{target}")[number] == pytest.approx(offsets(part)[number], abs=0.002), place
    assert any("the clock jumps" in note and "s from there on" in note for note in result.notes)
    assert any("for all streams from there on" in repair.what for repair in result.report.repairs)
    assert all(abs(point.difference_ms) < 2 for point in result.report.sync)


def test_forward_clock_jump_between_joined_recordings_is_removed(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / f"{n}.ts", frames=25, after=[Audio()]) for n in range(2)]
    later = remux(parts[0], tmp_path / "later.ts", moved(7200, range(1000), range(1000)))
    result = copy_video(joined(tmp_path / "in.ts", parts[0], later, parts[1]), tmp_path / "out.mp4")
    assert result.report.ok, result.report.line()
    assert len(result.report.repairs) == 2
    assert_even(result, tmp_path / "out.mp4")
    assert offsets(tmp_path / "out.mp4")[1] == pytest.approx(offsets(parts[1])[1], abs=0.002)


def test_gap_in_one_stream_is_not_a_clock_jump(tmp_path: Path) -> None:
    """Audio that pauses for longer than the clock jump threshold keeps its times."""

    def paused(packet: av.Packet, number: int) -> None:
        if packet.stream.type == "audio" and number >= 20:
            packet.pts, packet.dts = packet.pts + ticks(packet, 12), packet.dts + ticks(packet, 12)

    whole = write_video(tmp_path / "whole.ts", frames=400, rate=25, after=[Audio(seconds=1.2)], gop=50)
    path = remux(whole, tmp_path / "in.ts", paused)
    result = copy_video(path, tmp_path / "out.mp4")
    assert result.report.ok, result.report.line()
    assert not result.report.repairs
    assert offsets(tmp_path / "out.mp4") == pytest.approx(offsets(path), abs=0.002)


@pytest.mark.parametrize("container", ["mpg", "ts"])
def test_audio_that_begins_after_a_join_stays_with_its_recording(tmp_path: Path, container: str) -> None:
    """The first recording has no audio: that of the second must not start during the first."""
    codec, audio = ("mpeg2video", "mp2") if container == "mpg" else ("libx264", "mp2")
    silent = write_video(tmp_path / f"a.{container}", frames=50, codec=codec, b_frames=0)
    audible = write_video(
        tmp_path / f"b.{container}", frames=50, codec=codec, b_frames=0, after=[Audio(audio, seconds=2)]
    )
    result = copy_video(joined(tmp_path / f"in.{container}", silent, audible), tmp_path / "out.mkv")
    assert result.report.ok, result.report.line()
    assert len(result.frames) == 100
    assert offsets(tmp_path / "out.mkv")[1] == pytest.approx(offsets(audible)[1], abs=0.05)


# Parts


@pytest.mark.parametrize(
    ("container", "audio"), [("mp4", "aac"), ("mkv", "ac3"), ("ts", "aac"), ("avi", "pcm_s16le"), ("mkv", "pcm_s16le")]
)
@pytest.mark.parametrize("tone", [0.0, 440.0])
def test_part_with_identical_audio_packets_is_verified(tmp_path: Path, container: str, audio: str, tone: float) -> None:
    """A muted microphone: bytes of silence do not show where the part begins."""
    path = write_video(tmp_path / f"in.{container}", frames=75, b_frames=0, after=[Audio(audio, seconds=3, tone=tone)])
    result = copy_video(path, tmp_path / "out.mkv", start=1.0, duration=1.5)
    assert result.report.ok, result.report.line()
    assert 37 <= len(result.frames) <= 38


@pytest.mark.parametrize("container", ["avi", "mkv", "mp4"])
def test_part_ends_at_the_requested_time(tmp_path: Path, container: str) -> None:
    path = write_video(tmp_path / f"in.{container}", frames=75, b_frames=0)
    assert [number_of(frame) for frame in read(path, start=1.0, duration=1.5)] == list(range(25, 63))


# Wraparounds, negative and distant times


@pytest.mark.parametrize("target", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("before", [0.2, 0.5, 70.0])
def test_clock_wraparound_moves_all_streams_together(tmp_path: Path, target: str, before: float) -> None:
    """MPEG's clock has 33 bits at 90 kHz and restarts after 26.5 hours."""
    plain = write_video(tmp_path / "plain.ts", frames=25, rate=25 if before < 1 else 1, b_frames=0, after=[Audio()])
    path = remux(plain, tmp_path / "in.ts", moved((1 << 33) / 90_000 - before - 0.08, range(1000), range(1000)))
    result = copy_video(path, tmp_path / f"out.{target}", sink={"preset": "ultrafast"})
    assert result.report.ok, result.report.line()
    assert result.report.frames_out == 25
    assert offsets(tmp_path / f"out.{target}")[0] == pytest.approx(offsets(plain)[0], abs=0.05)
    out = times_of(tmp_path / f"out.{target}")
    assert all(0 <= time < 60 for stream in out.values() for time in stream)
    assert "all streams moved by" in result.report.line()
    assert any("the clock begins at" in note for note in result.notes)


def test_missing_frames_are_not_reported_as_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.io.outputs.read_back._count", lambda _container: 2)
    with pytest.raises(Exception, match="contains 2 of 12 frames") as error:
        copy_video(write_video(tmp_path / "in.mp4"), tmp_path / "out.mp4")
    assert "the disk" not in str(error.value)


@pytest.mark.parametrize("target", ["mp4", "mkv"])
def test_recording_with_negative_start_is_moved_as_a_whole(tmp_path: Path, target: str) -> None:
    plain = write_video(tmp_path / "plain.ts", frames=25, b_frames=0, after=[Audio(start=0.2)])
    path = remux(plain, tmp_path / "in.ts", moved(-1.0, range(1000), range(1000)))
    result = copy_video(path, tmp_path / f"out.{target}")
    assert result.report.ok, result.report.line()
    assert len(read(tmp_path / f"out.{target}")) == 25
    assert offsets(tmp_path / f"out.{target}") == pytest.approx(offsets(plain), abs=0.002)


def test_clock_that_begins_far_from_zero_is_moved_to_zero(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.ts", frames=25, after=[Audio()])
    path = remux(plain, tmp_path / "in.ts", moved(40_000, range(1000), range(1000)))
    result = copy_video(path, tmp_path / "out.mp4")
    assert result.report.ok, result.report.line()
    assert min(frame.pts_seconds for frame in result.frames) < 1
    assert any("the clock begins at +40000" in note for note in result.notes)


@pytest.mark.parametrize("target", ["ts", "mkv", "mp4"])
def test_reported_shift_is_the_actual_shift(tmp_path: Path, target: str) -> None:
    """FFmpeg's MPEG-TS begins slightly after zero: the output is moved by less than the start time of the clock."""
    plain = write_video(tmp_path / "plain.ts", frames=25, b_frames=0, after=[Audio()])
    path = remux(plain, tmp_path / "in.ts", moved(3600, range(1000), range(1000)))
    out = tmp_path / f"out.{target}"
    result = copy_video(path, out)
    text = " ".join([*result.notes, result.report.line()])
    (seconds,) = re.findall(r"moved by ([-+][0-9.]+) s", text)
    first = []
    for file in (path, out):
        with av.open(str(file)) as container:
            first.append(min(float(frame.time) for frame in container.decode(video=0)))
    assert float(seconds) == pytest.approx(first[1] - first[0], abs=0.001)


# Single wrong timestamps


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("seconds", [-5.0, -0.5, -0.04, 0.06, 0.5, 5.0, 3600.0])
@pytest.mark.parametrize("number", [2, 12, 29])
def test_single_wrong_frame_timestamp_is_interpolated(
    tmp_path: Path, b_frames: int, seconds: float, number: int
) -> None:
    plain = write_video(tmp_path / "plain.ts", frames=30, b_frames=b_frames, after=[Audio()])
    path = restamped(plain, tmp_path / "in.ts", seconds, "video", number)
    result = copy_video(path, tmp_path / "out.mp4")
    assert result.report.ok, result.report.line()
    assert [number_of(frame) for frame in result.frames] == list(range(30))
    steps = np.diff([frame.pts_seconds for frame in result.frames])
    kept = number == 29 and 0 < seconds < 10  # Nothing shows that the last timestamp is wrong.
    assert np.abs(steps[: 28 if kept else None] - 0.04).max() <= 0.06 + 1e-6, steps
    assert sum(np.abs(steps - 0.04) > 0.002) <= 3, steps
    if not kept:
        assert offsets(tmp_path / "out.mp4") == pytest.approx(offsets(plain), abs=0.09)
    assert not any("jumps" in note for note in result.notes)


@pytest.mark.parametrize("seconds", [-5.0, -0.5, 0.3, 5.0, 3600.0])
@pytest.mark.parametrize("codec", ["aac", "mp2"])
@pytest.mark.parametrize("number", [1, 2])
def test_single_wrong_audio_timestamp_moves_no_other_packets(
    tmp_path: Path, codec: str, seconds: float, number: int
) -> None:
    """One timestamp in MPEG-TS applies to several packets."""
    plain = write_video(tmp_path / "plain.ts", frames=75, b_frames=0, after=[Audio(codec, seconds=3)])
    path = restamped(plain, tmp_path / "in.ts", seconds, "audio", number)
    result = copy_video(path, tmp_path / "out.mp4")
    assert result.report.ok, result.report.line()
    out, before = times_of(tmp_path / "out.mp4")[1], times_of(plain)[1]
    assert out == pytest.approx(before[-len(out) :], abs=0.025)
    assert np.diff([frame.pts_seconds for frame in result.frames]) == pytest.approx(0.04)
    assert any("with a wrong time stamp" in note for note in result.notes)
    assert [repair.stream for repair in result.report.repairs] == [1]


# Program streams, AVI, fields


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_program_stream_frames_have_the_timestamps_of_ffmpeg(tmp_path: Path, codec: str, b_frames: int) -> None:
    path = write_video(
        tmp_path / "in.mpg", frames=100, codec=codec, b_frames=b_frames, gop=15, after=[Audio("mp2", seconds=4)]
    )
    with av.open(str(path)) as container:
        container.flags &= ~1
        plain = [frame.pts if frame.pts is not None else frame.dts for frame in container.decode(video=0)]
    result = copy_video(path, tmp_path / "out.mp4")
    assert result.report.ok, result.report.line()
    times = [frame.pts for frame in result.frames]
    assert np.diff(times).tolist() == [3600] * 99
    known = [(ours, theirs) for ours, theirs in zip(times, plain, strict=True) if theirs is not None]
    assert {ours - theirs for ours, theirs in known} == {0}
    assert offsets(tmp_path / "out.mp4") == pytest.approx(offsets(path), abs=0.002)


@pytest.mark.parametrize(("container", "b_frames"), [("mpeg", 0), ("vob", 0), ("mpeg", 2), ("vob", 2), ("svcd", 2)])
def test_h264_in_program_stream_keeps_frame_intervals(tmp_path: Path, container: str, b_frames: int) -> None:
    """FFmpeg gives the timestamp of a PES packet to two frames: the one that ends and the one that begins in it."""
    path = write_video(
        tmp_path / "in.mpg",
        frames=100,
        b_frames=b_frames,
        gop=12,
        container=container,
        after=[Audio("mp2", seconds=4)],
    )
    result = copy_video(path, tmp_path / "out.mp4")
    assert result.report.ok, result.report.line()
    assert "jumps" not in result.report.line()
    with av.open(str(tmp_path / "out.mp4")) as video:
        times = [float(frame.pts * frame.time_base) for frame in video.decode(video=0)]
    assert np.diff(times) == pytest.approx([0.04] * 99, abs=0.0002)
    assert offsets(tmp_path / "out.mp4")[0] == pytest.approx(offsets(path)[0], abs=0.002)


def test_avi_with_b_frames_keeps_its_frame_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.avi", frames=25, b_frames=2, after=[Audio("libmp3lame")])
    result = copy_video(path, tmp_path / "out.mp4")
    assert result.report.ok, result.report.line()
    assert_even(result, tmp_path / "out.mp4", within=0.001)


@pytest.mark.parametrize("container", ["ts", "mkv", "mp4", "h264"])
def test_two_fields_are_one_frame(tmp_path: Path, container: str) -> None:
    """Interlaced H.264 with field pictures (PAFF): FFmpeg counts a packet for each field."""
    result = copy_video(write_fields(tmp_path / f"in.{container}"), tmp_path / "out.mp4")
    assert result.report.ok, result.report.line()
    assert (result.corrupt, result.report.frames_out) == (0, 20)
    assert [luma_of(frame.planes) for frame in result.frames] == list(range(20))
    assert len(read(tmp_path / f"in.{container}", strict=True)) == 20


@pytest.mark.parametrize("container", ["ts", "mkv", "mp4"])
@pytest.mark.parametrize(("start", "duration", "frames"), [(0.0, 0.3, range(8)), (0.1, 0.4, range(3, 13))])
def test_part_that_ends_between_two_fields_contains_the_frame(
    tmp_path: Path, container: str, start: float, duration: float, frames: range
) -> None:
    result = copy_video(
        write_fields(tmp_path / f"in.{container}"), tmp_path / "out.mp4", start=start, duration=duration
    )
    assert result.report.ok, result.report.line()
    assert [luma_of(frame.planes) for frame in result.frames] == list(frames)


def test_fields_of_mp4_are_not_counted_as_frames_in_avi(tmp_path: Path) -> None:
    """The average rate of MP4 counts each field."""
    result = copy_video(write_fields(tmp_path / "in.mp4", timed=True), tmp_path / "out.avi")
    assert result.report.ok, result.report.line()
    with av.open(str(tmp_path / "out.avi")) as container:
        assert container.streams.video[0].average_rate == 25
        assert sum(bool(packet.size) for packet in container.demux(video=0)) == 20


# The report


def _processed(path: Path, target: Path, *, audio_seconds: float = 0.0, frame_seconds: float = 0.0) -> list[str]:
    """Return the problems of an output that was written with its audio or its frames moved, without a report by the source."""
    source = FileSource(str(path))
    sink = VideoSink(target, source.info, size=(source.info.width, source.info.height))
    recorder = Recorder(source.info)
    for item in source:
        if isinstance(item, Passthrough):
            item.packet.pts += ticks(item.packet, audio_seconds)
            item.packet.dts += ticks(item.packet, audio_seconds)
            recorder.observe(item)
            sink.pass_through(item)
        elif isinstance(item, Frame):
            late = round(frame_seconds / item.time_base) if item.index >= 12 else 0
            rendered = Frame(
                item.planes, item.pixel_format, item.color, item.pts + late, item.time_base, item.index, item.duration
            )
            recorder.observe(rendered)
            sink.write(_segmented(rendered))
    report = compare(recorder, sink.finish(), source=InputFile(str(path)))
    source.close()
    return list(report.problems)


def _segmented(frame: Frame) -> object:
    from media import item

    return item(frame)


def test_unexplained_timestamp_shift_of_a_source_is_detected(tmp_path: Path) -> None:
    """The file is the reference, not the frames that the source yields."""
    path = write_video(tmp_path / "in.mp4", frames=25, after=[Audio()])
    assert _processed(path, tmp_path / "a.mp4") == []
    assert _processed(path, tmp_path / "b.mp4", audio_seconds=0.015) == []
    assert _processed(path, tmp_path / "c.mp4", audio_seconds=0.03) == [
        "audio stream 1: +30 ms out of sync with the video at 1.01 s"
    ]
    assert _processed(path, tmp_path / "d.mp4", frame_seconds=0.1) == ["the timestamp of a frame is off by 100.0 ms"]


def test_equal_timestamps_from_a_coarse_time_base_are_reported(tmp_path: Path) -> None:
    """Matroska counts milliseconds: two frames within one would be displayed at the same time."""
    path = write_video(tmp_path / "in.mp4", time_base=Fraction(1, 90_000), pts=[0, 3600, 3610, 7200, 10_800], frames=5)
    assert copy_video(path, tmp_path / "out.mp4").report.ok
    problems = copy_video(path, tmp_path / "out.mkv").report.problems
    assert problems == ("1 frame has the timestamp of the previous one: the container's time base is 1 ms",)


def test_repairs_are_in_the_statistics(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / f"{n}.ts", frames=25, after=[Audio()]) for n in range(2)]
    report = copy_video(joined(tmp_path / "in.ts", *parts), tmp_path / "out.mp4").report.to_dict()
    assert report["reference"] == "decoded"
    assert [repair["count"] for repair in report["repairs"]] == [0]
    assert report["repairs"][0]["seconds"] == pytest.approx(1.0, abs=0.1)
    assert {point["stream"] for point in report["sync"]} == {1}
    assert all(late > early for early, late in pairwise(read_times(tmp_path / "out.mp4")))


def read_times(path: Path) -> list[float]:
    return [frame.pts_seconds for frame in read(path)]


# Clock input


def _packet(stream: int, stamp: int, duration: int) -> Any:
    return SimpleNamespace(is_discard=False, stream_index=stream, pts=stamp, dts=stamp, duration=duration, size=1)


@pytest.mark.parametrize("pause", [4, 100])
def test_no_packet_is_lost_if_audio_begins_far_from_the_video(pause: int) -> None:
    """Audio with a separate clock begins in the middle of the file, with few frames between its packets, or none before the end."""
    second = 90_000
    streams = [
        SimpleNamespace(index=0, type="video", time_base=Fraction(1, second), start_time=0),
        SimpleNamespace(index=1, type="audio", time_base=Fraction(1, second), start_time=None),
    ]
    packets = [_packet(0, n * 3600, 3600) for n in range(10)]
    for n in range(2):
        begin = 8 * second + n * pause * 1920
        packets += [_packet(1, begin + k * 1920, 1920) for k in range(pause)]
        packets.append(_packet(0, (10 + n) * 3600, 3600))
    mapped = list(Clock(streams, 0, arbitrary=True).map(packets))
    assert mapped == packets
    assert [packet.pts for packet in mapped if packet.stream_index == 0] == [n * 3600 for n in range(12)]
