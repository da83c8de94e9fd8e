"""Choice of the model file and the backend, and loading of the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rtseg.inference import Backend, choose_backend, open_backend
from rtseg.inference.bundled_models import default_for_cpu, find_model
from rtseg.inference.engine_per_size import EnginePerSize
from rtseg.inference.runnable_file import BuildMissing, description_of_free_size, runnable_file


@dataclass(frozen=True)
class ModelChoice:
    """Model file and backend that are loaded."""

    path: Path
    backend: str
    reason: str
    """Human-readable reason for the backend."""


def choose_model(model: str | Path | None, backend: str, device: str | None) -> ModelChoice:
    """Return the file and the backend for the arguments of `Segmenter`.

    Raises:
        ModelError: the model is missing, or an engine without a valid sidecar.
        BackendError: no backend is installed.
    """
    path, reason = find_model(model), "chosen by --backend"
    if backend == "auto":
        choice = choose_backend(path)
        backend, reason = choice.backend, choice.reason
    if model is None and backend == "openvino" and device in (None, "CPU") and (quantized := default_for_cpu()):
        return ModelChoice(quantized, backend, f"{reason}; this CPU is fastest in INT8 (--model small: as trained)")
    return ModelChoice(path, backend, reason)


def open_model(
    choice: ModelChoice,
    size: tuple[int, int] | None,
    device: str | None,
    streams: int,
    build_missing: BuildMissing | None,
) -> Backend:
    """Load a model, after building the file that the backend runs if it is missing; see `Segmenter` for the arguments.

    Raises:
        ModelError, BackendError, OptionError: see `Segmenter`.
    """
    path, name = choice.path, choice.backend
    if name.startswith("tensorrt") and size is None and build_missing and (info := description_of_free_size(path)):
        return EnginePerSize(path, info, name, device, build_missing)
    runnable = runnable_file(path, name, size, build_missing)
    return open_backend(name, runnable, size=size, device=device, streams=streams)
