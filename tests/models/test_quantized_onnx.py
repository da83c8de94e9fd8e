"""A network quantized by ONNX Runtime has the same class maps in rtseg as in ONNX Runtime."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from building import build
from onnx import TensorProto, helper, numpy_helper

from rtseg.core.errors import ModelError
from rtseg.inference.argmax import class_maps
from rtseg.inference.openvino import OpenVinoBackend
from rtseg.nn.preprocessing import Preprocessing

WIDTH, HEIGHT, CLASSES = 64, 48, 4
PLAIN = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))


def _write_quantized(path: Path) -> Path:
    """Write two parallel convolutions, a Concat and a padded convolution.

    Each value is between QuantizeLinear and DequantizeLinear, as in the output of `onnxruntime.quantization.quantize_static`.
    """
    rng = np.random.default_rng(1)
    nodes, weights = [], []

    def store(name: str, array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(array, name))
        return name

    def values(name: str, scale: float, zero: int) -> str:
        pair = [store(f"{name}_scale", np.array(scale, np.float32)), store(f"{name}_zero", np.array(zero, np.int8))]
        nodes.append(helper.make_node("QuantizeLinear", [name, *pair], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *pair], [f"{name}_dq"]))
        return f"{name}_dq"

    def convolution(source: str, name: str, shape: tuple[int, ...], limit: float) -> str:
        scale = store(f"{name}_ws", np.array(limit / 127, np.float32))
        numbers = store(f"{name}_w8", rng.integers(-127, 128, shape).astype(np.int8))
        nodes.append(helper.make_node("DequantizeLinear", [numbers, scale], [f"{name}_w"]))
        bias = store(f"{name}_b", rng.normal(0, 0.1, shape[0]).astype(np.float32))
        nodes.append(helper.make_node("Conv", [source, f"{name}_w", bias], [name], pads=[shape[2] // 2] * 4))
        return name

    image = values("x", 1 / 255, -128)
    convolution(image, "a0", (16, 3, 3, 3), 0.4)
    nodes.append(helper.make_node("Relu", ["a0"], ["a"]))
    first = values("a", 0.012, -128)
    second = values(convolution(image, "b", (16, 3, 3, 3), 0.15), 0.006, -9)
    nodes.append(helper.make_node("Concat", [first, second], ["c"], axis=1))
    convolution(values("c", 0.014, -79), "d0", (16, 32, 3, 3), 0.1)
    nodes.append(helper.make_node("Relu", ["d0"], ["d"]))
    convolution(values("d", 0.012, -128), "y", (CLASSES, 16, 1, 1), 0.5)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, CLASSES, HEIGHT, WIDTH])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_built_file_agrees_with_onnx_runtime(target: str, tmp_path: Path) -> None:
    path = _write_quantized(tmp_path / "m.onnx")
    built = build(path, out=tmp_path / "to", target=target, precision="fp32", preprocessing=PLAIN, verify=False)
    image = np.random.default_rng(0).integers(0, 256, (1, HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    image = image.repeat(4, axis=1).repeat(4, axis=2)
    tensor = (image / np.float32(255)).astype(np.float32).transpose(0, 3, 1, 2)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    scores = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"x": tensor})[0]
    expected = scores.argmax(axis=1)
    with closing(OpenVinoBackend(built.path, precision="fp32")) as backend:
        actual = class_maps(backend, image)
    assert np.unique(expected).size == CLASSES
    assert (actual == expected).mean() > 0.99


def test_failed_fp32_build_does_not_suggest_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write_quantized(tmp_path / "m.onnx")
    zeros = np.zeros((1, CLASSES, HEIGHT, WIDTH), np.float32)
    monkeypatch.setattr(OpenVinoBackend, "infer", lambda self, images: zeros)
    with pytest.raises(ModelError, match=r"it was removed. --min-agreement accepts less") as refused:
        build(path, out=tmp_path / "to", target="openvino", precision="fp32", preprocessing=PLAIN)
    assert "--precision" not in str(refused.value)
