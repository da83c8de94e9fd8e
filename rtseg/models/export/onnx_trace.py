"""What the values of a tensor in an ONNX graph can be, and which of its axes holds the classes.

Both are followed back from the tensor, through nodes that only move, cut, enlarge or scale its values, to the node that decides:
Sigmoid, Softmax, ArgMax, a comparison, a convolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

SAME_VALUES = {
    "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Dropout", "Cast", "CastLike", "Resize", "Upsample",
    "Slice", "Gather", "Split", "Expand", "Tile", "AveragePool", "MaxPool", "DepthToSpace", "SpaceToDepth", "Round", "Floor",
    "Ceil", "QuantizeLinear", "DequantizeLinear",
}  # fmt: skip
"""Operators whose result holds (nearly) the values of their first input, in another place, shape, type or number."""

LINEAR = {"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "Gemm", "MatMul", "Add", "Sub", "Sum"}
"""Operators that end a network in scores before any activation."""

TWO_VALUED = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "Xor", "OneHot"}
"""Operators whose result is 0 or 1."""

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
    "Conv",
    "ConvTranspose",
    "BatchNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "Gemm",
}
_DEPTH = 200
"""Nodes that are followed at most."""


@dataclass(frozen=True)
class Values:
    """Which values a tensor can have."""

    low: float = -math.inf
    high: float = math.inf
    only: frozenset[float] | None = None
    """All of them, where they are few; None: a continuous range."""

    @property
    def bounded(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


ANY = Values()


def _of(*values: float) -> Values:
    return Values(min(values), max(values), frozenset(values))


class Trace:
    """A graph whose tensors are followed back.

    Args:
        model: of operator set 13 or newer, its constants initializers (`onnx_rewrite.constants_to_initializers`).
        shapes: of its tensors, as far as they are known.
    """

    def __init__(self, model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self._made = {name: node for node in model.graph.node for name in node.output if name}
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node whose output a tensor is; None for inputs and weights."""
        return self._made.get(name)

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """A constant's value, also behind Identity and Cast; None where it is computed."""
        for _ in range(_DEPTH):
            if name in self._weights:
                return np.asarray(numpy_helper.to_array(self._weights[name]))
            node = self._made.get(name)
            if node is None or node.op_type not in ("Identity", "Cast"):
                return None
            name = node.input[0]
        return None

    def source(self, name: str) -> onnx.NodeProto | None:
        """The first node behind a tensor that does more than move or scale values by a constant; None: the model's input."""
        for _ in range(_DEPTH):
            node = self._made.get(name)
            if node is None:
                return None
            if node.op_type in SAME_VALUES | {"Clip", "Neg"}:
                name = node.input[0]
                continue
            computed = [given for given in node.input if given and self.constant(given) is None]
            if node.op_type in ("Add", "Sub", "Mul", "Div", "Max", "Min") and len(computed) == 1:
                name = computed[0]
                continue
            return node
        return None

    def values(self, name: str, depth: int = 0) -> Values:
        """The values that a tensor can have, by interval arithmetic."""
        constant = self.constant(name)
        if constant is not None:
            flat = np.unique(constant.astype(np.float64)) if constant.size <= 4096 and constant.size else np.empty(0)
            return _of(*map(float, flat)) if 0 < flat.size <= 256 else ANY
        node = self._made.get(name)
        if node is None or depth > _DEPTH:
            return ANY
        if node.op_type in TWO_VALUED:
            return _of(0.0, 1.0)
        if node.op_type in _BOUNDED:
            return Values(*_BOUNDED[node.op_type])
        if node.op_type in ("ArgMax", "ArgMin"):
            shape = self.shapes.get(node.input[0])
            axis = _attribute(node, "axis", 0)
            return _of(*map(float, range(shape[axis]))) if shape and 0 < shape[axis] <= 256 else Values(low=0.0)
        if node.op_type in LINEAR - {"Add", "Sub", "Sum"}:
            return ANY
        inputs = [self.values(given, depth + 1) for given in node.input if given]
        if node.op_type == "Cast":
            return _cast(inputs[0], _attribute(node, "to", TensorProto.FLOAT))
        if node.op_type == "QuantizeLinear":
            scale, zero = self.quantized(name) or (math.nan, 0.0)
            return _arithmetic("Add", [_times(inputs[0], 1 / scale), _of(zero)]) if scale > 0 else ANY
        if node.op_type == "DequantizeLinear":
            before = self._made.get(node.input[0])
            quantized = before is not None and before.op_type == "QuantizeLinear"
            return self.values(before.input[0], depth + 1) if before is not None and quantized else ANY
        if node.op_type in SAME_VALUES:
            return inputs[0]
        if node.op_type == "Relu":
            return _combine(max, inputs[0], _of(0.0))
        if node.op_type == "Clip":
            low = self.values(node.input[1]) if len(node.input) > 1 and node.input[1] else _of(-math.inf)
            high = self.values(node.input[2]) if len(node.input) > 2 and node.input[2] else _of(math.inf)
            return _combine(min, _combine(max, inputs[0], low), high)
        if node.op_type == "Where":
            return _union(inputs[1], inputs[2])
        if node.op_type == "Concat":
            return _union(*inputs)
        values = _arithmetic(node.op_type, inputs)
        divisor = self.constant(node.input[1]) if node.op_type == "Div" else None
        if (
            values.only is not None and divisor is not None and divisor.dtype.kind in "iu"
        ):  # of whole numbers by whole numbers
            return _of(*(float(math.trunc(value)) for value in values.only))
        return values

    def class_axis(self, name: str, depth: int = 0) -> int | None:
        """The axis of a tensor that holds the classes; None where the graph does not say."""
        node = self._made.get(name)
        if node is None or depth > _DEPTH:
            return None
        kind = node.op_type
        if kind in ("Softmax", "LogSoftmax"):
            rank = len(self.shapes.get(name, ()))
            axis = _attribute(node, "axis", -1)
            return axis if axis >= 0 else axis + rank if rank else None
        if kind in _CHANNELS_SECOND:
            return 1
        if kind == "MatMul":
            return len(self.shapes[name]) - 1 if name in self.shapes else None
        if kind == "Concat":
            axis = _attribute(node, "axis", 0)
            found = next((a for a in (self.class_axis(n, depth + 1) for n in node.input) if a is not None), None)
            return found if found is not None else axis + len(self.shapes.get(name, ())) if axis < 0 else axis
        if kind in _BINARY | {"Where"}:
            rank = len(self.shapes.get(name, ()))
            for given in node.input:
                if self.constant(given) is None and len(self.shapes.get(given, ())) == rank:
                    axis_there = self.class_axis(given, depth + 1)
                    if axis_there is not None:
                        return axis_there
            return None
        if kind not in SAME_VALUES | _UNARY | TWO_VALUED or kind == "OneHot":
            return None
        before = self.class_axis(node.input[0], depth + 1)
        return None if before is None else self._moved(node, name, before)

    def _moved(self, node: onnx.NodeProto, name: str, axis: int) -> int | None:
        """Where an axis of a node's first input is in its output."""
        given, made = self.shapes.get(node.input[0]), self.shapes.get(name)
        if node.op_type == "Transpose":
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            return perm.index(axis) if perm else len(given) - 1 - axis if given else None
        if given is None or made is None:
            return axis if node.op_type not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Gather") else None
        if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
            before, length = math.prod(given[:axis]), given[axis]
            fits = [i for i in range(len(made)) if math.prod(made[:i]) == before and made[i] == length]
            return fits[0] if fits and length > 1 else None
        if node.op_type == "Gather" and len(made) < len(given):
            gathered = _attribute(node, "axis", 0) % len(given)
            return None if gathered == axis else axis - (gathered < axis)
        return axis

    def cut_from_scores(self, name: str) -> bool:
        """Whether a tensor of one value a pixel was cut out of several channels of scores."""
        for _ in range(_DEPTH):
            node = self._made.get(name)
            if node is None or node.op_type not in SAME_VALUES | {"Clip"}:
                return False
            axis, shape = self.class_axis(node.input[0]), self.shapes.get(node.input[0])
            cut = node.op_type in ("Slice", "Gather", "Split")
            if cut and axis is not None and shape and axis < len(shape) and shape[axis] > 1:
                return True
            name = node.input[0]
        return False

    def exclusive(self, name: str, depth: int = 0) -> bool:
        """Whether the channels of a tensor share one total: a Softmax, a one-hot code, or p beside 1 - p."""
        node = self._made.get(name)
        if node is None or depth > _DEPTH or node.op_type in LINEAR - {"Add", "Sub", "Sum"}:
            return False
        if node.op_type in ("Softmax", "LogSoftmax", "OneHot"):
            return True
        if node.op_type == "Concat" and len(node.input) == 2:
            first, second = node.input
            return self._complement(first) == self._root(second) or self._complement(second) == self._root(first)
        if node.op_type in SAME_VALUES | _BINARY | _UNARY:
            return any(self.exclusive(given, depth + 1) for given in node.input if given)
        return False

    def quantized(self, name: str) -> tuple[float, float] | None:
        """(scale, zero) of a tensor that holds quantized numbers: they mean (number - zero) * scale. None: it does not."""
        moves = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Cast", "Resize", "Slice")
        while (node := self._made.get(name)) is not None and node.op_type in moves:
            name = node.input[0]
        if node is None or node.op_type != "QuantizeLinear":
            return None
        scale, zero = self.constant(node.input[1]), self.constant(node.input[2]) if len(node.input) > 2 else np.zeros(1)
        if scale is None or zero is None or scale.size != 1 or zero.size != 1:
            return None
        return float(scale.ravel()[0]), float(zero.ravel()[0])

    def meant(self, name: str) -> Values:
        """`values`; of a tensor that holds quantized numbers those that they mean."""
        scale, zero = self.quantized(name) or (1.0, 0.0)
        return _times(_arithmetic("Sub", [self.values(name), _of(zero)]), scale)

    def _root(self, name: str) -> str:
        """A tensor's name before its values were only moved."""
        while (node := self._made.get(name)) is not None and node.op_type in SAME_VALUES | {"Clip"}:
            name = node.input[0]
        return name

    def _complement(self, name: str) -> str | None:
        """p, where a tensor is 1 - p."""
        node = self._made.get(self._root(name))
        if node is None:
            return None
        if node.op_type == "Sub" and self.values(node.input[0]) == _of(1.0):
            return self._root(node.input[1])
        if node.op_type == "Add":  # 1 + (-p)
            for one, other in (tuple(node.input), tuple(reversed(node.input))):
                negative = self._made.get(other)
                if self.values(one) == _of(1.0) and negative is not None and negative.op_type == "Neg":
                    return self._root(negative.input[0])
        return None


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def _cast(values: Values, to: int) -> Values:
    if to == TensorProto.BOOL:
        return _of(0.0, 1.0)
    whole = to not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
    if values.only is not None and whole:
        wrap = 256 if to == TensorProto.UINT8 else 0  # -1 becomes 255
        return _of(*(float(math.trunc(value) % wrap if wrap else math.trunc(value)) for value in values.only))
    return values


