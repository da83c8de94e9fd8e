"""Report fields that identify a run."""

from __future__ import annotations

from typing import Any, Protocol

from rtseg._version import __version__
from rtseg.core.model_info import ModelInfo


class LoadedModel(Protocol):
    """A model that is ready to run."""

    @property
    def description(self) -> ModelInfo:
        """Description of the model, with its classes and colors."""

    @property
    def backend(self) -> str:
        """Name of the backend."""

    @property
    def precision(self) -> str:
        """Precision of the arithmetic."""

    @property
    def device(self) -> str:
        """Name of the CPU or GPU."""

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the network's input, pixels."""


def run_identity(command: str, source_name: str, output: str, model: LoadedModel) -> dict[str, Any]:
    """Return the fields that identify a run: version, command, files, model, backend and device."""
    return {
        "rtseg": __version__,
        "command": command,
        "input": source_name,
        "output": output,
        "model": model.description.name,
        "backend": model.backend,
        "precision": model.precision,
        "device": model.device,
        "input_size": list(model.input_size),
    }
