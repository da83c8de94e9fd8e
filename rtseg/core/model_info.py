"""What a model says of itself: its classes and colors, its input, where it comes from. Travels inside the model file.

In an ONNX file it is one metadata entry, `rtseg`, holding JSON; OpenVINO hands the same entry on. Beside an engine it is a
JSON sidecar.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from rtseg.core.errors import ModelError, escaped_json
from rtseg.core.palette import Palette, Rgb, spread_colors

METADATA_KEY = "rtseg"
"""The ONNX metadata entry that holds the description."""

FORMAT_VERSION = 1
"""Raised when a field changes its meaning; a model of a newer format is refused."""


@dataclass(frozen=True)
class ModelInfo:
    """The facts that a model file carries about itself."""

    name: str
    """Short name, such as `camvid-small`; engine files are named after it."""

    classes: tuple[str, ...]
    """Class names in index order, lower case."""

    input_size: tuple[int, int]
    """Default size of the network's input, (width, height) in pixels."""

    colors: tuple[Rgb, ...] = ()
    """The model's own colors, one a class; empty: none of its own."""

    network: str = ""
    """What the network is, such as `unet-small`."""

    precision: str = "fp16"
    """Precision of the weights and the arithmetic in the graph: `fp16`, `fp32` or `int8`."""

    trained_on: str = ""
    """The training data, in words."""

    license: str = ""
    """What the weights may be used for."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Measured quality, such as `{"val/miou": 0.71}`."""

    head_stride: int = 0
    """The scores of the second form (`scores`, `keep`) are the input's size divided by this; 0: the file has no second form."""

    format_version: int = FORMAT_VERSION
    """`FORMAT_VERSION` of the writer."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= 255:
            raise ModelError(
                f"a model has 1 to 255 classes, not {len(self.classes)}: class maps are uint8 and 255 means no class"
            )
        if self.colors and len(self.colors) != len(self.classes):
            raise ModelError(f"the model names {len(self.classes)} classes but {len(self.colors)} colors")
        width, height = self.input_size
        if not (8 <= width <= 8192 and 8 <= height <= 8192):
            raise ModelError(f"the model's input size is {width}x{height}; 8x8 to 8192x8192 is allowed")

    def palette(self) -> Palette:
        """The model's own colors as a palette; colors that lie apart where it has none."""
        return Palette(self.classes, self.colors or spread_colors(len(self.classes)))

    def to_json(self) -> str:
        """One JSON object; `from_json` reads it back."""
        return escaped_json(json.dumps(asdict(self), ensure_ascii=False, sort_keys=True))

    @classmethod
    def from_json(cls, text: str, origin: str) -> ModelInfo:
        """Reads what `to_json` wrote. Fields it does not know are left out, so that newer minor writers stay readable.

        Args:
            text: the JSON.
            origin: the file's name, for messages.

        Raises:
            ModelError: not JSON, a field missing or of the wrong kind, or a newer format.
        """
        try:
            data = json.loads(text)
            if int(data.get("format_version", FORMAT_VERSION)) > FORMAT_VERSION:
                raise ModelError(
                    f"{origin}: the model is of format {data['format_version']}, "
                    f"this rtseg reads up to {FORMAT_VERSION}; upgrade rtseg"
                )
            known = {f.name for f in fields(cls)}
            values: dict[str, Any] = {key: value for key, value in data.items() if key in known}
            values["classes"] = tuple(str(c) for c in values["classes"])
            values["colors"] = tuple((int(r), int(g), int(b)) for r, g, b in values.get("colors", ()))
            width, height = values["input_size"]
            values["input_size"] = (int(width), int(height))
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(
                f"{origin}: the model's description can't be read ({error!r}); export the model again"
            ) from error
