"""Clock errors of a single stream, and parts of a video that begin between two frames.

The expected times are those of the file before it was changed.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from field_video import luma_of, write_fields
from media import Audio, copy_video, number_of, read, write_video
from timestamp_media import assert_equal_intervals, concatenate, fake_packet, presentation_times, shift_pes_timestamp

from rtseg.io.inputs.file_clock import Clock


def _map_packets(streams: list[Any], packets: list[Any], **options: Any) -> tuple[Clock, dict[int, list[float | None]]]:
    """Pass packets through a clock; return the clock and the decode timestamps per stream, seconds."""
    clock = Clock(streams, 0, **{"arbitrary": True, **options})
    times: dict[int, list[float | None]] = {}
    units = {stream.index: stream.time_base for stream in streams}
    for packet in clock.map(iter(packets)):
        seconds = None if packet.dts is None else float(packet.dts * units[packet.stream_index])
        times.setdefault(packet.stream_index, []).append(seconds)
    return clock, times


def _video_and_audio(ticks_per_second: int = 90_000) -> list[Any]:
    kinds = enumerate(("video", "audio"))
    return [
        SimpleNamespace(index=n, type=kind, time_base=Fraction(1, ticks_per_second), start_time=0) for n, kind in kinds
    ]


def test_hidden_packets_do_not_affect_the_clock() -> None:
    """Two edits of one track: FFmpeg seeks to the key frame before the second one and marks the packets before it as discarded."""
    packets = [fake_packet(0, n * 3600, 3600) for n in range(25)]
    hidden = [fake_packet(0, (n - 10) * 3600 + 25 * 3600, 3600) for n in range(10)]
    for packet in hidden:
        packet.is_discard = True
    packets += hidden + [fake_packet(0, n * 3600, 3600) for n in range(25, 50)]
    clock, times = _map_packets(_video_and_audio()[:1], packets, arbitrary=False)
    assert clock.jumps == []
    assert not clock.wrong_stamps
    displayed = [time for number, time in enumerate(times[0]) if not 25 <= number < 35]
    assert displayed == pytest.approx([n * 0.04 for n in range(50)])


def test_backward_step_of_video_only_keeps_sync() -> None:
    video = [(n * 0.04, fake_packet(0, n * 3600 - (27_000 if n >= 40 else 0), 3600)) for n in range(100)]
    audio = [(n * 0.024, fake_packet(1, n * 2160, 2160)) for n in range(170)]
    packets = [packet for _, packet in sorted([*video, *audio], key=lambda pair: pair[0])]
    clock, times = _map_packets(_video_and_audio(), packets)
    assert clock.jumps == []
    assert times[1] == pytest.approx([n * 0.024 for n in range(170)])
    assert times[0][50:] == pytest.approx([n * 0.04 - 0.3 for n in range(50, 100)])


def test_recording_at_another_frame_rate_is_a_clock_jump() -> None:
    """The second recording has 10 FPS. Its later timestamps could belong to the first one."""
    packets = [fake_packet(0, n * 3600, 3600) for n in range(30)] + [fake_packet(0, n * 9000, 3600) for n in range(60)]
    clock, times = _map_packets(_video_and_audio()[:1], packets)
    assert [jump.seconds for jump in clock.jumps] == [pytest.approx(1.2)]
    assert times[0][30:] == pytest.approx([1.2 + n * 0.1 for n in range(60)])


def test_early_timestamp_after_a_gap_is_the_wrong_one() -> None:
    stamps = [n * 3600 for n in range(20)] + [n * 3600 + 63_000 for n in range(20, 40)]
    stamps[22] -= 63_000
    clock, times = _map_packets(_video_and_audio()[:1], [fake_packet(0, stamp, 3600) for stamp in stamps])
    assert clock.wrong_stamps == {0: 1}
    assert times[0][21] == pytest.approx(21 * 0.04 + 0.7)
    assert times[0][22] is None


def test_equal_decode_timestamps_guessed_by_ffmpeg_are_accepted() -> None:
    packets = [fake_packet(0, stamp, 40) for stamp in (0, 40, 80, 120, 120, 160, 200)]
    clock, times = _map_packets(_video_and_audio(1000)[:1], packets, arbitrary=False, decoding_times=False)
    assert not clock.wrong_stamps
    assert None not in times[0]


@pytest.mark.parametrize("pause", [4, 100])
def test_no_packet_is_lost_if_audio_begins_far_from_the_video(pause: int) -> None:
    """The audio has a separate clock and begins in the middle of the file, with few or no frames between its packets."""
    streams = _video_and_audio()
    streams[1].start_time = None
    packets = [fake_packet(0, n * 3600, 3600) for n in range(10)]
    for n in range(2):
        begin = 8 * 90_000 + n * pause * 1920
        packets += [fake_packet(1, begin + k * 1920, 1920) for k in range(pause)]
        packets.append(fake_packet(0, (10 + n) * 3600, 3600))
    mapped = list(Clock(streams, 0, arbitrary=True).map(packets))
    assert mapped == packets
    assert [packet.pts for packet in mapped if packet.stream_index == 0] == [n * 3600 for n in range(12)]


@pytest.mark.parametrize(("codec", "shift_seconds"), [("mp2", 0.07), ("aac", -0.2), ("aac", 0.06)])
def test_slightly_shifted_audio_packets_are_corrected(tmp_path: Path, codec: str, shift_seconds: float) -> None:
    """An MPEG-TS timestamp applies to several audio packets: all of them are shifted."""
    path = write_video(tmp_path / "whole.ts", frames=75, b_frames=0, after=[Audio(codec, seconds=3)])
    changed = shift_pes_timestamp(path, tmp_path / "in.ts", shift_seconds, "audio", 4)
    assert presentation_times(changed)[1] != presentation_times(path)[1]
    copy_video(changed, tmp_path / "out.ts")
    moved = np.subtract(presentation_times(tmp_path / "out.ts")[1], presentation_times(path)[1])
    assert np.abs(moved - moved[0]).max() < 0.02


def test_two_distant_wrong_timestamps_are_corrected(tmp_path: Path) -> None:
    path = write_video(tmp_path / "whole.ts", frames=75, b_frames=0, after=[Audio(seconds=3)])
    one_shift = shift_pes_timestamp(path, tmp_path / "one.ts", 1.0, "video", 30)
    two_shifts = shift_pes_timestamp(one_shift, tmp_path / "in.ts", -1.0, "video", 50)
    result = copy_video(two_shifts, tmp_path / "out.ts")
    assert_equal_intervals(result, tmp_path / "out.ts")


@pytest.mark.parametrize(("start", "first"), [(0.3, 0.02), (0.5, 0.02), (0.04, 0.0), (1.0, 0.0)])
def test_avi_part_begins_between_two_frames(tmp_path: Path, start: float, first: float) -> None:
    path = write_video(
        tmp_path / "in.avi", frames=75, codec="mjpeg", pix_fmt="yuvj420p", after=[Audio("pcm_s16le", seconds=3)]
    )
    copy_video(path, tmp_path / "out.mkv", start=start, duration=1.2)
    frames = read(tmp_path / "out.mkv")
    expected = [number * 0.04 - start for number in range(75) if start <= number * 0.04 < start + 1.2]
    assert [frame.pts_seconds for frame in frames] == pytest.approx(expected, abs=0.001)
    assert frames[0].pts_seconds == pytest.approx(first, abs=0.001)


@pytest.mark.parametrize("start", [0.1, 0.3, 0.31])
def test_part_of_field_video_begins_with_a_whole_frame(tmp_path: Path, start: float) -> None:
    path = write_fields(tmp_path / "in.mkv")
    whole = copy_video(path, tmp_path / "whole.mkv").frames
    result = copy_video(path, tmp_path / "out.mp4", start=start)
    expected = [frame for frame in whole if frame.pts_seconds >= start]
    assert [luma_of(frame.planes) for frame in result.frames] == [luma_of(frame.planes) for frame in expected]
    times = [frame.pts_seconds - start for frame in expected]
    assert [frame.pts_seconds for frame in result.frames] == pytest.approx(times)


def test_last_frame_before_a_join_is_displayed_before_the_gap(tmp_path: Path) -> None:
    """An MPEG program stream whose audio is longer than its video, and whose last frame has no timestamp."""
    part = write_video(
        tmp_path / "part.mpg", frames=55, codec="mpeg2video", b_frames=2, after=[Audio("mp2", seconds=3)]
    )
    path = concatenate(tmp_path / "in.mpg", part, part)
    copy_video(path, tmp_path / "out.mp4")
    times = [frame.pts_seconds for frame in read(tmp_path / "out.mp4")]
    assert len(times) == 110
    steps = np.diff(times)
    assert steps[53] == pytest.approx(0.04, abs=0.001)
    assert steps[54] > 0.5


@pytest.mark.parametrize(("codec", "reported"), [("wavpack", True), ("ac3", False)])
def test_late_audio_of_a_part_is_reported(tmp_path: Path, codec: str, reported: bool) -> None:
    """WavPack packets last one second and can't be cut."""
    path = write_video(tmp_path / "in.mkv", frames=75, after=[Audio(codec, seconds=3)])
    result = copy_video(path, tmp_path / "out.mkv", start=0.5)
    assert any("audio stream 1 begins 0.50 s later than the part" in note for note in result.notes) == reported
    assert presentation_times(tmp_path / "out.mkv")[1][0] == pytest.approx(0.5 if reported else 0.0, abs=0.04)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize(("start", "duration"), [(0.7, 1.0), (0.3, 0.5), (0.5, 0.76), (None, 1.0), (1.3, None)])
