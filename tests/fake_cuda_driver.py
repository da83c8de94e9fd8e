"""Asks the driver what `rtseg.gpu.cuda` asks it for the kernels; see `fake_cuda_driver.cpp`."""

from __future__ import annotations

from pathlib import Path

import rtseg
from rtseg.core.errors import BackendError
from rtseg.gpu.cuda import Cuda


class Told(Cuda):
    """Without a device: the driver's calls alone."""

    def use(self) -> None:
        """There is none."""


cuda = Told(0)
ptx = (Path(rtseg.__file__).parent / "card_road" / "kernels.ptx").read_bytes()
scale, color = cuda.kernels(ptx, "scale", "color")
cuda.launch(scale, (3, 4), (32, 8), 0x12345678, 9)
try:
    cuda.call_driver("cuModuleGetFunction", cuda._driver.CUmodule(7), b"missing")
except BackendError as error:
    print(error, flush=True)
cuda.close()
