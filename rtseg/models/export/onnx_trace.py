"""Analysis of an ONNX graph: the possible values of a tensor and its class axis.

Both are found by tracing the graph back from the tensor, through nodes that only move, crop, resize or scale its values, to the
node that computes them: Sigmoid, Softmax, ArgMax, a comparison or a convolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from rtseg.models.export.onnx_file import attributes_of
from rtseg.models.export.onnx_values import ANY, Values, arithmetic, cast, combine, discrete_values, multiply, union

SAME_VALUES = {
    "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Dropout", "Cast", "CastLike", "Resize", "Upsample",
    "Slice", "Gather", "Split", "Expand", "Tile", "AveragePool", "MaxPool", "DepthToSpace", "SpaceToDepth", "Round", "Floor",
    "Ceil", "QuantizeLinear", "DequantizeLinear",
}  # fmt: skip
"""Operators whose output has (nearly) the values of their first input, at other positions or with another shape or type."""

LINEAR = {"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "Gemm", "MatMul", "Add", "Sub", "Sum"}
"""Operators that compute scores without an activation."""

TWO_VALUED = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "Xor", "OneHot"}
"""Operators whose output is 0 or 1."""

_BOUNDED = {
    "Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Tanh": (-1.0, 1.0), "Softsign": (-1.0, 1.0),
    "Exp": (0.0, math.inf), "Softplus": (0.0, math.inf), "Sqrt": (0.0, math.inf), "Abs": (0.0, math.inf),
    "LogSoftmax": (-math.inf, 0.0),
}  # fmt: skip
_BINARY = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Pow", "PRelu", "Mod"}
_UNARY = {
    "Sigmoid", "HardSigmoid", "Softmax", "LogSoftmax", "Tanh", "Softsign", "Exp", "Softplus", "Sqrt", "Abs", "Neg", "Relu",
    "LeakyRelu", "Elu", "Log", "Not", "Clip", "Reciprocal", "Selu", "Gelu", "HardSwish", "Mish", "Erf",
}  # fmt: skip
_CHANNELS_SECOND = {
    "Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "Gemm"
}  # fmt: skip
_MAX_DEPTH = 200
"""Maximum number of traced nodes."""


class Trace:
    """Tracer of the tensors of a graph.

    Args:
        model: a model of operator set 13 or newer, with constants as initializers
            (`onnx_rewrite.constants_to_initializers`).
        shapes: known shapes of its tensors.
        size: (width, height) of its input.
        batch: number of images in one run.
    """

    def __init__(
        self, model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], size: tuple[int, int], batch: int
    ) -> None:
        self.shapes, self.size, self.batch = shapes, size, batch
        self._producers = {name: node for node in model.graph.node for name in node.output if name}
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that computes a tensor; None for inputs and weights."""
        return self._producers.get(name)

    def skip(self, name: str, operators: Collection[str]) -> str:
        """Return the tensor from which a tensor is computed by these operators only, each by its first input."""
        while (node := self._producers.get(name)) is not None and node.op_type in operators:
            name = node.input[0]
        return name

    def walk(
        self, name: str, inputs: Callable[[onnx.NodeProto], Iterable[str]]
    ) -> Iterator[tuple[str, onnx.NodeProto | None]]:
        """Yield a tensor, and all tensors before it that `inputs` returns of a node, each once with its producer."""
        pending, seen = [name], set()
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                node = self._producers.get(name)
                yield name, node
                pending += inputs(node) if node is not None else ()

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """Return the value of a constant, also after Identity and Cast; None for a computed tensor."""
        name = self.skip(name, ("Identity", "Cast"))
        return np.asarray(numpy_helper.to_array(self._weights[name])) if name in self._weights else None

    def origin(self, name: str) -> onnx.NodeProto | None:
        """Return the node that computes the values of a tensor, before moves and scaling by constants; None for an input."""
        while (node := self._producers.get(name)) is not None:
            computed = [source for source in node.input if source and self.constant(source) is None]
            if node.op_type in SAME_VALUES | {"Clip", "Neg"}:
                name = node.input[0]
            elif node.op_type in ("Add", "Sub", "Mul", "Div", "Max", "Min") and len(computed) == 1:
                name = computed[0]
            else:
                return node
        return None

    def values(self, name: str, depth: int = 0) -> Values:
        """Return the possible values of a tensor, by interval arithmetic."""
        constant = self.constant(name)
        if constant is not None:
            flat = np.unique(constant.astype(np.float64)) if constant.size <= 4096 and constant.size else np.empty(0)
            return discrete_values(*map(float, flat)) if 0 < flat.size <= 256 else ANY
        node = self._producers.get(name)
        if node is None or depth > _MAX_DEPTH:
            return ANY
        if node.op_type in TWO_VALUED:
            return discrete_values(0.0, 1.0)
        if node.op_type in _BOUNDED:
            return Values(*_BOUNDED[node.op_type])
        if node.op_type in ("ArgMax", "ArgMin"):
            shape = self.shapes.get(node.input[0])
            axis = attributes_of(node).get("axis", 0)
            return (
                discrete_values(*map(float, range(shape[axis])))
                if shape and 0 < shape[axis] <= 256
                else Values(low=0.0)
            )
        if node.op_type in LINEAR - {"Add", "Sub", "Sum"}:
            return ANY
        inputs = [self.values(source, depth + 1) for source in node.input if source]
        if node.op_type == "Cast":
            return cast(inputs[0], attributes_of(node).get("to", TensorProto.FLOAT))
        if node.op_type == "QuantizeLinear":
            scale, zero = self.quantized(name) or (math.nan, 0.0)
            return arithmetic("Add", [multiply(inputs[0], 1 / scale), discrete_values(zero)]) if scale > 0 else ANY
        if node.op_type == "DequantizeLinear":
            before = self._producers.get(node.input[0])
            quantized = before is not None and before.op_type == "QuantizeLinear"
            return self.values(before.input[0], depth + 1) if before is not None and quantized else ANY
        if node.op_type in SAME_VALUES:
            return inputs[0]
        if node.op_type == "Relu":
            return combine(max, inputs[0], discrete_values(0.0))
        if node.op_type == "Clip":
            low = self.values(node.input[1]) if len(node.input) > 1 and node.input[1] else discrete_values(-math.inf)
            high = self.values(node.input[2]) if len(node.input) > 2 and node.input[2] else discrete_values(math.inf)
            return combine(min, combine(max, inputs[0], low), high)
        if node.op_type == "Where":
            return union(inputs[1], inputs[2])
        if node.op_type == "Concat":
            return union(*inputs)
        values = arithmetic(node.op_type, inputs)
        divisor = self.constant(node.input[1]) if node.op_type == "Div" else None
        if values.discrete is not None and divisor is not None and divisor.dtype.kind in "iu":  # integer division
            return discrete_values(*(float(math.trunc(value)) for value in values.discrete))
        return values

    def class_axis(self, name: str, depth: int = 0) -> int | None:
        """Return the class axis of a tensor; None if the graph does not show it."""
        node = self._producers.get(name)
        if node is None or depth > _MAX_DEPTH:
            return None
        kind = node.op_type
        if kind in ("Softmax", "LogSoftmax"):
            rank = len(self.shapes.get(name, ()))
            axis: int = attributes_of(node).get("axis", -1)
            return axis if axis >= 0 else axis + rank if rank else None
        if kind in _CHANNELS_SECOND:
            return 1
        if kind == "MatMul":
            return len(self.shapes[name]) - 1 if name in self.shapes else None
        if kind == "Concat":
            axis = attributes_of(node).get("axis", 0)
            traced = next((a for a in (self.class_axis(n, depth + 1) for n in node.input) if a is not None), None)
            return traced if traced is not None else axis + len(self.shapes.get(name, ())) if axis < 0 else axis
        if kind in _BINARY | {"Where"}:
            rank = len(self.shapes.get(name, ()))
            for source in node.input:
                if self.constant(source) is None and len(self.shapes.get(source, ())) == rank:
                    source_axis = self.class_axis(source, depth + 1)
                    if source_axis is not None:
                        return source_axis
            return None
        if kind not in SAME_VALUES | _UNARY | TWO_VALUED or kind == "OneHot":
            return None
        before = self.class_axis(node.input[0], depth + 1)
        return None if before is None else self._output_axis(node, name, before)

    def _output_axis(self, node: onnx.NodeProto, name: str, axis: int) -> int | None:
        """Return the axis of a node's output that corresponds to an axis of its first input; None if there is none."""
        source, output = self.shapes.get(node.input[0]), self.shapes.get(name)
        if node.op_type == "Transpose":
            perm: list[int] | None = attributes_of(node).get("perm")
            return perm.index(axis) if perm else len(source) - 1 - axis if source else None
        if source is None or output is None:
            return axis if node.op_type not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Gather") else None
        if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
            before, length = math.prod(source[:axis]), source[axis]
            fits = [i for i in range(len(output)) if math.prod(output[:i]) == before and output[i] == length]
            return fits[0] if fits and length > 1 else None
        if node.op_type == "Gather" and len(output) < len(source):
            gathered = attributes_of(node).get("axis", 0) % len(source)
            return None if gathered == axis else axis - (gathered < axis)
        return axis

    def is_channel_of_scores(self, name: str) -> bool:
        """Return True if a tensor of one value per pixel is a channel that was cut from several channels of scores."""
        while (node := self._producers.get(name)) is not None and node.op_type in SAME_VALUES | {"Clip"}:
            axis, shape = self.class_axis(node.input[0]), self.shapes.get(node.input[0])
            is_slice = node.op_type in ("Slice", "Gather", "Split")
            if is_slice and axis is not None and shape and axis < len(shape) and shape[axis] > 1:
                return True
            name = node.input[0]
        return False

    def exclusive(self, name: str, depth: int = 0) -> bool:
        """Return True if the classes exclude each other: a Softmax, a one-hot code, or channels p and 1 - p."""
        node = self._producers.get(name)
        if node is None or depth > _MAX_DEPTH or node.op_type in LINEAR - {"Add", "Sub", "Sum"}:
            return False
        if node.op_type in ("Softmax", "LogSoftmax", "OneHot"):
            return True
        if node.op_type == "Concat" and len(node.input) == 2:
            first, second = node.input
            return self._complement(first) == self._root(second) or self._complement(second) == self._root(first)
        if node.op_type in SAME_VALUES | _BINARY | _UNARY:
            return any(self.exclusive(source, depth + 1) for source in node.input if source)
        return False

    def quantized(self, name: str) -> tuple[float, float] | None:
        """Return (scale, zero) of a quantized tensor, whose real values are (number - zero) * scale; None for other tensors."""
        moves = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Cast", "Resize", "Slice")
        node = self._producers.get(self.skip(name, moves))
        if node is None or node.op_type != "QuantizeLinear":
            return None
        scale, zero = self.constant(node.input[1]), self.constant(node.input[2]) if len(node.input) > 2 else np.zeros(1)
        if scale is None or zero is None or scale.size != 1 or zero.size != 1:
            return None
        return float(scale.ravel()[0]), float(zero.ravel()[0])

    def dequantized_values(self, name: str) -> Values:
        """Return the possible values of a tensor, dequantized if it is quantized."""
        scale, zero = self.quantized(name) or (1.0, 0.0)
        return multiply(arithmetic("Sub", [self.values(name), discrete_values(zero)]), scale)

    def _root(self, name: str) -> str:
        """Return the name of the tensor from which a tensor is computed by moves and clipping only."""
        return self.skip(name, SAME_VALUES | {"Clip"})

    def _complement(self, name: str) -> str | None:
        """Return the name of p if a tensor is 1 - p, else None."""
        node = self._producers.get(self._root(name))
        if node is None:
            return None
        if node.op_type == "Sub" and self.values(node.input[0]) == discrete_values(1.0):
            return self._root(node.input[1])
        if node.op_type == "Add":  # 1 + (-p)
            for one, other in (tuple(node.input), tuple(reversed(node.input))):
                negative = self._producers.get(other)
                if self.values(one) == discrete_values(1.0) and negative is not None and negative.op_type == "Neg":
                    return self._root(negative.input[0])
        return None
