"""Any ONNX segmentation network as rtseg's model contract: uint8 pictures in, uint8 class maps out, FP16 in between.

Only for files from elsewhere: what `rtseg.models.export.to_onnx` writes follows the contract already. Graph surgery is done with the
`onnx` package, half precision by ONNX Runtime's converter; the input's size is fixed here, because a foreign network's
output can be brought to the input's size only when both are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper

from rtseg.core.errors import ModelError, OptionError, printable_name
from rtseg.core.model_info import ModelInfo
from rtseg.models.export.onnx_branches import inline_branches
from rtseg.models.export.onnx_file import (
    FLOATS,
    describe,
    image_inputs,
    error_summary,
    set_shape,
    shape_of,
    node_inputs,
    format_shape,
)
from rtseg.models.export.onnx_output import Output, drop_activation, find_output
from rtseg.models.export.onnx_rewrite import constants_to_initializers, fold_batch_norm, to_half, modern, add_prefix
from rtseg.models.export.precision import MIN_SHARE, graph_share
from rtseg.nn.preprocessing import Preprocessing

_PREFIX = "network/"


def to_contract(
    model: onnx.ModelProto,
    path: Path,
    size: tuple[int, int] | None,
    batch: int,
    precision: str,
    preprocessing: Preprocessing,
) -> tuple[onnx.ModelProto, ModelInfo, Output]:
    """Wraps a foreign network.

    Args:
        model: as `read_onnx` gives it; changed.
        path: its file, for its name and for messages.
        size: (width, height) of the input; None: the size the file has, if it is fixed.
        batch: pictures in one run.
        precision: `fp16` or `fp32`; `int8` for one that will be quantized, FP32 until then.
        preprocessing: what the file does not say.

    Returns:
        The model of the contract with its description inside, the description, and the output that is used.

    Raises:
        ModelError: the network can't be wrapped; the message says what is in the way.
        OptionError: something has to be said that the file does not say.
    """
    if model.functions:  # they hide what their nodes do
        model = inliner.inline_local_functions(model)
    source, layout, size = _picture_input(model, path, size, batch, preprocessing.layout)
    mean, std = _normalization(preprocessing, path, source.type.tensor_type.elem_type)
    if source.type.tensor_type.elem_type == TensorProto.UINT8:  # TensorRT has uint8 at a network's edge alone
        source.type.tensor_type.elem_type = TensorProto.FLOAT
    width, height = size
    set_shape(model, source, (batch, 3, height, width) if layout == "nchw" else (batch, height, width, 3))
    inline_branches(model, path)
    model = modern(model, path)
    constants_to_initializers(model)
    model = _infer_shapes(model, path, size)
    output = find_output(model, path, size, batch, preprocessing)
    classes = _class_names(preprocessing.classes, output, path)
    _keep_output(model, output.name)
    if precision != "fp32":
        drop_activation(model, output)
    model = fold_batch_norm(model, path)
    source = image_inputs(model)[0]
    share = graph_share(model)
    if precision == "fp16" and share.int8 > 1 - MIN_SHARE:
        raise OptionError(
            f"{path} is quantized: {share.int8:.0%} of its multiplications are INT8 already, and can't be fp16; "
            "--precision fp32 takes it as it is"
        )
    if precision != "fp32" and share.wide > 1 - MIN_SHARE:
        raise OptionError(
            f"{path} is quantized: {share.wide:.0%} of its multiplications are of numbers that are not INT8, such as INT16, and "
            f"can't be {precision}; --precision fp32 takes it as it is"
        )
    has = "fp16" if source.type.tensor_type.elem_type == TensorProto.FLOAT16 and not share.half < MIN_SHARE else "fp32"
    if precision == "fp16" and has == "fp32":
        model, has = to_half(model), "fp16"
    add_prefix(model, _PREFIX)
    before = _before(model, layout, mean, std)
    after = _after(model, output, size, batch)
    description = ModelInfo(
        name=printable_name(path.stem.lower()),
        classes=classes,
        input_size=size,
        network=model.graph.name.removeprefix(_PREFIX) or "onnx",
        precision=has,
        license="unknown",
    )
    graph = model.graph
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, height, width, 3]))
    graph.output.append(helper.make_tensor_value_info("classes", TensorProto.UINT8, [batch, height, width]))
    describe(model, description)
    try:
        return _inferred(model), description, output
    except onnx.shape_inference.InferenceError as error:  # as it came it had its shapes
        leave = "; --precision fp32 leaves it as it is" if precision != "fp32" else ""
        raise ModelError(f"{path} can't be made {description.precision} ({error_summary(error)}){leave}") from error


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """The number of images that a network takes in one run, where its file fixes it: at its input, or at an output alone."""
    inputs = image_inputs(model)
    shape = shape_of(inputs[0]) if inputs else ()
    if len(shape) != 4 or shape[0] is not None:
        return shape[0] if shape else None
    pixels = {(first or 0) * (second or 0) for first, second in pairwise(shape)} - {0}
    for output in model.graph.output:
        lengths = shape_of(output)  # [3, H, W] can be 3 classes of one image
        if len(lengths) == 4 or (len(lengths) == 3 and pixels.intersection(lengths[1:])):
            return lengths[0]
    return None


def input_layout(shape: Sequence[int | str | None], path: Path, layout: str | None) -> str:
    """Where an input of 4 dimensions has its 3 channels: `nchw` or `nhwc`.

    Raises:
        OptionError: the shape does not say, and neither does `layout`.
        ModelError: the images have another number of channels.
    """
    first, last = shape[1] == 3, shape[3] == 3
    if layout is None and first != last:
        return "nchw" if first else "nhwc"
    ends = [length for length in (shape[1], shape[3]) if isinstance(length, int)]
    channels = shape[1] if layout == "nchw" else shape[3]
    if layout is None or (1 in ends and not isinstance(channels, int)):  # images one pixel high or wide are none
        channels = min(ends, default=3)
    if isinstance(channels, int) and channels not in (0, 3) and (layout or channels <= 16):
        raise ModelError(
            f"{path} takes images of {channels} channel{'s' if channels > 1 else ' (gray)'}, and rtseg gives it RGB: "
            "export it with a first layer that makes them of 3 channels"
        )
    if layout is None:
        told = format_shape([length if isinstance(length, int) else None for length in shape])
        raise OptionError(f"{path}: its input is {told}; say with --layout nchw or nhwc where the channels stand")
    return layout


def _picture_input(
    model: onnx.ModelProto, path: Path, size: tuple[int, int] | None, batch: int, layout: str | None
) -> tuple[onnx.ValueInfoProto, str, tuple[int, int]]:
    """The input that takes the image, its layout, and (width, height)."""
    inputs = image_inputs(model)
    if len(inputs) != 1:
        raise ModelError(
            f"{path} takes {len(inputs)} inputs ({', '.join(i.name for i in inputs)}); a segmentation network takes one picture"
        )
    source = inputs[0]
    shape, element = shape_of(source), source.type.tensor_type.elem_type
    if element not in (*FLOATS, TensorProto.UINT8) or len(shape) != 4:
        kind = TensorProto.DataType.Name(element)
        raise ModelError(
            f"{path}: its input '{source.name}' is {kind} {format_shape(shape)}; images of 4 dimensions, float or uint8, can be "
            "wrapped"
        )
    layout = input_layout(shape, path, layout)
    height, width = (shape[2], shape[3]) if layout == "nchw" else (shape[1], shape[2])
    if size is None:
        if width is None or height is None:
            raise OptionError(f"{path} leaves its input's size free; say which: --size WIDTHxHEIGHT")
        size = (width, height)
    wanted = (width or size[0], height or size[1])
    if wanted != size:
        if width is None or height is None:
            raise OptionError(
                f"{path} takes images of {f'width {width}' if width else f'height {height}'} alone, not "
                f"{size[0]}x{size[1]}; give --size {wanted[0]}x{wanted[1]}, or export it with a free size"
            )
        raise OptionError(
            f"{path} takes {width}x{height} alone, not {size[0]}x{size[1]}; leave --size out, or export it with a free size"
        )
    fixed = fixed_batch(model)
    if fixed not in (None, batch):
        raise OptionError(
            f"{path} takes {fixed} images in one run, not {batch}: give --batch {fixed}, or export it with a free batch"
        )
    return source, layout, size


def _normalization(preprocessing: Preprocessing, path: Path, element_type: int) -> tuple[Any, Any]:
    """Mean and reciprocal deviation on the scale of 0 to 255, float32 `[3]`."""
    if element_type == TensorProto.UINT8:
        if preprocessing.mean is not None or preprocessing.std is not None:
            raise OptionError(f"{path} takes uint8, 0 to 255, and normalizes inside; leave --mean and --std out")
        return np.zeros(3, np.float32), np.ones(3, np.float32)
    if preprocessing.mean is None or preprocessing.std is None:
        raise OptionError(
            f"{path} does not say how its input is normalized: give --mean and --std, such as torchvision's "
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225, --mean 0,0,0 --std 1,1,1 for a plain 0 to 1, or --mean 0,0,0 "
            "--std 0.00392157,0.00392157,0.00392157 for a plain 0 to 255"
        )
    scale = 1.0 if preprocessing.uses_255_scale else 255.0
    preprocessing.check()
    return np.array(preprocessing.mean, np.float32) * np.float32(scale), 1.0 / (
        np.array(preprocessing.std, np.float32) * np.float32(scale)
    )


def _class_names(given: tuple[str, ...] | None, output: Output, path: Path) -> tuple[str, ...]:
    count = output.classes
    if not count and not given:
        raise OptionError(f"{path} gives class indices and does not say of which classes; name them with --classes")
    if given and count and len(given) != count:
        raise OptionError(f"{path} has {count} classes, but --classes names {len(given)}: {', '.join(given)}")
    return tuple(name.lower() for name in given) if given else tuple(f"class-{i}" for i in range(count))


def _keep_output(model: onnx.ModelProto, name: str) -> None:
    """Removes the other outputs, and all nodes and weights that only they need. Changes the model."""
    graph = model.graph
    for output in [output for output in graph.output if output.name != name]:
        graph.output.remove(output)
    needed = {name}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node_inputs(node))
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in needed]:
        graph.initializer.remove(tensor)


def _before(model: onnx.ModelProto, layout: str, mean: Any, scale: Any) -> list[onnx.NodeProto]:
    """From `image` to the network's own input: cast, layout, normalization, all in FP32, then the network's precision."""
    source = image_inputs(model)[0]
    shape = (1, 3, 1, 1) if layout == "nchw" else (3,)
    model.graph.initializer.append(numpy_helper.from_array(mean.reshape(shape), "rtseg/mean"))
    model.graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32).reshape(shape), "rtseg/scale"))
    nodes = [helper.make_node("Cast", ["image"], ["rtseg/float"], "rtseg/float", to=TensorProto.FLOAT)]
    if layout == "nchw":
        nodes.append(
            helper.make_node("Transpose", [nodes[-1].output[0]], ["rtseg/planes"], "rtseg/planes", perm=[0, 3, 1, 2])
        )
    nodes.append(helper.make_node("Sub", [nodes[-1].output[0], "rtseg/mean"], ["rtseg/centerd"], "rtseg/centerd"))
    nodes.append(helper.make_node("Mul", ["rtseg/centerd", "rtseg/scale"], ["rtseg/normalized"], "rtseg/normalized"))
    nodes.append(
        helper.make_node(
            "Cast", ["rtseg/normalized"], [source.name], "rtseg/input", to=source.type.tensor_type.elem_type
        )
    )
    return nodes


def _after(model: onnx.ModelProto, output: Output, size: tuple[int, int], batch: int) -> list[onnx.NodeProto]:
    """From the network's output to `classes`: scores to `[N, C, h, w]`, upsampling where they are smaller than the input, and
    the decision."""
    width, height = size
    rows, columns = output.size
    name = _PREFIX + output.name
    element = _element_type(model, name)
    nodes: list[onnx.NodeProto] = []

    def add(operation: str, inputs: Sequence[str], **attributes: Any) -> None:
        nonlocal name
        name = f"rtseg/{operation.lower()}{len(nodes)}"
        nodes.append(helper.make_node(operation, list(inputs), [name], name, **attributes))

    def constant(about: str, values: Any) -> str:
        model.graph.initializer.append(numpy_helper.from_array(values, f"rtseg/{about}"))
        return f"rtseg/{about}"

    if output.quantized is not None:
        scale, zero = output.quantized
        add("Cast", [name], to=TensorProto.FLOAT)
        add("Sub", [name, constant("zero", np.array(zero, np.float32))])
        add("Mul", [name, constant("step", np.array(scale, np.float32))])
        element = TensorProto.FLOAT
    if output.kind == "classes":
        if output.shape != (batch, height, width):
            add("Reshape", [name, constant("map", np.array([batch, height, width], np.int64))])
        nodes.append(helper.make_node("Cast", [name], ["classes"], "rtseg/classes", to=TensorProto.UINT8))
        return nodes
    if element not in FLOATS:
        add("Cast", [name], to=TensorProto.FLOAT)
        element = TensorProto.FLOAT
    channels = 1
    if output.axis is not None:
        channels = output.shape[output.axis]
        others = [axis for axis in range(len(output.shape)) if axis != output.axis]
        first = others[:1] if output.shape[others[0]] == batch and len(others) > 1 else []
        order = [*first, output.axis, *others[len(first) :]]
        if order != sorted(order):
            add("Transpose", [name], perm=order)
        shape = tuple(output.shape[axis] for axis in order)
    else:
        shape = output.shape
    if shape != (batch, channels, rows, columns):
        add("Reshape", [name, constant("scores", np.array([batch, channels, rows, columns], np.int64))])
    if (rows, columns) != (height, width):
        sizes = constant("sizes", np.array([batch, channels, height, width], np.int64))
        add("Resize", [name, "", "", sizes], mode="linear", coordinate_transformation_mode="half_pixel")
    limit = np.array(output.threshold, FLOATS[element])
    if channels == 1 and output.axis is None:
        add("Greater", [name, constant("threshold", limit)])
        add("Squeeze", [name, constant("axis", np.array([1], np.int64))])
    else:
        if output.kind == "multilabel":  # class 0 has the threshold as its score, and wins a draw
            pads = constant("pads", np.array([0, 1, 0, 0, 0, 0, 0, 0], np.int64))
            add("Pad", [name, pads, constant("threshold", limit)])
        add("ArgMax", [name], axis=1, keepdims=0)
    nodes.append(helper.make_node("Cast", [name], ["classes"], "rtseg/classes", to=TensorProto.UINT8))
    return nodes


def _infer_shapes(model: onnx.ModelProto, path: Path, size: tuple[int, int]) -> onnx.ModelProto:
    try:
        return _inferred(model)
    except onnx.shape_inference.InferenceError as error:
        down = f"{max(32, size[0] // 32 * 32)}x{max(32, size[1] // 32 * 32)}"
        raise ModelError(
            f"{path} can't take {size[0]}x{size[1]} ({error_summary(error)}); many networks need multiples of 32: --size {down}"
        ) from error


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def _element_type(model: onnx.ModelProto, name: str) -> int:
    graph = model.graph
    return next(
        (v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info) if v.name == name), 0
    )
