"""Engines built with test doubles of TensorRT 10.3, 10.16 and 11.4; the last tests need a real GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import nvidia_doubles as doubles
import onnx
import pytest
from building import build
from nvidia_machine import Jetson
from onnx_models import contract_model, expected_scores, random_images

from rtseg.core.errors import BackendError, ModelError, OptionError
from rtseg.core.progress import NoProgress
from rtseg.gpu.devices import Gpu
from rtseg.inference import choose_backend, open_backend
from rtseg.models.export.build import best_target
from rtseg.models.export.precision import engine_layers
from rtseg.models.export.tensorrt import EngineOptions


def calibration_images(folder: Path) -> Path:
    """Write a folder of images for calibration."""
    folder.mkdir()
    for number, image in enumerate(random_images(4, 48, 64)):
        cv2.imwrite(str(folder / f"{number}.png"), image[..., ::-1])
    return folder


def build_settings(engine: Path) -> dict[str, Any]:
    """Return the build settings that the test double received."""
    return dict(json.loads(engine.read_bytes())["settings"])


def test_every_version_builds_strongly_typed_and_runs(jetson: Jetson, model: Path, tmp_path: Path) -> None:
    built = build(model, target="tensorrt", out=tmp_path / "engines")
    short = ".".join(jetson.trt.__version__.split(".")[:2])
    assert built.path.name.endswith(f"-64x48-fp16-sm87-trt{short}.engine")
    verification = built.sidecar.verification
    assert verification["precision"]["fp16_share"] == 1.0
    assert verification["engine_layers"] == {"fp16": 1, "fp32": 0, "int8": 0}
    assert verification["agreement"]["pixels"] == 1.0
    assert verification["agreement"]["ran"] == "the built file by tensorrt on Orin, compute capability 8.7 in fp16"
    assert set(verification["latency_ms"]) == {"precision", "h2d", "compute", "d2h", "total", "runs", "per_second"}
    assert built.notes == ("a warning of two lines",)
    assert not jetson.cudart.alive, "the verification freed all memory"
    assert build_settings(built.path)["profiling_verbosity"] == "DETAILED"


def test_every_version_builds_int8_from_q_dq_nodes(jetson: Jetson, model: Path, tmp_path: Path) -> None:
    calibration_images(tmp_path / "images")
    built = build(model, target="tensorrt", precision="int8", calibrate=tmp_path / "images", out=tmp_path / "engines")
    assert "-64x48-int8-sm87-trt" in built.path.name
    verification = built.sidecar.verification
    assert (verification["precision"]["int8_share"], verification["precision"]["int8_layers"]) == (1.0, 2)
    assert verification["engine_layers"] == {"fp16": 1, "fp32": 0, "int8": 1}


def test_every_option_reaches_tensorrt(jetson: Jetson, model: Path, tmp_path: Path) -> None:
    options = EngineOptions(
        workspace_mib=512, optimization_level=5, hardware_compatible=True, version_compatible=True, dla_core=1
    )
    built = build(model, target="tensorrt", out=tmp_path, options=options, verify=False)
    settings = build_settings(built.path)
    assert settings["WORKSPACE"] == 512 << 20
    assert settings["builder_optimization_level"] == 5
    assert settings["hardware_compatibility_level"] == "AMPERE_PLUS"
    assert settings["flags"] == ["VERSION_COMPATIBLE", "GPU_FALLBACK"]
    assert settings["default_device_type"] == "DLA"
    assert settings["DLA_core"] == 1
    assert built.sidecar.facts.capabilities == ("8.0+",)
    assert built.sidecar.command.endswith(
        "--workspace 512 --optimization-level 5 --hardware-compatible --version-compatible --dla 1"
    )


def test_dla_engine_runs_on_its_dla_core(jetson: Jetson, model: Path, tmp_path: Path) -> None:
    built = build(model, target="tensorrt", out=tmp_path, options=EngineOptions(dla_core=1), verify=False)
    assert "-sm87-dla1-trt" in built.path.name
    images = random_images(1, 48, 64)
    np.testing.assert_array_equal(open_backend("tensorrt", built.path).infer(images), expected_scores(images))
    with pytest.raises(OptionError, match=r"--dla 2: .* detects 2 DLA cores"):
        build(model, target="tensorrt", out=tmp_path, options=EngineOptions(dla_core=2))


@pytest.mark.parametrize(
    ("content", "used"),
    [(None, len(b"measured")), (b"damaged", 0), (b"of another GPU", 0)],
    ids=["kept", "damaged", "other"],
)
def test_timing_cache_is_kept_unless_unusable(
    content: bytes | None, used: int, jetson: Jetson, model: Path, tmp_path: Path
) -> None:
    first = build(model, target="tensorrt", out=tmp_path, verify=False)
    (cache,) = tmp_path.glob("timing-*.cache")
    if content is not None:
        cache.write_bytes(content)
    build(model, target="tensorrt", out=tmp_path, verify=False, force=True)
    assert build_settings(first.path)["timing_cache"] == used
    assert cache.read_bytes() == b"measured"


def test_unsupported_operators_are_named_with_their_nodes(jetson: Jetson, tmp_path: Path) -> None:
    def strange(graph: Any) -> None:
        graph.node.append(onnx.helper.make_node("Erf", ["b"], ["e1"], "first_erf"))
        graph.node.append(onnx.helper.make_node("Erf", ["e1"], ["e2"], "second_erf"))

    bad = contract_model(tmp_path / "bad.onnx", extra=strange)
    with pytest.raises(
        ModelError, match=r"Erf \(node 'first_erf'\): no importer registered; operator Erf \(node 'second_erf'\)"
    ):
        build(bad, target="tensorrt", out=tmp_path / "engines")


def test_ctrl_c_ends_a_build_and_leaves_no_file(jetson: Jetson, model: Path, tmp_path: Path) -> None:
    class Interrupted(NoProgress):
        def advance(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(model, target="tensorrt", out=tmp_path / "engines", progress=Interrupted())
    assert not list((tmp_path / "engines").iterdir())


def test_build_without_a_gpu_raises_an_error(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Jetson(monkeypatch, "10.3.0", gpus=())
    with pytest.raises(BackendError, match="builds on the GPU that will run the engine, and no GPU was detected"):
        build(model, target="tensorrt", out=tmp_path)


@pytest.mark.parametrize(
    ("installed", "capability", "backend"),
    [
        ({"tensorrt", "tensorrt_rtx", "cuda.bindings", "openvino"}, (8, 7), "tensorrt"),
        ({"tensorrt_rtx_bindings", "cuda.bindings", "openvino"}, (8, 9), "tensorrt-rtx"),
        ({"tensorrt_rtx", "cuda.bindings", "openvino"}, (9, 0), "openvino"),
        ({"tensorrt", "openvino"}, (8, 7), "openvino"),
        ({"openvino"}, (8, 7), "openvino"),
    ],
)
def test_auto_chooses_the_best_available_backend(
    installed: set[str], capability: tuple[int, int], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtseg.inference.find_gpus", lambda: (Gpu(0, "A GPU", capability),))
    monkeypatch.setattr("rtseg.inference._installed", installed.__contains__)
    choice = choose_backend()
    assert choice.backend == backend
    assert "A GPU" in choice.reason


def test_best_target_on_a_jetson_is_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    Jetson(monkeypatch, "10.3.0")
    assert best_target() == "tensorrt"


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("Channel major FP16 format where channel % 8 == 0", (1, 0, 0)),
        ("Half", (1, 0, 0)),
        ("Row major linear FP32 format", (0, 1, 0)),
        ("Float", (0, 1, 0)),
        ("Int64", (0, 0, 0)),
        ("Int8", (0, 0, 1)),
        ("Thirty-two wide channel vectorized row major Int8 format", (0, 0, 1)),
    ],
)
def test_layer_formats_of_every_inspector_version_are_parsed(text: str, counts: tuple[int, int, int]) -> None:
    formats = [{"Format/Datatype": text}]
    layers = {"Layers": [{"Name": "c", "Inputs": formats, "Outputs": formats}, "name only"]}
    assert engine_layers(json.dumps(layers)) == counts
    for name in ("DataType", "Datatype"):  # TensorRT 11
        formats = [{"Format": "Row major linear FP32 format (kLINEAR)", name: text}]
        layers = {"Layers": [{"Name": "c", "Inputs": formats, "Outputs": formats}]}
        assert engine_layers(json.dumps(layers)) == counts


def test_every_version_has_all_names_that_are_used() -> None:
    for version, names in doubles.SURFACE.items():
        removed = {"FP16", "EXPLICIT_BATCH", "PREFER_PRECISION_CONSTRAINTS", "platform_has_fast_fp16"}
        assert set(names["absent"]) <= removed, version
    assert "FP16" in doubles.SURFACE["11.4.0.106"]["absent"]


@pytest.mark.gpu
def test_real_gpu_builds_verifies_and_measures(on_gpu: str, model: Path, tmp_path: Path) -> None:
    built = build(model, target=on_gpu, size=(480, 360), out=tmp_path)
    verification = built.sidecar.verification
    assert verification["agreement"]["ran"].startswith("the built file on ")
    assert verification["agreement"]["pixels"] >= 0.999
    assert verification["engine_layers"]["fp16"] > 0
    assert 0 < verification["latency_ms"]["compute"]["p50"] <= verification["latency_ms"]["compute"]["p99"]


@pytest.mark.gpu
def test_real_gpu_runs_int8(on_gpu: str, model: Path, tmp_path: Path) -> None:
    built = build(
        model,
        target=on_gpu,
        precision="int8",
        calibrate=calibration_images(tmp_path / "images"),
        out=tmp_path / "engines",
    )
    assert built.sidecar.verification["agreement"]["ran"].endswith(" in int8")
    assert built.sidecar.verification["agreement"]["pixels"] > 0.98
