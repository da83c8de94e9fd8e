"""Decoding of damaged files returns the same frames as single-threaded FFmpeg."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from fuzz_boxes import _rows, _set_rows, parse
from media import Audio, copy_video, write_video

DECODE_ERRORS = (av.FFmpegError, OSError)


def single_threaded_decode(path: Path) -> list[int | None]:
    """Return the timestamps of all frames that FFmpeg decodes with a single thread, in ticks."""
    times: list[int | None] = []
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        video.codec_context.thread_type = "NONE"
        for packet in container.demux(video):
            try:
                times += [frame.pts for frame in video.codec_context.decode(packet) if not frame.is_corrupt]
            except DECODE_ERRORS:
                continue
    return times


def copy_with_damage(path: Path, target: Path, *numbers: int) -> Path:
    """Copy a file and replace the data of the numbered packets with noise."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
        ranges = [(packet.pos, packet.size) for packet in packets]
    data = bytearray(path.read_bytes())
    for number in numbers:
        start, size = ranges[number]
        data[start : start + size] = bytes(np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8))
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("gop", [8, 250])
@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("numbers", [(20,), (97,), (30, 31), (10, 60), tuple(range(14, 99)), tuple(range(13, 90, 2))])
def test_damaged_frame_loses_no_other_frames(tmp_path: Path, numbers: tuple[int, ...], b_frames: int, gop: int) -> None:
    path = write_video(tmp_path / "whole.mp4", frames=100, gop=gop, b_frames=b_frames)
    corrupt = copy_with_damage(path, tmp_path / "in.mp4", *numbers)
    expected = single_threaded_decode(corrupt)
    result = copy_video(corrupt, tmp_path / "out.mp4")
    assert [frame.pts for frame in result.frames] == expected
    assert result.corrupt == 100 - len(expected) > 0


@pytest.mark.parametrize("row", [1, 5, 9, 11])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_wrong_chunk_offsets_lose_only_their_own_frames(tmp_path: Path, b_frames: int, row: int) -> None:
    """The index lacks one chunk offset: all later packets begin at wrong bytes."""
    path = write_video(tmp_path / "whole.mp4", frames=30, gop=250, b_frames=b_frames, after=[Audio(seconds=1.2)])
    boxes = parse(path.read_bytes())
    table = next(box for box in boxes if box.name == b"moov").one(b"stco")
    rows = _rows(table)
    _set_rows(table, rows[:row] + rows[row + 1 :] + rows[:1])
    corrupt = tmp_path / "in.mp4"
    corrupt.write_bytes(b"".join(box.encode() for box in boxes))
    expected = single_threaded_decode(corrupt)
    result = copy_video(corrupt, tmp_path / "out.mov")
    assert len(result.frames) == len(expected)
    assert result.corrupt == 30 - len(expected)


@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4"])
def test_frames_without_timestamps_are_returned_once(tmp_path: Path, codec: str) -> None:
    path = write_video(
        tmp_path / "whole.avi", codec=codec, frames=90, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p"
    )
    corrupt = copy_with_damage(path, tmp_path / "in.avi", 70)
    result = copy_video(corrupt, tmp_path / "out.mkv")
    assert len(result.frames) == len(single_threaded_decode(corrupt))


def test_timestamps_are_compared_if_a_frame_is_missing(tmp_path: Path) -> None:
    """With frame intervals of 0.1 ms, ten frames get the same timestamp in Matroska, whose time base is 1 ms."""
    path = write_video(tmp_path / "whole.mp4", frames=40, rate=10_000, b_frames=0)
    result = copy_video(copy_with_damage(path, tmp_path / "in.mp4", 38), tmp_path / "out.mkv", verified=False)
    assert result.corrupt
    assert "the timestamp of the previous one" in "; ".join(result.report.problems)
