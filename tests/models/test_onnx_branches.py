"""ONNX networks with an If, as written by TorchScript for `squeeze`: the branch of a fixed size replaces the If."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from building import build
from class_maps import onnx_class_maps
from onnx import TensorProto, helper, numpy_helper

from rtseg.nn.preprocessing import Preprocessing

WIDTH, HEIGHT = 48, 32
PLAIN = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))


def _branch(name: str, nodes: list, output: str, weights: tuple = ()) -> onnx.GraphProto:
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, [], [result], list(weights))


def _write_squeeze_network(path: Path, *, axis: int, nested: bool = False, version: int = 17) -> Path:
    """Write sigmoid(conv(x)).squeeze(axis) with free sizes. Both branches use the same names and have their own weight."""
    node, axes = helper.make_node, numpy_helper.from_array(np.array([axis], np.int64), "axes")
    squeeze = node("Squeeze", ["p"], ["r"], axes=[axis]) if version < 13 else node("Squeeze", ["p", "axes"], ["r"])
    scale = [node("Mul", ["p", "k"], ["r"])]
    factor = numpy_helper.from_array(np.array(1, np.float32), "k")
    then = _branch("then", [squeeze], "r", () if version < 13 else (axes,))
    if nested:
        inner = [node("If", ["is_one"], ["r2"], then_branch=then, else_branch=_branch("else", scale, "r", (factor,)))]
        then = _branch("outer", inner, "r2")
    nodes = [
        node("Conv", ["x", "w", "b"], ["s"]),
        node("Sigmoid", ["s"], ["p"]),
        node("Shape", ["p"], ["lengths"]),
        node("Constant", [], ["which"], value=numpy_helper.from_array(np.array(axis))),
        node("Gather", ["lengths", "which"], ["length"]),
        node("Constant", [], ["one"], value=numpy_helper.from_array(np.array(1))),
        node("Equal", ["length", "one"], ["is_one"]),
        node("If", ["is_one"], ["y"], then_branch=then, else_branch=_branch("else", scale, "r", (factor,))),
    ]
    weights = [
        numpy_helper.from_array(np.array([8, -3, -5], np.float32).reshape(1, 3, 1, 1), "w"),
        numpy_helper.from_array(np.array([0.2], np.float32), "b"),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w_"])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "net", [image], [result], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8), path)
    return path


def _image(batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, HEIGHT, WIDTH, 3), np.uint8)


def _run(path: Path, images: np.ndarray) -> np.ndarray:
    """Return the output of ONNX Runtime for images, uint8 `[N, H, W, 3]`."""
    x = (images / np.float32(255)).astype(np.float32).transpose(0, 3, 1, 2)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.mark.parametrize("nested", [False, True], ids=["one", "nested"])
@pytest.mark.parametrize(("axis", "batch"), [(1, 1), (0, 2)], ids=["squeezed", "not-squeezed"])
@pytest.mark.parametrize("version", [11, 17])
def test_replaces_if_by_branch_of_fixed_size(version: int, axis: int, batch: int, nested: bool, tmp_path: Path) -> None:
    path = _write_squeeze_network(tmp_path / "m.onnx", axis=axis, nested=nested, version=version)
    size, lines = (WIDTH, HEIGHT), []
    built = build(
        path, out=tmp_path / "to", target="onnx", precision="fp32", size=size, batch=batch, preprocessing=PLAIN, log=lines.append
    )  # fmt: skip
    assert any("probabilities, foreground above 0.5" in line for line in lines)
    original = _run(path, _image(batch))
    assert original.shape == ((1, HEIGHT, WIDTH) if axis else (2, 1, HEIGHT, WIDTH))
    expected = original.reshape(batch, HEIGHT, WIDTH) > 0.5
    assert 0.1 < expected.mean() < 0.9
    assert (onnx_class_maps(built.path, _image(batch)) == expected).mean() > 0.999
    assert "If" not in {node.op_type for node in onnx.load(built.path).graph.node}


def test_keeps_if_that_depends_on_image(tmp_path: Path) -> None:
    node = helper.make_node
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 1, HEIGHT, WIDTH])
    branches = {
        "then_branch": helper.make_graph([node("Identity", ["p"], ["r"])], "then", [], [result]),
        "else_branch": helper.make_graph([node("Sub", ["one", "p"], ["r"])], "else", [], [result]),
    }
    path = _write_squeeze_network(tmp_path / "m.onnx", axis=1)
    model = onnx.load(path)
    del model.graph.node[2:]
    model.graph.node.extend(
        [
            node("ReduceMean", ["x"], ["mean"], keepdims=0),
            node("Constant", [], ["half"], value=numpy_helper.from_array(np.array(0.5, np.float32))),
            node("Constant", [], ["one"], value=numpy_helper.from_array(np.array(1, np.float32))),
            node("Greater", ["mean", "half"], ["bright"]),
            node("If", ["bright"], ["y"], **branches),
        ]
    )
    onnx.save(model, path)
    preprocessing = dataclasses.replace(PLAIN, output_kind="probabilities")
    built = build(
        path, out=tmp_path / "to", target="onnx", precision="fp32", size=(WIDTH, HEIGHT), preprocessing=preprocessing
    )
    for image in (_image(1) // 2, 128 + _image(1) // 2):
        expected = _run(path, image)[0] > 0.5
        assert (onnx_class_maps(built.path, image) == expected).mean() > 0.999
