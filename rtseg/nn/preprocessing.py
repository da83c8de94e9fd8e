"""Metadata of a model that its file does not contain: class names, normalization, layout and output."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rtseg.core.errors import OptionError


@dataclass(frozen=True)
class Preprocessing:
    """Metadata of a model of another library, given by the user because the file does not contain it."""

    classes: tuple[str, ...] | None = None
    """Class names in index order; None: `class-0`, `class-1` ..."""

    mean: tuple[float, float, float] | None = None
    """Subtracted from RGB of range 0 to 1 (of range 0 to 255 if a value is above 1)."""

    std: tuple[float, float, float] | None = None
    """Divisor of the difference, on the same scale."""

    layout: str | None = None
    """`nchw` or `nhwc`; None: detected from the axis of size 3."""

    output: str | None = None
    """Name of the output to use; None: detected by its shape. Required if the choice is ambiguous."""

    output_kind: str | None = None
    """Content of the output, one of `onnx_output.KINDS`; None: detected from the graph."""

    output_layout: str | None = None
    """Layout of the output, `nchw` or `nhwc`; None: detected from the graph."""

    blur: bool = False
    """True if a fastai network was trained with `blur=True`, which its file does not record."""

    @property
    def uses_255_scale(self) -> bool:
        """True if `mean` and `std` are on the scale of 0 to 255: one of their values is above 1."""
        return max(*(self.mean or (0.0,)), *(self.std or (0.0,))) > 1.0

    def check(self) -> None:
        """Raise OptionError if `mean` or `std` is not finite, `std` is not positive, or the two are on different scales."""
        for option, values in (("--mean", self.mean or ()), ("--std", self.std or ())):
            if not all(math.isfinite(value) for value in values):
                raise OptionError(f"{option} is {_joined(values)}; each value must be a finite number")
        if self.std is None:
            return
        if min(self.std) <= 0:
            raise OptionError(f"--std is {_joined(self.std)}; each value must be above 0")
        if self.mean is None:
            return
        # A mean of zeros fits both scales. Networks of Caffe have means up to 255 with a deviation of 1.
        unit_mean = any(self.mean) and max(map(abs, self.mean)) <= 1
        if (unit_mean and max(self.std) > 1) or (max(self.mean) > 1 and min(self.std) < 1):
            raise OptionError(
                f"--mean {_joined(self.mean)} and --std {_joined(self.std)} are on different scales; give both on the scale of "
                "0 to 1 or both on that of 0 to 255"
            )


def _joined(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
