"""Whether an output of an ONNX network is a picture: colors by class, a colored mask, or colors laid over the input.

Such an output has as many channels as a picture, and its graph ends in a table or in steps that work on each pixel by itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from rtseg.models.export.onnx_trace import SAME_VALUES, Trace

_SCALED = {"Add", "Sub", "Mul", "Div", "Clip", "Neg"}
_MIXED = {"Add", "Sub", "Mul", "Div", "Sum", "Mean", "Max", "Min", "Where", "Concat", "Clip", "Neg"}
"""Operators that mix pictures pixel by pixel."""

_WEIGHED = {"Conv", "MatMul", "Gemm"}


def color_output_reason(trace: Trace, name: str, axis: int) -> str:
    """What makes an output with values of several channels a picture, for people; empty: nothing does.

    Args:
        trace: the graph.
        name: of the output.
        axis: of its channels.
    """
    channels = trace.shapes[name][axis]
    if channels not in (3, 4):
        return ""
    if _looked_up(trace, name):
        return "each class has a color from a table in the graph"
    if _shows_input(trace, name):
        return "the input image is blended into it"
    tables: list[tuple[float, ...]] = []
    if _painted(trace, name, channels, tables):
        codes = {table for table in tables if any(table)}
        if len(codes) < 2 or not all(sorted(code) == [0.0] * (channels - 1) + [1.0] for code in codes):
            return f"its {channels} channels are made of one value a pixel, as colors are"
    return ""


def _mixed(trace: Trace, node: onnx.NodeProto) -> list[str]:
    """The tensors whose values a node only moves, scales or mixes pixel by pixel; constants are left out."""
    if node.op_type in SAME_VALUES:
        given = [node.input[0]]
    elif node.op_type == "Where":
        given = list(node.input[1:])
    elif node.op_type in _MIXED:
        given = list(node.input)
    else:
        return []
    return [name for name in given if name and trace.constant(name) is None]


def _looked_up(trace: Trace, name: str) -> bool:
    """Whether colors by class are in it: a table's rows, or class indices times a matrix."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        node = trace.producer(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type in ("Gather", "GatherND") and (table := trace.constant(node.input[0])) is not None:
            if trace.constant(node.input[1]) is None and table.ndim > 1 and not _codes(table):
                return True
        elif node.op_type in _WEIGHED:
            if _weighed_indices(trace, name):
                return True
        else:
            waiting += _mixed(trace, node)
    return False


def _weighed_indices(trace: Trace, name: str) -> bool:
    """Whether a tensor is made of class indices or of a Softmax by constants alone, so that each class has a color."""
    weights: list[npt.NDArray[Any]] = []
    while (node := trace.producer(name)) is not None:
        if node.op_type in ("ArgMax", "ArgMin", "OneHot", "Equal"):
            return True
        if (
            node.op_type == "Softmax"
        ):  # scores of groups of classes are made by weights of 0 and 1, blurred ones channel by channel
            table = weights[0].squeeze() if len(weights) == 1 else np.empty(0)
            return table.ndim == 2 and table.min() >= 0 and not _codes(table) and not _codes(table.T)
        computed = [given for given in node.input if given and trace.constant(given) is None]
        if len(computed) != 1 or node.op_type not in SAME_VALUES | _SCALED | _WEIGHED:
            return False
        if node.op_type in _WEIGHED and (weight := trace.constant(node.input[1])) is not None:
            weights.append(weight)
        name = computed[0]
    return False


def _codes(table: npt.NDArray[Any]) -> bool:
    """Whether a table's rows hold one value each and else 0, all the same one, as one-hot codes do."""
    highest = np.abs(table).max(initial=0)
    one_hot = table.ndim == 2 and ((table == highest).sum(axis=1) == 1).all()
    return bool(one_hot and np.isin(table, (0, highest)).all())


def _shows_input(trace: Trace, name: str) -> bool:
    """Whether the input image is in it, pixel by pixel."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        node = trace.producer(name)
        if node is None and trace.constant(name) is None:
            return True
        if node is None:
            continue
        waiting += _mixed(trace, node)
    return False


def _painted(trace: Trace, name: str, channels: int, tables: list[tuple[float, ...]]) -> bool:
    """Whether all channels are made of one bounded value a pixel, such as a mask, and of constants, which go to `tables`."""
    node = trace.producer(name)
    if node is None:
        return False
    if node.op_type == "Concat":
        roots = {_unscaled(trace, given) for given in node.input if trace.constant(given) is None}
        return len(roots) == 1 and all(trace.values(root).bounded and _single(trace, root) for root in roots)
    made = math.prod(trace.shapes.get(name, (0,)))

    def narrow(given: str) -> bool:
        one = math.prod(trace.shapes.get(given, (0,))) * channels == made
        return one and made > 0 and trace.values(given).bounded

    if node.op_type in SAME_VALUES:
        return (node.op_type in ("Expand", "Tile") and narrow(node.input[0])) or _painted(
            trace, node.input[0], channels, tables
        )
    if node.op_type not in _MIXED:
        return False
    for given in node.input:
        if given and (constant := trace.constant(given)) is not None and constant.size == channels:
            tables.append(tuple(float(value) for value in constant.ravel()))
    deciding = [node.input[0]] if node.op_type == "Where" else []
    rest = _mixed(trace, node)
    return bool(deciding or rest) and all(
        narrow(given) or (given not in deciding and _painted(trace, given, channels, tables))
        for given in (*deciding, *rest)
    )


def _unscaled(trace: Trace, name: str) -> str:
    """The tensor of which another is a multiple, in another shape or type."""
    steps = _SCALED | {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Round", "Flatten"}
    while (node := trace.producer(name)) is not None and node.op_type in steps:
        computed = [given for given in node.input if given and trace.constant(given) is None]
        if len(computed) != 1:
            break
        name = computed[0]
    return name


def _single(trace: Trace, name: str) -> bool:
    """Whether a tensor has one value a pixel."""
    axis, shape = trace.class_axis(name), trace.shapes.get(name)
    return axis is None or shape is None or axis >= len(shape) or shape[axis] == 1
