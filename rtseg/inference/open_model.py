"""Choice of the model file and the backend, and loading of the model."""

from __future__ import annotations

from pathlib import Path

from rtseg.inference import Backend, BackendChoice, choose_backend, open_backend
from rtseg.inference.bundled_models import default_for_cpu, find_model
from rtseg.inference.engine_per_size import EnginePerSize
from rtseg.inference.runnable_file import BuildMissing, description_of_free_size, runnable_file


def choose_model(model: str | Path | None, backend: str, device: str | None) -> tuple[Path, BackendChoice]:
    """Return the file and the backend for the arguments of `Segmenter`.

    Raises:
        ModelError: the model is missing, or an engine without a valid sidecar.
        BackendError: no backend is installed.
    """
    path = find_model(model)
    choice = choose_backend(path) if backend == "auto" else BackendChoice(backend, "chosen by --backend")
    if model is None and choice.backend == "openvino" and device in (None, "CPU") and (quantized := default_for_cpu()):
        reason = f"{choice.reason}; this CPU is fastest in INT8 (--model small: as trained)"
        return quantized, BackendChoice(choice.backend, reason)
    return path, choice


def open_model(
    path: Path,
    name: str,
    size: tuple[int, int] | None,
    device: str | None,
    streams: int,
    build_missing: BuildMissing | None,
) -> Backend:
    """Load a model on the backend `name`, after building the file that it runs if that is missing.

    See `Segmenter` for the other arguments.

    Raises:
        ModelError, BackendError, OptionError: see `Segmenter`.
    """
    if name.startswith("tensorrt") and size is None and build_missing and (info := description_of_free_size(path)):
        return EnginePerSize(path, info, name, device, build_missing)
    runnable = runnable_file(path, name, size, build_missing)
    return open_backend(name, runnable, size=size, device=device, streams=streams)
