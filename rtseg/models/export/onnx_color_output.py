"""Detection of ONNX outputs that are color images: class colors, a colored mask, or colors blended with the input.

Such an output has 3 or 4 channels, and its graph ends in a color table or in pixelwise operators.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from rtseg.models.export.onnx_trace import SAME_VALUES, Trace

_SCALED = {"Add", "Sub", "Mul", "Div", "Clip", "Neg"}
_PIXELWISE = {"Add", "Sub", "Mul", "Div", "Sum", "Mean", "Max", "Min", "Where", "Concat", "Clip", "Neg"}
"""Pixelwise operators."""

_WEIGHTED = {"Conv", "MatMul", "Gemm"}


def color_output_reason(trace: Trace, name: str, axis: int) -> str:
    """Return a human-readable reason why an output with this channel axis is a color image; empty if it is not."""
    channels = trace.shapes[name][axis]
    if channels not in (3, 4):
        return ""
    for source, node in trace.walk(name, lambda node: _pixelwise_inputs(trace, node)):
        if node is None and trace.constant(source) is None:
            return "the input image is blended into it"
        if node is not None and _is_class_color(trace, node):
            return "each class has a color from a table in the graph"
    tables: list[tuple[float, ...]] = []
    if _is_colored_value(trace, name, channels, tables):
        codes = {table for table in tables if any(table)}
        if len(codes) < 2 or not all(sorted(code) == [0.0] * (channels - 1) + [1.0] for code in codes):
            return f"its {channels} channels are computed from one value per pixel, like colors"
    return ""


def _pixelwise_inputs(trace: Trace, node: onnx.NodeProto) -> list[str]:
    """Return the inputs, without constants, whose values a node only moves, scales or mixes pixel by pixel."""
    if node.op_type in SAME_VALUES:
        inputs = [node.input[0]]
    elif node.op_type == "Where":
        inputs = list(node.input[1:])
    elif node.op_type in _PIXELWISE:
        inputs = list(node.input)
    else:
        return []
    return [name for name in inputs if name and trace.constant(name) is None]


def _is_class_color(trace: Trace, node: onnx.NodeProto) -> bool:
    """Return True if a node returns class colors: rows of a table, or class indices multiplied by a matrix."""
    if node.op_type in ("Gather", "GatherND") and (table := trace.constant(node.input[0])) is not None:
        return trace.constant(node.input[1]) is None and table.ndim > 1 and not _is_one_hot(table)
    return node.op_type in _WEIGHTED and _is_weighted_class(trace, node.output[0])


def _is_weighted_class(trace: Trace, name: str) -> bool:
    """Return True if a tensor is computed from class indices or a Softmax and from constants, so that each class has a color."""
    weights: list[npt.NDArray[Any]] = []
    while (node := trace.producer(name)) is not None:
        if node.op_type in ("ArgMax", "ArgMin", "OneHot", "Equal"):
            return True
        if (
            node.op_type == "Softmax"
        ):  # weights of 0 and 1 group classes; a blur has a depthwise kernel, which is not 2-D
            table = weights[0].squeeze() if len(weights) == 1 else np.empty(0)
            return table.ndim == 2 and table.min() >= 0 and not _is_one_hot(table) and not _is_one_hot(table.T)
        computed = [source for source in node.input if source and trace.constant(source) is None]
        if len(computed) != 1 or node.op_type not in SAME_VALUES | _SCALED | _WEIGHTED:
            return False
        if node.op_type in _WEIGHTED and (weight := trace.constant(node.input[1])) is not None:
            weights.append(weight)
        name = computed[0]
    return False


def _is_one_hot(table: npt.NDArray[Any]) -> bool:
    """Return True if each row of a table has one nonzero value, which is equal in all rows."""
    highest = np.abs(table).max(initial=0)
    one_hot = table.ndim == 2 and ((table == highest).sum(axis=1) == 1).all()
    return bool(one_hot and np.isin(table, (0, highest)).all())


def _is_colored_value(trace: Trace, name: str, channels: int, tables: list[tuple[float, ...]]) -> bool:
    """Return True if all channels are computed from one bounded value per pixel, such as a mask, and from constants.

    The constants of `channels` values are added to `tables`.
    """
    node = trace.producer(name)
    if node is None:
        return False
    if node.op_type == "Concat":
        roots = {_unscaled(trace, source) for source in node.input if trace.constant(source) is None}
        return len(roots) == 1 and all(trace.values(root).bounded and _is_single_channel(trace, root) for root in roots)
    size = math.prod(trace.shapes.get(name, (0,)))

    def is_bounded_single_channel(source: str) -> bool:
        single = math.prod(trace.shapes.get(source, (0,))) * channels == size
        return single and size > 0 and trace.values(source).bounded

    if node.op_type in SAME_VALUES:
        return (node.op_type in ("Expand", "Tile") and is_bounded_single_channel(node.input[0])) or _is_colored_value(
            trace, node.input[0], channels, tables
        )
    if node.op_type not in _PIXELWISE:
        return False
    for source in node.input:
        if source and (constant := trace.constant(source)) is not None and constant.size == channels:
            tables.append(tuple(float(value) for value in constant.ravel()))
    conditions = [node.input[0]] if node.op_type == "Where" else []
    inputs = _pixelwise_inputs(trace, node)
    return bool(conditions or inputs) and all(
        is_bounded_single_channel(source)
        or (source not in conditions and _is_colored_value(trace, source, channels, tables))
        for source in (*conditions, *inputs)
    )


def _unscaled(trace: Trace, name: str) -> str:
    """Return the tensor of which a tensor is a multiple, in another shape or type."""
    steps = _SCALED | {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Round", "Flatten"}
    while (node := trace.producer(name)) is not None and node.op_type in steps:
        computed = [source for source in node.input if source and trace.constant(source) is None]
        if len(computed) != 1:
            break
        name = computed[0]
    return name


def _is_single_channel(trace: Trace, name: str) -> bool:
    """Return True if a tensor has one value per pixel, as far as the graph shows."""
    axis, shape = trace.class_axis(name), trace.shapes.get(name)
    return axis is None or shape is None or axis >= len(shape) or shape[axis] == 1
