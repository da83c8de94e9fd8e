"""Which output of a foreign ONNX network is the segmentation, and how it is read: found in the graph, or asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnx import TensorProto

from rtseg.core.errors import ModelError, OptionError
from rtseg.models.export.onnx_branches import evaluate_tensors
from rtseg.models.export.onnx_color_output import color_output_reason
from rtseg.models.export.onnx_file import shape_of, format_shape
from rtseg.models.export.onnx_task import instance_segmentation_reason, scaled_indices_reason, total
from rtseg.models.export.onnx_trace import LINEAR, SAME_VALUES, Trace, Values
from rtseg.nn.preprocessing import Preprocessing

KINDS = ("logits", "probabilities", "multilabel", "classes", "mask")
"""What `--output-kind` takes."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_AUXILIARY = re.compile(r"(^|[^a-z])aux", re.IGNORECASE)
_MOVES = {
    "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Dropout", "Slice", "Gather", "Split", "Expand", "Tile"
}  # fmt: skip
_MONOTONE = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid")


@dataclass(frozen=True)
class Output:
    """The output that is used, and how its values become classes."""

    name: str
    """Of the output, as in the file."""

    kind: str
    """One of `KINDS`."""

    shape: tuple[int, ...]
    """Of the output at the input size and batch that were asked for."""

    axis: int | None
    """The axis that holds a score for each class; None: one value for each pixel."""

    size: tuple[int, int]
    """(rows, columns) of the map."""

    threshold: float = 0.0
    """One value a pixel: class 1 is above it. `multilabel`: class 0 is where no score is above it."""

    values: tuple[float, float] = (-math.inf, math.inf)
    """The range that the graph or `--output-kind` gives to the values."""

    sure: bool = False
    """The user chose the kind with `--output-kind`."""

    indices: int = 0
    """`classes`: the number of them, where the graph shows it; 0: not known."""

    total: float | None = None
    """What the channels of a pixel add up to where none was cut off; None: not known."""

    activation: str = ""
    """The result of the last Softmax or Sigmoid, where the highest score is the same without it; empty: there is none."""

    quantized: tuple[float, float] | None = None
    """(scale, zero): the output holds numbers that mean (number - zero) * scale; the fields above are of what they mean."""

    note: str = ""
    """Why this output was taken, where there were several; for people."""

    @property
    def classes(self) -> int:
        """The number of classes; 0: not known."""
        if self.kind == "mask" or (self.axis is None and self.kind != "classes"):
            return 2
        return self.indices if self.axis is None else self.shape[self.axis] + (self.kind == "multilabel")

    def describe(self) -> str:
        """What is read from the output: `output 'y': probabilities, foreground above 0.5`."""
        if self.kind in ("classes", "mask"):
            how = "a class map" if self.kind == "classes" else f"a mask, foreground above {self.threshold:g}"
        elif self.axis is None:
            how = f"{self.kind}, foreground above {self.threshold:g}"
        elif self.kind == "multilabel":
            how = f"{self.shape[self.axis]} scores, class 0 where none is above {self.threshold:g}"
        else:
            how = f"{self.shape[self.axis]} scores along axis {self.axis}"
        return f"output '{self.name}': {how}"


def find_output(
    model: onnx.ModelProto, path: Path, size: tuple[int, int], batch: int, preprocessing: Preprocessing
) -> Output:
    """Chooses the output and reads what it holds.

    Args:
        model: of operator set 13 or newer, its input's shape fixed, shapes inferred as far as they can be.
        path: its file, for messages.
        size: (width, height) of the input.
        batch: images in one run.
        preprocessing: what the user said: the output, its kind, the number of classes.

    Raises:
        ModelError: no output can be a segmentation.
        OptionError: the file does not decide something; the message names the option that does.
    """
    outputs = [output.name for output in model.graph.output]
    if preprocessing.output and preprocessing.output not in outputs:
        raise OptionError(f"{path} has no output '{preprocessing.output}': there are {', '.join(outputs)}")
    shapes = tensor_shapes(model, path)
    trace = Trace(model, shapes)
    types = {output.name: output.type.tensor_type.elem_type for output in model.graph.output}
    wanted = [preprocessing.output] if preprocessing.output else outputs
    maps = {
        name: place
        for name in wanted
        if (place := _place(trace, shapes[name], name, size, batch, preprocessing, path)) is not None
    }
    if not maps:
        told = ", ".join(f"'{name}' {format_shape(shapes[name])}" for name in wanted)
        raise ModelError(
            f"{path}: no output is a map of its input, {size[0]}x{size[1]}: {told}; scores [N, C, H, W] or class indices "
            "[N, H, W] are needed, not larger than the input and without cut borders"
        )
    if preprocessing.output:
        name, note = preprocessing.output, ""
        if len(outputs) > 1:
            note = f"of the outputs {', '.join(outputs)} '{name}' is used, as --onnx-output says"
    else:
        name, note = _choose(trace, maps, path, outputs)
    axis, rows_columns = maps[name]
    channels = 1 if axis is None else shapes[name][axis]
    rest = [other for other in wanted if other not in maps]
    if why := instance_segmentation_reason(shapes, name, channels, rows_columns, size, batch, rest):
        raise OptionError(f"{path}: {why}")
    quantized = trace.quantized(name)
    element = TensorProto.FLOAT if quantized else types[name]
    output = _read(trace, name, element, axis, rows_columns, preprocessing, path)
    output = replace(output, quantized=quantized, total=total(trace, name, batch))
    output = replace(output, activation=_activation(trace, output, size, batch))
    if output.kind == "classes" and output.size != (size[1], size[0]):
        raise ModelError(
            f"{path}: its class map '{name}' is {format_shape(output.shape)}, not of the input's size {size[0]}x{size[1]}"
        )
    return replace(output, note=note)


