"""OpenVINO graph transformations of a model of the contract: class scores as output, or temporal smoothing of the scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtseg.core.errors import ModelError

_AFTER_ARGMAX = ("Result", "Convert", "Squeeze", "Reshape")
"""Operations allowed between argmax and the class map."""

_BEFORE_ARGMAX = ("Slice", "StridedSlice", "Convert")
"""Operations allowed between upsampling and argmax."""


def scores_graph(network: Any) -> tuple[Any, tuple[int, int]] | None:
    """Cut a network after its class scores, if only bilinear upsampling and argmax follow.

    Args:
        network: an `openvino.Model` that follows the model contract, with a fixed image size; not changed.

    Returns:
        The network with the output `scores`, float32 `[1, classes, h, w]`, in place of `classes`, and its other outputs; and
        (width, height) of the upsampled scores, whose upper left part gives the class map. None if the network computes its
        class map in another way.
    """
    from openvino import Model
    from openvino import opset13 as ops

    network = network.clone()
    argmax = _argmax(network)
    upsampling = _upsampling(argmax) if argmax else None
    if (
        argmax is None
        or upsampling is None
        or not _is_bilinear(upsampling)
        or not _takes_upper_left(argmax, upsampling)
    ):
        return None
    upsampled = tuple(upsampling.output(0).get_shape())
    head = upsampling.input_value(0)
    if head.get_shape()[0] != 1 or head.get_shape()[1] > 256:
        return None
    scores = ops.convert(head, np.float32)
    scores.output(0).set_names({"scores"})
    others = [result for result in network.get_results() if "classes" not in result.output(0).get_names()]
    return Model([ops.result(scores), *others], network.get_parameters()), (upsampled[3], upsampled[2])


def smoothing_graph(network: Any, origin: str) -> Any:
    """Return an `openvino.Model` of the contract with temporal smoothing.

    New scores = momentum * scores + (1 - momentum) * the image's scores, inserted before the scores are upsampled for argmax,
    or before argmax in a model without upsampling, as in `rtseg.nn.image_to_classes.SmoothImageToClasses`. Inputs: `image`,
    `scores` (the model's own type: float16 in a model that rtseg exported) and `momentum` (float32 scalar). Outputs: `classes`
    and `new_scores` (OpenVINO does not allow two tensors of one name).

    Args:
        network: the model, not compiled, with a fixed image size; not changed.
        origin: its file name, for messages.

    Raises:
        ModelError: the classes are not an argmax over scores.
    """
    from openvino import opset13 as ops

    network = network.clone()
    target = _input_for_scores(network, origin)
    new = target.get_source_output()
    dtype = new.get_element_type()
    scores = ops.parameter(new.get_partial_shape(), dtype, name="scores")
    momentum = ops.parameter([], np.float32, name="momentum")
    weight = ops.convert(momentum, dtype)
    mixed = ops.add(ops.multiply(scores, weight), ops.multiply(new, ops.subtract(ops.constant(1.0, dtype), weight)))
    target.replace_source_output(mixed.output(0))
    result = ops.result(mixed)
    scores.output(0).set_names({"scores"})
    momentum.output(0).set_names({"momentum"})
    mixed.output(0).set_names({"new_scores"})
    network.add_parameters([scores, momentum])
    network.add_results([result])
    network.validate_nodes_and_infer_types()
    return network


def _input_for_scores(network: Any, origin: str) -> Any:
    """Return the input of the last upsampling before argmax, or of argmax."""
    argmax = _argmax(network)
    if argmax is None:
        raise ModelError(
            f"{origin}: --smooth averages class scores before argmax, but this model's classes are the output of "
            f"'{_skip_back(network.output('classes').get_node(), _AFTER_ARGMAX).get_type_name()}'; leave --smooth out"
        )
    upsampling = _upsampling(argmax)
    return argmax.input(0) if upsampling is None else upsampling.input(0)


def _argmax(network: Any) -> Any | None:
    """Return the argmax node (TopK); None if there is none."""
    node = _skip_back(network.output("classes").get_node(), _AFTER_ARGMAX)
    return node if node.get_type_name() == "TopK" else None


def _upsampling(argmax: Any) -> Any | None:
    """Return the interpolation before argmax; None if there is none."""
    node = _skip_back(argmax.input_value(0).get_node(), _BEFORE_ARGMAX)
    return node if node.get_type_name() == "Interpolate" else None


def _skip_back(node: Any, kinds: tuple[str, ...]) -> Any:
    """Follow first inputs backwards from `node` and return the first node of another kind."""
    while node.get_type_name() in kinds:
        node = node.input_value(0).get_node()
    return node


def _is_bilinear(upsampling: Any) -> bool:
    """Return True if the interpolation equals an upsampling with OpenCV's `INTER_LINEAR`."""
    attributes = upsampling.get_attributes()
    before, after = upsampling.input_value(0).get_shape(), upsampling.output(0).get_shape()
    return (
        len(before) == 4
        and before[:2] == after[:2]
        and before[2] <= after[2]
        and before[3] <= after[3]
        and attributes["mode"] in ("linear", "linear_onnx")
        and attributes["coordinate_transformation_mode"] == "half_pixel"
        and not any([*attributes["pads_begin"], *attributes["pads_end"], attributes["antialias"]])
    )


def _takes_upper_left(argmax: Any, upsampling: Any) -> bool:
    """Return True if argmax is over the class axis of the upper left part of the upsampled scores."""
    attributes = argmax.get_attributes()
    if attributes["axis"] != 1 or attributes["mode"] != "max":
        return False
    node = argmax.input_value(0).get_node()
    while node.get_friendly_name() != upsampling.get_friendly_name():
        if node.get_type_name() == "Slice":
            start, _, step = (node.input_value(index).get_node() for index in (1, 2, 3))
            if any(part.get_type_name() != "Constant" for part in (start, step)):
                return False
            if np.any(start.get_data() != 0) or np.any(step.get_data() != 1):
                return False
        elif node.get_type_name() != "Convert":
            return False
        node = node.input_value(0).get_node()
    return True
