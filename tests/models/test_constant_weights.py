"""ONNX files whose weights are not initializers: they are in Constant nodes, as written by paddle2onnx, or preceded by a step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from class_maps import onnx_class_maps
from foreign_networks import HEIGHT, WIDTH, ForeignNetwork, assert_foreground
from onnx import helper, numpy_helper
from onnx_models import CLASSES, expected_classes, foreign_model, random_images

from rtseg.core.errors import ModelError
from rtseg.inference.argmax import class_maps
from rtseg.inference.openvino import OpenVinoBackend


def create_session(model: Any) -> Any:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def store(storage: str, array: Any, name: str) -> tuple[list[Any], list[Any]]:
    """Return the nodes and initializers that define a tensor of this name and value."""
    stored, steps = array, []
    if storage == "float16" and array.ndim == 4:
        stored, steps = array.astype(np.float16), [helper.make_node("Cast", ["0" + name], [name], to=1)]
        assert (stored == array).all()
    elif storage == "transposed" and array.ndim == 4:
        stored, steps = array.transpose(), [helper.make_node("Transpose", ["0" + name], [name])]
    elif storage == "scaled" and array.dtype == np.float32:
        two = helper.make_node("Constant", [], ["2" + name], value_float=2.0)
        stored, steps = array / 2, [two, helper.make_node("Mul", ["0" + name, "2" + name], [name])]
    elif storage == "identity":
        steps = [helper.make_node("Identity", ["0" + name], [name])]
    tensor = numpy_helper.from_array(np.ascontiguousarray(stored), "0" + name if steps else name)
    if storage in ("constant", "float16"):
        return [helper.make_node("Constant", [], [tensor.name], value=tensor), *steps], []
    return steps, [tensor]


@pytest.mark.parametrize("storage", ["constant", "float16", "transposed", "scaled", "identity"])
@pytest.mark.parametrize(("precision", "opset", "ir"), [("fp16", 17, 8), ("fp32", 17, 8), ("fp16", 12, 3)])
def test_builds_weights_that_are_not_initializers(
    storage: str, precision: str, opset: int, ir: int, theirs: ForeignNetwork
) -> None:
    model = onnx.load(foreign_model(theirs.path, size=(WIDTH, HEIGHT), opset=opset))
    original = create_session(model)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    multiplications = sum(math.prod(array.shape) * WIDTH * HEIGHT for array in arrays.values() if array.ndim == 4)
    parts = [store(storage, array, name) for name, array in arrays.items()]
    nodes = [*(node for stored_nodes, _ in parts for node in stored_nodes), *model.graph.node]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensor for _, tensors in parts for tensor in tensors)
    model.ir_version = ir
    if ir < 4:  # these versions require each weight as an input too
        model.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
        )
    onnx.save(model, theirs.path)
    noise = np.random.default_rng(0).random((1, 3, HEIGHT, WIDTH), np.float32)
    expected, actual = (session.run(None, {"x": noise})[0] for session in (original, create_session(model)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)

    lines: list[str] = []
    built = theirs.build(lines=lines, classes=CLASSES, precision=precision)
    images = random_images(2, HEIGHT, WIDTH)
    for image in images:
        np.testing.assert_array_equal(onnx_class_maps(built.path, image[None]), expected_classes(image[None]))
    counted = built.sidecar.verification["precision"]
    assert (counted["multiplications"], counted["fp16_share"]) == (multiplications, 1.0 if precision == "fp16" else 0.0)
    assert not any("nan" in line or " 0.00 " in line for line in lines), lines
    stored = {tensor.data_type for tensor in onnx.load(built.path).graph.initializer if len(tensor.dims) == 4}
    assert onnx.TensorProto.FLOAT16 in stored or precision == "fp32"


def test_openvino_builds_weights_in_constant_nodes(theirs: ForeignNetwork) -> None:
    model = onnx.load(foreign_model(theirs.path, size=(WIDTH, HEIGHT)))
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer]
    nodes += model.graph.node
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    onnx.save(model, theirs.path)
    built = theirs.build(classes=CLASSES, target="openvino")
    backend = OpenVinoBackend(built.path)
    images = random_images(1, HEIGHT, WIDTH)
    np.testing.assert_array_equal(class_maps(backend, images), expected_classes(images))
    backend.close()


def test_network_without_weights_builds_only_as_fp32(theirs: ForeignNetwork) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "red"], ["r"], axis=1),
            helper.make_node("Greater", ["r", "half"], ["t"]),
            helper.make_node("Cast", ["t"], ["y"], to=1),
        ],
        "theirs",
        [helper.make_tensor_value_info("x", 1, [1, 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("y", 1, [1, 1, HEIGHT, WIDTH])],
        [numpy_helper.from_array(np.array([0]), "red"), numpy_helper.from_array(np.float32(0.5), "half")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), theirs.path)
    message, names = r"no convolution or matrix product with stored weights.*--precision fp32", ("other", "red")
    theirs.refused(ModelError, message, classes=names)
    lines: list[str] = []
    assert_foreground(theirs.build(lines=lines, classes=names, precision="fp32"))
    assert "fp32: no convolutions or matrix products with stored weights, counted on the ONNX graph" in lines
