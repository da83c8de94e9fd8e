"""Clocks that wrap around, jump or have wrong timestamps: audio and video stay in sync, and the report states the shift.

The expected times are those of the recordings before they were concatenated or changed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from media import Audio, copy_video, number_of, read, video_sink, write_video
from media import item as segmented
from timestamp_media import (
    assert_equal_intervals,
    audio_offsets,
    concatenate,
    presentation_times,
    remux,
    shift_pes_timestamp,
    shift_timestamps,
    to_ticks,
)

from rtseg.core.frame import Frame, Passthrough
from rtseg.io.inputs.file import FileSource
from rtseg.video.verify import Recorder, compare

# Joined recordings


@pytest.mark.parametrize("target", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("first", "second"),
    [(0.6, 1.2), (1.2, 0.6), (1.2, 1.2), (1.8, 1.2)],
    ids=["shorter", "longer second", "equal", "longer"],
)
def test_audio_stays_in_sync_after_a_join(tmp_path: Path, target: str, first: float, second: float) -> None:
    """`cat a.ts b.ts`, where the audio of the first recording ends before, with or after its video."""
    parts = [
        write_video(tmp_path / f"{n}.ts", frames=30, b_frames=2, after=[Audio(seconds=seconds)])
        for n, seconds in enumerate((first, second))
    ]
    result = copy_video(concatenate(tmp_path / "in.ts", *parts), tmp_path / f"out.{target}")
    assert len(result.frames) == 60
    gap = max(0.0, first - 1.2)  # The second recording begins after the longer stream.
    assert np.diff([frame.pts_seconds for frame in result.frames]) == pytest.approx(
        [0.04] * 29 + [0.04 + gap] + [0.04] * 29, abs=0.045
    )
    expected = (audio_offsets(parts[0])[0], audio_offsets(parts[1])[1])
    assert audio_offsets(tmp_path / f"out.{target}") == pytest.approx(expected, abs=0.002)
    assert any("the clock jumps" in note and "s from there on" in note for note in result.notes)
    assert any("for all streams from there on" in repair.what for repair in result.report.repairs)
    assert all(abs(point.difference_ms) < 2 for point in result.report.sync)


def test_forward_clock_jump_between_joined_recordings_is_removed(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / f"{n}.ts", frames=25, after=[Audio()]) for n in range(2)]
    later = remux(parts[0], tmp_path / "later.ts", shift_timestamps(7200))
    result = copy_video(concatenate(tmp_path / "in.ts", parts[0], later, parts[1]), tmp_path / "out.mp4")
    assert len(result.report.repairs) == 2
    assert_equal_intervals(result, tmp_path / "out.mp4")
    assert audio_offsets(tmp_path / "out.mp4")[1] == pytest.approx(audio_offsets(parts[1])[1], abs=0.002)


def test_gap_in_one_stream_is_not_a_clock_jump(tmp_path: Path) -> None:
    """The audio pauses for longer than the threshold of a clock jump."""

    def add_pause(packet: av.Packet, number: int) -> None:
        if packet.stream.type == "audio" and number >= 20:
            packet.pts, packet.dts = packet.pts + to_ticks(packet, 12), packet.dts + to_ticks(packet, 12)

    whole = write_video(tmp_path / "whole.ts", frames=400, rate=25, after=[Audio(seconds=1.2)], gop=50)
    path = remux(whole, tmp_path / "in.ts", add_pause)
    result = copy_video(path, tmp_path / "out.mp4")
    assert not result.report.repairs
    assert audio_offsets(tmp_path / "out.mp4") == pytest.approx(audio_offsets(path), abs=0.002)


@pytest.mark.parametrize("container", ["mpg", "ts"])
def test_audio_that_begins_after_a_join_stays_with_its_recording(tmp_path: Path, container: str) -> None:
    """The first recording has no audio. The audio of the second one must not begin during the first one."""
    codec, audio = ("mpeg2video", "mp2") if container == "mpg" else ("libx264", "mp2")
    without_audio = write_video(tmp_path / f"a.{container}", frames=50, codec=codec, b_frames=0)
    with_audio = write_video(
        tmp_path / f"b.{container}", frames=50, codec=codec, b_frames=0, after=[Audio(audio, seconds=2)]
    )
    result = copy_video(concatenate(tmp_path / f"in.{container}", without_audio, with_audio), tmp_path / "out.mkv")
    assert len(result.frames) == 100
    assert audio_offsets(tmp_path / "out.mkv")[1] == pytest.approx(audio_offsets(with_audio)[1], abs=0.05)


# Parts


@pytest.mark.parametrize(
    ("container", "audio"), [("mp4", "aac"), ("mkv", "ac3"), ("ts", "aac"), ("avi", "pcm_s16le"), ("mkv", "pcm_s16le")]
)
@pytest.mark.parametrize("tone", [0.0, 440.0])
def test_part_with_identical_audio_packets_is_verified(tmp_path: Path, container: str, audio: str, tone: float) -> None:
    """With a muted microphone (`tone` 0) all audio packets have equal bytes, which do not identify the first one of the part."""
    path = write_video(tmp_path / f"in.{container}", frames=75, b_frames=0, after=[Audio(audio, seconds=3, tone=tone)])
    result = copy_video(path, tmp_path / "out.mkv", start=1.0, duration=1.5)
    assert 37 <= len(result.frames) <= 38


@pytest.mark.parametrize("container", ["avi", "mkv", "mp4"])
def test_part_ends_at_the_requested_time(tmp_path: Path, container: str) -> None:
    path = write_video(tmp_path / f"in.{container}", frames=75, b_frames=0)
    assert [number_of(frame) for frame in read(path, start=1.0, duration=1.5)] == list(range(25, 63))


# Wraparound, negative and large start times


@pytest.mark.parametrize("target", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("before", [0.2, 0.5, 70.0])
def test_clock_wraparound_moves_all_streams_together(tmp_path: Path, target: str, before: float) -> None:
    """MPEG's clock has 33 bits at 90 kHz and restarts after 26.5 hours."""
    plain = write_video(tmp_path / "plain.ts", frames=25, rate=25 if before < 1 else 1, b_frames=0, after=[Audio()])
    path = remux(plain, tmp_path / "in.ts", shift_timestamps((1 << 33) / 90_000 - before - 0.08))
    result = copy_video(path, tmp_path / f"out.{target}", sink={"preset": "ultrafast"})
    assert result.report.frames_out == 25
    assert audio_offsets(tmp_path / f"out.{target}")[0] == pytest.approx(audio_offsets(plain)[0], abs=0.05)
    out = presentation_times(tmp_path / f"out.{target}")
    assert all(0 <= time < 60 for stream in out.values() for time in stream)
    assert "all streams moved by" in result.report.line()
    assert any("the clock begins at" in note for note in result.notes)


