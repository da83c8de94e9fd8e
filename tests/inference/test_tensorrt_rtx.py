"""Engines built by the real TensorRT for RTX, which needs no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from building import PLAIN, build, needs_rtx
from onnx_models import CLASSES, contract_model, foreign_model

from rtseg.core.errors import BackendError, ModelError, OptionError
from rtseg.inference import choose_backend, describe_model, open_backend
from rtseg.inference.engine_metadata import read_sidecar, sha256
from rtseg.models.export.tensorrt import EngineOptions

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def rtx() -> None:
    needs_rtx()


def test_rtx_builds_a_real_fp16_engine_without_a_gpu(model: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    built = build(model, target="tensorrt-rtx", out=tmp_path / "engines", log=lines.append)
    assert built.path.name.startswith("unet-colors-")
    assert "-64x48-fp16-portable-rtx" in built.path.name
    assert built.path.read_bytes()[:4] == b"vtrt"  # a plain plan without a wrapper
    assert built.sidecar.verification["precision"]["fp16_share"] == 1.0
    assert built.sidecar.verification["precision"]["counted_on"] == "the parsed, strongly typed network"
    assert any("100.0% of" in line and "FP16" in line for line in lines)
    assert sha256(built.path) == read_sidecar(built.path).file_sha256
    assert describe_model(built.path).classes == CLASSES
    assert {path.suffix for path in (tmp_path / "engines").iterdir()} == {".engine", ".json"}


@pytest.mark.parametrize(
    "name",
    [
        "small",
        "fastai1-narrow-batch-norm",
        "fastai2-narrow-spectral-norm",
        "classic-12-transposed-binary",
        "smp-narrow-binary",
    ],
)
def test_rtx_builds_every_family_of_checkpoints(name: str, tmp_path: Path) -> None:
    source: Path | str = name
    if name != "small":
        torch = pytest.importorskip("torch")
        pytest.importorskip("onnxscript")
        from importer_fixtures import load, weights

        source = tmp_path / "unet.pth"
        torch.save(weights(load(name)), source)
    built = build(source, target="tensorrt-rtx", size=(128, 96), out=tmp_path / "engines", verify=False)
    assert built.path.read_bytes()[:4] == b"vtrt"
    assert built.sidecar.verification["precision"]["fp16_share"] == 1.0


def test_rtx_refuses_an_fp16_engine_with_fp32_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = contract_model(tmp_path / "single.onnx", precision="fp32")
    monkeypatch.setattr(
        "rtseg.models.export.source_model.to_half", lambda model, fp32_nodes: model
    )  # a conversion that does nothing
    with pytest.raises(ModelError, match=r"only 0\.0% of the multiplications are FP16"):
        build(single, target="tensorrt-rtx", out=tmp_path / "engines")
    assert not list((tmp_path / "engines").iterdir())


def test_rtx_builds_fp32_and_converts_fp32_to_fp16(tmp_path: Path) -> None:
    single = contract_model(tmp_path / "single.onnx", precision="fp32")
    built = build(single, target="tensorrt-rtx", precision="fp32", out=tmp_path, verify=False)
    assert built.sidecar.verification["precision"]["fp16_share"] == 0.0
    half = build(single, target="tensorrt-rtx", out=tmp_path)
    assert half.sidecar.verification["precision"]["fp16_share"] == 1.0  # converted, normalization kept in FP32
    assert half.sidecar.verification["precision"]["fp32_layers"] > 0
    assert half.sidecar.verification["agreement"]["pixels"] == 1.0


def through_identity(graph: Any) -> None:
    """Pass the bias of the last node through an Identity."""
    graph.node.insert(0, onnx.helper.make_node("Identity", ["bias"], ["copied_bias"]))
    graph.node[-1].input[2] = "copied_bias"


@pytest.mark.parametrize(
    "variant",
    [
        {"layout": "nhwc"},
        {"output_kind": "map"},
        {"output_kind": "probabilities", "reduce": 2},
        {"extra": through_identity},
    ],
    ids=["nhwc", "map", "probabilities", "bias behind Identity"],
)
def test_rtx_builds_foreign_onnx(variant: dict[str, Any], tmp_path: Path) -> None:
    foreign = foreign_model(tmp_path / "theirs.onnx", **variant)
    built = build(foreign, target="tensorrt-rtx", size=(96, 64), out=tmp_path, preprocessing=PLAIN, verify=False)
    assert built.sidecar.verification["precision"]["fp16_share"] == 1.0
    assert built.sidecar.facts.input_size == (96, 64)


def test_rtx_error_lists_supported_capabilities(model: Path, tmp_path: Path) -> None:
    built = build(
        model, target="tensorrt-rtx", out=tmp_path, options=EngineOptions(compute_capability="8.6"), verify=False
    )
    assert "-sm86-rtx" in built.path.name
    assert built.sidecar.facts.capabilities == ("8.6",)
    with pytest.raises(OptionError, match=r"can't build for compute capability '8\.7': it supports 7\.5, 8\.0, 8\.6"):
        build(model, target="tensorrt-rtx", out=tmp_path, options=EngineOptions(compute_capability="8.7"))
    with pytest.raises(OptionError, match="--hardware-compatible is for --target tensorrt;"):
        build(model, target="tensorrt-rtx", out=tmp_path, options=EngineOptions(hardware_compatible=True))


def test_rtx_error_names_an_unsupported_operator(tmp_path: Path) -> None:
    def strange(graph: Any) -> None:
        graph.node.append(onnx.helper.make_node("Det", ["b"], ["d"], "strange_node"))

    bad = contract_model(tmp_path / "bad.onnx", extra=strange)
    with pytest.raises(ModelError, match=r"TensorRT can't parse operator Det \(node 'strange_node'\)"):
        build(bad, target="tensorrt-rtx", out=tmp_path / "engines")
    assert not list((tmp_path / "engines").iterdir())


def test_rtx_without_a_gpu_raises_an_error(model: Path, tmp_path: Path) -> None:
    from rtseg.gpu.devices import find_gpus

    if find_gpus():
        pytest.skip("there is a GPU")
    built = build(model, target="tensorrt-rtx", out=tmp_path, verify=False)
    assert choose_backend(built.path).backend == "tensorrt-rtx"
    with pytest.raises(BackendError, match="tensorrt-rtx needs an NVIDIA GPU"):
        open_backend("tensorrt-rtx", built.path)
