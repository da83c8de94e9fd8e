"""torch: the reference that the other backends are compared with, and the way to run a checkpoint as it is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import BackendError, ModelError
from rtseg.core.model_info import ModelInfo
from rtseg.inference import Scores, check_images

_log = logging.getLogger("rtseg.inference")


class TorchBackend:
    """A checkpoint on the processor (FP32) or on a CUDA device (FP16)."""

    name = "torch"

    def __init__(
        self,
        model: Path,
        *,
        size: tuple[int, int] | None = None,
        device: str | None = None,
        precision: str | None = None,
    ) -> None:
        """Reads the checkpoint and moves it to the device.

        Args:
            model: a file of `rtseg train`, or a checkpoint of a library that `rtseg build` knows.
            size: (width, height) of the input; None: the model's own.
            device: a torch device, such as `cpu` or `cuda:0`; None: the first CUDA device, or the processor.
            precision: `fp32` or `fp16`; None: fp16 on a CUDA device, fp32 on the processor.

        Raises:
            BackendError: torch is missing, or has no such device.
            ModelError: the file is missing, damaged or of another kind.
        """
        try:
            import torch

            from rtseg.nn.load_network import open_network
        except ImportError as error:
            raise BackendError(f'the torch backend needs {error.name}: pip install "rtseg[train]"') from error
        if model.suffix in (".onnx", ".xml", ".engine"):
            raise ModelError(
                f"{model}: the torch backend runs checkpoints (.safetensors, .pt, .pth); leave --backend out for this file"
            )
        self._torch = torch
        try:
            self._device = torch.device(device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
            torch.empty(1, device=self._device)
        except (RuntimeError, AssertionError) as error:
            raise BackendError(f"torch has no device '{device}' here: {str(error).splitlines()[0]}") from error
        self._precision = precision or ("fp32" if self._device.type == "cpu" else "fp16")
        network = open_network(model, size)
        for note in network.notes:
            _log.warning("note: %s", note)
        self._description = network.description
        self._input_size = size or network.description.input_size
        self._largest: int | None = None
        """Pictures that fit into the device's memory together, once more did not."""
        dtype = torch.float16 if self._precision == "fp16" else torch.float32
        self._module = network.module.to(self._device, dtype)
        self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs

    @property
    def device(self) -> str:
        """The card's name, or `processor`."""
        if self._device.type == "cuda":
            return str(self._torch.cuda.get_device_name(self._device))
        return f"processor, {self._torch.get_num_threads()} threads"

    @property
    def precision(self) -> str:
        """`fp32` or `fp16`."""
        return self._precision

    @property
    def description(self) -> ModelInfo:
        """What the model says of itself."""
        return self._description

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the input."""
        return self._input_size

    @property
    def free_size(self) -> bool:
        """False: the size is that of the description, or the one asked for."""
        return False

    @property
    def streams(self) -> int:
        """1: torch uses all cores, or the whole GPU, for one batch."""
        return 1

    @property
    def batch(self) -> int:
        """1: as the reference, torch computes what it is given as it is given."""
        return 1

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Class maps, uint8 `[N, H, W]`, of pictures uint8 `[N, H, W, 3]`; see `Backend.infer`.

        Where the GPU has no room for all of them they go through in halves, which is told; one picture at a time is the least.
        """
        check_images(images, self._input_size)
        answers = np.empty(images.shape[:3], dtype=np.uint8)
        done = 0
        while done < len(images):
            part = images[done : done + (self._largest or len(images))]
            try:
                answers[done : done + len(part)] = self._run(part)
            except self._torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise BackendError(
                        f"no memory left on {self.device} for one picture of {part.shape[2]}x{part.shape[1]}: "
                        "end other programs that use it, or choose a smaller --size"
                    ) from error
                self._largest = len(part) // 2
                _log.warning(
                    "out of memory on %s with %d images per run; continuing with %d",
                    self.device,
                    len(part),
                    self._largest,
                )
                continue
            done += len(part)
        return answers

    def _run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        torch = self._torch
        try:
            with torch.inference_mode():
                answers = self._module(torch.from_numpy(np.ascontiguousarray(images)).to(self._device))
                result: npt.NDArray[np.uint8] = answers.cpu().numpy()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise BackendError(f"torch failed while computing: {str(error).splitlines()[0]}") from error
        return result

    def close(self) -> None:
        """Gives the network's memory back."""
        self._module = self._torch.nn.Identity()
        if self._device.type == "cuda":
            self._torch.cuda.empty_cache()


class SmoothTorchBackend(TorchBackend):
    """A checkpoint of `rtseg train` whose answers can be steadied from one frame of a stream to the next."""

    def __init__(self, model: Path, *, size: tuple[int, int] | None = None, device: str | None = None) -> None:
        """As `TorchBackend` does it; raises BackendError too where the checkpoint is another library's."""
        super().__init__(model, size=size, device=device)
        self._parts: Any = self._module
        if not hasattr(self._parts, "scores"):
            raise BackendError(
                f"--smooth runs checkpoints of `rtseg train` on torch, and {model} is another's: `rtseg build {model} "
                "--target openvino` makes a model of it that it runs"
            )

    def infer_next(
        self, image: npt.NDArray[np.uint8], scores: Scores | None, momentum: float
    ) -> tuple[npt.NDArray[np.uint8], Scores]:
        """The class map of one picture, and its scores; see `SmoothBackend.infer_next`."""
        check_images(image, self.input_size)
        torch = self._torch
        try:
            with torch.inference_mode():
                given = torch.from_numpy(np.ascontiguousarray(image)).to(self._device)
                new = self._parts.scores(given)
                if scores is not None and scores.shape == tuple(new.shape):
                    new = momentum * torch.from_numpy(scores).to(new) + (1.0 - momentum) * new
                classes: npt.NDArray[np.uint8] = self._parts.classes(new, given).cpu().numpy()
                return classes, new.to(torch.float16).cpu().numpy()
        except RuntimeError as error:
            raise BackendError(f"torch failed while computing: {str(error).splitlines()[0]}") from error

    def close(self) -> None:
        """Gives the network's memory back."""
        self._parts = None
        super().close()
