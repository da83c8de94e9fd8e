"""Adaptation of a foreign ONNX segmentation network to rtseg's model contract: uint8 images in, class scores out.

A class map that can't be traced back to scores is output as it is, without temporal smoothing.

Files that `rtseg.models.export.to_onnx` writes follow the contract already. The graph is changed with the `onnx` package and
converted to FP16 with ONNX Runtime's converter. The size of the input is fixed, because a foreign network's output can only be
resized to the input if both sizes are known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper

from rtseg.core.errors import ModelError, OptionError, printable_name
from rtseg.core.model_info import ModelInfo
from rtseg.models.export.onnx_branches import inline_branches
from rtseg.models.export.onnx_cut import cut_to_scores
from rtseg.models.export.onnx_file import (
    FLOATS,
    error_summary,
    image_inputs,
    keep_needed,
    replace_nodes,
    set_shape,
    write_description,
)
from rtseg.models.export.onnx_find_output import find_output
from rtseg.models.export.onnx_input import normalization_constants, select_image_input
from rtseg.models.export.onnx_output import Output
from rtseg.models.export.onnx_rewrite import (
    add_prefix,
    constants_to_initializers,
    fold_batch_norm,
    to_half,
    upgrade_opset,
)
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
    """Adapt a foreign network to the contract.

    Args:
        model: the result of `read_onnx`; changed.
        path: its file, for its name and for messages.
        size: (width, height) of the input; None: the size that is fixed in the file.
        batch: number of images in one run.
        precision: `fp16`, `fp32`, or `int8` for a network that will be quantized, which stays FP32 here.
        preprocessing: metadata that the file does not contain.

    Returns:
        The adapted model with its description in the metadata, the description, and the output that is used.

    Raises:
        ModelError: the network can't be adapted; the message contains the reason.
        OptionError: required metadata is neither in the file nor in `preprocessing`.
    """
    if model.functions:  # the analysis of the graph does not look into functions
        model = inliner.inline_local_functions(model)
    source, layout, size = select_image_input(model, path, size, batch, preprocessing.layout)
    mean, std = normalization_constants(preprocessing, path, source.type.tensor_type.elem_type)
    if source.type.tensor_type.elem_type == TensorProto.UINT8:  # TensorRT allows uint8 only at a network's edge
        source.type.tensor_type.elem_type = TensorProto.FLOAT
    width, height = size
    set_shape(model, source, (batch, 3, height, width) if layout == "nchw" else (batch, height, width, 3))
    inline_branches(model, path)
    model = upgrade_opset(model, path)
    constants_to_initializers(model)
    model = _infer_shapes(model, path, size)
    output = find_output(model, path, size, batch, preprocessing)
    classes = _class_names(preprocessing.classes, output, path)
    _keep_output(model, output.name)
    scores = cut_to_scores(model, path, output, size, batch, precision)
    _keep_output(model, scores.name)
    model = fold_batch_norm(model, path)
    source = image_inputs(model)[0]
    share = graph_share(model)
    if precision == "fp16" and share.share("int8") > 1 - MIN_SHARE:
        raise OptionError(
            f"{path} is quantized: {share.share('int8'):.0%} of its multiplications are INT8 already, and can't be fp16; "
            "--precision fp32 leaves it as it is"
        )
    if precision != "fp32" and share.share("wide") > 1 - MIN_SHARE:
        raise OptionError(
            f"{path} is quantized: {share.share('wide'):.0%} of its multiplications are of numbers that are not INT8, such as "
            f"INT16, and can't be {precision}; --precision fp32 leaves it as it is"
        )
    is_half = source.type.tensor_type.elem_type == TensorProto.FLOAT16 and not share.share("fp16") < MIN_SHARE
    if precision == "fp16" and not is_half:
        model, is_half = to_half(model), True
    add_prefix(model, _PREFIX)
    input_nodes = _input_nodes(model, layout, mean, std)
    output_nodes, result = _output_nodes(model, scores, size, batch)
    description = ModelInfo(
        name=printable_name(path.stem.lower()),
        classes=classes,
        input_size=size,
        network=model.graph.name.removeprefix(_PREFIX) or "onnx",
        precision="fp16" if is_half else "fp32",
        license="unknown",
        output="classes" if scores.kind == "classes" else "scores",
    )
    graph = model.graph
    replace_nodes(graph, [*input_nodes, *graph.node, *output_nodes])
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, height, width, 3]))
    graph.output.append(result)
    write_description(model, description)
    try:
        return _inferred(model), description, output
    except onnx.shape_inference.InferenceError as error:  # caused by the conversion: the source passed this check
        advice = "; --precision fp32 leaves it as it is" if precision != "fp32" else ""
        raise ModelError(
            f"{path} can't be converted to {description.precision} ({error_summary(error)}){advice}"
        ) from error


def _class_names(given: tuple[str, ...] | None, output: Output, path: Path) -> tuple[str, ...]:
    count = output.classes
    if not count and not given:
        raise OptionError(f"{path} outputs class indices without names of the classes; name them with --classes")
    if given and count and len(given) != count:
        has_background = output.kind in ("mask", "multilabel") or (output.axis is None and output.kind != "classes")
        first = ", the first of them where no other is" if has_background else ""
        raise OptionError(f"{path} has {count} classes{first}, but --classes names {len(given)}: {', '.join(given)}")
    return tuple(name.lower() for name in given) if given else tuple(f"class-{i}" for i in range(count))


def _keep_output(model: onnx.ModelProto, name: str) -> None:
    """Remove the other outputs, and all nodes and weights that only they need, in place."""
    graph = model.graph
    for output in [output for output in graph.output if output.name != name]:
        graph.output.remove(output)
    keep_needed(graph, [name])


class _Chain:
    """Chain of new nodes of a graph, from a tensor on: the first input of each node is the output of the one before it."""

    def __init__(self, graph: onnx.GraphProto, first: str, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._graph, self._last, self._prefix = graph, first, prefix

    def add(self, operation: str, *constants: Any, output: str = "", **attributes: Any) -> None:
        """Append a node with these arrays as its other inputs. `output` is the name of its output; empty for a new name."""
        name = f"{self._prefix}/{operation.lower()}{len(self.nodes)}"
        weights = [numpy_helper.from_array(np.asarray(array), f"{name}/{i}") for i, array in enumerate(constants)]
        self._graph.initializer.extend(weights)
        inputs = [self._last, *(tensor.name for tensor in weights)]
        self._last = output or name
        self.nodes.append(helper.make_node(operation, inputs, [self._last], name, **attributes))


def _input_nodes(model: onnx.ModelProto, layout: str, mean: Any, scale: Any) -> list[onnx.NodeProto]:
    """Return nodes from `image` to the network's input: cast, layout, normalization in FP32, and cast to its precision."""
    source = image_inputs(model)[0]
    shape = (1, 3, 1, 1) if layout == "nchw" else (3,)
    chain = _Chain(model.graph, "image", "rtseg/input")
    chain.add("Cast", to=TensorProto.FLOAT)
    if layout == "nchw":
        chain.add("Transpose", perm=[0, 3, 1, 2])
    chain.add("Sub", mean.reshape(shape))
    chain.add("Mul", scale.reshape(shape))
    chain.add("Cast", to=source.type.tensor_type.elem_type, output=source.name)
    return chain.nodes


