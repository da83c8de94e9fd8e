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
    trace = Trace(model, tensor_shapes(model, path), size, batch)
    candidates = [preprocessing.output] if preprocessing.output else outputs
    maps = [output for name in candidates if (output := _as_map(trace, name, preprocessing, path)) is not None]
    others = [name for name in candidates if name not in [output.name for output in maps]]
    if not maps:
        listed = ", ".join(f"'{name}' {format_shape(trace.shapes[name])}" for name in candidates)
        raise ModelError(
            f"{path}: no output is a map of its input, {size[0]}x{size[1]}: {listed}; scores [N, C, H, W] or class indices "
            "[N, H, W] are needed, not larger than the input and without cropped borders"
        )
    if preprocessing.output:
        output, note = maps[0], ""
        if len(outputs) > 1:
            note = f"of the outputs {', '.join(outputs)} '{output.name}' is used (--onnx-output)"
    else:
        output, note = _choose(trace, maps, path, outputs)
    if reason := instance_segmentation_reason(trace, output, others):
        raise OptionError(f"{path}: {reason}")
    quantized = trace.quantized(output.name)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    element = TensorProto.FLOAT if quantized else types[output.name]
    output = read_output(trace, output, element, preprocessing, path)
    if output.kind == "classes" and output.size != (size[1], size[0]):
        raise ModelError(
            f"{path}: its class map '{output.name}' is {format_shape(output.shape)}, not of the input's size {size[0]}x{size[1]}"
        )
    return replace(output, quantized=quantized, total=channel_sum(trace, output.name), note=note)


def tensor_shapes(model: onnx.ModelProto, path: Path) -> dict[str, tuple[int, ...]]:
    """Return shapes by name: the inferred shapes, and those of a run by ONNX Runtime if an output has no inferred shape."""
    graph = model.graph
    shapes: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shape = shape_of(value)
        if value.type.tensor_type.HasField("shape") and None not in shape:
            shapes[value.name] = tuple(int(length or 0) for length in shape)
    upstream = _upstream(model, [output.name for output in graph.output])
    if all(name in shapes for name in upstream):
        return shapes
    results = evaluate_tensors(model, sorted(upstream), path)
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


def map_size(trace: Trace, lengths: Sequence[int]) -> tuple[int, int] | None:
    """Return (rows, columns) of a map of the image; None if the shape is not that of a map.

    `lengths` are those of the axes without the class axis.
    """
    width, height = trace.size
    inner = list(lengths[1:]) if len(lengths) > 1 and lengths[0] == trace.batch else list(lengths)
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


def _as_map(trace: Trace, name: str, preprocessing: Preprocessing, path: Path) -> Output | None:
    """Return an output with its class axis and the size of its map, as logits; None if it is no map."""
    shape = trace.shapes[name]

    def along(axis: int | None) -> Output | None:
        size = map_size(trace, [length for i, length in enumerate(shape) if i != axis])
        return None if size is None else Output(name, "logits", shape, axis, size)

    if preprocessing.output_layout:
        axis = 1 if preprocessing.output_layout == "nchw" else len(shape) - 1
        output = along(axis) if len(shape) > axis else None
        return output if output is None or shape[axis] > 1 else replace(output, axis=None)
    traced = trace.class_axis(name)
    if traced is not None and 0 <= traced < len(shape) and shape[traced] > 1 and (output := along(traced)):
        return output
    if output := along(None):
        return output
    fits = [output for axis in range(len(shape)) if shape[axis] > 1 and (output := along(axis))]
    if preprocessing.classes and len(fits) > 1:
        fits = [output for output in fits if output.classes == len(preprocessing.classes)]
    if len(fits) > 1:
        raise OptionError(
            f"{path}: its output '{name}' is {format_shape(shape)}, and more than one axis can be that of the classes; specify it "
            "with --output-layout nchw or nhwc"
        )
    return next(iter(fits), None)


def _choose(trace: Trace, maps: Sequence[Output], path: Path, outputs: Sequence[str]) -> tuple[Output, str]:
    """Return the output to use, and a human-readable reason if there are several."""
    if len(maps) == 1:
        note = f"'{maps[0].name}' is used, the only map among {', '.join(outputs)}" if len(outputs) > 1 else ""
        return maps[0], note
    not_auxiliary = [output for output in maps if not _AUXILIARY.search(output.name)] or maps
    largest = max(math.prod(output.size) for output in not_auxiliary)
    main = [output for output in not_auxiliary if math.prod(output.size) == largest]
    reason = "the largest map" if len(main) < len(not_auxiliary) else "the one that is not called auxiliary"
    if len(main) < len(not_auxiliary) < len(maps):
        reason = "the largest map that is not called auxiliary"
    if len(main) > 1:
        roots = {_scores_of(trace, output.name) for output in main}
        if len(roots) > 1:
            sizes = ", ".join(f"'{output.name}' {format_shape(output.shape)}" for output in main)
            raise OptionError(
                f"{path} has {len(main)} outputs that may be the segmentation: {sizes}; select one with --onnx-output NAME"
            )
        main.sort(key=lambda output: output.axis is None)  # scores before the class map computed from them
        reason = "computed from the same scores as the others"
    name = main[0].name
    return main[0], f"of the outputs {', '.join(outputs)} '{name}' is used, {reason}; --onnx-output selects another"


def _scores_of(trace: Trace, name: str) -> str:
    """Return the tensor of scores from which an output is computed by activation, argmax or comparison."""
    steps = SAME_VALUES | {"Clip", "ArgMax", "Greater", "GreaterOrEqual", *_MONOTONE}
    return trace.skip(name, steps)
