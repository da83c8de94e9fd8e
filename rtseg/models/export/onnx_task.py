"""Detection of ONNX networks that are no semantic segmentation although an output has the shape of a map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from rtseg.models.export.onnx_file import format_shape
from rtseg.models.export.onnx_output import Output
from rtseg.models.export.onnx_trace import SAME_VALUES, TWO_VALUED, Trace

NO_CLASS = 255
"""Value of pixels without a class in the class maps of other programs. In rtseg each pixel has a class."""


def scaled_indices_reason(trace: Trace, name: str) -> str:
    """Return a message if an output of one value per pixel contains classes that are not class indices; else empty."""
    discrete = trace.dequantized_values(name).discrete
    if discrete is None or len(discrete) < 3 or not _from_argmax(trace, name):
        return ""
    values = sorted(discrete)
    indices = all(abs(value - round(value)) < 1e-3 and -0.5 < value < NO_CLASS - 0.5 for value in values)
    if indices and np.gcd.reduce([round(value) for value in values]) == 1:
        return ""
    if np.allclose(values, [*range(len(values) - 1), NO_CLASS]):
        return (
            f"its graph sets pixels without a class to {NO_CLASS}, and rtseg needs a class for each pixel; export it "
            "without that step, so that each pixel has the index of a class"
        )
    examples = ", ".join(f"{value:.4g}" for value in values[:4]) + (", …" if len(values) > 4 else "")
    return (
        f"by the graph each pixel has one of {len(values)} values, {examples}: class indices that were scaled or shifted; export "
        "it without the step after its ArgMax, so that it outputs 0, 1, 2 and so on"
    )


def instance_segmentation_reason(trace: Trace, output: Output, others: Sequence[str]) -> str:
    """Return a message if the outputs look like an instance segmentation, whose channels are not classes; else empty.

    YOLO outputs boxes and mask prototypes. DETR and Mask2Former output classes and a mask for each query, smaller than the image.
    Mask R-CNN outputs boxes and a mask for each object. `others` are the outputs that are not maps.
    """
    name, channels = output.name, 1 if output.axis is None else output.shape[output.axis]
    if channels < 2:
        return ""
    for other in others:
        lengths = trace.shapes[other]
        table = [length for length in (lengths[1:] if lengths[:1] == (trace.batch,) else lengths) if length != 1]
        if len(table) > 1 and (output.size != trace.size[::-1] or channels in table):
            return (
                f"its outputs '{other}' {format_shape(lengths)} and '{name}' {format_shape(output.shape)} look like an "
                f"instance segmentation (objects and their masks), in which the channels of '{name}' are not classes; rtseg needs "
                f"a semantic segmentation; if '{name}' has a score for each class, use --onnx-output {name}"
            )
    return ""


def channel_sum(trace: Trace, name: str) -> float | None:
    """Return the constant sum of the channels of each pixel; None if it is not constant or the graph does not show it.

    It is not constant for a Softmax over a whole image, as `axis=1` meant before operator set 13, and if each channel has a
    different weight.
    """
    node = trace.producer(name)
    if node is None:
        return None
    if node.op_type == "Softmax":
        shape = trace.shapes.get(name, ())
        axis = trace.class_axis(name)
        return 1.0 if axis is not None and axis < len(shape) and math.prod(shape) > trace.batch * shape[axis] else None
    if node.op_type == "Concat":
        return 1.0 if trace.exclusive(name) else None
    if node.op_type in SAME_VALUES or node.op_type == "Clip":
        return channel_sum(trace, node.input[0])
    if node.op_type not in ("Mul", "Div", "Add", "Sum", "Mean"):
        return None
    weights = [value for source in node.input if (value := trace.constant(source)) is not None]
    input_sums = [channel_sum(trace, source) for source in node.input if trace.constant(source) is None]
    sums = [value for value in input_sums if value is not None]
    if len(sums) < len(input_sums) or not sums:
        return None
    if node.op_type in ("Add", "Sum", "Mean"):
        return None if weights else sum(sums) / (len(sums) if node.op_type == "Mean" else 1)
    if len(sums) > 1 or np.unique(weights[0]).size != 1:
        return None
    weight = float(weights[0].ravel()[0])
    if node.op_type == "Mul":
        return sums[0] * weight
    return sums[0] / weight if weight and trace.constant(node.input[1]) is not None else None


def _from_argmax(trace: Trace, name: str) -> bool:
    """Return True if values are computed from an ArgMax over three or more classes, not only from comparisons."""

    def inputs(node: onnx.NodeProto) -> list[str]:
        if node.op_type in TWO_VALUED | {"ArgMax", "ArgMin"}:
            return []
        return list(node.input[1:] if node.op_type == "Where" else node.input)

    for current, node in trace.walk(name, inputs):
        if node is not None and node.op_type in ("ArgMax", "ArgMin"):
            discrete = trace.values(current).discrete
            if discrete is None or len(discrete) > 2:
                return True
    return False
