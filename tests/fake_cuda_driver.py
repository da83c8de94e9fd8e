"""Script that loads and launches kernels through `rtseg.gpu.cuda` and `cuda-bindings` on the driver `fake_cuda_driver.cpp`."""

from __future__ import annotations

from pathlib import Path

import rtseg
from rtseg.core.errors import BackendError
from rtseg.gpu.cuda import Cuda


class CudaWithoutDevice(Cuda):
    """CUDA context without a device, for driver calls only."""

    def make_current(self) -> None:
        """Do nothing."""


cuda = CudaWithoutDevice(0)
ptx = (Path(rtseg.__file__).parent / "gpu" / "kernels.ptx").read_bytes()
scale, color = cuda.load_kernels(ptx, "scale", "color")
cuda.launch(scale, (3, 4), (32, 8), 0x12345678, 9)
try:
    cuda.call("cuModuleGetFunction", cuda._driver.CUmodule(7), b"missing")
except BackendError as error:
    print(error, flush=True)
cuda.close()
