"""What the graph of a foreign ONNX network shows that is no semantic segmentation, though an output has a map's shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rtseg.models.export.onnx_file import format_shape
from rtseg.models.export.onnx_trace import SAME_VALUES, TWO_VALUED, Trace

NO_CLASS = 255
"""What class maps from elsewhere hold where a pixel has no class; rtseg gives each pixel one."""


def scaled_indices_reason(trace: Trace, name: str) -> str:
    """Why an output of one value a pixel holds classes that are no class indices, and what to do; empty: it does not."""
    only = trace.meant(name).only
    if only is None or len(only) < 3 or not _from_argmax(trace, name):
        return ""
    whole = sorted(only)
    indices = all(abs(value - round(value)) < 1e-3 and -0.5 < value < NO_CLASS - 0.5 for value in whole)
    if indices and np.gcd.reduce([round(value) for value in whole]) == 1:
        return ""
    if np.allclose(whole, [*range(len(whole) - 1), NO_CLASS]):
        return (
            f"it gives {NO_CLASS} where a pixel has no class, by the graph, and rtseg gives each pixel a class; export it "
            "without that step, so that each pixel has the index of a class"
        )
    told = ", ".join(f"{value:.4g}" for value in whole[:4]) + (", …" if len(whole) > 4 else "")
    return (
        f"by the graph it holds one of {len(whole)} values a pixel, {told}: class indices that were scaled or moved; export it "
        "without the step behind its ArgMax, so that it gives 0, 1, 2 and so on"
    )


def instance_segmentation_reason(
    shapes: Mapping[str, tuple[int, ...]],
    name: str,
    channels: int,
    size: tuple[int, int],
    image: tuple[int, int],
    batch: int,
    others: Sequence[str],
) -> str:
    """Why a map with other outputs beside it is one of an instance segmentation, whose channels are no classes; empty: it is not.

    YOLO has boxes beside mask prototypes, DETR and Mask2Former have classes beside a mask for each query, smaller than the image;
    Mask R-CNN has boxes beside a mask for each object.

    Args:
        shapes: of the outputs.
        name: of the map.
        channels: of the map.
        size: (rows, columns) of the map.
        image: (width, height).
        batch: images in one run.
        others: the outputs that are no maps.
    """
    if channels < 2:
        return ""
    for other in others:
        lengths = shapes[other]
        table = [length for length in (lengths[1:] if lengths[:1] == (batch,) else lengths) if length != 1]
        if len(table) > 1 and (size != image[::-1] or channels in table):
            return (
                f"its outputs '{other}' {format_shape(shapes[other])} and '{name}' {format_shape(shapes[name])} look like an instance "
                f"segmentation (objects beside their masks), and the channels of '{name}' like no classes; rtseg needs a semantic "
                f"segmentation; where '{name}' has a score for each class, say --onnx-output {name}"
            )
    return ""


def total(trace: Trace, name: str, batch: int) -> float | None:
    """What the channels of a pixel add up to, none of them cut off; None: they have no such total, or the graph does not show it.

    A Softmax over a whole image, as `axis=1` meant before operator set 13, gives a pixel none, and neither does one whose
    channels are weighted, each by a number of its own.
    """
    node = trace.producer(name)
    if node is None:
        return None
    if node.op_type == "Softmax":
        shape = trace.shapes.get(name, ())
        axis = trace.class_axis(name)
        return 1.0 if axis is not None and axis < len(shape) and math.prod(shape) > batch * shape[axis] else None
    if node.op_type == "Concat":
        return 1.0 if trace.exclusive(name) else None
    if node.op_type in SAME_VALUES or node.op_type == "Clip":
        return total(trace, node.input[0], batch)
    if node.op_type not in ("Mul", "Div", "Add", "Sum", "Mean"):
        return None
    weights = [value for given in node.input if (value := trace.constant(given)) is not None]
    parts = [total(trace, given, batch) for given in node.input if trace.constant(given) is None]
    sums = [part for part in parts if part is not None]
    if len(sums) < len(parts) or not sums:
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
    """Whether values are made of the index of one of three or more classes, not of comparisons alone."""
    seen: set[str] = set()
    level = [name]
    while level:
        given = level.pop()
        node = trace.producer(given)
        if node is None or given in seen:
            continue
        seen.add(given)
        if node.op_type in ("ArgMax", "ArgMin"):
            only = trace.values(given).only
            if only is None or len(only) > 2:
                return True
        elif node.op_type not in TWO_VALUED:
            level.extend(node.input[1:] if node.op_type == "Where" else node.input)
    return False
