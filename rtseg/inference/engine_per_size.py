"""TensorRT for frames of any size: an engine has one input size, so each size has its own engine, built when it is missing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import BackendError
from rtseg.core.model_info import ModelInfo
from rtseg.inference.tensorrt import TensorRtBackend, choose_gpu
from rtseg.inference.tensorrt_loader import import_tensorrt

BuildMissing = Callable[[Path, str, tuple[int, int] | None], Path]
"""Function of a model file, a backend and an input size (width, height); returns the file that the backend runs."""


class EnginePerSize:
    """The engines of one model on one GPU; implements `rtseg.inference.Backend`."""

    free_size = True
    streams = 1
    batch = 1

    def __init__(
        self, model: Path, description: ModelInfo, target: str, device: str | None, build_missing: BuildMissing
    ) -> None:
        """Check that TensorRT (`target`) and the GPU are available, without loading an engine.

        `description` is the metadata of the model file, whose input size is free. `build_missing` returns the engine for a size,
        building it if it does not exist.

        Raises:
            BackendError: the package or the GPU is missing.
        """
        import_tensorrt(target)
        gpu = choose_gpu(device, target)
        self.name, self.description, self.input_size = target, description, description.input_size
        self.gpu: int = gpu.index
        self._model, self._device, self._build_missing = model, device, build_missing
        self.device = gpu.describe()
        self.precision = "fp16"
        """Precision of the engines; before one is loaded, the default of a build."""
        self._lock = threading.Lock()
        self._engines: dict[tuple[int, int], TensorRtBackend] = {}
        self._closed = False

    def load(self, size: tuple[int, int]) -> TensorRtBackend:
        """Return the engine for an input size, (width, height), after building and loading it if needed.

        Raises:
            BackendError, ModelError: the engine can't be built or loaded.
        """
        with self._lock:
            if self._closed:
                raise BackendError("the model was closed; open it again")
            if size not in self._engines:
                engine = self._build_missing(self._model, self.name, size)
                self._engines[size] = TensorRtBackend(engine, target=self.name, size=size, device=self._device)
                self.precision = self._engines[size].precision
            return self._engines[size]

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Run the network on images, uint8 `[N, H, W, 3]`, with the engine for their size; see `Backend.infer`."""
        return self.load((images.shape[2], images.shape[1])).infer(images)

    def close(self) -> None:
        """Free the engines. May be called twice."""
        with self._lock:
            self._closed = True
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()
