"""Segmentation output of an ONNX network."""

from __future__ import annotations

import math
from dataclasses import dataclass

KINDS = ("logits", "probabilities", "multilabel", "classes", "mask")
"""Values of `--output-kind`."""


@dataclass(frozen=True)
class Output:
    """Segmentation output of a network, and the rule that converts its values to classes."""

    name: str
    """Name of the output in the file."""

    kind: str
    """One of `KINDS`."""

    shape: tuple[int, ...]
    """Shape of the output at the requested input size and batch."""

    axis: int | None
    """Axis with a score for each class; None for one value per pixel."""

    size: tuple[int, int]
    """(rows, columns) of the map."""

    threshold: float = 0.0
    """One value per pixel: class 1 is above it. `multilabel`: pixels without a score above it are class 0."""

    values: tuple[float, float] = (-math.inf, math.inf)
    """Range of the values, from the graph or `--output-kind`."""

    kind_given: bool = False
    """True if the user gave the kind with `--output-kind`."""

    indices: int = 0
    """Number of class indices for the kind `classes`; 0 if not known."""

    total: float | None = None
    """Sum of the channels of each pixel if no class is missing; None if not known."""

    quantized: tuple[float, float] | None = None
    """(scale, zero) of a quantized output, whose real values are (number - zero) * scale. The other fields describe the real
    values."""

    note: str = ""
    """Human-readable reason for the choice of this output, if there were several."""

    @property
    def classes(self) -> int:
        """Number of classes; 0 if not known."""
        if self.kind == "mask" or (self.axis is None and self.kind != "classes"):
            return 2
        return self.indices if self.axis is None else self.shape[self.axis] + (self.kind == "multilabel")

    def describe(self) -> str:
        """Return a human-readable description, such as `output 'y': probabilities, foreground above 0.5`."""
        if self.kind in ("classes", "mask"):
            meaning = "a class map" if self.kind == "classes" else f"a mask, foreground above {self.threshold:g}"
        elif self.axis is None:
            meaning = f"{self.kind}, foreground above {self.threshold:g}"
        elif self.kind == "multilabel":
            meaning = f"{self.shape[self.axis]} scores, class 0 where none is above {self.threshold:g}"
        else:
            meaning = f"{self.shape[self.axis]} scores along axis {self.axis}"
        return f"output '{self.name}': {meaning}"
