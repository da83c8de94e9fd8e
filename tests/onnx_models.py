"""Small ONNX networks for the tests of builds and backends: some follow rtseg's model contract, some are foreign."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rtseg.core.model_info import METADATA_KEY, ModelInfo

CLASSES = ("dark", "red", "green", "blue")
"""Classes of the small networks: the strongest color of a pixel, or none."""

_FLOAT = {"fp32": (TensorProto.FLOAT, np.float32), "fp16": (TensorProto.FLOAT16, np.float16)}


def expected_classes(images: Any) -> Any:
    """Return the class maps of these networks: 0 if all channels are below 80, else the class of the strongest channel."""
    scores = np.concatenate([np.full((*images.shape[:3], 1), 79.5), images.astype(np.float64)], axis=3)
    return scores.argmax(axis=3).astype(np.uint8)


def expected_scores(images: Any) -> Any:
    """Return the scores of these networks, at the resolution of the images: float16 `[N, 4, H, W]`."""
    offset = np.full((len(images), 1, *images.shape[1:3]), 79.5, np.float32)
    return (np.concatenate([offset, images.transpose(0, 3, 1, 2)], axis=1) / np.float32(255)).astype(np.float16)


def random_images(count: int, height: int, width: int, seed: int = 0) -> Any:
    """Return random images without ties, uint8 `[count, height, width, 3]`, in patches of 4x4 pixels."""
    rng = np.random.default_rng(seed)
    order = rng.permuted(
        np.broadcast_to(np.array([40, 120, 200]), (count, -(-height // 4), -(-width // 4), 3)).copy(), axis=3
    )
    order = np.where(rng.random(order.shape[:3])[..., None] < 0.2, 30 + np.array([0, 5, 10]), order)
    return order.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width].astype(np.uint8)


def _color_convolutions(precision: str, prefix: str = "") -> tuple[list[Any], list[Any]]:
    """Return nodes and weights of two convolutions around a BatchNorm, NCHW, from `x` (RGB of 0 to 1) to `scores`."""
    _, numpy_type = _FLOAT[precision]
    first = np.zeros((8, 3, 3, 3), numpy_type)
    first[0, 0, 1, 1] = first[1, 1, 1, 1] = first[2, 2, 1, 1] = 2
    second = np.zeros((4, 8, 1, 1), numpy_type)
    second[1, 0] = second[2, 1] = second[3, 2] = 1
    bias = np.array([79.5 / 255, 0, 0, 0], numpy_type)
    ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    weights = [
        numpy_helper.from_array(array, prefix + name)
        for name, array in {
            "first": first, "second": second, "bias": bias,
            "gamma": ones.astype(numpy_type), "beta": zeros.astype(numpy_type),
            "mean": zeros.astype(numpy_type), "variance": (4 * ones - 1e-5).astype(numpy_type),
        }.items()
    ]  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", prefix + "first"], ["a"], "conv_first", pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization",
            ["a", *(prefix + n for n in ("gamma", "beta", "mean", "variance"))],
            ["b"],
            "norm",
            epsilon=1e-5,
        ),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        helper.make_node("Conv", ["c", prefix + "second", prefix + "bias"], ["scores"], "conv_second"),
    ]
    return nodes, weights


def contract_model(
    path: Path,
    *,
    precision: str = "fp16",
    size: tuple[int, int] = (64, 48),
    name: str = "colors",
    described: bool = True,
    output: Literal["scores", "classes"] = "scores",
    extra: Any = None,
) -> Path:
    """Write a network of the contract with free batch, height and width, like the exports of `rtseg train`."""
    float_type, _ = _FLOAT[precision]
    nodes, weights = _color_convolutions(precision)
    weights.append(numpy_helper.from_array(np.array(1 / 255, np.float32), "scale"))
    before = [
        helper.make_node("Cast", ["image"], ["f"], "cast_in", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["t", "scale"], ["m"], "normalize"),
        helper.make_node("Cast", ["m"], ["x"], "cast_half", to=float_type),
    ]
    after = []
    result = helper.make_tensor_value_info("scores", float_type, ["N", len(CLASSES), "H", "W"])
    if output == "classes":
        after = [
            helper.make_node("ArgMax", ["scores"], ["index"], "argmax", axis=1, keepdims=0),
            helper.make_node("Cast", ["index"], ["classes"], "cast_out", to=TensorProto.UINT8),
        ]
        result = helper.make_tensor_value_info("classes", TensorProto.UINT8, ["N", "H", "W"])
    graph = helper.make_graph(
        [*before, *nodes, *after],
        "colors",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [result],
        weights,
    )
    if extra is not None:
        extra(graph)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if described:
        description = ModelInfo(
            name, CLASSES, size, network="unet-test", precision=precision, license="MIT", output=output
        )
        model.metadata_props.add(key=METADATA_KEY, value=description.to_json())
    onnx.save(model, path)
    return path


def foreign_model(
    path: Path,
    *,
    layout: str = "nchw",
    output_kind: str = "logits",
    size: tuple[int, int] | None = None,
    precision: str = "fp32",
    reduce: int = 1,
    opset: int = 17,
    extra: Any = None,
) -> Path:
    """Write a foreign network with RGB of 0 to 1 as its input.

    Args:
        path: path of the file.
        layout: layout of input and scores, `nchw` or `nhwc`.
        output_kind: `logits`, `probabilities` (softmax at the end) or `map` (int64 class indices).
        size: fixed (width, height); None: free.
        precision: precision of weights, input and scores.
        reduce: factor by which the scores are smaller than the input.
        opset: operator set.
        extra: function that changes the graph before it is saved.
    """
    float_type, _ = _FLOAT[precision]
    nodes, weights = _color_convolutions(precision)
    height, width = (size[1], size[0]) if size else ("H", "W")
    source = "x"
    if layout == "nhwc":
        nodes.insert(0, helper.make_node("Transpose", ["image"], ["x"], "planes", perm=[0, 3, 1, 2]))
        source = "image"
    output = "scores"
    if reduce > 1:
        nodes.append(
            helper.make_node(
                "AveragePool", [output], ["small"], "pool", kernel_shape=[reduce] * 2, strides=[reduce] * 2
            )
        )
        output = "small"
    if output_kind == "probabilities":
        nodes.append(helper.make_node("Softmax", [output], ["soft"], "softmax", axis=1))
        output = "soft"
    element = float_type
    if output_kind == "map":
        nodes.append(helper.make_node("ArgMax", [output], ["index"], "argmax", axis=1, keepdims=1))
        output, element = "index", TensorProto.INT64
    elif layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [output], ["last"], "channels_last", perm=[0, 2, 3, 1]))
        output = "last"
    shape = ["N", 3, height, width] if layout == "nchw" else ["N", height, width, 3]
    graph = helper.make_graph(
        nodes,
        "colors",
        [helper.make_tensor_value_info(source, float_type, shape)],
        [helper.make_tensor_value_info(output, element, [None] * 4)],
        weights,
    )
    if extra is not None:
        extra(graph)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
    return path
