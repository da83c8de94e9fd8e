"""Cut of an ONNX network before its argmax and its final upsampling, which rtseg computes itself from the class scores."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from rtseg.models.export.onnx_file import FLOATS, attributes_of
from rtseg.models.export.onnx_find_output import map_size, tensor_shapes
from rtseg.models.export.onnx_output import Output
from rtseg.models.export.onnx_trace import Trace

_MOVES = {
    "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Dropout", "Slice", "Gather", "Split", "Expand", "Tile"
}  # fmt: skip


def cut_to_scores(
    model: onnx.ModelProto, path: Path, output: Output, size: tuple[int, int], batch: int, precision: str
) -> Output:
    """Return the tensor of class scores that an output is computed from; the output itself if there is none.

    `output` is the model's only output; the returned tensor becomes its only output.
    """
    trace = Trace(model, tensor_shapes(model, path), size, batch)
    if precision != "fp32":
        _drop_activation(trace, model.graph, output)
    scores = output
    if output.kind == "classes":
        scores = _before_argmax(trace, output) or output
    if scores.kind != "classes":
        scores = _before_upsampling(trace, scores) or scores
    value = next((value for value in model.graph.value_info if value.name == scores.name), None)
    if scores.name == output.name or value is None:
        return output
    del model.graph.output[:]
    model.graph.output.append(value)
    return scores


def _drop_activation(trace: Trace, graph: onnx.GraphProto, output: Output) -> None:
    """Replace the last Softmax or Sigmoid by an Identity, in place, if the highest score stays the same: FP16 is more exact then.

    It is kept if its values have other consumers, if pooling or resizing mixes them, and if a Softmax is not over the classes.
    """
    if output.axis is None or output.kind == "multilabel" or output.size != trace.size[::-1]:
        return
    consumed = Counter([*(name for node in graph.node for name in node.input), *(o.name for o in graph.output)])
    name = output.name
    while (node := trace.producer(name)) is not None and node.op_type in _MOVES and consumed[name] == 1:
        name = node.input[0]
    if node is None or consumed[name] > 1 or node.op_type not in ("Softmax", "LogSoftmax", "Sigmoid"):
        return
    if node.op_type != "Sigmoid":
        shape, axis = trace.shapes.get(name, ()), trace.class_axis(name)
        over_image = axis is not None and axis < len(shape) and math.prod(shape) == trace.batch * shape[axis]
        if not over_image and trace.class_axis(output.name) != output.axis:
            return
    node.op_type = "Identity"
    del node.attribute[:]


def _before_argmax(trace: Trace, output: Output) -> Output | None:
    """Return the input of the argmax that computes a class map; None if it is computed in another way."""
    name = output.name
    while (node := trace.producer(name)) is not None and node.op_type in ("Identity", "Cast", "Squeeze", "Reshape"):
        if node.op_type == "Cast" and attributes_of(node)["to"] == TensorProto.BOOL:
            return None
        name = node.input[0]
    if node is None or node.op_type != "ArgMax" or attributes_of(node).get("select_last_index") or output.quantized:
        return None
    shape, map_shape = trace.shapes.get(node.input[0], ()), trace.shapes.get(name, ())
    if not shape or _longer_axes(map_shape) != _longer_axes(output.shape):
        return None
    axis = attributes_of(node).get("axis", 0) % len(shape)
    if output.indices not in (0, shape[axis]) or map_size(trace, [*shape[:axis], *shape[axis + 1 :]]) != output.size:
        return None
    return replace(output, name=node.input[0], kind="logits", shape=shape, axis=axis)


def _before_upsampling(trace: Trace, output: Output) -> Output | None:
    """Return the input of a final bilinear upsampling that equals OpenCV's; None if there is none."""
    name, axis = output.name, output.axis if output.axis is not None else 1
    while (node := trace.producer(name)) is not None and node.op_type in ("Identity", "Cast", "Transpose"):
        attributes = attributes_of(node)
        if node.op_type == "Cast" and attributes["to"] not in FLOATS:
            return None
        if node.op_type == "Transpose":
            axis = attributes["perm"][axis] if "perm" in attributes else -1
        name = node.input[0]
    if node is None or node.op_type != "Resize" or output.quantized or output.size != trace.size[::-1]:
        return None
    before, after = trace.shapes.get(node.input[0], ()), trace.shapes.get(name, ())
    attributes = {"mode": b"nearest", "coordinate_transformation_mode": b"half_pixel", **attributes_of(node)}
    scales = trace.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    is_bilinear = (
        len(before) == len(after) == 4
        and axis == 1
        and before[:2] == after[:2]
        and after[2:] == trace.size[::-1]
        and before[2] <= after[2]
        and before[3] <= after[3]
        and attributes["mode"] == b"linear"
        and attributes["coordinate_transformation_mode"] in (b"half_pixel", b"pytorch_half_pixel")
        and not attributes.get("antialias")
        and (scales is None or bool(np.allclose(scales[-2:] * before[2:], after[2:])))
    )
    if not is_bilinear:
        return None
    channel_axis = None if output.axis is None else 1
    return replace(output, name=node.input[0], shape=before, axis=channel_axis, size=(before[2], before[3]))


def _longer_axes(shape: tuple[int, ...]) -> list[int]:
    return [length for length in shape if length != 1]
