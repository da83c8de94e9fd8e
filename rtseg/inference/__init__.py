"""Who computes the class map. Every backend is the same function: uint8 RGB in, uint8 class indices out."""

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
"""Class scores (logits) where and as the model has them: float16 `[1, classes, ceil(H / 2), ceil(W / 2)]` in rtseg's own."""

BACKENDS = ("openvino", "tensorrt", "tensorrt-rtx", "torch")
"""The backends that `open_backend` knows, beside `auto`."""


RUNS = {"openvino": (".onnx", ".xml"), "tensorrt": (SUFFIX,), "tensorrt-rtx": (SUFFIX,)}
"""Endings of the files that a backend runs as they are; `rtseg build` makes such files of others. torch takes checkpoints."""


RTX_CAPABILITIES = ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""Compute capabilities that NVIDIA names for portable engines of TensorRT for RTX; on others it has to be asked for by name."""


class Backend(Protocol):
    """A model, loaded and ready for one input size."""

    @property
    def name(self) -> str:
        """`openvino`, `tensorrt`, `tensorrt-rtx` or `torch`."""

    @property
    def device(self) -> str:
        """What it runs on, in words: the processor's or the card's name."""

    @property
    def precision(self) -> str:
        """Precision of the arithmetic: `fp32`, `fp16`, `bf16` or `int8`."""

    @property
    def description(self) -> ModelInfo:
        """What the model says of itself."""

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the pictures that `infer` takes."""

    @property
    def free_size(self) -> bool:
        """Whether `infer` takes pictures of other sizes than `input_size` too."""

    @property
    def streams(self) -> int:
        """How many calls of `infer` compute at the same time; further ones wait."""

    @property
    def batch(self) -> int:
        """How many pictures of one call are computed together; 1: one after the other."""

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Class maps of pictures. May be called by several threads at once.

        Args:
            images: uint8 `[N, H, W, 3]`, RGB, of `input_size` unless `free_size`.

        Returns:
            uint8 `[N, H, W]`, an array of the caller's own.

        Raises:
            BackendError: the run-time failed.
        """

    def close(self) -> None:
        """Gives back memory and device. May be called twice."""


class SmoothBackend(Backend, Protocol):
    """A backend that runs the second form of a model too: class scores kept in part from one frame of a stream to the next."""

    def infer_next(
        self, image: npt.NDArray[np.uint8], scores: Scores | None, momentum: float
    ) -> tuple[npt.NDArray[np.uint8], Scores]:
        """The class map of a stream's next picture, by keep * scores + (1 - keep) * scores of the picture.

        Args:
            image: uint8 `[1, H, W, 3]`, RGB.
            scores: what came back for the picture before; None, or of another size: there was none, and nothing is kept.
            keep: 0 to 1; 0 says what `infer` says.

        Returns:
            uint8 `[1, H, W]`, and the new scores, both the caller's own.

        Raises:
            BackendError: the run-time failed.
        """


@dataclass(frozen=True)
class Choice:
    """What `--backend auto` took, and why."""

    backend: str
    reason: str


def choose_backend(model: Path | None = None) -> Choice:
    """The best backend that works on this machine, with the reason in words.

    Args:
        model: the model file, if it is known: an engine runs on what it was built for and nothing else.

    Raises:
        BackendError: none is installed.
        ModelError: the model is an engine whose sidecar is missing or damaged.
    """
    if model is not None and model.suffix == SUFFIX:
        return Choice(read_sidecar(model).facts.target, "the model is an engine built for it")
    gpus = find_gpus()
    if gpus and _found("cuda.bindings"):
        if _found("tensorrt"):
            return Choice("tensorrt", f"{gpus[0].name} and TensorRT are here")
        if gpus[0].capability in RTX_CAPABILITIES and (_found("tensorrt_rtx") or _found("tensorrt_rtx_bindings")):
            return Choice("tensorrt-rtx", f"{gpus[0].name} and TensorRT for RTX are here")
    without = (
        f"{gpus[0].name} is here, but no TensorRT for it with cuda-bindings" if gpus else "no NVIDIA GPU was found"
    )
    if _found("openvino"):
        return Choice("openvino", without)
    if _found("torch"):
        return Choice("torch", f"{without}, nor is OpenVINO installed")
    raise BackendError("no backend is installed: `pip install openvino` for processors, or rtseg[train] for torch")


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent package
        return False


def open_smooth_backend(
    name: str, model: Path, *, size: tuple[int, int] | None = None, device: str | None = None
) -> SmoothBackend:
    """Loads the second form of a model, for one picture at a time; see `open_backend`.

    Raises:
        BackendError: this backend has none. And what `open_backend` raises.
    """
    match name:
        case "openvino":
            from rtseg.inference.openvino import SmoothOpenVinoBackend

            return SmoothOpenVinoBackend(model, size=size, device=device or "CPU")
        case "torch":
            from rtseg.inference.torch import SmoothTorchBackend

            return SmoothTorchBackend(model, size=size, device=device)
        case _:
            raise BackendError(f"--smooth runs on openvino and torch, not on {name}: add --backend openvino")


def open_backend(
    name: str, model: Path, *, size: tuple[int, int] | None = None, device: str | None = None, streams: int = 1
) -> Backend:
    """Loads a model for running.

    Args:
        name: one of `BACKENDS`.
        model: the model file, of a kind that the backend runs; see `RUNS`.
        size: (width, height) of the network's input; None: the model's own.
        device: as the backend names devices, such as `CPU` or `cuda:0`; None: its default.
        streams: pictures computed at the same time, where the backend has a choice (OpenVINO): 1 for the least latency, more
            for throughput, 0 for one a core.

    Raises:
        OptionError: no such backend.
        BackendError: it is not installed, or finds no device.
        ModelError: the file is missing, damaged, or of another kind.
    """
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
    """What a model file says of itself, without loading its weights for running.

    Raises:
        BackendError: nothing that can read it is installed.
        ModelError: it is damaged, or of another kind.
    """
    if model.suffix == SUFFIX:
        return read_sidecar(model).description
    from rtseg.inference.openvino import read_description

    return read_description(model)


def check_images(images: npt.NDArray[np.uint8], input_size: tuple[int, int] | None) -> None:
    """The one check of what every backend is given.

    Raises:
        ValueError: not uint8 `[N, H, W, 3]` of the input size; None: of any size.
    """
    width, height = input_size or (images.shape[2:0:-1] if images.ndim == 4 else (0, 0))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, 3):
        raise ValueError(f"images must be uint8 [N, {height}, {width}, 3], not {images.dtype} {list(images.shape)}")