def test_part_of_avi_with_b_frames_contains_the_requested_frames(
    tmp_path: Path, codec: str, start: float | None, duration: float | None
) -> None:
    """The last frame in display order is not the last one in decode order."""
    path = write_video(tmp_path / "in.avi", frames=75, codec=codec, b_frames=3, gop=30, after=[Audio("mp3", seconds=3)])
    whole = read(path)
    copy_video(path, tmp_path / "out.mkv", start=start, duration=duration)
    begin, end = start or 0.0, (start or 0.0) + (duration or 9.0)
    expected = [number_of(frame) for frame in whole if begin - 1e-6 <= frame.pts_seconds < end - 1e-6]
    assert [number_of(frame) for frame in read(tmp_path / "out.mkv")] == expected


@pytest.mark.parametrize("start", [0.5, 0.58, 0.6, 0.62, 0.9])
def test_part_of_program_stream_decodes_from_the_previous_key_frame(tmp_path: Path, start: float) -> None:
    path = write_video(
        tmp_path / "in.mpg", frames=75, codec="mpeg2video", b_frames=2, gop=15, after=[Audio("mp2", seconds=3)]
    )
    whole = read(path)
    result = copy_video(path, tmp_path / "out.mp4", start=start)
    begin = whole[0].pts_seconds + start
    assert [number_of(f) for f in result.frames] == [number_of(f) for f in whole if f.pts_seconds >= begin - 1e-6]


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "h264"), ("libx265", "hevc"), ("mpeg2video", "m2v")])
@pytest.mark.parametrize(("start", "duration"), [(None, 0.4), (0.4, None)])
def test_part_of_raw_stream_has_the_requested_length(
    tmp_path: Path, codec: str, suffix: str, start: float | None, duration: float | None
) -> None:
    path = tmp_path / f"in.{suffix}"
    write_video(path, frames=50, codec=codec, b_frames=2, container="mpeg2video" if suffix == "m2v" else suffix)
    result = copy_video(path, tmp_path / "out.mp4", start=start, duration=duration)
    assert len(result.frames) == pytest.approx(10 if start is None else 40, abs=2)


@pytest.mark.parametrize(("start", "duration", "count"), [(None, 0.4, 10), (0.2, None, 15)])
def test_part_of_raw_field_stream_has_the_requested_length(
    tmp_path: Path, start: float | None, duration: float | None, count: int
) -> None:
    """A raw stream has no timestamps: they are computed from the frame rate."""
    path = write_fields(tmp_path / "in.h264")
    result = copy_video(path, tmp_path / "out.mp4", start=start, duration=duration)
    assert len(result.frames) == count


def test_part_across_a_join_reports_uncompared_timestamps(tmp_path: Path) -> None:
    part = write_video(tmp_path / "part.ts", frames=50, b_frames=0, after=[Audio(seconds=2)])
    path = concatenate(tmp_path / "in.ts", part, part)
    result = copy_video(path, tmp_path / "out.mp4", start=1.0, duration=2.0)
    assert [number_of(frame) for frame in result.frames] == [*range(25, 50), *range(25)]
    reason = "timestamps of this part not compared, because the input's clock jumps"
    assert (result.report.not_compared, result.report.repairs) == ((reason,), ())
    assert reason in result.report.line()
