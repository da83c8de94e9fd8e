"""Any ONNX segmentation network as rtseg's model contract: uint8 pictures in, uint8 class maps out, FP16 in between.

Only for files from elsewhere: what `rtseg.models.export` writes follows the contract already. Graph surgery is done with the
`onnx` package, half precision by ONNX Runtime's converter; the input's size is fixed here, because a foreign network's
output can be brought to the input's size only when both are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rtseg.description import ModelDescription
from rtseg.errors import ModelError, OptionError
from rtseg.models.onnx_file import FLOATS, describe, one_sentence, picture_inputs, set_shape, shape_of, told_shape
from rtseg.models.onnx_rewrite import fold_batch_norm, halved, modern
from rtseg.models.preparation import Preparation

_PREFIX = "network/"
_INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.INT8)


def to_contract(
    model: onnx.ModelProto,
    path: Path,
    size: tuple[int, int] | None,
    batch: int,
    precision: str,
    preparation: Preparation,
) -> tuple[onnx.ModelProto, ModelDescription]:
    """Wraps a foreign network.

    Args:
        model: as `read_onnx` gives it; changed.
        path: its file, for its name and for messages.
        size: (width, height) of the input; None: the size the file has, if it is fixed.
        batch: pictures in one run.
        precision: `fp16` or `fp32`.
        preparation: what the file does not say.

    Returns:
        The model of the contract with its description inside, and the description.

    Raises:
        ModelError: the network can't be wrapped; the message says what is in the way.
        OptionError: something has to be said that the file does not say.
    """
    source, layout, size = _picture_input(model, path, size, preparation.layout)
    mean, std = _normalisation(preparation, path, source.type.tensor_type.elem_type)
    width, height = size
    set_shape(model, source, (batch, 3, height, width) if layout == "nchw" else (batch, height, width, 3))
    model = fold_batch_norm(_infer_shapes(modern(model, path), path, size), path)
    if precision == "fp16" and source.type.tensor_type.elem_type == TensorProto.FLOAT:
        model = halved(model)
    model = onnx.compose.add_prefix(model, _PREFIX, rename_nodes=False)
    output, kind = _answer_output(model, path, size, layout, preparation)
    classes = _class_names(preparation.classes, kind, path)
    before, source_name = _before(model, layout, mean, std)
    after = _after(model, output, kind, size, batch)
    description = ModelDescription(
        name=path.stem.lower(),
        classes=classes,
        input_size=size,
        network=model.graph.name.removeprefix(_PREFIX) or "onnx",
        precision="fp16" if _element_type(model, source_name) == TensorProto.FLOAT16 else "fp32",
        licence="unknown",
    )
    graph = model.graph
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, height, width, 3]))
    graph.output.append(helper.make_tensor_value_info("classes", TensorProto.UINT8, [batch, height, width]))
    describe(model, description)
    return _infer_shapes(model, path, size), description


@dataclass(frozen=True)
class _Answer:
    """What an output of a foreign network holds."""

    axis: int | None
    """Where the scores of the classes stand; None: it holds class indices."""

    count: int
    """How many classes it scores; 0: not known."""

    shape: tuple[int, ...]
    """The output's shape."""

    probability: bool = False
    """It comes out of a sigmoid."""


