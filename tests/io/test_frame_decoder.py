"""Frames behind a damaged one: as many as a plain FFmpeg decode without threads gives."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from fuzz_boxes import _rows, _set_rows, parse
from media import Audio, copy_video, write_video

ERRORS = (av.FFmpegError, OSError)


def plain_decode(path: Path) -> list[int | None]:
    """The time of each frame that FFmpeg can decode, one at a time, in ticks."""
    times: list[int | None] = []
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        video.codec_context.thread_type = "NONE"
        for packet in container.demux(video):
            try:
                times += [frame.pts for frame in video.codec_context.decode(packet) if not frame.is_corrupt]
            except ERRORS:
                continue
    return times


def damaged(path: Path, target: Path, *numbers: int) -> Path:
    """Copy an MP4 in which the slices of some packets are not what they say."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
        places = [(packet.pos, packet.size) for packet in packets]
    data = bytearray(path.read_bytes())
    for number in numbers:
        start, size = places[number]
        data[start : start + size] = bytes(np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8))
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("gop", [8, 250])
@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("numbers", [(20,), (97,), (30, 31), (10, 60), tuple(range(14, 99)), tuple(range(13, 90, 2))])
def test_a_damaged_frame_takes_no_other_with_it(
    tmp_path: Path, numbers: tuple[int, ...], b_frames: int, gop: int
) -> None:
    path = write_video(tmp_path / "whole.mp4", frames=100, gop=gop, b_frames=b_frames)
    hurt = damaged(path, tmp_path / "in.mp4", *numbers)
    expected = plain_decode(hurt)
    result = copy_video(hurt, tmp_path / "out.mp4")
    assert [frame.pts for frame in result.frames] == expected
    assert result.corrupt == 100 - len(expected) > 0


@pytest.mark.parametrize("row", [1, 5, 9, 11])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_chunks_that_lie_elsewhere_cost_only_their_own_frames(tmp_path: Path, b_frames: int, row: int) -> None:
    """An index without one of its chunks: from there on packets begin at the wrong bytes, up to the end of the file."""
    path = write_video(tmp_path / "whole.mp4", frames=30, gop=250, b_frames=b_frames, after=[Audio(seconds=1.2)])
    boxes = parse(path.read_bytes())
    table = next(box for box in boxes if box.name == b"moov").one(b"stco")
    rows = _rows(table)
    _set_rows(table, rows[:row] + rows[row + 1 :] + rows[:1])
    hurt = tmp_path / "in.mp4"
    hurt.write_bytes(b"".join(box.encode() for box in boxes))
    expected = plain_decode(hurt)
    result = copy_video(hurt, tmp_path / "out.mov")
    assert len(result.frames) == len(expected)
    assert result.corrupt == 30 - len(expected)


@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4"])
def test_frames_without_times_of_their_own_are_given_once(tmp_path: Path, codec: str) -> None:
    path = write_video(
        tmp_path / "whole.avi", codec=codec, frames=90, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p"
    )
    hurt = damaged(path, tmp_path / "in.avi", 70)
    result = copy_video(hurt, tmp_path / "out.mkv")
    assert len(result.frames) == len(plain_decode(hurt))


def test_times_are_compared_where_a_frame_is_missing(tmp_path: Path) -> None:
    """Frames a tenth of a millisecond apart, of which Matroska makes ten at the same time."""
    path = write_video(tmp_path / "whole.mp4", frames=40, rate=10_000, b_frames=0)
    result = copy_video(damaged(path, tmp_path / "in.mp4", 38), tmp_path / "out.mkv")
    assert result.corrupt
    assert "the timestamp of the previous one" in "; ".join(result.report.problems)
