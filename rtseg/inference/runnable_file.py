"""Lookup or build of the file that a backend runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from rtseg.core.errors import BackendError
from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.inference import RUNNABLE_SUFFIXES
from rtseg.inference.tensorrt_loader import import_tensorrt

BuildMissing = Callable[[Path, str, tuple[int, int] | None], Path]
"""Function of a model file, a backend and an input size (width, height); returns the file that the backend runs."""


def runnable_file(model: Path, backend: str, size: tuple[int, int] | None, build_missing: BuildMissing | None) -> Path:
    """Return the file that the backend runs: the model itself, or the file that `build_missing` builds.

    Raises:
        BackendError: the file must be built first and there is no `build_missing`, or TensorRT is not installed.
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


def description_of_free_size(model: Path) -> ModelInfo | None:
    """Return the metadata of a model that rtseg trained, whose input size is free; None for other models.

    Raises:
        ModelError: the metadata is damaged.
    """
    if model.suffix == ".onnx":
        try:
            import onnx  # its build needs the package too, and reports that it is missing

            proto = onnx.load(model, load_external_data=False)
        except Exception:  # protobuf's DecodeError has no public common base; the build reports a damaged file
            return None
        text = next((entry.value for entry in proto.metadata_props if entry.key == METADATA_KEY), None)
        free = proto.graph.input and not any(d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim[1:3])
        return ModelInfo.from_json(text, str(model)) if text and free else None
    if importlib.util.find_spec("torch") and model.suffix in (".safetensors", ".pt"):
        from rtseg.nn.load_network import is_rtseg_checkpoint, open_network  # imports torch

        return open_network(model).description if is_rtseg_checkpoint(model) else None
    return None
