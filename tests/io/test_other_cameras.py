"""A copied second camera is decodable from its first frame and in sync, also in a part of a file and with an edit list."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fuzz_boxes import _timescale, parse
from media import copy_video, number_of, numbered_image, read, to_pix_fmt


def write_cameras(
    path: Path,
    *,
    gop: int,
    frames: int = 75,
    frames_before_zero: int = 0,
    b_frames: int = 2,
    codec: str = "libx264",
    rear_delay_frames: int = 0,
    default: int | None = None,
) -> Path:
    """Write a front camera and a rear camera, whose frame numbers begin at 100.

    The rear camera begins `rear_delay_frames` after the front camera. `frames_before_zero` have negative timestamps.
    With the number of the `default` camera, German audio is written before both.
    """
    out = av.open(str(path), "w")
    packets = []
    if default is not None:
        audio: Any = out.add_stream("aac", rate=48000)
        audio.codec_context.layout, audio.metadata["language"] = "mono", "deu"
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 19200), np.int16), format="s16", layout="mono")
        wave.sample_rate, wave.pts = 48000, 0
        packets += [*audio.encode(wave), *audio.encode(None)]
    cameras: list[Any] = []
    for number in range(2):
        options = {"bf": str(b_frames), "sc_threshold": "0", "x264-params": f"bframes={b_frames}:b-adapt=0"}
        stream = out.add_stream(codec, rate=25, options=options if codec == "libx264" else {})
        stream.width, stream.height, stream.codec_context.gop_size = 96, 64, gop
        stream.codec_context.max_b_frames = b_frames
        if default is not None:
            stream.disposition = int(number == default)
        cameras.append(stream)
    for number in range(frames):
        for camera, stream in enumerate(cameras):
            frame = to_pix_fmt(numbered_image(number + 100 * camera), "yuv420p", 5, False)
            frame.pts, frame.time_base = number + camera * rear_delay_frames, Fraction(1, 25)
            packets += stream.encode(frame)
    for stream in cameras:
        packets += stream.encode(None)
    out.start_encoding()
    for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
        shift = round(Fraction(frames_before_zero, 25) / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        out.mux(packet)
    out.close()
    return path


@pytest.mark.parametrize("source", ["mp4", "mkv"])
@pytest.mark.parametrize("target", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(("b_frames", "first"), [(0, 25), (2, 25), (2, 26), (2, 27)])
def test_part_that_begins_between_key_frames_is_decodable(
    tmp_path: Path, source: str, target: str, b_frames: int, first: int
) -> None:
    """With two B-frames, one of three consecutive frames is displayed after frames that are decoded later."""
    path = write_cameras(tmp_path / f"in.{source}", gop=250, b_frames=b_frames)
    result = copy_video(path, tmp_path / f"out.{target}", start=first / 25, duration=1.0)
    assert [number_of(frame) for frame in read(tmp_path / f"out.{target}", stream=0)] == list(range(first, first + 25))
    rear = [number_of(frame) - 100 for frame in read(tmp_path / f"out.{target}", stream=1)]
    rear_first = first if target in ("mp4", "mov") else 0
    assert rear[: first - rear_first + 25] == list(range(rear_first, first + 25))
    assert len(rear) <= first + 25 - rear_first + b_frames  # up to `b_frames` reference frames follow the part
    front_frames, rear_frames = (read(tmp_path / f"out.{target}", stream=number) for number in (0, 1))
    rear_seconds = [frame.pts_seconds for frame in rear_frames[first - rear_first :][:25]]
    assert rear_seconds == pytest.approx([frame.pts_seconds for frame in front_frames], abs=0.0015)
    reported = any("video stream 1 before the first visible one" in repair.what for repair in result.report.repairs)
    assert reported == (target == "mkv")


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(("start", "displayed"), [(0.53, 13), (0.5, 12), (1.019, 25)])
def test_part_that_begins_between_two_frames_is_in_sync(
    tmp_path: Path, target: str, start: float, displayed: int
) -> None:
    """The frame of the copied camera that is displayed at the start of the part (number `displayed`) is kept."""
    path = write_cameras(tmp_path / "in.mp4", gop=30, b_frames=0)
    copy_video(path, tmp_path / f"out.{target}", start=start, duration=1.0)
    front = dict(plain_decode(tmp_path / f"out.{target}", 0, timed=True))
    rear = {number - 100: time for number, time in plain_decode(tmp_path / f"out.{target}", 1, timed=True)}
    same = sorted(front.keys() & rear.keys())
    assert same == list(range(displayed + 1, displayed + 26))
    assert [rear[number] for number in same] == pytest.approx([front[number] for number in same], abs=0.0015)
    assert rear[displayed] == pytest.approx(front[displayed + 1] - (displayed + 1) / 25 + start, abs=0.0015)
    assert (set(rear) == {displayed, *same}) == (target != "mkv")


def packet_times(path: Path, stream: int) -> list[float]:
    """Return the decode timestamps of the packets of an AVI stream, seconds. Reads with PyAV only."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.video[stream])
        return [float(packet.dts * packet.time_base) for packet in packets if packet.size]


