"""The source model of a build, and the reference that the built file is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import onnx

from rtseg.core.model_info import ModelInfo
from rtseg.models.export.agreement import ClassMapFunction


@dataclass(frozen=True)
class ReferenceModel:
    """The user's model, run without rtseg's graph, to compare a built file with."""

    run: ClassMapFunction
    """Returns the class map of an image."""

    label: str
    """Human-readable name of the model and of the library that runs it."""

    check: Callable[[], None] = lambda: None
    """Raises ModelError if the observed output values contradict the detected kind of output, if it was detected."""


class SourceModel(Protocol):
    """The user's model file."""

    @property
    def description(self) -> ModelInfo:
        """Metadata of the file, completed by the user's options."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Assumptions about metadata that the file does not contain, one sentence each."""

    def graph(self, size: tuple[int, int], batch: int, precision: str) -> onnx.ModelProto:
        """Return an ONNX graph of the contract with the description in its metadata. Its sizes may be free.

        For `int8` it computes in FP32, because the ranges of its values are measured before it is quantized.
        """

    def reference_model(self, size: tuple[int, int]) -> ReferenceModel:
        """Return the unchanged model, run on the CPU in FP32, or in FP16 if its file is FP16."""
