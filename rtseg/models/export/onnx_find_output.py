"""Selection of the segmentation output of a foreign ONNX network: detected in the graph, or given by the user."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto

from rtseg.core.errors import ModelError, OptionError
from rtseg.models.export.onnx_branches import evaluate_tensors
from rtseg.models.export.onnx_file import format_shape, shape_of
from rtseg.models.export.onnx_output import Output
from rtseg.models.export.onnx_output_kind import read_output
from rtseg.models.export.onnx_task import channel_sum, instance_segmentation_reason
from rtseg.models.export.onnx_trace import SAME_VALUES, Trace
from rtseg.nn.preprocessing import Preprocessing

_AUXILIARY = re.compile(r"(^|[^a-z])aux", re.IGNORECASE)
_MOVES = {
    "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Dropout", "Slice", "Gather", "Split", "Expand", "Tile"
}  # fmt: skip
_MONOTONE = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid")


def find_output(
    model: onnx.ModelProto, path: Path, size: tuple[int, int], batch: int, preprocessing: Preprocessing
) -> Output:
    """Select the segmentation output and detect its kind.

    The model has operator set 13 or newer, a fixed input shape (`size` is its width and height) and inferred shapes.
    `preprocessing` has the output, its kind, its layout and the classes, as far as the user gave them.

    Raises:
        ModelError: no output can be a segmentation.
        OptionError: the choice is ambiguous; the message names the option that resolves it.
    """
    outputs = [output.name for output in model.graph.output]
    if preprocessing.output and preprocessing.output not in outputs:
        raise OptionError(f"{path} has no output '{preprocessing.output}': there are {', '.join(outputs)}")
    shapes = tensor_shapes(model, path)
    trace = Trace(model, shapes)
    types = {output.name: output.type.tensor_type.elem_type for output in model.graph.output}
    candidates = [preprocessing.output] if preprocessing.output else outputs
    maps = {
        name: axis_and_size
        for name in candidates
        if (axis_and_size := _map_axis_and_size(trace, shapes[name], name, size, batch, preprocessing, path))
        is not None
    }
    if not maps:
        listed = ", ".join(f"'{name}' {format_shape(shapes[name])}" for name in candidates)
        raise ModelError(
            f"{path}: no output is a map of its input, {size[0]}x{size[1]}: {listed}; scores [N, C, H, W] or class indices "
            "[N, H, W] are needed, not larger than the input and without cropped borders"
        )
    if preprocessing.output:
        name, note = preprocessing.output, ""
        if len(outputs) > 1:
            note = f"of the outputs {', '.join(outputs)} '{name}' is used (--onnx-output)"
    else:
        name, note = _choose(trace, maps, path, outputs)
    axis, rows_columns = maps[name]
    channels = 1 if axis is None else shapes[name][axis]
    others = [other for other in candidates if other not in maps]
    if reason := instance_segmentation_reason(shapes, name, channels, rows_columns, size, batch, others):
        raise OptionError(f"{path}: {reason}")
    quantized = trace.quantized(name)
    element = TensorProto.FLOAT if quantized else types[name]
    output = read_output(trace, name, element, axis, rows_columns, preprocessing, path)
    output = replace(output, quantized=quantized, total=channel_sum(trace, name, batch))
    output = replace(output, activation=_activation(trace, output, size, batch))
    if output.kind == "classes" and output.size != (size[1], size[0]):
        raise ModelError(
            f"{path}: its class map '{name}' is {format_shape(output.shape)}, not of the input's size {size[0]}x{size[1]}"
        )
    return replace(output, note=note)


def _activation(trace: Trace, output: Output, image: tuple[int, int], batch: int) -> str:
    """Return the output name of the last Softmax or Sigmoid if the highest score is the same without it; else empty.

    It is not the same if pooling or resizing follows, which mix its values, or if the Softmax is not over the classes.
    """
    if output.axis is None or output.kind == "multilabel" or output.size != image[::-1]:
        return ""
    name = trace.skip(output.name, _MOVES)
    node = trace.producer(name)
    kind = node.op_type if node is not None else ""
    if kind in ("Softmax", "LogSoftmax"):
        shape, axis = trace.shapes.get(name, ()), trace.class_axis(name)
        over_image = axis is not None and axis < len(shape) and math.prod(shape) == batch * shape[axis]
        return name if over_image or trace.class_axis(output.name) == output.axis else ""
    return name if kind == "Sigmoid" else ""


def tensor_shapes(model: onnx.ModelProto, path: Path) -> dict[str, tuple[int, ...]]:
    """Return shapes by name: the inferred shapes, and those of a run by ONNX Runtime if an output has no inferred shape."""
    graph = model.graph
    shapes: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shape = shape_of(value)
        if value.type.tensor_type.HasField("shape") and None not in shape:
            shapes[value.name] = tuple(int(length or 0) for length in shape)
    computed = [name for node in graph.node for name in node.output if name]
    upstream = _upstream(model, [output.name for output in graph.output])
    if all(name in shapes for name in upstream):
        return shapes
    results = evaluate_tensors(model, [name for name in computed if name in upstream], path)
    return {**shapes, **{name: tuple(value.shape) for name, value in results.items() if hasattr(value, "shape")}}


def _upstream(model: onnx.ModelProto, names: Sequence[str], depth: int = 12) -> set[str]:
    """Return the computed tensors that are at most `depth` nodes before the outputs."""
    producers = {name: node for node in model.graph.node for name in node.output if name}
    upstream: set[str] = set()
    level = set(names) & producers.keys()
    for _ in range(depth):
        upstream |= level
        level = {source for name in level for source in producers[name].input if source in producers} - upstream
    return upstream


def map_size(lengths: Sequence[int], batch: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return (rows, columns) of a map of an image of `size` (width, height); None if the shape is not that of a map.

    `lengths` are those of the axes without the class axis.
    """
    width, height = size
    inner = list(lengths[1:]) if len(lengths) > 1 and lengths[0] == batch else list(lengths)
    longer = [length for length in inner if length != 1]
    if longer == [height * width]:
        return height, width
    if len(inner) > 2:
        inner = longer
    if len(inner) != 2 or min(inner) < 1:
        return None
    rows, columns = inner
    down, across = round(height / rows), round(width / columns)
    if max(down, across, 1) != max(min(down, across), 1):
        return None  # another aspect ratio
    step = max(down, 1)
    rows_fit = abs(height - step * rows) < max(step, 0.05 * height)
    columns_fit = abs(width - step * columns) < max(step, 0.05 * width)
    return (rows, columns) if rows_fit and columns_fit else None


