"""Detection of the kind of an ONNX output: logits, probabilities, class indices or a mask."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import onnx

from rtseg.core.errors import ModelError, OptionError
from rtseg.models.export.onnx_color_output import color_output_reason
from rtseg.models.export.onnx_file import format_shape
from rtseg.models.export.onnx_output import Output
from rtseg.models.export.onnx_task import scaled_indices_reason
from rtseg.models.export.onnx_trace import LINEAR, SAME_VALUES, Trace
from rtseg.models.export.onnx_values import FLOAT_TYPES, Values
from rtseg.nn.preprocessing import Preprocessing


def read_output(trace: Trace, output: Output, element: int, preprocessing: Preprocessing, path: Path) -> Output:
    """Detect the kind of an output, or check the kind that the user gave.

    `element` is its ONNX element type, after dequantization.

    Raises:
        ModelError: the output is not a segmentation.
        OptionError: the kind is ambiguous, or the given kind contradicts the graph.
    """
    name, shape, axis, kind = output.name, output.shape, output.axis, preprocessing.output_kind
    values, origin = trace.dequantized_values(name), trace.origin(name)
    several = axis is not None
    output = replace(output, values=(values.low, values.high), kind_given=kind is not None)
    if kind in ("classes", "mask") and several:
        raise OptionError(
            f"{path}: --output-kind {kind} is for one value per pixel; its output '{name}' has {format_shape(shape)}"
        )
    if kind == "multilabel" and not several:
        raise OptionError(
            f"{path}: --output-kind multilabel is for several scores per pixel; '{name}' has one: use probabilities"
        )

    if axis is not None and (reason := color_output_reason(trace, name, axis)):
        raise ModelError(
            f"{path}: its output '{name}' is a colored image {format_shape(shape)}: {reason}; export the network without that "
            "step, so that it outputs scores or class indices"
        )
    if not several and (reason := scaled_indices_reason(trace, name)):
        raise ModelError(f"{path}: its output '{name}' can't be used: {reason}")
    if kind is not None and (contradiction := _contradiction(trace, name, values, kind, several)):
        raise OptionError(f"{path}: --output-kind {kind} does not fit its output '{name}': {contradiction}")
    if several:
        if element not in FLOAT_TYPES and not (values.discrete or values.bounded):
            raise ModelError(f"{path}: its output '{name}' contains integers {format_shape(shape)}; scores are needed")
        separate = values.bounded and values.low >= 0 and values.high <= 255 and not trace.exclusive(name)
        if kind is None and separate:
            multilabel = ", or --output-kind multilabel if class 0 is the absence of all of them"
            raise OptionError(
                f"{path}: the {shape[axis or 0]} channels of its output '{name}' are independent probabilities; use "
                f"--output-kind probabilities if the highest is the class{multilabel if _has_threshold(values) else ''}"
            )
        detected = "logits" if _around_zero(values) or not values.bounded else "probabilities"
        return replace(output, kind=kind or detected, threshold=_middle(values, 0.5))
    if kind is not None:
        thresholds = {"probabilities": _middle(values, 0.5), "mask": _middle(values, 127.5)}
        return replace(output, kind=kind, threshold=thresholds.get(kind, 0.0))
    if values.discrete is not None and len(values.discrete) > 1:
        levels = sorted(values.discrete)
        indices = all(abs(value - round(value)) < 1e-3 and -0.5 < value < 254.5 for value in levels)
        if indices and not (len(levels) == 2 and levels[1] - levels[0] > 1.5):
            return replace(output, kind="classes", indices=round(levels[-1]) + 1)
        if len(levels) == 2 and levels[0] in (0.0, -1.0):
            return replace(output, kind="mask", threshold=sum(levels) / 2)
    elif element not in FLOAT_TYPES and not values.bounded:
        return replace(output, kind="classes")
    elif values.bounded and _symmetric(values):
        detected = "logits" if _around_zero(values) else "probabilities"
        return replace(output, kind=detected, threshold=_middle(values, 0.5))
    elif math.isinf(values.low) and math.isinf(values.high):
        linear = origin is not None and origin.op_type in LINEAR
        if linear and not trace.is_channel_of_scores(name):
            return replace(output, kind="logits")
    computed = f"is computed by {_format_origin(trace, name, origin)}" if origin is not None else "is an input"
    raise OptionError(
        f"{path}: its output '{name}' has one value per pixel and {computed}, which is ambiguous; specify --output-kind "
        "logits (foreground above 0), probabilities (above one half), classes (class indices) or mask (0 or 255)"
    )


def _format_origin(trace: Trace, name: str, origin: onnx.NodeProto) -> str:
    """Return the last operator before an output and the one that computes its values, such as `Clip of Conv`."""
    last = trace.producer(trace.skip(name, SAME_VALUES)) or origin
    return origin.op_type if last is origin else f"{last.op_type} of {origin.op_type}"


def _contradiction(trace: Trace, name: str, values: Values, kind: str, several: bool) -> str:
    """Return a message if the graph contradicts the kind that the user gave; else empty."""
    advice = "leave --output-kind out, or use the kind that fits"
    origin = trace.origin(name)
    operator = origin.op_type if origin is not None else ""
    exclusive = operator in ("Softmax", "LogSoftmax", "OneHot") or (
        origin is not None and operator == "Concat" and trace.exclusive(origin.output[0])
    )
    if several and exclusive and (kind == "multilabel" or (kind == "logits" and values.low >= 0)):
        return (
            f"the channels of its {operator} exclude each other, so that the highest is the class; leave --output-kind out, "
            "or use probabilities"
        )
    indices = values.discrete is not None and len(values.discrete) > 2 and all(v == round(v) for v in values.discrete)
    if not several and kind in ("mask", "probabilities", "logits"):
        argmax = operator in ("ArgMax", "ArgMin") and values.discrete is None
        if argmax or indices:
            bounds = f", {values.low:g} to {values.high:g}" if values.bounded else ""
            return f"it contains class indices{bounds}, by the graph; leave --output-kind out, or use classes"
    if not values.bounded or kind == "classes":
        return ""
    bounds = f"its values are {values.low:g} to {values.high:g} by the graph"
    if kind == "logits":  # logits that were clipped to a range such as 0 to 6 are valid
        return f"{bounds}, and logits can be below 0; {advice}" if values.low >= 0 and _has_threshold(values) else ""
    two_valued = kind == "mask" and values.discrete is not None
    if _around_zero(values) and not two_valued:
        return f"{bounds}, symmetric around 0 like logits; leave --output-kind out, or use logits"
    needs_no_threshold = several and kind == "probabilities"  # the highest is the class
    if needs_no_threshold or two_valued or _has_threshold(values):
        return ""
    return f"{bounds}, whose middle is no threshold; {advice}"


def _has_threshold(values: Values) -> bool:
    """Return True if the middle of a range is a threshold for the foreground: within 0 to 1, or symmetric."""
    return (values.low >= -1e-3 and values.high <= 1 + 1e-3) or _symmetric(values)


def _symmetric(values: Values) -> bool:
    """Return True for the ranges 0 to 1, 0 to 100, 0 to 255 and -a to a, whose middle is a threshold for the foreground."""
    span = values.high - values.low
    if abs(values.low) <= 1e-3 * span:
        return any(abs(values.high - end) <= 1e-3 * end for end in (1.0, 100.0, 255.0))
    return abs(values.low + values.high) <= 1e-3 * span


def _around_zero(values: Values) -> bool:
    """Return True for a range -a to a, such as after a Tanh, in which 0 is the threshold for the foreground."""
    return values.bounded and values.low < 0 and abs(values.low + values.high) <= 1e-3 * (values.high - values.low)


def _middle(values: Values, default: float) -> float:
    return (values.low + values.high) / 2 if values.bounded and values.high > values.low else default