@pytest.mark.parametrize("target", ["mp4", "mkv"])
def test_recording_with_negative_start_is_moved_as_a_whole(tmp_path: Path, target: str) -> None:
    plain = write_video(tmp_path / "plain.ts", frames=25, b_frames=0, after=[Audio(start=0.2)])
    path = remux(plain, tmp_path / "in.ts", shift_timestamps(-1.0))
    copy_video(path, tmp_path / f"out.{target}")
    assert len(read(tmp_path / f"out.{target}")) == 25
    assert audio_offsets(tmp_path / f"out.{target}") == pytest.approx(audio_offsets(plain), abs=0.002)


@pytest.mark.parametrize("target", ["ts", "mkv", "mp4"])
def test_clock_that_begins_far_from_zero_is_moved_by_the_reported_shift(tmp_path: Path, target: str) -> None:
    """FFmpeg's MPEG-TS muxer begins slightly after zero: the shift is smaller than the start time of the input."""
    plain = write_video(tmp_path / "plain.ts", frames=25, b_frames=0, after=[Audio()])
    path = remux(plain, tmp_path / "in.ts", shift_timestamps(40_000))
    out = tmp_path / f"out.{target}"
    result = copy_video(path, out)
    assert min(frame.pts_seconds for frame in result.frames) < 1
    assert any("the clock begins at +40000" in note for note in result.notes)
    text = " ".join([*result.notes, result.report.line()])
    (seconds,) = re.findall(r"moved by ([-+][0-9.]+) s", text)
    first_times = []
    for file in (path, out):
        with av.open(str(file)) as container:
            first_times.append(min(float(frame.time) for frame in container.decode(video=0)))
    assert float(seconds) == pytest.approx(first_times[1] - first_times[0], abs=0.001)


# Single wrong timestamps


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("seconds", [-5.0, -0.5, -0.04, 0.06, 0.5, 5.0, 3600.0])
@pytest.mark.parametrize("number", [2, 12, 29])
def test_single_wrong_frame_timestamp_is_interpolated(
    tmp_path: Path, b_frames: int, seconds: float, number: int
) -> None:
    plain = write_video(tmp_path / "plain.ts", frames=30, b_frames=b_frames, after=[Audio()])
    path = shift_pes_timestamp(plain, tmp_path / "in.ts", seconds, "video", number)
    result = copy_video(path, tmp_path / "out.mp4")
    assert [number_of(frame) for frame in result.frames] == list(range(30))
    steps = np.diff([frame.pts_seconds for frame in result.frames])
    undetectable = number == 29 and 0 < seconds < 10  # a later timestamp of the last frame is plausible
    assert np.abs(steps[: 28 if undetectable else None] - 0.04).max() <= 0.06 + 1e-6, steps
    assert sum(np.abs(steps - 0.04) > 0.002) <= 3, steps
    if not undetectable:
        assert audio_offsets(tmp_path / "out.mp4") == pytest.approx(audio_offsets(plain), abs=0.09)
    assert not any("jumps" in note for note in result.notes)


