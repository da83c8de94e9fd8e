"""INT8 builds: they require real images, compute in INT8, and are removed if a class is lost."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from building import PLAIN, build, needs, needs_rtx
from media import write_video
from onnx import TensorProto
from onnx_models import CLASSES, contract_model, expected_classes, foreign_model, random_images

from rtseg.core.errors import BackendError, ModelError, OptionError
from rtseg.inference.argmax import class_maps
from rtseg.inference.openvino import OpenVinoBackend
from rtseg.models.export import quantize, verify
from rtseg.models.export.agreement import Agreement
from rtseg.models.export.onnx_file import read_onnx
from rtseg.models.export.source_model import onnx_class_map_function


@pytest.fixture
def nncf() -> None:
    needs("nncf", "nncf")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A labeled data folder whose images contain all classes of the model."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "classes.txt").write_text("\n".join(CLASSES))
    for seed, split in enumerate(("train", "val")):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for number, image in enumerate(random_images(6, 48, 64, seed=seed)):
            cv2.imwrite(str(root / "images" / split / f"{number}.png"), image[..., ::-1])
            cv2.imwrite(str(root / "labels" / split / f"{number}.png"), expected_classes(image[None])[0])
    return root


def int8(model: Path, data: Path | None, out: Path, target: str, **options: Any) -> Any:
    return build(model, target=target, precision="int8", calibrate=data, out=out, **options)


def test_openvino_int8_file_agrees_with_model(nncf: None, model: Path, data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rtseg", "build", str(model), "--target", "openvino", "--precision", "int8",
               "--calibrate", str(data), "-o", str(tmp_path / "built"), "--json", "-"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # stdout has no progress bars of NNCF
    assert Path(report["file"]).name.endswith("-64x48-int8.xml")
    assert report["facts"]["precision"] == "int8"
    assert report["verification"]["precision"]["int8_share"] >= 0.9
    assert report["verification"]["precision"]["counted_on"] == "the layers that OpenVINO executes here"
    assert report["verification"]["agreement"]["on"] == "data", (
        "compared on images of the data set, not on synthetic scenes"
    )
    assert report["verification"]["agreement"]["frames"] == 6
    assert "INT8 (2 layers)" in done.stderr
    assert "nncf" not in done.stderr.lower()
    backend = OpenVinoBackend(Path(report["file"]))
    assert (backend.precision, backend.description.precision) == ("int8", "int8")
    images = random_images(2, 48, 64, seed=7)
    assert (class_maps(backend, images) == expected_classes(images)).mean() > 0.98
    backend.close()


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_quantized_onnx_graph_meets_tensorrt_requirements(precision: str, data: Path, tmp_path: Path) -> None:
    source = contract_model(tmp_path / "colors.onnx", precision=precision)
    built = int8(source, data, tmp_path / "built", "onnx")
    model = onnx.load(built.path)
    onnx.checker.check_model(model)
    producers = {output: node for node in model.graph.node for output in node.output}
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    for node in convolutions:
        for name in node.input[:2]:
            dequantize = producers[name]
            assert dequantize.op_type == "DequantizeLinear"
            assert weights[dequantize.input[1]].dtype == np.float16, "the scales are FP16"
            assert weights[dequantize.input[2]].dtype == np.int8
            assert not weights[dequantize.input[2]].any(), "TensorRT requires zero points of 0"
    assert {node.op_type for node in model.graph.node if "image" in node.input} == {"Cast"}
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert built.sidecar.verification["precision"]["int8_share"] == 1.0
    assert built.sidecar.description.precision == "int8"
    images = random_images(1, 48, 64, seed=7)
    assert (onnx_class_map_function(read_onnx(built.path), "")(images[0]) == expected_classes(images)[0]).mean() > 0.98


@pytest.mark.system
def test_tensorrt_rtx_builds_int8(model: Path, data: Path, tmp_path: Path) -> None:
    needs_rtx()
    built = int8(model, data, tmp_path / "built", "tensorrt-rtx")
    assert "-int8-portable-rtx" in built.path.name
    counted = built.sidecar.verification["precision"]
    assert (counted["int8_share"], counted["int8_layers"]) == (1.0, 2)
    assert counted["counted_on"] == "the parsed, strongly typed network"
    assert built.path.stat().st_size > 1000


def test_quantizes_foreign_network(data: Path, tmp_path: Path) -> None:
    path = foreign_model(tmp_path / "theirs.onnx")
    built = int8(path, data, tmp_path / "built", "onnx", size=(64, 48), preprocessing=PLAIN)
    assert built.sidecar.verification["precision"]["int8_share"] == 1.0
    assert built.sidecar.verification["agreement"]["pixels"] > 0.98


def test_requires_calibration_images(model: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"int8 needs real images.*--calibrate DATA or VIDEO"):
        int8(model, None, tmp_path / "built", "onnx")
    with pytest.raises(OptionError, match=r"'.*nowhere' does not exist"):
        int8(model, tmp_path / "nowhere", tmp_path / "built", "onnx")
    with pytest.raises(OptionError, match="--calibrate is only for --precision int8; fp16 needs no calibration"):
        build(model, target="onnx", calibrate=tmp_path, out=tmp_path / "built")
    assert not (tmp_path / "built").exists() or not list((tmp_path / "built").iterdir())


def test_calibrates_on_video(model: Path, tmp_path: Path) -> None:
    video = tmp_path / "video.mkv"
    write_video(video, frames=40, size=(64, 48))
    built = int8(model, video, tmp_path / "built", "onnx")
    agreement = built.sidecar.verification["agreement"]
    assert (agreement["on"], agreement["iou_change"]) == ("video.mkv", {})


def test_rebuilds_after_change_of_calibration_images(model: Path, data: Path, tmp_path: Path) -> None:
    first = int8(model, data, tmp_path / "built", "onnx", verify=False)
    assert first.reasons
    assert not int8(model, data, tmp_path / "built", "onnx", verify=False).reasons
    assert f"--precision int8 --calibrate {data}" in first.sidecar.command
    extra = data / "images" / "train" / "more.png"
    cv2.imwrite(str(extra), random_images(1, 48, 64)[0])
    cv2.imwrite(str(data / "labels" / "train" / "more.png"), np.zeros((48, 64), np.uint8))
    assert "calibrate" in int8(model, data, tmp_path / "built", "onnx", verify=False).reasons[0]


def test_builds_int8_onnx_for_other_targets_without_calibration(model: Path, data: Path, tmp_path: Path) -> None:
    quantized = int8(model, data, tmp_path / "built", "onnx").path
    again = int8(quantized, None, tmp_path / "again", "openvino")
    assert again.sidecar.verification["precision"]["int8_share"] >= 0.9
    with pytest.raises(OptionError, match="is int8 already and needs no --calibrate"):
        int8(quantized, data, tmp_path / "again", "onnx")
    with pytest.raises(OptionError, match="is int8 already"):
        build(quantized, target="onnx", out=tmp_path / "again")


def test_removes_build_calibrated_on_unsuitable_images(model: Path, data: Path, tmp_path: Path) -> None:
    night = tmp_path / "night"
    night.mkdir()
    for number in range(4):
        cv2.imwrite(str(night / f"{number}.png"), np.full((48, 64, 3), 3, np.uint8))
    with pytest.raises(ModelError, match=r"it was removed. --precision fp16 is more exact"):
        int8(model, night, tmp_path / "built", "onnx", verify_on=data)
    assert list((tmp_path / "built").iterdir()) == []


def test_refuses_loss_of_one_class_despite_good_mean() -> None:
    names = ("road", "sky", "car", "pole")
    same = dict.fromkeys(names, 1.0)
    good = Agreement(
        100, 0.997, same, dict.fromkeys(names, 0.25), {"road": 0.0, "sky": 0.001, "car": -0.005, "pole": 0.0}
    )
    verify._check_agreement(good, "int8", None)
    bad = dataclasses.replace(good, iou_change={"road": 0.02, "sky": 0.02, "car": 0.01, "pole": -0.04})
    with pytest.raises(ModelError, match=r"mean IoU by \+0.0025 and that of pole by -0.0400"):
        verify._check_agreement(bad, "int8", None)
    worse = dataclasses.replace(good, iou_change=dict.fromkeys(names, -0.015))
    with pytest.raises(ModelError, match=r"mean IoU by -0.0150"):
        verify._check_agreement(worse, "int8", None)
    verify._check_agreement(worse, "fp16", None)  # for FP16 only the agreement counts


def test_names_missing_nncf(model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "nncf" else find_spec(name, *more)
    )
    with pytest.raises(BackendError, match="building needs nncf: pip install nncf"):
        int8(model, data, tmp_path / "built", "openvino")


def test_conversion_to_fp32_keeps_class_map(model: Path) -> None:
    converted = quantize.to_float32(read_onnx(model))
    onnx.checker.check_model(converted)
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in converted.graph.initializer}
    images = random_images(1, 48, 64)
    np.testing.assert_array_equal(onnx_class_map_function(converted, "")(images[0]), expected_classes(images)[0])
