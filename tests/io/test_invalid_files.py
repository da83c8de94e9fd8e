"""`FileSource` raises one-line errors for files that are no video, are damaged or exceed a limit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from media import Text, numbered_image, read, write_video

from rtseg.core.errors import SourceError
from rtseg.io.inputs.file import FileSource
from rtseg.io.options import InputOptions


def test_start_after_the_end_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no frame at or after 100 s"):
        FileSource(str(write_video(tmp_path / "a.mp4")), InputOptions(start=100))


NOT_VIDEOS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "empty": (lambda path: path.touch(), "is empty"),
    "text": (lambda path: path.write_text("hello, this is a text\n" * 30), "a text file"),
    "short text": (lambda path: path.write_text("hi"), "a text file"),
    "zip": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 9), "a ZIP archive"),
    "png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200)), "a PNG image"),
    "jpeg": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(200)), "a JPEG image"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(50_000)), "not a video"),
    "zeros": (lambda path: path.write_bytes(bytes(100_000)), "not a video"),
    "fifo": (os.mkfifo, "named pipe"),
    "playlist": (lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"), "a playlist"),
    "concat": (lambda path: path.write_text("ffconcat version 1.0\nfile '/etc/passwd'\n"), "a list of files"),
}


@pytest.mark.parametrize("kind", NOT_VIDEOS)
def test_invalid_file_is_a_one_line_error(tmp_path: Path, kind: str) -> None:
    make, message = NOT_VIDEOS[kind]
    path = tmp_path / "video.mp4"
    make(path)
    with pytest.raises(SourceError, match=message) as error:
        FileSource(str(path))
    assert "\n" not in str(error.value)
    assert "video.mp4" in str(error.value)


def test_renamed_image_is_reported_as_an_image(tmp_path: Path) -> None:
    import cv2

    for ending in ("png", "jpg", "bmp", "tiff", "webp"):
        cv2.imwrite(str(tmp_path / f"a.{ending}"), numbered_image(3))
        (tmp_path / f"a.{ending}").rename(tmp_path / "a.mp4")
        with pytest.raises(SourceError, match="image"):
            FileSource(str(tmp_path / "a.mp4"))


def test_audio_file_has_no_video_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        stream.codec_context.layout = "mono"
        audio = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        audio.rate = 48000
        out.mux(stream.encode(audio))
        out.mux(stream.encode(None))
    with pytest.raises(SourceError, match=r"no video stream \(it contains: audio\)"):
        FileSource(str(path))


def test_mp4_without_index_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=30)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(SourceError, match=r"index .moov. is missing"):
        FileSource(str(path))


def test_file_without_read_permission_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path.chmod(0)
    with pytest.raises(SourceError, match="permission denied"):
        FileSource(str(path))


def test_too_large_frames_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", size=(640, 480), frames=1)
    with pytest.raises(SourceError, match="640x480"):
        FileSource(str(path), InputOptions(max_pixels=100_000))
    assert len(read(path, max_pixels=640 * 480)) == 1
    with pytest.raises(SourceError, match="307199"):
        FileSource(str(path), InputOptions(max_pixels=640 * 480 - 1))


@pytest.mark.parametrize(("ending", "codec"), [("mkv", "subrip"), ("mp4", "mov_text")])
def test_too_many_streams_are_refused(tmp_path: Path, ending: str, codec: str) -> None:
    few, many = ([Text([(0.1, 0.2, "x")], codec)] * count for count in (60, 70))
    source = FileSource(str(write_video(tmp_path / f"few.{ending}", frames=3, after=few)))
    assert len(source.info.streams) == 60
    source.close()
    with pytest.raises(SourceError, match="64 streams or more"):
        FileSource(str(write_video(tmp_path / f"many.{ending}", frames=3, after=many)))


def test_frames_that_become_too_large_within_a_stream_are_refused(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / f"{n}.h264", size=size, frames=5) for n, size in enumerate(((96, 64), (128, 96)))]
    path = tmp_path / "in.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(SourceError, match="a frame is 128x96"):
        read(path, max_pixels=96 * 64)


def test_password_in_a_name_is_not_printed() -> None:
    with pytest.raises(SourceError) as error:
        FileSource("rtsp://user:secret@camera/stream")
    assert "secret" not in str(error.value)
