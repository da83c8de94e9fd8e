"""Imported networks as FP16 ONNX: ONNX Runtime and OpenVINO return the class map of the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import cv2  # noqa: E402
import onnx  # noqa: E402
import openvino  # noqa: E402
from building import build  # noqa: E402
from class_maps import onnx_class_maps, to_class_maps  # noqa: E402
from importer_fixtures import expected, load, weights  # noqa: E402
from importer_weights import image  # noqa: E402

from rtseg.core.errors import ModelError  # noqa: E402
from rtseg.inference.bundled_models import ASSETS  # noqa: E402
from rtseg.models.export import onnx_adapter  # noqa: E402
from rtseg.models.export.checkpoint_source import CheckpointModel  # noqa: E402
from rtseg.nn import image_to_scores as contract  # noqa: E402
from rtseg.nn.importers import import_checkpoint  # noqa: E402
from rtseg.nn.preprocessing import Preprocessing  # noqa: E402

FAMILIES = (
    "fastai1-narrow-batch-norm",
    "fastai2-narrow-spectral-norm",
    "classic-12-transposed-binary",
    "smp-narrow-binary",
)
"""Fixture of each family with the largest score margins."""


def save(name: str, folder: Path) -> Path:
    torch.save(weights(load(name)), folder / "unet.pth")
    return folder / "unet.pth"


@pytest.mark.parametrize("name", FAMILIES)
def test_fp16_class_map_in_onnx_runtime_and_openvino_equals_that_of_the_library(name: str, tmp_path: Path) -> None:
    width, height = size = tuple(load(name)["size"])
    origin = CheckpointModel(save(name, tmp_path), Preprocessing(), size)
    graph = origin.graph(size, 1, "fp16").SerializeToString()
    rgb, truth = image(height, width), expected(name)

    by_onnx = onnx_class_maps(graph, rgb[None])[0]
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    by_openvino = to_class_maps(compiled(rgb[None])[0], origin.description, rgb[None])[0]

    maps = {"torch": origin.reference_model(size).run(rgb), "onnxruntime": by_onnx, "openvino": by_openvino}
    for backend, class_map in maps.items():
        assert class_map.dtype == np.uint8, backend
        assert (class_map == truth).mean() >= 0.999, backend


def swap_channels(original: Any, *arguments: Any) -> Any:
    nodes = original(*arguments)
    swap = onnx.helper.make_node("Gather", ["image", "swap"], ["bgr"], axis=3)
    arguments[0].graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 1, 0]), "swap"))
    nodes[0].input[0] = "bgr"
    return [swap, *nodes]


@pytest.mark.parametrize("kind", ["another library's", "rtseg's own"])
def test_refuses_wrapper_that_disagrees_with_checkpoint(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2.imwrite(str(tmp_path / "frame.png"), image(64, 96)[:, :, ::-1])
    if kind == "rtseg's own":
        path = ASSETS / "camvid-nano.safetensors"
        monkeypatch.setattr(
            contract, "normalize", lambda x: (x.float().flip(3) - 112.0).mul(1 / 64).permute(0, 3, 1, 2)
        )
    else:
        path = save("classic-16-bilinear-odd", tmp_path)
        original = onnx_adapter._input_nodes
        monkeypatch.setattr(onnx_adapter, "_input_nodes", lambda *arguments: swap_channels(original, *arguments))
    with pytest.raises(ModelError, match=r"agrees with the original on \d+\.\d+% of the pixels"):
        build(path, target="onnx", out=tmp_path / "built", size=(96, 64), verify_on=tmp_path)
    assert not list((tmp_path / "built").iterdir())


def test_report_names_rtsegs_reading_of_weights_as_reference(tmp_path: Path) -> None:
    lines: list[str] = []
    path = save("classic-16-bilinear-odd", tmp_path)
    cv2.imwrite(str(tmp_path / "frame.png"), image(64, 96)[:, :, ::-1])
    built = build(path, target="onnx", out=tmp_path / "built", size=(96, 64), verify_on=tmp_path, log=lines.append)
    (compared,) = [line for line in lines if line.startswith("compared:")]
    assert "equals that of rtseg's reading of the weights in unet.pth, run in FP32 by torch" in compared
    assert any("ReLU, max pooling" in note for note in built.notes)


@pytest.mark.proof
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["fastai2-narrow-no-cross", "classic-16-bilinear-odd", "smp-narrow-odd"])
def test_exported_graph_has_free_height_and_width(name: str, tmp_path: Path) -> None:
    module = import_checkpoint(save(name, tmp_path), (64, 64)).module
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    example = (torch.zeros(1, 3, 75, 101),)
    program = torch.onnx.export(module, example, dynamo=True, dynamic_shapes=(free,), verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for height, width in ((64, 96), (47, 50)):
        x = torch.from_numpy(image(height, width)).permute(2, 0, 1)[None] / 255
        scores = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        np.testing.assert_allclose(scores, module(x).numpy(), rtol=1e-3, atol=1e-3)
