"""Forms of a network on OpenVINO, made of the one that the model contract names: scores in, or scores out."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtseg.core.errors import ModelError

_SHAPING = ("Result", "Convert", "Squeeze", "Reshape")
"""What may stand between argmax and the class map."""

_CUTTING = ("Slice", "StridedSlice", "Convert")
"""What may stand between the enlargement and argmax."""


def scores_form(network: Any) -> tuple[Any, tuple[int, int]] | None:
    """The network up to its class scores, where all that follows to the class map is a bilinear enlargement and argmax.

    Args:
        network: an `openvino.Model` that follows the model contract, its image's size set; not changed.

    Returns:
        The network that gives `scores`, float32 `[1, classes, h, w]`, in place of `classes`, its other outputs as they were;
        and (width, height) that the scores are enlarged to: the class map is the upper left part of that. None: its class map
        comes about in another way.
    """
    from openvino import Model
    from openvino import opset13 as ops

    network = network.clone()
    argmax = _argmax(network)
    enlargement = _enlargement(argmax) if argmax else None
    if argmax is None or enlargement is None or not _bilinear(enlargement) or not _upper_left(argmax, enlargement):
        return None
    enlarged = tuple(enlargement.output(0).get_shape())
    coarse = enlargement.input_value(0)
    if coarse.get_shape()[0] != 1 or coarse.get_shape()[1] > 256:
        return None
    scores = ops.convert(coarse, np.float32)
    scores.output(0).set_names({"scores"})
    others = [result for result in network.get_results() if "classes" not in result.output(0).get_names()]
    return Model([ops.result(scores), *others], network.get_parameters()), (enlarged[3], enlarged[2])


def smooth_form(network: Any, origin: str) -> Any:
    """The second form of an `openvino.Model` that follows the model contract.

    New scores = keep * scores + (1 - keep) * scores of the image, put in where the class scores are upsampled for argmax (in a
    model that does not upsample them: where argmax takes them). That is what `rtseg.nn.image_to_classes.SmoothImageToClasses`
    does; made here it needs no second file. Inputs: `image`, `scores` (as the model has them: float16 in a model that
    rtseg exported) and `momentum` (float32 scalar); outputs: `classes` and `new_scores` (OpenVINO has no two values of one name).

    Args:
        network: not compiled yet, its image's size set; not changed.
        origin: its file name, for messages.

    Raises:
        ModelError: its classes do not come from an argmax over scores.
    """
    from openvino import opset13 as ops

    network = network.clone()
    place = _place_of_scores(network, origin)
    new = place.get_source_output()
    kind = new.get_element_type()
    scores = ops.parameter(new.get_partial_shape(), kind, name="scores")
    momentum = ops.parameter([], np.float32, name="momentum")
    kept = ops.convert(momentum, kind)
    mixed = ops.add(ops.multiply(scores, kept), ops.multiply(new, ops.subtract(ops.constant(1.0, kind), kept)))
    place.replace_source_output(mixed.output(0))
    result = ops.result(mixed)
    scores.output(0).set_names({"scores"})
    momentum.output(0).set_names({"momentum"})
    mixed.output(0).set_names({"new_scores"})
    network.add_parameters([scores, momentum])
    network.add_results([result])
    network.validate_nodes_and_infer_types()
    return network


def _place_of_scores(network: Any, origin: str) -> Any:
    """The input of the last enlargement before argmax, or of argmax itself."""
    argmax = _argmax(network)
    if argmax is None:
        raise ModelError(
            f"{origin}: --smooth mixes class scores before argmax, but this model's classes come out of "
            f"'{_before(network.output('classes').get_node(), _SHAPING).get_type_name()}'; leave --smooth out"
        )
    enlargement = _enlargement(argmax)
    return argmax.input(0) if enlargement is None else enlargement.input(0)


def _argmax(network: Any) -> Any | None:
    """The node that picks the class, if one does."""
    node = _before(network.output("classes").get_node(), _SHAPING)
    return node if node.get_type_name() == "TopK" else None


def _enlargement(argmax: Any) -> Any | None:
    """The node that scales what argmax takes, if one does."""
    node = _before(argmax.input_value(0).get_node(), _CUTTING)
    return node if node.get_type_name() == "Interpolate" else None


def _before(node: Any, kinds: tuple[str, ...]) -> Any:
    """The first node that is none of these, going against the flow."""
    while node.get_type_name() in kinds:
        node = node.input_value(0).get_node()
    return node


def _bilinear(enlargement: Any) -> bool:
    """Whether it does what OpenCV's `INTER_LINEAR` does to a larger size."""
    attributes = enlargement.get_attributes()
    before, after = enlargement.input_value(0).get_shape(), enlargement.output(0).get_shape()
    return (
        len(before) == 4
        and before[:2] == after[:2]
        and before[2] <= after[2]
        and before[3] <= after[3]
        and attributes["mode"] in ("linear", "linear_onnx")
        and attributes["coordinate_transformation_mode"] == "half_pixel"
        and not any([*attributes["pads_begin"], *attributes["pads_end"], attributes["antialias"]])
    )


def _upper_left(argmax: Any, enlargement: Any) -> bool:
    """Whether argmax goes over the classes of the upper left part of what was enlarged."""
    attributes = argmax.get_attributes()
    if attributes["axis"] != 1 or attributes["mode"] != "max":
        return False
    node = argmax.input_value(0).get_node()
    while node.get_friendly_name() != enlargement.get_friendly_name():
        if node.get_type_name() == "Slice":
            start, _, step = (node.input_value(place).get_node() for place in (1, 2, 3))
            if any(part.get_type_name() != "Constant" for part in (start, step)):
                return False
            if np.any(start.get_data() != 0) or np.any(step.get_data() != 1):
                return False
        elif node.get_type_name() != "Convert":
            return False
        node = node.input_value(0).get_node()
    return True
