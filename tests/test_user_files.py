"""Files of the user that are named like what rtseg writes: none is replaced or removed without being asked for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from command import rtseg
from media import read, write_video

pytestmark = pytest.mark.timeout(300)

MODEL = Path(__file__).parent / "data" / "nearest-colour.onnx"
SMALL = ("--model", MODEL, "-q")
LIVE = ("--realtime", "--every-frame", "--size", "96x64", "--show", "none", *SMALL)


def video(path: Path) -> Path:
    return write_video(path, frames=4)


def image(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), np.full((64, 96, 3), 90, np.uint8))
    return path


def run(*arguments: object) -> str:
    done = rtseg(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_files_named_like_temporary_files_stay_as_they_are(tmp_path: Path) -> None:
    drive, photo = video(tmp_path / "drive.mp4"), image(tmp_path / "photo.png")
    names = (
        "o.partial.mp4",
        "m.partial.mkv",
        "s.partial.json",
        "p.partial.png",
        "c/photo.partial.png",
        "r.partial.mp4",
    )
    (tmp_path / "c").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(b"the user's " + name.encode())
    side = ("--masks", tmp_path / "m.mkv", "--stats", tmp_path / "s.json")
    told = run("video", drive, "-o", tmp_path / "o.mp4", *side, "--model", MODEL)
    assert "o.partial.mp4 was there before and is left as it is" in told
    run("image", photo, "-o", tmp_path / "p.png", "--masks", tmp_path / "c", *SMALL)
    run("live", "--url", drive, "--record", tmp_path / "r.mp4", *LIVE)
    for name in names:
        assert (tmp_path / name).read_bytes() == b"the user's " + name.encode()
        assert (tmp_path / name.replace(".partial", "")).stat().st_size > 0
    assert len(read(tmp_path / "o.mp4")) == len(read(tmp_path / "m.mkv")) == len(read(tmp_path / "r.mp4")) == 4
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.partial*")}
    assert left == set(names)
