"""Test doubles of NVDEC and the CUDA driver: "GPU" memory in CPU memory, and the kernels compiled for the CPU.

With `nvidia_doubles` they run the whole GPU path without a GPU.
"""

from __future__ import annotations

import ctypes
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av import VideoFrame
from av.video.format import VideoFormat
from cuda_runtime_double import LEGACY, Cudart

import rtseg
from rtseg.gpu.kernels import Job
from rtseg.io.inputs.file import FileSource
from rtseg.io.inputs.frame_converter import FrameConverter


def compiled_kernels(folder: Path) -> ctypes.CDLL:
    """Return the kernels as a library for the CPU."""
    library = folder / "kernels.so"
    if not library.exists():
        source = Path(__file__).with_name("gpu_kernels_on_cpu.cpp")
        kernels = Path(rtseg.__file__).parent / "gpu"
        command = ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-ffp-contract=off"]
        subprocess.run([*command, f"-I{kernels}", str(source), "-o", str(library)], check=True, timeout=120)
    return ctypes.CDLL(str(library))


def launch(library: ctypes.CDLL, kernel: str, blocks: tuple[int, int], threads: tuple[int, int], address: int) -> None:
    """Run a kernel immediately."""
    library.launch(("scale", "argmax", "color").index(kernel), *blocks, *threads, ctypes.c_void_p(address))


class Driver:
    """`cuda.bindings.driver`: kernels are enqueued on the streams of a `Cudart`."""

    def __init__(self, cudart: Cudart, library: ctypes.CDLL) -> None:
        self._cudart, self._library = cudart, library
        self.modules = 0
        self.refuses: str | None = None
        self.breaks = False
        """Kernels access an illegal address, after which every CUDA call fails."""
        self.darker = 0
        """Value that is subtracted from the luma of every rendered frame."""

    def cuGetErrorString(self, error: int) -> Any:  # noqa: N802 (CUDA's own names, here and below)
        return 0, b"a PTX JIT compilation failed"

    def cuModuleLoadData(self, image: bytes) -> Any:  # noqa: N802
        assert image.startswith(b"// of kernels.cu")
        assert image.endswith(b"\0")
        self._cudart.current_device()
        if self.refuses == "cuModuleLoadData":
            return (218,)
        self.modules += 1
        return 0, "module"

    def cuModuleUnload(self, module: str) -> Any:  # noqa: N802
        self.modules -= 1
        return (0,)

    def cuModuleGetFunction(self, module: str, name: bytes) -> Any:  # noqa: N802
        return 0, name.decode()

    def cuLaunchKernel(self, kernel: str, *arguments: Any) -> Any:  # noqa: N802
        self._cudart.current_device()
        if self.refuses == "cuLaunchKernel":
            return (719,)
        *sizes, shared, stream, (values, types), extra = arguments
        assert (sizes[2], sizes[5], shared, types, extra) == (1, 1, 0, (ctypes.c_void_p,), 0)

        def work() -> None:
            if self.breaks:
                self._cudart.broken = True
            if self._cudart.broken:
                return
            launch(self._library, kernel, tuple(sizes[:2]), tuple(sizes[3:5]), values[0])
            job = Job.from_address(values[0])
            if kernel == "color" and self.darker:
                luma = np.ctypeslib.as_array((ctypes.c_uint8 * (job.width * job.height)).from_address(job.rendered))
                luma[:] = np.maximum(luma.astype(int) - self.darker, 0)

        self._cudart.enqueue(stream, work)
        return (0,)


class GpuVideoFrame:
    """PyAV's frame of NVDEC, whose pixels are written when the default stream runs."""

    def __init__(self, decoded: VideoFrame, layout: str, cudart: Cudart, *, has_sw_format: bool = True) -> None:
        self.decoded = decoded
        self._pixels = decoded.reformat(format=layout)
        self.memory = VideoFrame(decoded.width, decoded.height, layout)
        for plane in self.memory.planes:
            plane.update(bytes(plane.buffer_size))
        self.format = VideoFormat("cuda", decoded.width, decoded.height)
        if has_sw_format:
            self.sw_format = self.memory.format
        self.planes = self.memory.planes
        cudart.enqueue(LEGACY, self._write_pixels)

    def _write_pixels(self) -> None:
        for plane, pixels in zip(self.memory.planes, self._pixels.planes, strict=True):
            plane.update(bytes(pixels))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoded, name)


class Nvdec:
    """Patches rtseg so that files opened with a GPU decoder are decoded to "GPU" memory.

    Attributes:
        layout: pixel format of the frames in GPU memory.
        software_from: number of the first frame for which the GPU decoder fails; None: never.
        downloads: number of frames that were downloaded.
    """

    def __init__(self, patch: pytest.MonkeyPatch, cudart: Cudart) -> None:
        self.layout, self.software_from, self.downloads, self.frames = "nv12", None, 0, 0
        self.has_sw_format = True
        self.requests: list[tuple[str, int | None]] = []
        decode, convert = FileSource._decode, FrameConverter._convert

        converting: dict[int, threading.Lock] = {}

        def acceleration(decoder: str, gpu: int | None = None) -> dict[str, Any]:
            if gpu is not None:
                assert cudart.current_device() == gpu, "FFmpeg uses the current context"
            self.requests.append((decoder, gpu))
            return {}

        def decoded(source: FileSource, packet: Any) -> Any:
            frames = []
            for frame in decode(source, packet):
                self.frames += 1
                on_gpu = source._decoder in ("nvdec", "auto")
                if on_gpu and (self.software_from is None or self.frames <= self.software_from):
                    frames.append(GpuVideoFrame(frame, self.layout, cudart, has_sw_format=self.has_sw_format))
                else:
                    frames.append(frame)
            return frames

        def converted(reader: FrameConverter, frame: Any, layout: str, **colors: int) -> VideoFrame:
            if isinstance(frame, GpuVideoFrame):
                lock = converting.setdefault(id(reader._reformatter), threading.Lock())
                assert lock.acquire(blocking=False), "two threads in one VideoReformatter"
                time.sleep(0.002)
                lock.release()
                self.downloads += 1
                cudart.run(LEGACY)
                frame.memory.pts = frame.pts
                frame = frame.memory
            return convert(reader, frame, layout, **colors)

        patch.setattr("rtseg.io.inputs.safe_open.acceleration", acceleration)

        def decoder_name(video: Any, decoder: str) -> str:
            return f"{video.codec_context.name}{' (nvdec)' if decoder in ('nvdec', 'auto') else ''}"

        # Several files may be open at the same time, some for the fidelity check.
        patch.setattr("rtseg.io.inputs.opened_file.decoder_name", decoder_name)
        patch.setattr(
            "rtseg.io.inputs.opened_file.OpenedFile.accelerated", property(lambda opened: "(nvdec)" in opened.codec)
        )
        patch.setattr(FileSource, "_decode", decoded)
        patch.setattr(FrameConverter, "_convert", converted)
