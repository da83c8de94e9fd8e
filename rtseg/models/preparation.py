"""What the user says of a model that came from elsewhere."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Preparation:
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
    """Name of the output to use; None: the first."""

    blur: bool = False
    """A fastai network was trained with `blur=True`, which leaves no trace in its file."""

    def chosen(self) -> dict[str, Any]:
        """What was said, for the sidecar."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def arguments(self) -> str:
        """As `rtseg build` takes it on its command line, with a leading space each."""
        parts = []
        for name, value in self.chosen().items():
            text = ",".join(str(v) for v in value) if isinstance(value, tuple) else str(value)
            option = "onnx-output" if name == "output" else name
            parts.append(f" --{option}" if value is True else f" --{option} {shlex.quote(text)}")
        return "".join(parts)
