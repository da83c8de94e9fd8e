"""Time codes in tracks and metadata are kept, or their loss is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import copy_video, numbered_image, to_pix_fmt


def _write(path: Path, *cameras: str, codec: str = "mpeg4", file_code: str = "", audio_code: str | None = None) -> Path:
    """Write ten frames of each camera, with its time code (empty: none), and with `audio_code` an audio stream."""
    codes = [*cameras, *([] if audio_code is None else [audio_code])]
    with av.open(str(path), "w") as out:
        streams: list[Any] = [out.add_stream(codec, rate=25) for _ in cameras]
        for stream in streams:
            stream.width, stream.height = 96, 64
        if audio_code is not None:
            streams.append(out.add_stream("mp2", rate=48000))
        for tagged, code in zip([out, *streams], [file_code, *codes], strict=True):
            tagged.metadata.update({"timecode": code} if code else {})
        for number in range(10):
            for stream in streams[: len(cameras)]:
                out.mux(stream.encode(to_pix_fmt(numbered_image(number), "yuv420p", 5, False)))
            for stream in streams[len(cameras) :]:
                piece = av.AudioFrame.from_ndarray(np.zeros((1, 2304), np.int16), format="s16", layout="stereo")
                piece.sample_rate, piece.pts = 48000, 1152 * number
                out.mux(stream.encode(piece))
        for stream in streams[: len(cameras)]:
            out.mux(stream.encode(None))
    return path


def _write_time_code(path: Path) -> Path:
    """Write a MOV with a time code track."""
    _write(path, "10:11:12:13", codec="libx264")
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]
    return path


def _time_codes(container: Any) -> set[str]:
    """Return all time codes of a file and of its streams."""
    all_metadata = [container.metadata, *(stream.metadata for stream in container.streams)]
    return {value for metadata in all_metadata for key, value in metadata.items() if key.lower() == "timecode"}


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv", "ts", "avi", "webm"])
def test_time_code_track_is_kept_or_reported(tmp_path: Path, target: str) -> None:
    path = _write_time_code(tmp_path / "in.mov")
    result = copy_video(path, tmp_path / f"out.{target}")
    with av.open(str(tmp_path / f"out.{target}")) as container:
        track_codes = [stream.metadata.get("timecode") for stream in container.streams if stream.type == "data"]
        codes = _time_codes(container)
    if target in ("mp4", "mov"):
        assert track_codes == ["10:11:12:13"]
    if target in ("mp4", "mov", "mkv", "webm"):
        assert codes == {"10:11:12:13"}
        assert result.notes == ()
        assert "time code kept" in result.report.line()
    else:
        assert codes == set()
        assert "time code left out" in result.report.line()
        format_name = {"ts": "mpegts"}.get(target, target)
        assert f"{format_name} can't hold data stream 1 (time code): dropped" in result.notes


@pytest.mark.parametrize("target", ["mov", "mkv"])
def test_time_code_of_a_part_is_dropped_and_reported(tmp_path: Path, target: str) -> None:
    path = _write_time_code(tmp_path / "in.mov")
    result = copy_video(path, tmp_path / f"out.{target}", start=0.2)
    with av.open(str(tmp_path / f"out.{target}")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert _time_codes(container) == set()
    assert "time code left out" in result.report.line()
    assert "data stream 1 (time code) is not kept for a part of a video: dropped" in result.notes


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv"])
def test_time_codes_of_two_cameras_are_kept_or_reported(tmp_path: Path, target: str) -> None:
    codes = ["10:11:12:13", "20:00:00:00"]
    result = copy_video(_write(tmp_path / "in.mov", *codes), tmp_path / f"out.{target}")
    with av.open(str(tmp_path / f"out.{target}")) as container:
        kept = [s.metadata["timecode"] for s in container.streams if s.type == "data"]
        # PyAV 17 does not pass the frame rate of the second camera to the muxer, which then writes no time code.
        if target == "mkv":
            kept = [s.metadata["TIMECODE"] for s in container.streams.video]
    assert kept == codes[: 1 if target != "mkv" and int(av.__version__.split(".")[0]) < 18 else 2]
    assert result.report.line().count("time code kept") == len(kept)
    assert result.report.line().count("time code left out") == 2 - len(kept)
    assert "unknown kind" not in result.report.line()


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv", "webm", "ts", "avi"])
@pytest.mark.parametrize("where", ["file", "video", "audio"])
def test_time_code_in_a_matroska_tag_is_kept_or_reported(tmp_path: Path, where: str, target: str) -> None:
    codes = {name: "10:11:12:13" if name == where else "" for name in ("file", "video", "audio")}
    path = _write(tmp_path / "in.mkv", codes["video"], file_code=codes["file"], audio_code=codes["audio"])
    supported = {
        "mp4": ("file", "video"),
        "mov": ("file", "video"),
        "mkv": (where,),
        "webm": (where,),
        "avi": ("file",),
    }
    for start in (None, 0.1):
        result = copy_video(path, tmp_path / f"out.{target}", start=start)
        with av.open(str(tmp_path / f"out.{target}")) as container:
            written = _time_codes(container)
        kept = start is None and where in supported.get(target, ())
        assert written == ({"10:11:12:13"} if kept else set())
        # One note if the time code is lost, none if it is kept.
        assert len([note for note in result.notes if "time code" in note]) == (not kept), result.notes
        if start is not None and where == "file":
            assert "the time code is not kept for a part of a video" in result.notes


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv"])
def test_raw_dv_keeps_its_rate_and_time_code(tmp_path: Path, target: str) -> None:
    with av.open(str(tmp_path / "in.dv"), "w") as out:
        stream: Any = out.add_stream("dvvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
        for number in range(5):
            frame = to_pix_fmt(numbered_image(number, 720, 576), "yuv420p", 5, False)
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    copy_video(tmp_path / "in.dv", tmp_path / f"out.{target}")
    with av.open(str(tmp_path / f"out.{target}")) as container:
        video = container.streams.video[0]
        assert video.average_rate == 25
        assert [float(frame.pts * frame.time_base) for frame in container.decode(video)] == [0, 0.04, 0.08, 0.12, 0.16]
        codes = [s.metadata.get("timecode") for s in container.streams if s.type == "data"]
    assert codes == ["00:00:00:00"] * (target != "mkv")
