"""Model description: classes, colors, input size and origin. It is part of the model file.

In an ONNX file it is JSON in the metadata entry `rtseg`, which OpenVINO keeps. Next to an engine it is a JSON sidecar file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from rtseg.core.errors import ModelError, escaped_json
from rtseg.core.palette import Palette, Rgb, spread_colors

METADATA_KEY = "rtseg"
"""Name of the ONNX metadata entry with the description."""

FORMAT_VERSION = 2
"""Incremented when the meaning of a field changes. Models of a newer format are refused. Models of format 1 output `classes`."""


@dataclass(frozen=True)
class ModelInfo:
    """Description of a model, stored in its file."""

    name: str
    """Short name, such as `camvid-small`; engine files are named after it."""

    classes: tuple[str, ...]
    """Class names in index order, lower case."""

    input_size: tuple[int, int]
    """Default size of the network's input, (width, height) in pixels."""

    colors: tuple[Rgb, ...] = ()
    """Colors of the model, one per class; may be empty."""

    network: str = ""
    """Architecture of the network, such as `unet-small`."""

    precision: str = "fp16"
    """Precision of the weights and the arithmetic in the graph: `fp16`, `fp32` or `int8`."""

    trained_on: str = ""
    """Description of the training data."""

    license: str = ""
    """License of the weights."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Measured quality, such as `{"val/miou": 0.71}`."""

    output: Literal["scores", "classes"] = "scores"
    """Output of the graph: class scores `[N, C, h, w]` before upsampling and argmax, or class maps, uint8 `[N, H, W]`."""

    head_stride: int = 0
    """Factor s by which `scores` are upsampled (bilinear, pixel centers): to s*h rows and s*w columns, whose upper left H rows and
    W columns are the image. 0: to exactly the size of the image."""

    format_version: int = FORMAT_VERSION
    """`FORMAT_VERSION` of the program that wrote the description."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= 255:
            raise ModelError(
                f"a model has 1 to 255 classes, not {len(self.classes)}: class maps are uint8 and 255 means no class"
            )
        if self.colors and len(self.colors) != len(self.classes):
            raise ModelError(f"the model has {len(self.classes)} classes but {len(self.colors)} colors")
        if self.output not in ("scores", "classes"):
            raise ModelError(f"the model's output is '{self.output}'; scores and classes are known")
        width, height = self.input_size
        if not (8 <= width <= 8192 and 8 <= height <= 8192):
            raise ModelError(f"the model's input size is {width}x{height}; 8x8 to 8192x8192 is allowed")

    def palette(self) -> Palette:
        """Return the palette of the model. A model without colors gets colors that differ clearly."""
        return Palette(self.classes, self.colors or spread_colors(len(self.classes)))

    def to_json(self) -> str:
        """Return the description as a JSON object for `from_json`."""
        return escaped_json(json.dumps(asdict(self), ensure_ascii=False, sort_keys=True))

    @classmethod
    def from_json(cls, text: str, origin: str) -> ModelInfo:
        """Parse the JSON of `to_json` in the file `origin`. Unknown fields are ignored, for compatibility with newer versions.

        Raises:
            ModelError: the text is not JSON, a field is missing or has the wrong type, or the format is newer.
        """
        try:
            data = json.loads(text)
            if int(data.get("format_version", FORMAT_VERSION)) > FORMAT_VERSION:
                raise ModelError(
                    f"{origin}: the model is of format {data['format_version']}, "
                    f"this rtseg reads up to {FORMAT_VERSION}; upgrade rtseg"
                )
            if data.get("format_version") == 1:
                data |= {"output": "classes", "head_stride": 0}
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