def _output_nodes(
    model: onnx.ModelProto, output: Output, size: tuple[int, int], batch: int
) -> tuple[list[onnx.NodeProto], onnx.ValueInfoProto]:
    """Return nodes from the network's output to `scores`, `[N, C, h, w]`, or to `classes`; and that output of the model."""
    rows, columns = output.size
    element = model.graph.output[0].type.tensor_type.elem_type
    chain = _Chain(model.graph, _PREFIX + output.name, "rtseg/output")
    if output.quantized is not None:
        scale, zero = output.quantized
        chain.add("Cast", to=TensorProto.FLOAT)
        chain.add("Sub", np.float32(zero))
        chain.add("Mul", np.float32(scale))
        element = TensorProto.FLOAT
    if output.kind == "classes":
        shape: tuple[int, ...] = (batch, size[1], size[0])
        if output.shape != shape:
            chain.add("Reshape", np.array([-1, *shape[1:]], np.int64))  # OpenVINO runs another number of images
        chain.add("Cast", to=TensorProto.UINT8, output="classes")
        return chain.nodes, helper.make_tensor_value_info("classes", TensorProto.UINT8, shape)
    if element not in FLOATS or output.kind != "logits":  # in FP16 several probabilities near 1 are equal
        chain.add("Cast", to=TensorProto.FLOAT)
        element = TensorProto.FLOAT
    channels, shape = 1, output.shape
    if output.axis is not None:
        channels = output.shape[output.axis]
        others = [axis for axis in range(len(output.shape)) if axis != output.axis]
        batch_axis = others[:1] if output.shape[others[0]] == batch and len(others) > 1 else []
        order = [*batch_axis, output.axis, *others[len(batch_axis) :]]
        if order != sorted(order):
            chain.add("Transpose", perm=order)
        shape = tuple(output.shape[axis] for axis in order)
    if shape != (batch, channels, rows, columns):
        chain.add("Reshape", np.array([-1, channels, rows, columns], np.int64))
    if channels == 1 or output.kind == "multilabel":
        # The score of class 0 is the threshold, and argmax prefers class 0 if equal.
        chain.add("Pad", np.array([0, 1, 0, 0, 0, 0, 0, 0], np.int64), np.array(output.threshold, FLOATS[element]))
        channels += 1
    chain.add("Identity", output="scores")
    return chain.nodes, helper.make_tensor_value_info("scores", element, [batch, channels, rows, columns])


def _infer_shapes(model: onnx.ModelProto, path: Path, size: tuple[int, int]) -> onnx.ModelProto:
    try:
        return _inferred(model)
    except onnx.shape_inference.InferenceError as error:
        suggested = f"{max(32, size[0] // 32 * 32)}x{max(32, size[1] // 32 * 32)}"
        raise ModelError(
            f"{path} can't take {size[0]}x{size[1]} ({error_summary(error)}); many networks need multiples of 32: "
            f"--size {suggested}"
        ) from error


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
