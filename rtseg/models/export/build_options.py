"""Options of `rtseg build`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rtseg.core.errors import OptionError
from rtseg.models.export.quantize import fingerprint
from rtseg.models.export.tensorrt import EngineOptions
from rtseg.nn.preprocessing import Preprocessing

TARGETS = {"tensorrt": ".engine", "tensorrt-rtx": ".engine", "openvino": ".xml", "onnx": ".onnx"}
"""Build targets and the suffixes of their files."""


@dataclass(frozen=True)
class BuildOptions:
    """Options that determine the built file."""

    target: str = "tensorrt"
    """One of `TARGETS`."""

    size: tuple[int, int] | None = None
    """(width, height) of the network's input; None: the model's own size."""

    batch: int = 1
    """Number of images in one run, at least 1."""

    precision: str = "fp16"
    """`fp16`, `fp32` or `int8`."""

    calibrate: Path | None = None
    """A data set (its split `train`) or a video with real images, from which the ranges for `int8` are measured."""

    engine: EngineOptions = field(default_factory=EngineOptions)
    """TensorRT's build options."""

    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    """Metadata that a foreign file does not contain."""

    def check(self) -> None:
        """Raise OptionError if a value is not allowed, or if options contradict each other."""
        if self.target not in TARGETS:
            raise OptionError(f"no target '{self.target}': there are {', '.join(TARGETS)}")
        if self.precision not in ("fp16", "fp32", "int8"):
            raise OptionError(f"precision is '{self.precision}'; fp16, fp32 or int8 can be built")
        if self.calibrate is not None and self.precision != "int8":
            raise OptionError(f"--calibrate is only for --precision int8; {self.precision} needs no calibration")
        if self.batch < 1:
            raise OptionError(f"the batch is {self.batch}; it must be at least 1 image")
        lower = [name.lower() for name in self.preprocessing.classes or ()]
        duplicates = sorted({name for name in lower if lower.count(name) > 1})
        if duplicates:
            raise OptionError(
                f"--classes contains {', '.join(duplicates)} more than once; each class needs its own name"
            )
        self.preprocessing.check()
        engine_arguments = _arguments(self.engine)
        if self.target in ("openvino", "onnx") and engine_arguments:
            raise OptionError(f"{engine_arguments.split()[0]} is for TensorRT, not for --target {self.target}")

    def chosen(self) -> dict[str, Any]:
        """Return the engine options, metadata and calibration images that were given, for the sidecar."""
        given = {**_chosen(self.engine), **_chosen(self.preprocessing)}
        if self.calibrate is not None:
            given["calibrate"] = f"{self.calibrate.resolve().name} {fingerprint(self.calibrate)}"
        return given

    def command(self, model: str, size: tuple[int, int]) -> str:
        """Return the command line that builds a model with these options and this input size."""
        parts = [f"rtseg build {shlex.quote(model)} --target {self.target} --size {size[0]}x{size[1]}"]
        if self.batch != 1:
            parts.append(f"--batch {self.batch}")
        if self.precision != "fp16":
            parts.append(f"--precision {self.precision}")
        if self.calibrate is not None:
            parts.append(f"--calibrate {shlex.quote(str(self.calibrate))}")
        return " ".join(parts) + _arguments(self.preprocessing) + _arguments(self.engine)


@dataclass(frozen=True)
class Verification:
    """Comparison of the built file with the original."""

    on: Path | None = None
    """Frames: a data set, images or a video; None: other frames of the calibration, or synthetic scenes without one."""

    min_agreement: float | None = None
    """Share of pixels that must keep the original's class, else the build fails; None: `verify.MIN_AGREEMENT`."""


_RENAMED = {"output": "onnx-output", "workspace_mib": "workspace", "dla_core": "dla"}
"""Names of command-line options by field; the other fields have their own name."""


def _chosen(options: EngineOptions | Preprocessing) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    return {f.name: getattr(options, f.name) for f in fields(options) if getattr(options, f.name) != f.default}


def _arguments(options: EngineOptions | Preprocessing) -> str:
    """Return the fields that differ from their defaults as options of `rtseg build`, with a space before each."""
    parts = []
    for name, value in _chosen(options).items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        option = _RENAMED.get(name, name.replace("_", "-"))
        parts.append(f" --{option}" if value is True else f" --{option} {shlex.quote(text)}")
    return "".join(parts)
