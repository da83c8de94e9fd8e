"""Frames of MPEG program streams, AVI files and field-coded video keep their intervals and times."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from field_video import luma_of, write_fields, write_reordered_fields
from media import Audio, copy_video, read, write_video
from timestamp_media import assert_equal_intervals, audio_offsets, concatenate


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_program_stream_frames_have_the_timestamps_of_ffmpeg(tmp_path: Path, codec: str, b_frames: int) -> None:
    path = write_video(
        tmp_path / "in.mpg", frames=100, codec=codec, b_frames=b_frames, gop=15, after=[Audio("mp2", seconds=4)]
    )
    with av.open(str(path)) as container:
        container.flags &= ~1
        expected = [frame.pts if frame.pts is not None else frame.dts for frame in container.decode(video=0)]
    result = copy_video(path, tmp_path / "out.mp4")
    times = [frame.pts for frame in result.frames]
    assert np.diff(times).tolist() == [3600] * 99
    assert any(pts is not None for pts in expected)
    assert all(pts in (time, None) for time, pts in zip(times, expected, strict=True))
    assert audio_offsets(tmp_path / "out.mp4") == pytest.approx(audio_offsets(path), abs=0.002)


@pytest.mark.parametrize(("container", "b_frames"), [("mpeg", 0), ("vob", 0), ("mpeg", 2), ("vob", 2), ("svcd", 2)])
def test_h264_in_program_stream_keeps_frame_intervals(tmp_path: Path, container: str, b_frames: int) -> None:
    """FFmpeg assigns the timestamp of a PES packet to two frames: one ends and one begins in the packet."""
    path = write_video(
        tmp_path / "in.mpg",
        frames=100,
        b_frames=b_frames,
        gop=12,
        container=container,
        after=[Audio("mp2", seconds=4)],
    )
    result = copy_video(path, tmp_path / "out.mp4")
    assert "jumps" not in result.report.line()
    with av.open(str(tmp_path / "out.mp4")) as video:
        times = [float(frame.pts * frame.time_base) for frame in video.decode(video=0)]
    assert np.diff(times) == pytest.approx([0.04] * 99, abs=0.0002)
    assert audio_offsets(tmp_path / "out.mp4")[0] == pytest.approx(audio_offsets(path)[0], abs=0.002)


def test_avi_with_b_frames_keeps_its_frame_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.avi", frames=25, b_frames=2, after=[Audio("libmp3lame")])
    result = copy_video(path, tmp_path / "out.mp4")
    assert_equal_intervals(result, tmp_path / "out.mp4", tolerance=0.001)


@pytest.mark.parametrize("container", ["ts", "mkv", "mp4", "h264"])
def test_two_fields_are_one_frame(tmp_path: Path, container: str) -> None:
    """Interlaced H.264 with one packet per field (PAFF)."""
    result = copy_video(write_fields(tmp_path / f"in.{container}"), tmp_path / "out.mp4")
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
    assert [luma_of(frame.planes) for frame in result.frames] == list(frames)


def test_fields_of_mp4_are_not_counted_as_frames_in_avi(tmp_path: Path) -> None:
    """The average rate of MP4 counts each field."""
    copy_video(write_fields(tmp_path / "in.mp4", timed=True), tmp_path / "out.avi")
    with av.open(str(tmp_path / "out.avi")) as container:
        assert container.streams.video[0].average_rate == 25
        assert sum(bool(packet.size) for packet in container.demux(video=0)) == 20


@pytest.mark.parametrize("target", ["mp4", "mkv", "avi"])
def test_last_frame_of_two_fields_lasts_as_long_as_the_others(tmp_path: Path, target: str) -> None:
    result = copy_video(write_fields(tmp_path / "in.ts", timed=True), tmp_path / f"out.{target}")
    assert result.report.duration_difference_ms == pytest.approx(0, abs=1)
    with av.open(str(tmp_path / f"out.{target}")) as container:
        assert container.duration == pytest.approx(20 * 40_000, abs=1000)


def add_audio(video: Path, audio: Path, target: Path) -> Path:
    """Write the video of one file and the audio of another into MPEG-TS, in the order of their decoding times."""
    with av.open(str(video)) as first, av.open(str(audio)) as second, av.open(str(target), "w") as out:
        inputs = first.streams.video[0], second.streams.audio[0]
        outputs = [out.add_stream_from_template(stream) for stream in inputs]
        packets = [
            (packet.dts * packet.time_base, number, packet)
            for number, (container, stream) in enumerate(zip((first, second), inputs, strict=True))
            for packet in container.demux(stream)
            if packet.size
        ]
        for _, number, packet in sorted(packets, key=lambda entry: entry[:2]):
            packet.stream = outputs[number]
            out.mux(packet)
    return target


def test_joined_recordings_of_fields_stay_in_sync(tmp_path: Path) -> None:
    """The video has two packets per frame, and the audio of each recording is found by its position in the file."""
    audio = write_video(tmp_path / "audio.ts", frames=28, after=[Audio("mp2", seconds=1.12)])
    parts = [
        add_audio(write_fields(tmp_path / f"fields{n}.ts", frames=frames), audio, tmp_path / f"{n}.ts")
        for n, frames in enumerate((14, 28))
    ]
    result = copy_video(concatenate(tmp_path / "in.ts", *parts), tmp_path / "out.mp4")
    assert len(result.frames) == 42
    assert result.report.ok
    assert all(abs(point.difference_ms) < 2 for point in result.report.sync)


@pytest.mark.parametrize("container", ["mkv", "mp4", "ts"])
def test_reordered_fields_have_no_wrong_timestamps(tmp_path: Path, container: str) -> None:
    """Matroska stores no decoding times, and those that FFmpeg computes for fields are not in order."""
    path = write_reordered_fields(tmp_path / f"in.{container}")
    result = copy_video(path, tmp_path / "out.mp4")
    assert [luma_of(frame.planes) for frame in result.frames] == list(range(21))
    assert not any("wrong" in note or "jumps" in note for note in result.notes)
    assert (result.report.ok, result.report.repairs) == (True, ())
    assert result.report.timestamp_error_ms == 0
