"""Choice of the model file and the backend, build of the file that the backend runs, and loading of the model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rtseg.core.errors import BackendError
from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.inference import RUNNABLE_SUFFIXES, Backend, BackendChoice, choose_backend, open_backend
from rtseg.inference.bundled_models import default_for_cpu, find_model
from rtseg.inference.engine_per_size import BuildMissing, EnginePerSize
from rtseg.inference.tensorrt_loader import import_tensorrt


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
    runnable = _runnable_file(path, name, size, build_missing)
    return open_backend(name, runnable, size=size, device=device, streams=streams)


def _runnable_file(model: Path, backend: str, size: tuple[int, int] | None, build_missing: BuildMissing | None) -> Path:
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
