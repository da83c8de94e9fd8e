"""Inference backends. Every backend is the same function: uint8 RGB images in, class scores out (older models: class maps)."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import BackendError, OptionError
from rtseg.core.model_info import ModelInfo
from rtseg.gpu.devices import find_gpus
from rtseg.inference.engine_metadata import SUFFIX, read_sidecar

Scores = npt.NDArray[np.floating[Any]]
"""Class scores (logits), float16 or float32, at the resolution of the network's head."""

BACKENDS = ("openvino", "tensorrt", "tensorrt-rtx", "torch")
"""Names for `open_backend`; `auto` is resolved by `choose_backend`."""

RUNNABLE_SUFFIXES = {"openvino": (".onnx", ".xml"), "tensorrt": (SUFFIX,), "tensorrt-rtx": (SUFFIX,)}
"""File suffixes that a backend runs directly; `rtseg build` converts other files. torch runs checkpoints."""

RTX_CAPABILITIES = ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""Compute capabilities that NVIDIA lists for portable engines of TensorRT for RTX; `auto` does not choose it on others."""


class Backend(Protocol):
    """A loaded model, ready for inference."""

    name: str
    """`openvino`, `tensorrt`, `tensorrt-rtx` or `torch`."""
    device: str
    """Human-readable name of the CPU or GPU."""
    description: ModelInfo
    """The model's metadata."""
    input_size: tuple[int, int]
    """(width, height) of the images for `infer`."""
    free_size: bool
    """True if `infer` accepts images of other sizes than `input_size`."""
    streams: int
    """Number of calls of `infer` that run concurrently; further calls wait."""
    batch: int
    """Number of images of one call that are computed together; 1: in sequence."""

    @property
    def precision(self) -> str:
        """Arithmetic precision: `fp32`, `fp16`, `bf16` or `int8`."""

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Run the network on images. Thread-safe.

        Args:
            images: uint8 `[N, H, W, 3]`, RGB, of `input_size` unless `free_size`.

        Returns:
            A new array, C-contiguous. If `description.output` is `scores`: float16 or float32 `[N, C, h, w]`, at the resolution of
            the network's head, which `Segmenter` upsamples by `description.head_stride`; if `classes`: uint8 `[N, H, W]`.

        Raises:
            ValueError: `images` has another dtype or shape.
            BackendError: the runtime failed.
        """

    def close(self) -> None:
        """Free memory and device. May be called twice."""


@dataclass(frozen=True)
class BackendChoice:
    """Result of `--backend auto`."""

    backend: str
    reason: str


def choose_backend(model: Path | None = None) -> BackendChoice:
    """Return the best backend for this machine, with a human-readable reason.

    Args:
        model: the model file, if it is known: an engine runs only on the backend that it was built for.

    Raises:
        BackendError: no backend is installed.
        ModelError: the model is an engine whose sidecar is missing or damaged.
    """
    if model is not None and model.suffix == SUFFIX:
        return BackendChoice(read_sidecar(model).facts.target, "the model is an engine built for it")
    gpus = find_gpus()
    if gpus and _installed("cuda.bindings"):
        if _installed("tensorrt"):
            return BackendChoice("tensorrt", f"{gpus[0].name} and TensorRT are available")
        if gpus[0].capability in RTX_CAPABILITIES and (
            _installed("tensorrt_rtx") or _installed("tensorrt_rtx_bindings")
        ):
            return BackendChoice("tensorrt-rtx", f"{gpus[0].name} and TensorRT for RTX are available")
    no_tensorrt = (
        f"{gpus[0].name} is available, but TensorRT with cuda-bindings is not" if gpus else "no NVIDIA GPU was found"
    )
    if _installed("openvino"):
        return BackendChoice("openvino", no_tensorrt)
    if _installed("torch"):
        return BackendChoice("torch", f"{no_tensorrt}, and OpenVINO is not installed")
    raise BackendError("no backend is installed: `pip install openvino` for CPUs, or rtseg[train] for torch")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def open_backend(
    name: str, model: Path, *, size: tuple[int, int] | None = None, device: str | None = None, streams: int = 1
) -> Backend:
    """Load a model for inference.

    Args:
        name: one of `BACKENDS`.
        model: the model file, of a type that the backend runs; see `RUNNABLE_SUFFIXES`.
        size: (width, height) of the network's input; None: the model's own.
        device: the backend's name of a device, such as `CPU` or `cuda:0`; None: its default.
        streams: number of images computed concurrently (OpenVINO only): 1 for the lowest latency, more for throughput, 0 for
            one per core.

    Raises:
        OptionError: there is no such backend.
        BackendError: the backend is not installed or has no such device.
        ModelError: the file is missing, damaged, or of another type.
    """
    # Imported when opened: each backend loads a large library that the others do not need.
    match name:
        case "openvino":
            from rtseg.inference.openvino import OpenVinoBackend

            return OpenVinoBackend(model, size=size, device=device or "CPU", streams=streams)
        case "tensorrt" | "tensorrt-rtx":
            from rtseg.inference.tensorrt import TensorRtBackend

            return TensorRtBackend(model, target=name, size=size, device=device)
        case "torch":
            from rtseg.inference.torch import TorchBackend

            return TorchBackend(model, size=size, device=device)
        case _:
            raise OptionError(f"no backend '{name}': there are auto, {', '.join(BACKENDS)}")


def describe_model(model: Path) -> ModelInfo:
    """Return a model file's metadata, without loading the model for inference.

    Raises:
        BackendError: OpenVINO is needed to read the file and not installed.
        ModelError: the file is missing, damaged, or of another type.
    """
    if model.suffix == SUFFIX:
        return read_sidecar(model).description
    from rtseg.inference.openvino import read_description  # imports openvino

    return read_description(model)


def check_images(images: npt.NDArray[np.uint8], input_size: tuple[int, int] | None) -> None:
    """Raise ValueError if `images` is not uint8 `[N, H, W, 3]` of `input_size`, (width, height); None: of any size."""
    width, height = input_size or (images.shape[2:0:-1] if images.ndim == 4 else (0, 0))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, 3):
        raise ValueError(f"images must be uint8 [N, {height}, {width}, 3], not {images.dtype} {list(images.shape)}")


def check_output(output: npt.NDArray[Any], backend: Backend, images: npt.NDArray[np.uint8]) -> None:
    """Check the result of `infer` for `images`: resized, another array could pass for a class map.

    Raises:
        BackendError: the output has another dtype or shape than in the metadata.
    """
    info = backend.description
    count, height, width = images.shape[:3]
    if info.output == "classes":
        expected = f"a class map, uint8 [{count}, {height}, {width}]"
        fits = output.dtype == np.uint8 and output.shape == (count, height, width)
    else:
        expected = f"scores, float16 or float32 [{count}, {len(info.classes)}, h, w]"
        fits = output.dtype in (np.float16, np.float32) and output.ndim == 4
        fits = fits and output.shape[:2] == (count, len(info.classes))
        if info.head_stride:
            rows, columns = (-(-side // info.head_stride) for side in (height, width))
            expected = expected.replace("h, w", f"{rows}, {columns}")
            fits = fits and output.shape[2:] == (rows, columns)
    if not fits:
        raise BackendError(
            f"{backend.name} returned {output.dtype} {list(output.shape)} instead of {expected}: the model does not "
            "follow rtseg's contract"
        )
