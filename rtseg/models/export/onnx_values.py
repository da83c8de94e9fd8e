"""Interval arithmetic: the ranges of values of tensors in an ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

from onnx import TensorProto

FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Values:
    """Set of the possible values of a tensor."""

    low: float = -math.inf
    """Lower bound."""

    high: float = math.inf
    """Upper bound."""

    discrete: frozenset[float] | None = None
    """All values, if there are few; None for a continuous range."""

    @property
    def bounded(self) -> bool:
        """True if both bounds are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)


ANY = Values()


def discrete_values(*values: float) -> Values:
    """Return the set that contains exactly these values."""
    return Values(min(values), max(values), frozenset(values))


def cast(values: Values, element_type: int) -> Values:
    """Convert values to an element type of ONNX."""
    if element_type == TensorProto.BOOL:
        return discrete_values(0.0, 1.0)
    if values.discrete is not None and element_type not in FLOAT_TYPES:
        numbers = [math.trunc(value) for value in values.discrete]
        if element_type == TensorProto.UINT8:
            numbers = [number % 256 for number in numbers]  # -1 becomes 255
        return discrete_values(*map(float, numbers))
    return values


def union(*values: Values) -> Values:
    """Return the union of sets of values."""
    low, high = min(v.low for v in values), max(v.high for v in values)
    sets = [v.discrete for v in values]
    return Values(low, high, None if None in sets else frozenset().union(*(s for s in sets if s is not None)))


def combine(operation: Callable[[float, float], float], first: Values, second: Values) -> Values:
    """Apply a function that increases with both arguments."""
    if first.discrete and second.discrete and len(first.discrete) * len(second.discrete) <= 4096:
        return discrete_values(*(operation(a, b) for a in first.discrete for b in second.discrete))
    return Values(operation(first.low, second.low), operation(first.high, second.high))


def arithmetic(operator: str, inputs: Sequence[Values]) -> Values:
    """Apply an arithmetic operator of ONNX; return `ANY` for other operators."""
    if operator == "Neg":
        return multiply(inputs[0], -1.0)
    if operator == "Reciprocal":
        return _divide(discrete_values(1.0), inputs[0])
    if operator in ("Add", "Sum", "Mean"):
        total = reduce(partial(combine, add), inputs)
        return multiply(total, 1 / len(inputs)) if operator == "Mean" else total
    if operator in ("Max", "Min"):
        return reduce(partial(combine, max if operator == "Max" else min), inputs)
    if len(inputs) != 2:
        return ANY
    first, second = inputs
    if operator == "Sub":
        return combine(add, first, multiply(second, -1.0))
    if operator == "Mul":
        for factor, other in ((first, second), (second, first)):
            if factor.low == factor.high:
                return multiply(other, factor.low)
        if all(v.bounded and v.low >= 0 for v in inputs):
            return Values(first.low * second.low, first.high * second.high)
    if operator == "Div":
        return _divide(first, second)
    return ANY


def multiply(values: Values, factor: float) -> Values:
    """Multiply values by a constant."""
    if factor == 0 or not math.isfinite(factor):
        return ANY
    low, high = sorted((values.low * factor, values.high * factor))
    return Values(low, high, None if values.discrete is None else frozenset(v * factor for v in values.discrete))


def _divide(first: Values, second: Values) -> Values:
    if second.low == second.high != 0:
        return multiply(first, 1 / second.low)
    if first.bounded and first.low >= 0 and second.low > 0:
        return Values(first.low / second.high, first.high / second.low)
    return ANY
