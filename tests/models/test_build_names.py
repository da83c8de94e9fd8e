"""`rtseg build` with files and folders whose names are not UTF-8, for each library that opens them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import onnx
import openvino
import pytest
from class_maps import onnx_class_maps
from command import rtseg
from media import write_video
from onnx_models import CLASSES, expected_classes, foreign_model, random_images

import rtseg as package

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are UTF-16 there"),
]

WIDTH, HEIGHT = 64, 48
NAME = os.fsdecode(b"caf\xe9")
ASSETS = Path(package.__file__).parent / "assets"


def _write_model(folder: Path, name: str, external: bool) -> Path:
    plain = folder.with_name("plain")
    plain.mkdir()
    path = foreign_model(plain / "m.onnx", size=(WIDTH, HEIGHT))
    if external:
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    plain.rename(folder)
    return (folder / "m.onnx").rename(folder / f"{name}.onnx")


def _build(model: Path, out: Path, target: str, *options: str) -> Path:
    done = rtseg("build", model, "--target", target, "-o", out, "--json", out.parent / "b.json", *options)
    assert done.returncode == 0, done.stderr
    report = json.loads((out.parent / "b.json").read_bytes())
    path = Path(report["file"])
    sidecar = json.loads(path.with_name(path.name + ".json").read_bytes().decode("utf-8"))
    assert sidecar["source"] == report["source"] == model.name
    assert str(model) in sidecar["command"]
    return path


@pytest.mark.parametrize(("target", "external"), [("openvino", False), ("onnx", True)])
def test_builds_onnx_in_folders_with_non_utf8_names(target: str, external: bool, tmp_path: Path) -> None:
    model = _write_model(tmp_path / os.fsdecode(b"from\xe4"), "m" if external else NAME, external)
    preprocessing = ("--mean", "0,0,0", "--std", "1,1,1", "--classes", ",".join(CLASSES))
    path = _build(model, tmp_path / os.fsdecode(b"to\xe4"), target, *preprocessing)
    image = random_images(1, HEIGHT, WIDTH, seed=3)
    if target == "onnx":
        classes = onnx_class_maps(path.read_bytes(), image)
    else:
        weights = path.with_suffix(".bin").read_bytes()
        network = openvino.Core().read_model(path.read_bytes(), weights)
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        scores = openvino.Core().compile_model(network, "CPU", exact)({"image": image})[0]
        classes = scores.argmax(axis=1)
    assert (classes == expected_classes(image)).all()

    cv2.imwrite(str(tmp_path / "i.png"), image[0][:, :, ::-1])
    write_video(tmp_path / "i.mp4", frames=3, size=(WIDTH, HEIGHT))
    rendered = rtseg("image", tmp_path / "i.png", "--model", path, "--masks", tmp_path / "m", "-o", tmp_path / "o.png")
    assert rendered.returncode == 0, rendered.stderr
    assert (cv2.imread(str(tmp_path / "m" / "i.png"), cv2.IMREAD_UNCHANGED) == expected_classes(image)[0]).mean() > 0.99
    video = rtseg("video", tmp_path / "i.mp4", "--model", path, "-o", tmp_path / "o.mp4")
    assert video.returncode == 0, video.stderr
    assert (tmp_path / "o.mp4").exists()


def test_builds_onnx_with_non_utf8_name_and_external_weights(tmp_path: Path) -> None:
    model = _write_model(tmp_path / "from", NAME, external=True)
    path = _build(model, tmp_path / "to", "onnx", "--mean", "0,0,0", "--std", "1,1,1")
    assert path.name.startswith("caf-xe9-")
    assert path.name.isascii()


@pytest.mark.torch
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_reads_checkpoints_with_non_utf8_names(suffix: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    from rtseg.nn.importers.load import load
    from rtseg.nn.load_network import is_rtseg_checkpoint

    plain, model = tmp_path / f"plain{suffix}", tmp_path / f"{NAME}{suffix}"
    weights = load_file(ASSETS / "camvid-nano.safetensors")
    save_file(weights, plain) if suffix == ".safetensors" else torch.save(weights, plain)
    plain.rename(model)
    read = load(model).tensors
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], tensor.float()) for name, tensor in weights.items())
    assert not is_rtseg_checkpoint(model)
    if suffix == ".safetensors":
        from rtseg.nn.checkpoint import load_weights

        shutil.copy(ASSETS / "camvid-nano.safetensors", model)
        assert is_rtseg_checkpoint(model)
        network, _ = load_weights(model)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
