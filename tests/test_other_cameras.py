"""A second camera that is copied can be decoded from its first frame on, in a part of a file and behind an edit list."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fuzz_boxes import _timescale, parse
from media import number_of, picture, read, through, to_pix_fmt


def write_cameras(path: Path, *, gop: int, frames: int = 75, begins: int = 0, b_frames: int = 2) -> Path:
    """Write a front camera and a rear one, whose frames count from 100; both begin `begins` frames before zero."""
    out = av.open(str(path), "w")
    cameras: list[Any] = []
    for _ in range(2):
        options = {"bf": str(b_frames), "sc_threshold": "0", "x264-params": f"bframes={b_frames}:b-adapt=0"}
        stream = out.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.codec_context.gop_size = 96, 64, gop
        cameras.append(stream)
    packets = []
    for number in range(frames):
        for place, stream in enumerate(cameras):
            frame = to_pix_fmt(picture(number + 100 * place), "yuv420p", 5, False)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            packets += stream.encode(frame)
    for stream in cameras:
        packets += stream.encode(None)
    out.start_encoding()
    for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
        moved = round(Fraction(begins, 25) / packet.time_base)
        packet.pts, packet.dts = packet.pts - moved, packet.dts - moved
        out.mux(packet)
    out.close()
    return path


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_part_begins_between_two_key_frames(tmp_path: Path, target: str, b_frames: int) -> None:
    path = write_cameras(tmp_path / "in.mp4", gop=250, b_frames=b_frames)
    result = through(path, tmp_path / f"out.{target}", start=1.0, duration=1.0)
    assert result.report.ok, result.report.line()
    assert [number_of(frame) for frame in read(tmp_path / f"out.{target}", stream=0)] == list(range(25, 50))
    rear = [number_of(frame) - 100 for frame in read(tmp_path / f"out.{target}", stream=1)]
    begins = 25 if target in ("mp4", "mov") else 0
    assert rear[: 25 - begins + 25] == list(range(begins, 50))
    assert len(rear) <= 50 - begins + b_frames  # frames behind the part that others are decoded from
    front, back = (read(tmp_path / f"out.{target}", stream=number) for number in (0, 1))
    assert back[25 - begins].pts_seconds == pytest.approx(front[0].pts_seconds, abs=0.0015)
    told = any("video stream 1 before the first that is shown" in repair.what for repair in result.report.repairs)
    assert told == (target == "mkv")


@pytest.mark.parametrize(("gop", "first"), [(40, 40), (250, None)])
def test_in_mpeg_ts_a_copied_camera_begins_at_its_next_key_frame(tmp_path: Path, gop: int, first: int | None) -> None:
    """It has no default stream: players open the one with more frames at the beginning."""
    path = write_cameras(tmp_path / "in.mp4", gop=gop, b_frames=0)
    result = through(path, tmp_path / "out.ts", start=1.0, duration=1.0)
    assert result.report.ok, result.report.line()
    assert any("video stream 1" in note and "left out, as mpegts can't hide any" in note for note in result.notes)
    assert "of video stream 1 left out up to its next key frame" in result.report.line()
    with av.open(str(tmp_path / "out.ts")) as container:
        assert container.streams.best("video").index == 0
    assert [number_of(frame) for frame in read(tmp_path / "out.ts", stream=0)] == list(range(25, 50))
    if first is not None:
        rear = [number_of(frame) - 100 for frame in read(tmp_path / "out.ts", stream=1)]
        assert rear == list(range(first, 50))


@pytest.mark.parametrize("target", ["mp4", "mkv"])
def test_an_edit_list_hides_the_beginning(tmp_path: Path, target: str) -> None:
    path = write_cameras(tmp_path / "in.mp4", gop=250, begins=10)
    assert [number_of(frame) for frame in read(path)] == list(range(10, 75))  # the input is what it ought to be
    result = through(path, tmp_path / f"out.{target}")
    assert result.report.ok, result.report.line()
    rear = read(tmp_path / f"out.{target}", stream=1)
    hidden = 0 if target == "mp4" else 10
    assert [number_of(frame) - 100 for frame in rear] == list(range(10 - hidden, 75))
    front = read(tmp_path / f"out.{target}", stream=0)
    assert rear[hidden].pts_seconds == pytest.approx(front[0].pts_seconds, abs=0.0015)


def test_what_an_edit_list_cuts_out_of_the_middle_of_a_copied_camera_is_told(tmp_path: Path) -> None:
    """FFmpeg's muxers have no place for it: frames behind the cut lack what they were decoded from."""
    path = write_cameras(tmp_path / "whole.mp4", gop=250, b_frames=0)
    boxes = parse(path.read_bytes())
    moov = next(box for box in boxes if box.name == b"moov")
    for track in moov.all(b"trak"):
        table = track.one(b"elst")
        scale, ticks = _timescale(moov, b"mvhd"), _timescale(track, b"mdhd")
        edits = [(scale, 0), (scale, 2 * ticks)]  # a second from 0 s, a second from 2 s
        packed = b"".join(struct.pack(">IiHH", long, at, 1, 0) for long, at in edits)
        table.payload = struct.pack(">II", 0, len(edits)) + packed  # the index lies behind the data: no place changes
    (tmp_path / "in.mp4").write_bytes(b"".join(box.encode() for box in boxes))
    result = through(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert result.report.ok, result.report.line()
    assert [number_of(frame) for frame in result.frames] == [*range(25), *range(50, 75)]
    assert np.diff([frame.pts_seconds for frame in result.frames]) == pytest.approx(0.04)
    assert any("packets that an edit list hides between others left out" in note for note in result.notes)


def test_a_part_of_a_cut_of_two_cameras(tmp_path: Path) -> None:
    path = write_cameras(tmp_path / "in.mp4", gop=30, begins=10)
    result = through(path, tmp_path / "out.mp4", start=0.5, duration=1.0)
    assert result.report.ok, result.report.line()
    numbers = [[number_of(frame) % 100 for frame in read(tmp_path / "out.mp4", stream=stream)] for stream in (0, 1)]
    assert numbers[0] == list(range(23, 48))
    assert numbers[1][:25] == numbers[0]


def test_a_camera_that_begins_with_a_key_frame_is_left_as_it_is(tmp_path: Path) -> None:
    path = write_cameras(tmp_path / "in.mp4", gop=25, b_frames=0)
    result = through(path, tmp_path / "out.mkv", start=1.0, duration=1.0)
    assert result.report.ok
    assert not result.report.repairs
    assert [number_of(frame) - 100 for frame in read(tmp_path / "out.mkv", stream=1)] == list(range(25, 50))