def _picture_input(
    model: onnx.ModelProto, path: Path, size: tuple[int, int] | None, layout: str | None
) -> tuple[onnx.ValueInfoProto, str, tuple[int, int]]:
    """The input that takes the picture, its layout, and (width, height)."""
    inputs = picture_inputs(model)
    if len(inputs) != 1:
        raise ModelError(
            f"{path} takes {len(inputs)} inputs ({', '.join(i.name for i in inputs)}); a segmentation network takes one picture"
        )
    source = inputs[0]
    shape = shape_of(source)
    if source.type.tensor_type.elem_type not in FLOATS or len(shape) != 4:
        kind = TensorProto.DataType.Name(source.type.tensor_type.elem_type)
        raise ModelError(
            f"{path}: its input '{source.name}' is {kind} {told_shape(shape)}; a float picture of 4 dimensions can be wrapped"
        )
    if layout is None:
        if (shape[1] == 3) == (shape[3] == 3):
            raise OptionError(
                f"{path}: its input is {told_shape(shape)}; say with --layout nchw or nhwc where the channels stand"
            )
        layout = "nchw" if shape[1] == 3 else "nhwc"
    height, width = (shape[2], shape[3]) if layout == "nchw" else (shape[1], shape[2])
    if size is None:
        if width is None or height is None:
            raise OptionError(f"{path} leaves its input's size free; say which: --size WIDTHxHEIGHT")
        size = (width, height)
    if (width or size[0], height or size[1]) != size:
        raise OptionError(
            f"{path} takes {width}x{height} alone, not {size[0]}x{size[1]}; leave --size out, or export it with a free size"
        )
    return source, layout, size


def _normalisation(preparation: Preparation, path: Path, element_type: int) -> tuple[Any, Any]:
    """Mean and reciprocal deviation on the scale of 0 to 255, float32 `[3]`."""
    if preparation.mean is None or preparation.std is None:
        raise OptionError(
            f"{path} does not say how its input is normalised: give --mean and --std, such as torchvision's "
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225, or --mean 0,0,0 --std 1,1,1 for a plain 0 to 1"
        )
    scale = 1.0 if max(*preparation.mean, *preparation.std) > 1.0 else 255.0
    if min(preparation.std) <= 0:
        raise OptionError(f"--std is {preparation.std}; each value must be above 0")
    return np.array(preparation.mean, np.float32) * np.float32(scale), 1.0 / (
        np.array(preparation.std, np.float32) * np.float32(scale)
    )


def _answer_output(
    model: onnx.ModelProto, path: Path, size: tuple[int, int], layout: str, preparation: Preparation
) -> tuple[str, _Answer]:
    """The name of the tensor that holds the answer, and what it holds. A softmax at the end is left out: it changes no argmax."""
    outputs = {o.name.removeprefix(_PREFIX): o for o in model.graph.output}
    name = preparation.output or next(iter(outputs))
    if name not in outputs:
        raise OptionError(f"{path} has no output '{name}': there are {', '.join(outputs)}")
    chosen = outputs[name]
    shape, kind = shape_of(chosen), chosen.type.tensor_type.elem_type
    if any(length is None for length in shape):
        raise ModelError(
            f"{path}: the shape of its output '{name}' is not fixed even where the input's is: {told_shape(shape)}"
        )
    known = tuple(int(length or 0) for length in shape)
    width, height = size
    if kind in _INTEGERS:
        if known[-2:] != (height, width) and known[1:3] != (height, width):
            raise ModelError(
                f"{path}: its class map '{name}' is {told_shape(shape)}, not of the input's size {width}x{height}"
            )
        return chosen.name, _Answer(None, 0, known)
    if len(known) != 4 or kind not in FLOATS:
        raise ModelError(
            f"{path}: its output '{name}' is {told_shape(shape)}; scores [N, C, H, W] or class indices [N, H, W] are needed"
        )
    axis = 1 if layout == "nchw" else 3
    if preparation.classes and len(preparation.classes) in (known[1], known[3]):
        axis = axis if known[axis] == len(preparation.classes) else 4 - axis
    last = next((node for node in model.graph.node if chosen.name in node.output), None)
    if last is not None and last.op_type == "Softmax" and _attribute(last, "axis", -1) % 4 == axis:
        return last.input[0], _Answer(axis, known[axis], known)
    return chosen.name, _Answer(axis, known[axis], known, probability=last is not None and last.op_type == "Sigmoid")


def _class_names(given: tuple[str, ...] | None, kind: _Answer, path: Path) -> tuple[str, ...]:
    count = 2 if kind.count == 1 else kind.count
    if not count and not given:
        raise OptionError(f"{path} gives class indices and does not say of which classes; name them with --classes")
    if given and count and len(given) != count:
        raise OptionError(f"{path} has {count} classes, but --classes names {len(given)}: {', '.join(given)}")
    return tuple(name.lower() for name in given) if given else tuple(f"class-{i}" for i in range(count))


