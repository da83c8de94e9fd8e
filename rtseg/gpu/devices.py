"""NVIDIA GPUs of this machine, listed by the driver: no CUDA toolkit and no Python package is needed."""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import dataclass

# Values of CUdevice_attribute in cuda.h; part of the driver's stable interface.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    index: int
    """Device number, from 0: `cuda:0`."""

    name: str
    """Name in the driver, such as `Orin` or `NVIDIA H100 80GB HBM3`."""

    capability: tuple[int, int]
    """CUDA compute capability, such as (8, 7)."""

    @property
    def sm(self) -> str:
        """Compute capability as in file names: `sm87`."""
        return f"sm{self.capability[0]}{self.capability[1]}"

    def describe(self) -> str:
        """Return name and compute capability, such as `Orin, compute capability 8.7`."""
        return f"{self.name}, compute capability {self.capability[0]}.{self.capability[1]}"


def find_gpus() -> tuple[Gpu, ...]:
    """Return the driver's GPUs; empty if there is no driver or it fails."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(gpu for index in range(count.value) if (gpu := _gpu(driver, index)) is not None)


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu | None:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    failed = (
        driver.cuDeviceGet(ctypes.byref(device), index)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    )
    return None if failed else Gpu(index, name.value.decode(errors="replace"), (major.value, minor.value))


def platform_name() -> str:
    """Return operating system and CPU architecture, such as `linux-aarch64`; an engine runs only on its own."""
    return f"{platform.system().lower()}-{platform.machine().lower()}"