def drop_activation(model: onnx.ModelProto, output: Output) -> None:
    """Makes `output.activation` an Identity, where no other node takes it: half precision loses less. Changes the model."""
    made = {name: node for node in model.graph.node for name in node.output}
    taken = [name for node in model.graph.node for name in node.input] + [o.name for o in model.graph.output]
    name = output.name
    while output.activation and taken.count(name) == 1:
        node = made[name]
        if name == output.activation:
            node.op_type = "Identity"
            del node.attribute[:]
            return
        name = node.input[0]


def _activation(trace: Trace, output: Output, image: tuple[int, int], batch: int) -> str:
    """What the last Softmax or Sigmoid gives, where the highest score stays the highest without it; empty: it does not.

    Pooling and enlarging behind it mix its values, and a Softmax that is not the one of a pixel's classes reorders them.
    """
    if output.axis is None or output.kind == "multilabel" or output.size != image[::-1]:
        return ""
    name = output.name
    while (node := trace.producer(name)) is not None and node.op_type in _MOVES:
        name = node.input[0]
    kind = node.op_type if node is not None else ""
    if kind in ("Softmax", "LogSoftmax"):
        shape, axis = trace.shapes.get(name, ()), trace.class_axis(name)
        one_for_the_image = axis is not None and axis < len(shape) and math.prod(shape) == batch * shape[axis]
        return name if one_for_the_image or trace.class_axis(output.name) == output.axis else ""
    return name if kind == "Sigmoid" else ""