def plain_decode(path: Path, stream: int, timed: bool = False) -> list[tuple[int, float]]:
    """Decode with PyAV only; return (number, seconds) of each frame: the decode timestamp, or with `timed` the presentation one."""
    with av.open(str(path)) as container:
        video = container.streams.video[stream]
        video.thread_type = "NONE"
        rows = [(frame, frame.to_ndarray(format="gray")[frame.height // 2]) for frame in container.decode(video)]
    bits = [frame_row[[96 * (2 * bit + 1) // 16 for bit in range(8)]] > 127 for _, frame_row in rows]
    numbers = [sum(1 << bit for bit in range(8) if values[bit]) for values in bits]
    times = [float(((frame.pts if timed else frame.dts) or 0) * frame.time_base) for frame, _ in rows]
    return list(zip(numbers, times, strict=True))


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("source", ["mp4", "mov", "mkv", "ts"])
def test_copied_camera_in_avi_is_in_sync_with_the_segmented_one(tmp_path: Path, source: str, b_frames: int) -> None:
    path = write_cameras(tmp_path / f"in.{source}", gop=25, frames=30, b_frames=b_frames)
    result = copy_video(path, tmp_path / "out.avi")
    decoded = [plain_decode(tmp_path / "out.avi", stream) for stream in (0, 1)]
    assert [[number for number, _ in frames] for frames in decoded] == [[*range(30)], [*range(100, 130)]]
    times = [packet_times(tmp_path / "out.avi", stream) for stream in (0, 1)]
    assert times[0] == pytest.approx([number / 25 for number in range(30)])
    assert times[1] == pytest.approx(times[0], abs=0.002)
    assert "packet" not in " ".join(repair.what for repair in result.report.repairs)
    # AVI has no presentation times. The report contains the delay of those that FFmpeg derives.
    delay = decoded[1][0][1] - times[1][0]
    reported = [repair for repair in result.report.repairs if "reordered frames of video stream 1" in repair.what]
    assert [repair.seconds for repair in reported] == ([pytest.approx(delay)] if b_frames else [])
    assert bool(delay) == bool(b_frames)


def test_copied_mpeg4_camera_in_avi_is_in_sync(tmp_path: Path) -> None:
    path = write_cameras(tmp_path / "in.mp4", gop=12, frames=30, codec="mpeg4")
    result = copy_video(path, tmp_path / "out.avi")
    assert not result.report.repairs
    decoded = plain_decode(tmp_path / "out.avi", 1)
    assert [number for number, _ in decoded] == [*range(100, 130)]
    assert [time for _, time in decoded][:-1] == pytest.approx([number / 25 for number in range(29)], abs=0.002)


@pytest.mark.parametrize(("b_frames", "rear_delay"), [(0, 5), (2, 5), (0, -5), (2, -5)])
def test_copied_camera_in_avi_keeps_its_start_time(tmp_path: Path, b_frames: int, rear_delay: int) -> None:
    """AVI begins at zero with the segmented camera. A later camera keeps its delay, an earlier one begins at its next key frame."""
    path = write_cameras(
        tmp_path / "in.mkv",
        gop=20,
        frames=40,
        b_frames=b_frames,
        rear_delay_frames=rear_delay,
        frames_before_zero=min(0, rear_delay),
    )
    result = copy_video(path, tmp_path / "out.avi")
    first = 0 if rear_delay > 0 else 20
    assert [number for number, _ in plain_decode(tmp_path / "out.avi", 1)] == [*range(100 + first, 140)]
    expected = [(number + rear_delay) / 25 for number in range(first, 40)]
    assert packet_times(tmp_path / "out.avi", 1) == pytest.approx(expected, abs=0.002)
    reported = [repair.count for repair in result.report.repairs if "left out up to its next key frame" in repair.what]
    assert reported == ([20] if rear_delay < 0 else [])
    with av.open(str(tmp_path / "out.avi")) as container:
        assert container.streams.best("video").index == 0


def test_copied_camera_of_an_avi_part_begins_at_the_next_key_frame(tmp_path: Path) -> None:
    path = write_cameras(tmp_path / "in.mp4", gop=40)
    result = copy_video(path, tmp_path / "out.avi", start=1.0, duration=1.0)
    assert [number for number, _ in plain_decode(tmp_path / "out.avi", 0)] == [*range(25, 50)]
    assert [number for number, _ in plain_decode(tmp_path / "out.avi", 1)][:10] == [*range(140, 150)]
    assert packet_times(tmp_path / "out.avi", 1)[0] == pytest.approx(0.6, abs=0.002)
    message = "video stream 1 begins at its next key frame, as avi can't hide packets before it"
    assert message in result.notes


@pytest.mark.parametrize("start", [None, 0.4])
@pytest.mark.parametrize("target", ["mp4", "mkv", "ts", "avi"])
def test_copied_camera_from_avi_is_in_display_order(tmp_path: Path, target: str, start: float | None) -> None:
    """AVI has no presentation times for reordered frames."""
    path = write_cameras(tmp_path / "in.avi", gop=10, frames=30)
    result = copy_video(path, tmp_path / f"out.{target}", start=start)
    first = round((start or 0) * 25)
    rear = plain_decode(tmp_path / f"out.{target}", 1, timed=True)
    assert [number for number, _ in rear] == [*range(100 + first, 130)]
    times = packet_times(tmp_path / "out.avi", 1) if target == "avi" else [time for _, time in rear]
    start_seconds = result.frames[0].pts_seconds + (0.08 if target == "ts" else 0)
    assert times == pytest.approx([start_seconds + number / 25 for number in range(30 - first)], abs=0.002)


@pytest.mark.parametrize(("gop", "first"), [(40, 40), (250, None)])
def test_copied_camera_in_mpeg_ts_begins_at_its_next_key_frame(tmp_path: Path, gop: int, first: int | None) -> None:
    """MPEG-TS has no default flag: players select the camera with more frames at the beginning."""
    path = write_cameras(tmp_path / "in.mp4", gop=gop, b_frames=0)
    result = copy_video(path, tmp_path / "out.ts", start=1.0, duration=1.0)
    message = "begins at its next key frame, as mpegts can't hide packets before it"
    assert f"video stream 1 {message if first else 'is empty: none of its key frames is in the part'}" in result.notes
    assert (
        f"{first - 25 if first else 25} packets of video stream 1 left out up to its next key" in result.report.line()
    )
    with av.open(str(tmp_path / "out.ts")) as container:
        assert container.streams.best("video").index == 0
    assert [number_of(frame) for frame in read(tmp_path / "out.ts", stream=0)] == list(range(25, 50))
    if first is not None:
        rear = [number_of(frame) - 100 for frame in read(tmp_path / "out.ts", stream=1)]
        assert rear == list(range(first, 50))


def test_last_frame_of_a_copied_camera_is_displayed(tmp_path: Path) -> None:
    """FFmpeg's muxer ends the edit list with the last fragment, which here begins after the last displayed frame."""
    path = write_cameras(tmp_path / "in.mp4", gop=12, frames=48)
    copy_video(path, tmp_path / "out.mp4")
    assert [number for number, _ in plain_decode(tmp_path / "out.mp4", 1)] == [*range(100, 148)]


@pytest.mark.parametrize("target", ["mp4", "mkv"])
def test_beginning_hidden_by_an_edit_list_stays_hidden_in_mp4(tmp_path: Path, target: str) -> None:
    path = write_cameras(tmp_path / "in.mp4", gop=250, frames_before_zero=10)
    assert [number_of(frame) for frame in read(path)] == list(range(10, 75))  # checks the input file
    copy_video(path, tmp_path / f"out.{target}")
    rear = read(tmp_path / f"out.{target}", stream=1)
    hidden = 0 if target == "mp4" else 10
    assert [number_of(frame) - 100 for frame in rear] == list(range(10 - hidden, 75))
    front = read(tmp_path / f"out.{target}", stream=0)
    assert rear[hidden].pts_seconds == pytest.approx(front[0].pts_seconds, abs=0.0015)


def test_packets_hidden_by_an_edit_list_are_reported(tmp_path: Path) -> None:
    """FFmpeg's muxers can't store hidden packets: frames after the cut lack their reference frames."""
    path = write_cameras(tmp_path / "whole.mp4", gop=250, b_frames=0)
    boxes = parse(path.read_bytes())
    moov = next(box for box in boxes if box.name == b"moov")
    for track in moov.all(b"trak"):
        table = track.one(b"elst")
        scale, ticks = _timescale(moov, b"mvhd"), _timescale(track, b"mdhd")
        edits = [(scale, 0), (scale, 2 * ticks)]  # 1 s from 0 s, then 1 s from 2 s
        packed = b"".join(struct.pack(">IiHH", long, at, 1, 0) for long, at in edits)
        table.payload = struct.pack(">II", 0, len(edits)) + packed  # the index follows the data: no offset changes
    (tmp_path / "in.mp4").write_bytes(b"".join(box.encode() for box in boxes))
    result = copy_video(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert [number_of(frame) for frame in result.frames] == [*range(25), *range(50, 75)]
    assert np.diff([frame.pts_seconds for frame in result.frames]) == pytest.approx(0.04)
    assert any("packets that an edit list hides between others left out" in note for note in result.notes)


def test_part_of_two_cameras_with_edit_lists_is_in_sync(tmp_path: Path) -> None:
    path = write_cameras(tmp_path / "in.mp4", gop=30, frames_before_zero=10)
    copy_video(path, tmp_path / "out.mp4", start=0.5, duration=1.0)
    numbers = [[number_of(frame) % 100 for frame in read(tmp_path / "out.mp4", stream=stream)] for stream in (0, 1)]
    assert numbers[0] == list(range(23, 48))
    assert numbers[1][:26] == [22, *numbers[0]]  # 0.5 s is between two frames: the previous one continues


def test_camera_that_begins_with_a_key_frame_is_unchanged(tmp_path: Path) -> None:
    path = write_cameras(tmp_path / "in.mp4", gop=25, b_frames=0)
    result = copy_video(path, tmp_path / "out.mkv", start=1.0, duration=1.0)
    assert not result.report.repairs
    assert [number_of(frame) - 100 for frame in read(tmp_path / "out.mkv", stream=1)] == list(range(25, 50))
