"""torch backend: runs checkpoints directly; the reference for the other backends."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import BackendError, ModelError
from rtseg.inference import check_images

_log = logging.getLogger("rtseg.inference")


class TorchBackend:
    """A checkpoint on the CPU (FP32) or on a CUDA device (FP16)."""

    name = "torch"
    streams = 1
    """torch uses all cores, or the whole GPU, for one call."""
    batch = 1
    """The images of a call are not combined with those of others."""

    def __init__(
        self,
        model: Path,
        *,
        size: tuple[int, int] | None = None,
        device: str | None = None,
        precision: str | None = None,
    ) -> None:
        """Load the checkpoint and move it to the device.

        Args:
            model: a file of `rtseg train`, or a checkpoint of a library that `rtseg build` supports.
            size: (width, height) of the input; None: the model's own.
            device: a torch device, such as `cpu` or `cuda:0`; None: the first CUDA device, or the CPU.
            precision: `fp32` or `fp16`; None: fp16 on a CUDA device, fp32 on the CPU.

        Raises:
            BackendError: torch is not installed, or has no such device.
            ModelError: the file is missing, damaged or of another type.
        """
        try:
            import torch

            from rtseg.nn.load_network import open_network  # imports torch
            from rtseg.nn.unet import UNet
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
        self.device = f"CPU, {torch.get_num_threads()} threads"
        if self._device.type == "cuda":
            self.device = torch.cuda.get_device_name(self._device)
        self.precision = precision or ("fp32" if self._device.type == "cpu" else "fp16")
        network = open_network(model, size)
        for note in network.notes:
            _log.warning("note: %s", note)
        self.description = network.description
        self.input_size = size or network.description.input_size
        self.free_size = size is None and isinstance(network.original, UNet)
        """True if `infer` accepts images of any size: networks of rtseg do; False if `size` was given."""
        self._max_images: int | None = None
        """Largest number of images per run, after a larger number ran out of memory."""
        dtype = torch.float16 if self.precision == "fp16" else torch.float32
        self._module = network.module.to(self._device, dtype)
        self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Run the network on images, uint8 `[N, H, W, 3]`; see `Backend.infer`. Scores have the precision of the network.

        When the GPU runs out of memory, the number of images per run is halved, down to one, and a warning is logged.
        """
        check_images(images, None if self.free_size else self.input_size)
        parts: list[npt.NDArray[Any]] = []
        done = 0
        while done < len(images):
            part = images[done : done + (self._max_images or len(images))]
            try:
                parts.append(self._run(part))
            except self._torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise BackendError(
                        f"no memory left on {self.device} for one image of {part.shape[2]}x{part.shape[1]}: "
                        "end other programs that use it, or choose a smaller --size"
                    ) from error
                self._max_images = len(part) // 2
                _log.warning(
                    "out of memory on %s with %d images per run; continuing with %d",
                    self.device,
                    len(part),
                    self._max_images,
                )
                continue
            done += len(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        torch = self._torch
        try:
            with torch.inference_mode():
                output = self._module(torch.from_numpy(np.ascontiguousarray(images)).to(self._device))
                result: npt.NDArray[Any] = output.contiguous().cpu().numpy()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise BackendError(f"torch failed while computing: {str(error).splitlines()[0]}") from error
        return result

    def close(self) -> None:
        """Free the network's memory."""
        self._module = self._torch.nn.Identity()
        if self._device.type == "cuda":
            self._torch.cuda.empty_cache()
