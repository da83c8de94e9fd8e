"""Test double of a machine with an NVIDIA GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import nvidia_doubles as doubles
import pytest
from cuda_runtime_double import Cudart

from rtseg.gpu.devices import Gpu

ORIN = Gpu(0, "Orin", (8, 7))


class Jetson:
    """Test double of a machine with an Orin, CUDA and one version of TensorRT."""

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        version: str,
        gpus: tuple[Gpu, ...] = (ORIN,),
        driver: Callable[[Cudart], Any] | None = None,
    ) -> None:
        self.cudart = Cudart()
        self.driver = driver(self.cudart) if driver else SimpleNamespace()
        self.trt = doubles.tensorrt(version, self.cudart)
        patch.setitem(sys.modules, "tensorrt", self.trt)
        bindings = SimpleNamespace(runtime=self.cudart, driver=self.driver)
        patch.setitem(sys.modules, "cuda", SimpleNamespace(bindings=bindings))
        patch.setitem(sys.modules, "cuda.bindings", bindings)
        for module in (
            "rtseg.inference.tensorrt",
            "rtseg.models.export.tensorrt",
            "rtseg.models.export.verify",
            "rtseg.inference",
        ):
            patch.setattr(f"{module}.find_gpus", lambda: gpus)