def tensor_shapes(model: onnx.ModelProto, path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name: those that are inferred, or where an output's is not, those of one run by ONNX Runtime."""
    graph = model.graph
    shapes: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shape = shape_of(value)
        if value.type.tensor_type.HasField("shape") and None not in shape:
            shapes[value.name] = tuple(int(length or 0) for length in shape)
    made = [name for node in graph.node for name in node.output if name]
    last = _upstream(model, [output.name for output in graph.output])
    if all(name in shapes for name in last):
        return shapes
    results = evaluate_tensors(model, [name for name in made if name in last], path)
    return {**shapes, **{name: tuple(value.shape) for name, value in results.items() if hasattr(value, "shape")}}


def _upstream(model: onnx.ModelProto, names: Sequence[str], depth: int = 12) -> set[str]:
    """The tensors from which the outputs are made in a few steps, weights left out."""
    made = {name: node for node in model.graph.node for name in node.output if name}
    found: set[str] = set()
    level = set(names)
    for _ in range(depth):
        found |= {name for name in level if name in made}
        level = {given for name in level if name in made for given in made[name].input if given in made} - found
    return found


def map_size(lengths: Sequence[int], batch: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """(rows, columns) of a map whose other axes have these lengths; None: they are no map of an image of this size."""
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
        return None  # another shape than the image's
    step = max(down, 1)
    small = abs(height - step * rows) < max(step, 0.05 * height) and abs(width - step * columns) < max(
        step, 0.05 * width
    )
    return (rows, columns) if small else None


def _place(
    trace: Trace, shape: tuple[int, ...], name: str, size: tuple[int, int], batch: int, said: Preprocessing, path: Path
) -> tuple[int | None, tuple[int, int]] | None:
    """The class axis of an output (None: one value a pixel) and the size of its map; None: it is no map."""

    def without(axis: int) -> tuple[int, int] | None:
        return map_size([length for i, length in enumerate(shape) if i != axis], batch, size)

    if said.output_layout:
        axis = 1 if said.output_layout == "nchw" else len(shape) - 1
        place = without(axis) if len(shape) > axis else None
        return None if place is None else (axis if shape[axis] > 1 else None, place)
    traced = trace.class_axis(name)
    if traced is not None and 0 <= traced < len(shape) and shape[traced] > 1 and (place := without(traced)):
        return traced, place
    if place := map_size(shape, batch, size):
        return None, place
    fits = {axis: place for axis in range(len(shape)) if shape[axis] > 1 and (place := without(axis))}
    if said.classes and len(fits) > 1:
        fits = {axis: place for axis, place in fits.items() if shape[axis] == len(said.classes)}
    if len(fits) > 1:
        raise OptionError(
            f"{path}: its output '{name}' is {format_shape(shape)}, and more than one axis can hold the classes; say which: "
            "--output-layout nchw or nhwc"
        )
    return next(iter(fits.items()), None)


def _choose(
    trace: Trace, maps: dict[str, tuple[int | None, tuple[int, int]]], path: Path, outputs: Sequence[str]
) -> tuple[str, str]:
    """The output to use and, where there are several, why."""
    names = list(maps)
    if len(outputs) == 1 or len(names) == 1:
        note = f"'{names[0]}' is used, the only map among {', '.join(outputs)}" if len(outputs) > 1 else ""
        return names[0], note
    own = [name for name in names if not _AUXILIARY.search(name)] or names
    largest = max(math.prod(maps[name][1]) for name in own)
    main = [name for name in own if math.prod(maps[name][1]) == largest]
    why = "the largest map" if len(main) < len(own) else "the one that is not called auxiliary"
    if len(main) < len(own) < len(names):
        why = "the largest map that is not called auxiliary"
    if len(main) > 1:
        roots = {_scores_of(trace, name) for name in main}
        if len(roots) > 1:
            sizes = ", ".join(f"'{name}' {format_shape(trace.shapes[name])}" for name in main)
            raise OptionError(
                f"{path} has {len(main)} outputs that may be the segmentation: {sizes}; say which: --onnx-output NAME"
            )
        main.sort(key=lambda name: maps[name][0] is None)  # scores before the class map that is made of them
        why = "made of the same scores as the others"
    return main[0], f"of the outputs {', '.join(outputs)} '{main[0]}' is used, {why}; --onnx-output names another"


def _scores_of(trace: Trace, name: str) -> str:
    """The tensor of scores that an output is made of, by activation, argmax and comparison."""
    steps = SAME_VALUES | {"Clip", "ArgMax", "Greater", "GreaterOrEqual", *_MONOTONE}
    while (node := trace.producer(name)) is not None and node.op_type in steps:
        name = node.input[0]
    return name


def _read(
    trace: Trace, name: str, element: int, axis: int | None, size: tuple[int, int], said: Preprocessing, path: Path
) -> Output:
    shape, values, kind = trace.shapes[name], trace.meant(name), said.output_kind
    source = trace.source(name)
    several = axis is not None
    numeric = Output(name, "logits", shape, axis, size, values=(values.low, values.high), sure=kind is not None)
    if kind in ("classes", "mask") and several:
        raise OptionError(
            f"{path}: --output-kind {kind} is for one value a pixel; its output '{name}' has {format_shape(shape)}"
        )
    if kind == "multilabel" and not several:
        raise OptionError(
            f"{path}: --output-kind multilabel is for several scores a pixel; '{name}' has one: probabilities"
        )

    def as_kind(kind: str, threshold: float = 0.0, indices: int = 0) -> Output:
        return replace(numeric, kind=kind, threshold=threshold, indices=indices)

    if axis is not None and (why := color_output_reason(trace, name, axis)):
        raise ModelError(
            f"{path}: its output '{name}' is a colored image {format_shape(shape)}: {why}; export the network without that step, "
            "so that it gives scores or class indices"
        )
    if not several and (why := scaled_indices_reason(trace, name)):
        raise ModelError(f"{path}: its output '{name}' can't be used: {why}")
    if kind is not None and (contradiction := _contradiction(trace, name, values, kind, several)):
        raise OptionError(f"{path}: --output-kind {kind} does not fit its output '{name}': {contradiction}")
    if several:
        if element not in _FLOATS and not (values.only or values.bounded):
            raise ModelError(f"{path}: its output '{name}' holds whole numbers {format_shape(shape)}; scores are needed")
        separate = values.bounded and values.low >= 0 and values.high <= 255 and not trace.exclusive(name)
        if kind is None and separate:
            none = ", or --output-kind multilabel where class 0 is what none of them claims" if _divides(values) else ""
            raise OptionError(
                f"{path}: each of the {shape[axis or 0]} channels of its output '{name}' has a probability of its own; say "
                f"--output-kind probabilities where the highest is the class{none}"
            )
        found = "logits" if _around_zero(values) or not values.bounded else "probabilities"
        return as_kind(kind or found, _middle(values, 0.5))
    if kind is not None:
        chosen = {"probabilities": _middle(values, 0.5), "mask": _middle(values, 127.5), "logits": 0.0, "classes": 0.0}
        return as_kind(kind, chosen[kind])
    if values.only is not None and len(values.only) > 1:
        whole = sorted(values.only)
        indices = all(abs(value - round(value)) < 1e-3 and -0.5 < value < 254.5 for value in whole)
        if indices and not (len(whole) == 2 and whole[1] - whole[0] > 1.5):
            return as_kind("classes", indices=round(whole[-1]) + 1)
        if len(whole) == 2 and whole[0] in (0.0, -1.0):
            return as_kind("mask", sum(whole) / 2)
    elif element not in _FLOATS and not values.bounded:
        return as_kind("classes")
    elif values.bounded and _symmetric(values):
        return as_kind("logits" if _around_zero(values) else "probabilities", _middle(values, 0.5))
    elif math.isinf(values.low) and math.isinf(values.high):
        linear = source is not None and source.op_type in LINEAR
        if linear and not trace.cut_from_scores(name):
            return as_kind("logits")
    what = f"comes from {_told_source(trace, name, source)}" if source is not None else "has no source"
    raise OptionError(
        f"{path}: its output '{name}' has one value a pixel and {what}, which does not say what it means; say --output-kind "
        "logits (foreground above 0), probabilities (above one half), classes (class indices) or mask (0 or 255)"
    )


def _told_source(trace: Trace, name: str, source: onnx.NodeProto) -> str:
    """The operator that makes an output's values, after the last that only scales or cuts them: `Clip of Conv`."""
    while (node := trace.producer(name)) is not None and node.op_type in SAME_VALUES:
        name = node.input[0]
    last = source if node is None else node
    return source.op_type if last is source else f"{last.op_type} of {source.op_type}"


def _contradiction(trace: Trace, name: str, values: Values, kind: str, several: bool) -> str:
    """What the graph has against the kind that the user chose, and what to do; empty: nothing."""
    leave = "leave --output-kind out, or name the kind that fits"
    source = trace.source(name)
    made_by = source.op_type if source is not None else ""
    shared = made_by in ("Softmax", "LogSoftmax", "OneHot") or (
        source is not None and made_by == "Concat" and trace.exclusive(source.output[0])
    )
    if several and shared and (kind == "multilabel" or (kind == "logits" and values.low >= 0)):
        return (
            f"its {made_by} makes channels that share one total, so that the highest is the class; leave --output-kind out, "
            "or say probabilities"
        )
    indices = values.only is not None and len(values.only) > 2 and all(v == round(v) for v in values.only)
    if not several and kind in ("mask", "probabilities", "logits"):
        argmax = made_by in ("ArgMax", "ArgMin") and values.only is None
        if argmax or indices:
            there = f", {values.low:g} to {values.high:g}" if values.bounded else ""
            return f"it holds class indices{there}, by the graph; leave --output-kind out, or say classes"
    if not values.bounded or kind == "classes":
        return ""
    told = f"its values are {values.low:g} to {values.high:g} by the graph"
    if kind == "logits":  # those that were cut at 0 and, say, at 6 still are
        return f"{told}, and logits go below 0 too; {leave}" if values.low >= 0 and _divides(values) else ""
    pair = kind == "mask" and values.only is not None
    if _around_zero(values) and not pair:
        return f"{told}, on both sides of 0 as logits are; leave --output-kind out, or say logits"
    highest = several and kind == "probabilities"  # is the class, whatever the middle
    return "" if highest or pair or _divides(values) else f"{told}, whose middle says nothing; {leave}"


def _divides(values: Values) -> bool:
    """Whether foreground is above the middle of a range: within 0 to 1, or symmetric."""
    return (values.low >= -1e-3 and values.high <= 1 + 1e-3) or _symmetric(values)


def _symmetric(values: Values) -> bool:
    """Whether the middle of a range divides foreground from background: 0 to 1, 0 to 100 or 255, -a to a."""
    span = values.high - values.low
    if abs(values.low) <= 1e-3 * span:
        return any(abs(values.high - end) <= 1e-3 * end for end in (1.0, 100.0, 255.0))
    return abs(values.low + values.high) <= 1e-3 * span


def _around_zero(values: Values) -> bool:
    """Whether foreground is above 0 and background below it: -a to a, as behind a Tanh."""
    return values.bounded and values.low < 0 and abs(values.low + values.high) <= 1e-3 * (values.high - values.low)


def _middle(values: Values, otherwise: float) -> float:
    return (values.low + values.high) / 2 if values.bounded and values.high > values.low else otherwise
