"""ONNX files with external weights behind links, which are accepted if ONNX Runtime accepts them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import cv2  # noqa: E402
from building import build  # noqa: E402
from class_maps import onnx_class_maps  # noqa: E402
from onnx_models import CLASSES, expected_classes, foreign_model, random_images  # noqa: E402

from rtseg.core.errors import ModelError  # noqa: E402
from rtseg.models.export.build import BuildResult  # noqa: E402
from rtseg.nn.preprocessing import Preprocessing  # noqa: E402

WIDTH, HEIGHT = 64, 48


def build_onnx(path: Path, folder: Path) -> BuildResult:
    frames = folder / "frames"
    frames.mkdir()
    cv2.imwrite(str(frames / "0.png"), random_images(1, HEIGHT, WIDTH, seed=3)[0][:, :, ::-1])
    preprocessing = Preprocessing(classes=CLASSES, mean=(0, 0, 0), std=(1, 1, 1))
    return build(
        path, out=folder / "built", target="onnx", verify_on=frames, preprocessing=preprocessing, log=lambda line: None
    )


def _write_external_weights(folder: Path) -> None:
    """Write m.onnx and w.bin to a folder."""
    folder.mkdir(parents=True)
    model = onnx.load(foreign_model(folder / "m.onnx", size=(WIDTH, HEIGHT)))
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)


@pytest.mark.parametrize("layout", ["hugging-face", "data", "both-in-the-folder"])
def test_follows_links_like_onnx_runtime(layout: str, tmp_path: Path) -> None:
    _write_external_weights(tmp_path / "snap")
    blobs = tmp_path / ("blobs" if layout == "hugging-face" else "snap/blobs")
    blobs.mkdir()
    for name in ("w.bin",) if layout == "data" else ("m.onnx", "w.bin"):
        (tmp_path / "snap" / name).rename(blobs / f"{name[0]}0")
        (tmp_path / "snap" / name).symlink_to(os.path.relpath(blobs / f"{name[0]}0", tmp_path / "snap"))
    path = tmp_path / "snap" / "m.onnx"
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    built = build_onnx(path, tmp_path)
    image = random_images(1, HEIGHT, WIDTH)[0]
    assert (onnx_class_maps(built.path, image[None]) == expected_classes(image[None])).all()


@pytest.mark.parametrize("model_too", [False, True], ids=["data", "both"])
def test_refuses_link_to_weights_outside_folder(model_too: bool, tmp_path: Path) -> None:
    _write_external_weights(tmp_path / "work")  # the layout of git-annex and DVC
    for name in ("m.onnx", "w.bin") if model_too else ("w.bin",):
        (tmp_path / f"cache-{name}").mkdir()
        (tmp_path / "work" / name).rename(tmp_path / f"cache-{name}" / "0")
        (tmp_path / "work" / name).symlink_to(tmp_path / f"cache-{name}" / "0")
    path = tmp_path / "work" / "m.onnx"
    with pytest.raises(Exception, match="External data path escapes"):
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with pytest.raises(
        ModelError, match=r"m\.onnx: its weights file 'w\.bin' is a link to .*/cache-w\.bin/0, .*: cp -L$"
    ):
        build_onnx(path, tmp_path)


def test_reports_hard_links(tmp_path: Path) -> None:
    _write_external_weights(tmp_path / "work")
    os.link(tmp_path / "work" / "w.bin", tmp_path / "cached")
    with pytest.raises(ModelError, match=r"m\.onnx: its weights file 'w\.bin' has hard links, .* copy the file$"):
        build_onnx(tmp_path / "work" / "m.onnx", tmp_path)