@pytest.mark.parametrize("seconds", [-5.0, -0.5, 0.3, 5.0, 3600.0])
@pytest.mark.parametrize("codec", ["aac", "mp2"])
@pytest.mark.parametrize("number", [1, 2])
def test_single_wrong_audio_timestamp_moves_no_other_packets(
    tmp_path: Path, codec: str, seconds: float, number: int
) -> None:
    """One timestamp in MPEG-TS applies to several packets."""
    plain = write_video(tmp_path / "plain.ts", frames=75, b_frames=0, after=[Audio(codec, seconds=3)])
    path = shift_pes_timestamp(plain, tmp_path / "in.ts", seconds, "audio", number)
    result = copy_video(path, tmp_path / "out.mp4")
    out, before = presentation_times(tmp_path / "out.mp4")[1], presentation_times(plain)[1]
    assert out == pytest.approx(before[-len(out) :], abs=0.025)
    assert np.diff([frame.pts_seconds for frame in result.frames]) == pytest.approx(0.04)
    assert any("with a wrong time stamp" in note for note in result.notes)
    assert [repair.stream for repair in result.report.repairs] == [1]


# Report


def _problems_of_shifted_copy(
    path: Path, target: Path, *, audio_seconds: float = 0.0, frame_seconds: float = 0.0
) -> list[str]:
    """Copy a file with its audio or its later frames moved, unknown to the source; return the reported problems."""
    source = FileSource(str(path))
    sink = video_sink(target, source.info)
    recorder = Recorder(source.info)
    for item in source:
        if isinstance(item, Passthrough):
            item.packet.pts += to_ticks(item.packet, audio_seconds)
            item.packet.dts += to_ticks(item.packet, audio_seconds)
            recorder.observe(item)
            sink.pass_through(item)
        elif isinstance(item, Frame):
            delay = round(frame_seconds / item.time_base) if item.index >= 12 else 0
            moved = replace(item, pts=item.pts + delay)
            recorder.observe(moved)
            sink.write(segmented(moved))
    report = compare(recorder, sink.finish(), source=str(path))
    source.close()
    return list(report.problems)


def test_unexplained_timestamp_shift_of_a_source_is_detected(tmp_path: Path) -> None:
    """The report compares the output with the file, not with the frames that the source yields."""
    path = write_video(tmp_path / "in.mp4", frames=25, after=[Audio()])
    assert _problems_of_shifted_copy(path, tmp_path / "a.mp4") == []
    assert _problems_of_shifted_copy(path, tmp_path / "b.mp4", audio_seconds=0.015) == []
    assert _problems_of_shifted_copy(path, tmp_path / "c.mp4", audio_seconds=0.03) == [
        "audio stream 1: +30 ms out of sync with the video at 1.01 s"
    ]
    assert _problems_of_shifted_copy(path, tmp_path / "d.mp4", frame_seconds=0.1) == [
        "the timestamp of a frame is off by 100.0 ms"
    ]


def test_equal_timestamps_from_a_coarse_time_base_are_reported(tmp_path: Path) -> None:
    """The time base of Matroska is 1 ms: two frames within 1 ms get the same timestamp."""
    path = write_video(tmp_path / "in.mp4", time_base=Fraction(1, 90_000), pts=[0, 3600, 3610, 7200, 10_800], frames=5)
    copy_video(path, tmp_path / "out.mp4")
    problems = copy_video(path, tmp_path / "out.mkv", verified=False).report.problems
    assert problems == ("1 frame has the timestamp of the previous one: the container's time base is 1 ms",)


def test_repairs_are_in_the_statistics(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / f"{n}.ts", frames=25, after=[Audio()]) for n in range(2)]
    report = copy_video(concatenate(tmp_path / "in.ts", *parts), tmp_path / "out.mp4").report.to_dict()
    assert report["reference"] == "decoded"
    assert [repair["count"] for repair in report["repairs"]] == [0]
    assert report["repairs"][0]["seconds"] == pytest.approx(1.0, abs=0.1)
    assert {point["stream"] for point in report["sync"]} == {1}
    times = [frame.pts_seconds for frame in read(tmp_path / "out.mp4")]
    assert all(later > earlier for earlier, later in pairwise(times))