def _map_axis_and_size(
    trace: Trace,
    shape: tuple[int, ...],
    name: str,
    size: tuple[int, int],
    batch: int,
    preprocessing: Preprocessing,
    path: Path,
) -> tuple[int | None, tuple[int, int]] | None:
    """Return the class axis of an output (None for one value per pixel) and (rows, columns) of its map; None if it is no map."""

    def size_without(axis: int) -> tuple[int, int] | None:
        return map_size([length for i, length in enumerate(shape) if i != axis], batch, size)

    if preprocessing.output_layout:
        axis = 1 if preprocessing.output_layout == "nchw" else len(shape) - 1
        rows_columns = size_without(axis) if len(shape) > axis else None
        return None if rows_columns is None else (axis if shape[axis] > 1 else None, rows_columns)
    traced = trace.class_axis(name)
    if traced is not None and 0 <= traced < len(shape) and shape[traced] > 1 and (rows_columns := size_without(traced)):
        return traced, rows_columns
    if rows_columns := map_size(shape, batch, size):
        return None, rows_columns
    fits = {
        axis: rows_columns for axis in range(len(shape)) if shape[axis] > 1 and (rows_columns := size_without(axis))
    }
    if preprocessing.classes and len(fits) > 1:
        fits = {axis: rows_columns for axis, rows_columns in fits.items() if shape[axis] == len(preprocessing.classes)}
    if len(fits) > 1:
        raise OptionError(
            f"{path}: its output '{name}' is {format_shape(shape)}, and more than one axis can be that of the classes; specify it "
            "with --output-layout nchw or nhwc"
        )
    return next(iter(fits.items()), None)


def _choose(
    trace: Trace, maps: dict[str, tuple[int | None, tuple[int, int]]], path: Path, outputs: Sequence[str]
) -> tuple[str, str]:
    """Return the name of the output to use, and a human-readable reason if there are several."""
    names = list(maps)
    if len(outputs) == 1 or len(names) == 1:
        note = f"'{names[0]}' is used, the only map among {', '.join(outputs)}" if len(outputs) > 1 else ""
        return names[0], note
    not_auxiliary = [name for name in names if not _AUXILIARY.search(name)] or names
    largest = max(math.prod(maps[name][1]) for name in not_auxiliary)
    main = [name for name in not_auxiliary if math.prod(maps[name][1]) == largest]
    reason = "the largest map" if len(main) < len(not_auxiliary) else "the one that is not called auxiliary"
    if len(main) < len(not_auxiliary) < len(names):
        reason = "the largest map that is not called auxiliary"
    if len(main) > 1:
        roots = {_scores_of(trace, name) for name in main}
        if len(roots) > 1:
            sizes = ", ".join(f"'{name}' {format_shape(trace.shapes[name])}" for name in main)
            raise OptionError(
                f"{path} has {len(main)} outputs that may be the segmentation: {sizes}; select one with --onnx-output NAME"
            )
        main.sort(key=lambda name: maps[name][0] is None)  # scores before the class map computed from them
        reason = "computed from the same scores as the others"
    return main[0], f"of the outputs {', '.join(outputs)} '{main[0]}' is used, {reason}; --onnx-output selects another"


def _scores_of(trace: Trace, name: str) -> str:
    """Return the tensor of scores from which an output is computed by activation, argmax or comparison."""
    steps = SAME_VALUES | {"Clip", "ArgMax", "Greater", "GreaterOrEqual", *_MONOTONE}
    return trace.skip(name, steps)
