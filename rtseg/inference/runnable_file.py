"""Lookup or build of the file that a backend runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rtseg.core.errors import BackendError
from rtseg.inference import RUNNABLE_SUFFIXES
from rtseg.inference.tensorrt_loader import import_tensorrt

BuildMissing = Callable[[Path, str, tuple[int, int] | None], Path]
"""Function of a model file, a backend and an input size (width, height); returns the file that the backend runs."""


def runnable_file(model: Path, backend: str, size: tuple[int, int] | None, build_missing: BuildMissing | None) -> Path:
    """Return the file that the backend runs: the model itself, or the file that `build_missing` builds.

    Args:
        model: the model file.
        backend: name of the backend.
        size: (width, height) of the network's input; None: the model's own.
        build_missing: builds the file if the backend can't run the model directly; None: raise BackendError.

    Raises:
        BackendError: the file must be built first, or TensorRT is not installed.
    """
    if backend not in RUNNABLE_SUFFIXES or model.suffix in RUNNABLE_SUFFIXES[backend]:
        return model
    if backend.startswith("tensorrt"):
        import_tensorrt(backend)  # report that TensorRT is missing before anything that a build needs
    if build_missing is not None:
        return build_missing(model, backend, size)
    command = f"rtseg build {model} --target {backend}" + (f" --size {size[0]}x{size[1]}" if size else "")
    raise BackendError(
        f"{backend} runs {' and '.join(RUNNABLE_SUFFIXES[backend])} files, and {model.name} is another type: run `{command}` once "
        "and open the file that it writes"
    )
