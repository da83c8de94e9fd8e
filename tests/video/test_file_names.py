"""File names that are not UTF-8, and names that look like URLs, options or patterns, in each command that takes files."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import MODEL, rtseg
from media import read, write_video

from rtseg.core.errors import printable, printable_name
from rtseg.core.files import partial_name, write_json
from rtseg.video.completed import LIST_NAME

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are UTF-16 there"),
]

CAFE = os.fsdecode(b"caf\xe9")


def _image(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(cv2.imencode(".png", array)[1].tobytes())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set whose folder and files have Latin-1 names."""
    folder = tmp_path / os.fsdecode(b"dat\xe4")
    blocks = np.kron(np.eye(4, dtype=np.uint8), np.ones((16, 16), np.uint8))
    for split in ("train", "val"):
        for number in range(2):
            name = f"{CAFE}{number}.png"
            _image(folder / "labels" / split / name, blocks)
            _image(folder / "images" / split / name, np.stack([blocks * 200] * 3, axis=2))
    (folder / "classes.txt").write_text("sky\nroad\n")
    return folder


def test_messages_escape_invalid_bytes_of_a_name(tmp_path: Path) -> None:
    assert printable(f"{CAFE}: \x1b[2J\n") == "caf\\xe9: \\x1b[2J\n"
    assert printable_name("a\nrtseg: done\u202egpj.exe") == "a\\x0artseg: done\\u202egpj.exe"
    assert printable_name("é🚗 日本.mp4") == "é🚗 日本.mp4"


def test_json_keeps_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (CAFE, "é🚗", "a\nb", "\\xe9", 'q"'):
        write_json({"input": name}, str(tmp_path / "s.json"))
        write_json({"input": name}, "-")
        printed = capsys.readouterr().out
        assert printed.isascii()
        for text in ((tmp_path / "s.json").read_bytes().decode("utf-8"), printed):
            assert os.fsencode(json.loads(text)["input"]) == os.fsencode(name)


def test_temporary_names_are_unique() -> None:
    names = [os.fsdecode(name) for name in (b"caf\xe9.mp4", b"caf\xe8.mp4", b"caf.mp4")]
    names += ["日" * 82 + end + ".mp4" for end in "本国"]
    names += [os.fsdecode(b"\xe9" * 250 + end) + ".mp4" for end in (b"a", b"b")]
    temporary = [partial_name(Path(name)) for name in names]
    assert len(set(temporary)) == len(names)
    assert all(len(os.fsencode(name)) <= 255 for name in temporary)
    assert temporary[0] == os.fsdecode(b"caf\xe9.partial.mp4")
    temporary[3].encode()  # valid UTF-8 stays valid


def test_images_with_unusual_names_are_processed(tmp_path: Path) -> None:
    names = [CAFE, "a\nb", "é🚗", "-dash", "tr ", "%04d", "http:x", "concat:a|b"]
    for number, name in enumerate(names):
        _image(tmp_path / "in" / f"{name}.png", np.full((64, 96, 3), 20 * number, np.uint8))
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}
    for _ in range(2):
        result = rtseg("image", tmp_path / "in", "--masks", tmp_path / "m", "--model", MODEL, env=environment)
        assert result.returncode == 0, result.stderr
        assert f"{len(names)} of {len(names)} images done" in result.stderr
        assert {path.name for path in (tmp_path / "m").iterdir()} == {f"{name}.png" for name in names}
        files = {path.name for path in (tmp_path / "in").iterdir()}
        assert files == {f"{name}{end}.png" for name in names for end in ("", ".rtseg")}


def test_data_set_with_unusual_names_is_evaluated(data: Path, tmp_path: Path) -> None:
    """OpenCV crashes when it opens or draws such a name. The second run replaces the reports of the first one."""
    report, worst, chart = tmp_path / "e.json", tmp_path / "w.png", tmp_path / "c.png"
    for _ in range(2):
        result = rtseg("eval", data, "--model", "nano", "--json", report, "--worst", worst, "--chart", chart)
        assert result.returncode == 0, result.stderr
        assert "pixel_accuracy" in json.loads(report.read_bytes())
        assert cv2.imread(str(worst)) is not None
        assert cv2.imread(str(chart)) is not None


@pytest.mark.torch
@pytest.mark.xdist_group("torch")  # torch's first export in a process takes half a minute
def test_training_with_unusual_names_replaces_no_user_file(data: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    options = ("--variant", "nano", "--epochs", 1, "--batch", 2, "--size", "64x64", "--evaluations", 1)
    trained = rtseg("train", data, "--out", tmp_path / "run", *options)
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run" / "model.onnx").exists()
    inside = rtseg("train", data, "--out", data / "labels" / "train", *options)
    assert inside.returncode == 1
    assert "contains images or labels of the data set" in inside.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.onnx").write_bytes(b"the user's")
    refused = rtseg("train", data, "--out", tmp_path / "mine", *options)
    assert refused.returncode == 1
    assert "model.onnx exists" in refused.stderr
    assert [path.read_bytes() for path in (tmp_path / "mine").iterdir()] == [b"the user's"]


@pytest.mark.parametrize("name", ["http:x", "concat:a|b", "%04d", "it's", CAFE, "-dash", "end."])
def test_mask_video_with_unusual_name_is_written(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "in.mp4", frames=3)
    arguments = ("video", "in.mp4", "--model", MODEL, f"--output={name}.mp4", f"--masks={name}.mkv", "-q")
    for _ in range(2):
        result = rtseg(*arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        files = {path.name for path in tmp_path.iterdir() if path.name != LIST_NAME}
        assert files == {"in.mp4", f"{name}.mp4", f"{name}.mkv"}
        assert len(read(tmp_path / f"{name}.mp4")) == len(read(tmp_path / f"{name}.mkv")) == 3


def test_live_run_escapes_invalid_bytes_of_a_name(tmp_path: Path) -> None:
    write_video(tmp_path / "plain.mp4", frames=3).rename(tmp_path / f"{CAFE}.mp4")
    arguments = ("live", "--url", f"{CAFE}.mp4", "--realtime", "--every-frame", "--show", "none", "--model", MODEL)
    result = rtseg(*arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert r"url1: caf\xe9.mp4" in result.stderr
    assert "udce9" not in result.stderr
