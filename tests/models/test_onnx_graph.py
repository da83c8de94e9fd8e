"""Graphs of foreign ONNX networks: order of nodes, precision, operator sets and quantization."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from foreign_networks import (
    ARGMAX,
    FLOAT,
    HALF,
    HEIGHT,
    INT64,
    SIGMOID,
    SOFTMAX,
    UINT8,
    WIDE,
    WIDTH,
    ForeignNetwork,
    Node,
    assert_argmax,
    assert_foreground,
    class_map,
    run_network,
    single_output,
)
from onnx import TensorProto, helper
from onnx_models import random_images

from rtseg.core.errors import ModelError, OptionError
from rtseg.models.export.onnx_file import read_onnx

RANDOM: dict[str, tuple[list[Node], dict[str, Any]]] = {
    "dropout in training mode": ([("Dropout", "s ratio on", "y")], {"ratio": HALF, "on": np.array(True)}),
    "noise": ([("RandomNormalLike", "s", "n", {"scale": 9.0}), ("Add", "s n", "y")], {}),
}


@pytest.mark.parametrize("case", RANDOM)
def test_refuses_network_with_random_output(case: str, theirs: ForeignNetwork) -> None:
    nodes, constants = RANDOM[case]
    theirs.write(channels=3, **single_output(*nodes, **constants, shape=WIDE))
    refused = theirs.refused(
        ModelError, r"theirs\.onnx outputs a different class map each time .* training mode, or noise"
    )
    assert "--precision" not in refused


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_builds_network_whose_output_has_no_shape(target: str, theirs: ForeignNetwork) -> None:
    pytest.importorskip(target)
    theirs.write(channels=3, **single_output(ARGMAX, ("Identity", "a", "y"), element=INT64))
    model = onnx.load(theirs.path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, theirs.path)
    built = theirs.build(target=target, classes=("red", "green", "blue"))
    assert built.sidecar.verification["agreement"]["pixels"] == 1.0
    assert {
        name: round(value, 3) for name, value in built.sidecar.verification["agreement"]["overlap"].items()
    } == dict.fromkeys(("red", "green", "blue"), 1.0)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_builds_network_with_fp16_edges_and_fp32_weights(precision: str, theirs: ForeignNetwork) -> None:
    half = TensorProto.FLOAT16
    theirs.write([("Cast", "s", "y", {"to": half})], {"y": (half, WIDE)}, channels=3, source=(half, WIDE))
    model = onnx.load(theirs.path)
    model.graph.node[0].CopyFrom(helper.make_node("Cast", ["x"], ["p"], to=FLOAT))
    onnx.save(model, theirs.path)
    built = theirs.build(precision=precision)
    assert_argmax(built)
    weights = {tensor.name: tensor.data_type for tensor in onnx.load(built.path).graph.initializer}
    assert weights["network/w"] == (half if precision == "fp16" else FLOAT)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_builds_file_of_onnxruntime_fp16_converter(precision: str, theirs: ForeignNetwork) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    theirs.write(channels=3, **single_output(("Softmax", "s", "y", {"axis": 1}), shape=WIDE))
    onnx.save(convert_float_to_float16(onnx.load(theirs.path), keep_io_types=True), theirs.path)
    with pytest.raises(onnx.checker.ValidationError, match="topologically sorted"):
        onnx.checker.check_model(theirs.path)  # its casts are last
    assert_argmax(theirs.build(precision=precision))


def test_sorts_nodes_of_unsorted_graph(theirs: ForeignNetwork) -> None:
    def branch(name: str, *nodes: Any) -> Any:
        return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(name, FLOAT, WIDE)])

    theirs.write(channels=3, **single_output(("Identity", "s", "y"), shape=WIDE, yes=np.array(True)))
    model = onnx.load(theirs.path)
    kept = branch("kept", helper.make_node("Neg", ["t"], ["kept"]), helper.make_node("Neg", ["s"], ["t"]))
    negated = branch("negated", helper.make_node("Neg", ["s"], ["negated"]))
    model.graph.node[-1].CopyFrom(helper.make_node("If", ["yes"], ["y"], then_branch=kept, else_branch=negated))
    nodes = list(reversed([onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, theirs.path)
    read = read_onnx(theirs.path)
    onnx.checker.check_model(read, full_check=True)
    image = random_images(1, HEIGHT, WIDTH)[0]
    scores = run_network(read.SerializeToString(), image)
    np.testing.assert_array_equal(scores.argmax(axis=0), image.argmax(axis=2))


def test_refuses_cyclic_graph(theirs: ForeignNetwork) -> None:
    graph = single_output(("Add", "s b2", "a2"), ("Neg", "a2", "b2"), ("Identity", "a2", "y"), shape=WIDE)
    theirs.write(channels=3, **graph)
    theirs.refused(ModelError, r"theirs\.onnx is not a valid ONNX model: Nodes in a graph must be topolog")


# Old operator sets.


@pytest.mark.parametrize("opset", [9, 11])
def test_keeps_upsampling_mode_of_old_operator_sets(opset: int, theirs: ForeignNetwork) -> None:
    pool = ("AveragePool", "s", "a", {"kernel_shape": [4, 4], "strides": [4, 4]})
    scales = np.array([1, 1, 4, 4], np.float32)
    if opset == 9:  # asymmetric: relative to the corner of a pixel, not to its center
        up: list[Node] = [("Upsample", "a scales", "y", {"mode": "linear"})]
        extra = {"scales": scales}
    else:  # empty scales in addition to sizes
        up = [("Resize", "a roi none sizes", "y", {"mode": "linear"})]
        empty = np.zeros(0, np.float32)
        extra = {"roi": empty, "none": empty, "sizes": np.array([1, 3, HEIGHT, WIDTH])}
    graph = single_output(pool, *up, shape=[1, 3, HEIGHT, WIDTH], **extra)
    theirs.write(channels=3, opset=opset, **graph)
    # Random colors: with those of `random_images` two scores are equal halfway between patches.
    rng = np.random.default_rng(1)
    for file in theirs.frames.iterdir():
        cv2.imwrite(str(file), rng.integers(0, 256, (12, 16, 3), np.uint8).repeat(4, axis=0).repeat(4, axis=1))
    built = theirs.build(precision="fp32")
    image = rng.integers(0, 256, (12, 16, 3), np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    assert (class_map(built, image) == theirs.run(image).argmax(axis=0)).mean() > 0.995


# Quantized networks.

STEP, ZERO = np.float32(1 / 255), np.uint8(0)
Q_LOGITS = {"step": np.float32(0.1), "zero": np.uint8(128)}
QUANTIZED: dict[str, tuple[dict[str, Any], int]] = {
    "sigmoid, q, dq": (
        single_output(SIGMOID, ("QuantizeLinear", "g step zero", "q"), ("DequantizeLinear", "q step zero", "y"), step=STEP,
            zero=ZERO), 1
    ),
    "sigmoid, q, dq before the sigmoid": (
        single_output(("QuantizeLinear", "s step zero", "q"), ("DequantizeLinear", "q step zero", "d"), ("Sigmoid", "d",
            "y"), **Q_LOGITS), 1
    ),
    "sigmoid, q to uint8": (single_output(SIGMOID, ("QuantizeLinear", "g step zero", "y"), step=STEP, zero=ZERO, element=UINT8), 1),
    "sigmoid, q to int8": (
        single_output(SIGMOID, ("QuantizeLinear", "g step zero", "y"), step=STEP, zero=np.int8(-128), element=TensorProto.INT8), 1
    ),
    "sigmoid, q to int8, nhwc": (
        single_output(SIGMOID, ("QuantizeLinear", "g step zero", "q"), ("Transpose", "q", "y", {"perm": [0, 2, 3, 1]}), step=STEP,
            zero=np.int8(-128), element=TensorProto.INT8, shape=[1, HEIGHT, WIDTH, 1]), 1,
    ),
    "logits, q to uint8": (single_output(("QuantizeLinear", "s step zero", "y"), **Q_LOGITS, element=UINT8), 1),
    "three logits, q to uint8": (single_output(("QuantizeLinear", "s step zero", "y"), **Q_LOGITS, element=UINT8, shape=WIDE), 3),
    "softmax, q to uint8": (
        single_output(SOFTMAX, ("QuantizeLinear", "m step zero", "y"), step=STEP, zero=ZERO, element=UINT8, shape=WIDE), 3
    ),
}  # fmt: skip


@pytest.mark.parametrize("opset", [13, 17, 19])
@pytest.mark.parametrize("case", QUANTIZED)
def test_dequantizes_quantized_output(case: str, opset: int, theirs: ForeignNetwork) -> None:
    graph, channels = QUANTIZED[case]
    theirs.write(channels=channels, opset=opset, **graph)
    built = theirs.build()
    (assert_argmax if channels == 3 else assert_foreground)(built)
    assert built.sidecar.verification["agreement"]["pixels"] == 1.0


DQ = "DequantizeLinear"
THREE_QUANTIZED: dict[str, Any] = {  # a convolution as written by ONNX Runtime's static quantization; `s` is not used
    **single_output(
        ("QuantizeLinear", "x step zero", "q"), (DQ, "q step zero", "d"), (DQ, "weight wstep wzero", "dw"), ("Conv", "d dw", "y"),
        step=STEP, zero=ZERO, weight=np.eye(3, dtype=np.int8).reshape(3, 3, 1, 1) * np.int8(100), wstep=np.float32(0.1),
        wzero=np.int8(0), shape=WIDE,
    ),
    "channels": 3,
}  # fmt: skip


def test_builds_quantized_network_only_as_fp32(theirs: ForeignNetwork) -> None:
    theirs.write(**THREE_QUANTIZED)
    theirs.refused(OptionError, r"is quantized: 100% of its multiplications are INT8 already.*--precision fp32")
    assert_argmax(theirs.build(precision="fp32"))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_refuses_fp16_and_int8_for_16_bit_activations(precision: str, theirs: ForeignNetwork) -> None:
    wide = {**THREE_QUANTIZED, "step": np.float32(1 / 65535), "zero": np.uint16(0)}
    theirs.write(opset=21, **wide)
    message = r"100% of its multiplications are of numbers that are not INT8.*--precision fp32"
    theirs.refused(OptionError, message, precision=precision, calibrate=theirs.frames if precision == "int8" else None)
    assert_argmax(theirs.build(precision="fp32"))
