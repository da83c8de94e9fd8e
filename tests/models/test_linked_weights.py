"""ONNX files with external weights behind links, which are accepted if ONNX Runtime accepts them."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnxruntime
import pytest
from class_maps import onnx_class_maps
from foreign_networks import HEIGHT, WIDTH, build_network
from onnx_models import CLASSES, expected_classes, foreign_model, random_images

from rtseg.core.errors import ModelError


def _write_external_weights(folder: Path) -> None:
    """Write m.onnx and w.bin to a folder."""
    folder.mkdir(parents=True)
    model = onnx.load(foreign_model(folder / "m.onnx", size=(WIDTH, HEIGHT)))
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)


@pytest.mark.parametrize("layout", ["hugging-face", "data", "both-in-the-folder"])
def test_follows_links_like_onnx_runtime(layout: str, frames: Path, tmp_path: Path) -> None:
    _write_external_weights(tmp_path / "snap")
    blobs = tmp_path / ("blobs" if layout == "hugging-face" else "snap/blobs")
    blobs.mkdir()
    for name in ("w.bin",) if layout == "data" else ("m.onnx", "w.bin"):
        (tmp_path / "snap" / name).rename(blobs / f"{name[0]}0")
        (tmp_path / "snap" / name).symlink_to(os.path.relpath(blobs / f"{name[0]}0", tmp_path / "snap"))
    path = tmp_path / "snap" / "m.onnx"
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    built = build_network(path, frames, tmp_path / "built", classes=CLASSES)
    image = random_images(1, HEIGHT, WIDTH)[0]
    assert (onnx_class_maps(built.path, image[None]) == expected_classes(image[None])).all()


@pytest.mark.parametrize("model_too", [False, True], ids=["data", "both"])
def test_refuses_link_to_weights_outside_folder(model_too: bool, frames: Path, tmp_path: Path) -> None:
    _write_external_weights(tmp_path / "work")  # the layout of git-annex and DVC
    for name in ("m.onnx", "w.bin") if model_too else ("w.bin",):
        (tmp_path / f"cache-{name}").mkdir()
        (tmp_path / "work" / name).rename(tmp_path / f"cache-{name}" / "0")
        (tmp_path / "work" / name).symlink_to(tmp_path / f"cache-{name}" / "0")
    path = tmp_path / "work" / "m.onnx"
    with pytest.raises(Exception, match="External data path escapes"):
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    message = r"m\.onnx: its weights file 'w\.bin' is a link to .*/cache-w\.bin/0, .*: cp -L$"
    with pytest.raises(ModelError, match=message):
        build_network(path, frames, tmp_path / "built", classes=CLASSES)


def test_reports_hard_links(frames: Path, tmp_path: Path) -> None:
    _write_external_weights(tmp_path / "work")
    os.link(tmp_path / "work" / "w.bin", tmp_path / "cached")
    with pytest.raises(ModelError, match=r"m\.onnx: its weights file 'w\.bin' has hard links, .* copy the file$"):
        build_network(tmp_path / "work" / "m.onnx", frames, tmp_path / "built", classes=CLASSES)
