"""What the user says of a model that came from elsewhere."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, fields
from typing import Any

from rtseg.core.errors import OptionError


@dataclass(frozen=True)
class Preprocessing:
    """What a model from elsewhere does not say of itself."""

    classes: tuple[str, ...] | None = None
    """Class names in index order; None: `class-0`, `class-1` ..."""

    mean: tuple[float, float, float] | None = None
    """Subtracted from RGB of 0 to 1 (of 0 to 255 where a value is above 1)."""

    std: tuple[float, float, float] | None = None
    """What that is divided by, on the same scale."""

    layout: str | None = None
    """`nchw` or `nhwc`; None: told by where the 3 channels stand."""

    output: str | None = None
    """Name of the output to use; None: found by its shape, or asked for where several may be meant."""

    output_kind: str | None = None
    """What it holds, one of `onnx_output.KINDS`; None: found in the graph."""

    output_layout: str | None = None
    """Where it has the classes, `nchw` or `nhwc`; None: found in the graph."""

    blur: bool = False
    """A fastai network was trained with `blur=True`, which leaves no trace in its file."""

    @property
    def on_255(self) -> bool:
        """Whether `mean` and `std` are on the scale of 0 to 255: one of their values is above 1."""
        return max(*(self.mean or (0.0,)), *(self.std or (0.0,))) > 1.0

    def check(self) -> None:
        """Raises OptionError where `mean` and `std` can't be meant as they are given."""
        for option, values in (("--mean", self.mean or ()), ("--std", self.std or ())):
            if not all(math.isfinite(value) for value in values):
                raise OptionError(f"{option} is {_joined(values)}; each value must be a finite number")
        if self.std is None:
            return
        if min(self.std) <= 0:
            raise OptionError(f"--std is {_joined(self.std)}; each value must be above 0")
        if self.mean is None:
            return
        # Zeros say nothing of the scale, and 255 with a deviation of 1 is what Caffe's networks take.
        unit_mean = any(self.mean) and max(map(abs, self.mean)) <= 1
        if (unit_mean and max(self.std) > 1) or (max(self.mean) > 1 and min(self.std) < 1):
            raise OptionError(
                f"--mean {_joined(self.mean)} and --std {_joined(self.std)} are on different scales; give both on the scale of "
                "0 to 1 or both on that of 0 to 255"
            )

    def chosen(self) -> dict[str, Any]:
        """What was said, for the sidecar."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def arguments(self) -> str:
        """As `rtseg build` takes it on its command line, with a leading space each."""
        parts = []
        for name, value in self.chosen().items():
            text = ",".join(str(v) for v in value) if isinstance(value, tuple) else str(value)
            option = "onnx-output" if name == "output" else name.replace("_", "-")
            parts.append(f" --{option}" if value is True else f" --{option} {shlex.quote(text)}")
        return "".join(parts)


def _joined(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