def _before(model: onnx.ModelProto, layout: str, mean: Any, scale: Any) -> tuple[list[onnx.NodeProto], str]:
    """From `image` to the network's own input: cast, layout, normalisation, all in FP32, then the network's precision."""
    source = picture_inputs(model)[0]
    shape = (1, 3, 1, 1) if layout == "nchw" else (3,)
    model.graph.initializer.append(numpy_helper.from_array(mean.reshape(shape), "rtseg/mean"))
    model.graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32).reshape(shape), "rtseg/scale"))
    nodes = [helper.make_node("Cast", ["image"], ["rtseg/float"], "rtseg/float", to=TensorProto.FLOAT)]
    if layout == "nchw":
        nodes.append(
            helper.make_node("Transpose", [nodes[-1].output[0]], ["rtseg/planes"], "rtseg/planes", perm=[0, 3, 1, 2])
        )
    nodes.append(helper.make_node("Sub", [nodes[-1].output[0], "rtseg/mean"], ["rtseg/centred"], "rtseg/centred"))
    nodes.append(helper.make_node("Mul", ["rtseg/centred", "rtseg/scale"], ["rtseg/normalised"], "rtseg/normalised"))
    nodes.append(
        helper.make_node(
            "Cast", ["rtseg/normalised"], [source.name], "rtseg/input", to=source.type.tensor_type.elem_type
        )
    )
    return nodes, source.name


def _after(
    model: onnx.ModelProto, output: str, kind: _Answer, size: tuple[int, int], batch: int
) -> list[onnx.NodeProto]:
    """From the network's answer to `classes`: upsampling where it is smaller than the input, argmax, cast."""
    width, height = size
    nodes: list[onnx.NodeProto] = []

    def add(operation: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"rtseg/{operation.lower()}"
        nodes.append(helper.make_node(operation, list(inputs), [name], name, **attributes))
        return name

    def constant(name: str, values: Any) -> str:
        model.graph.initializer.append(numpy_helper.from_array(values, f"rtseg/{name}"))
        return f"rtseg/{name}"

    if kind.axis is None:
        if kind.shape != (batch, height, width):
            output = add("Reshape", [output, constant("map", np.array([batch, height, width], np.int64))])
    else:
        if kind.axis == 3:
            output = add("Transpose", [output], perm=[0, 3, 1, 2])
        channels, rows, columns = (kind.shape[i] for i in ((1, 2, 3) if kind.axis == 1 else (3, 1, 2)))
        if (rows, columns) != (height, width):
            sizes = constant("sizes", np.array([batch, channels, height, width], np.int64))
            output = add("Resize", [output, "", "", sizes], mode="linear", coordinate_transformation_mode="half_pixel")
        if channels == 1:  # one score: class 1 where it is above one half, or above 0 before the sigmoid
            kind_of = FLOATS[_element_type(model, output if not nodes else nodes[0].input[0])]
            limit = constant("limit", np.array(0.5 if kind.probability else 0.0, kind_of))
            output = add("Greater", [output, limit])
            output = add("Squeeze", [output, constant("axis", np.array([1], np.int64))])
        else:
            output = add("ArgMax", [output], axis=1, keepdims=0)
    nodes.append(helper.make_node("Cast", [output], ["classes"], "rtseg/classes", to=TensorProto.UINT8))
    return nodes


def _infer_shapes(model: onnx.ModelProto, path: Path, size: tuple[int, int]) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        down = f"{max(32, size[0] // 32 * 32)}x{max(32, size[1] // 32 * 32)}"
        raise ModelError(
            f"{path} can't take {size[0]}x{size[1]} ({one_sentence(error)}); many networks need multiples of 32: --size {down}"
        ) from error


def _element_type(model: onnx.ModelProto, name: str) -> int:
    graph = model.graph
    return next(
        (v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info) if v.name == name), 0
    )


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)