def _union(*values: Values) -> Values:
    low, high = min(v.low for v in values), max(v.high for v in values)
    sets = [v.only for v in values]
    return Values(low, high, None if None in sets else frozenset().union(*(s for s in sets if s is not None)))


def _combine(operation: Any, first: Values, second: Values) -> Values:
    """A function that grows with both arguments."""
    if first.only and second.only and len(first.only) * len(second.only) <= 4096:
        return _of(*(operation(a, b) for a in first.only for b in second.only))
    return Values(operation(first.low, second.low), operation(first.high, second.high))


def _arithmetic(kind: str, inputs: list[Values]) -> Values:
    if kind == "Neg":
        return _times(inputs[0], -1.0)
    if kind == "Reciprocal":
        return _divided(_of(1.0), inputs[0])
    if kind in ("Add", "Sum", "Mean"):
        total = inputs[0]
        for more in inputs[1:]:
            total = _combine(lambda a, b: a + b, total, more)
        return _times(total, 1 / len(inputs)) if kind == "Mean" else total
    if kind in ("Max", "Min"):
        result = inputs[0]
        for more in inputs[1:]:
            result = _combine(max if kind == "Max" else min, result, more)
        return result
    if len(inputs) != 2:
        return ANY
    if kind == "Sub":
        return _combine(lambda a, b: a + b, inputs[0], _times(inputs[1], -1.0))
    if kind == "Mul":
        for one, other in (inputs, inputs[::-1]):
            if one.low == one.high:
                return _times(other, one.low)
        if all(v.bounded and v.low >= 0 for v in inputs):
            return Values(inputs[0].low * inputs[1].low, inputs[0].high * inputs[1].high)
    if kind == "Div":
        return _divided(*inputs)
    return ANY


def _times(values: Values, factor: float) -> Values:
    if factor == 0 or not math.isfinite(factor):
        return ANY
    ends = sorted((values.low * factor, values.high * factor))
    only = None if values.only is None else frozenset(value * factor for value in values.only)
    return Values(ends[0], ends[1], only)


def _divided(first: Values, second: Values) -> Values:
    if second.low == second.high != 0:
        return _times(first, 1 / second.low)
    if first.bounded and first.low >= 0 and second.low > 0:
        return Values(first.low / second.high, first.high / second.low)
    return ANY
