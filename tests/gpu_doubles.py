"""Stand-ins for NVDEC and for CUDA's driver: pictures "on a card" that lies in the processor's memory, and the kernels
compiled for the processor. With `nvidia_doubles` they drive the whole road over the card without a card.
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
from nvidia_doubles import LEGACY, Cudart

import rtseg
from rtseg.gpu.kernels import Job
from rtseg.io.inputs.file import FileSource
from rtseg.io.inputs.frame_converter import FrameConverter


def compiled_kernels(folder: Path) -> ctypes.CDLL:
    """The kernels as a library for the processor."""
    library = folder / "kernels.so"
    if not library.exists():
        source = Path(__file__).with_name("gpu_kernels_on_cpu.cpp")
        kernels = Path(rtseg.__file__).parent / "card_road"
        command = ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-ffp-contract=off"]
        subprocess.run([*command, f"-I{kernels}", str(source), "-o", str(library)], check=True, timeout=120)
    return ctypes.CDLL(str(library))


def launch(library: ctypes.CDLL, kernel: str, blocks: tuple[int, int], threads: tuple[int, int], address: int) -> None:
    """Runs a kernel at once."""
    library.launch({"scale": 0, "color": 1}[kernel], *blocks, *threads, ctypes.c_void_p(address))


class Driver:
    """`cuda.bindings.driver`: kernels go on the streams of a `Cudart`."""

    def __init__(self, cudart: Cudart, library: ctypes.CDLL) -> None:
        self._cudart, self._library = cudart, library
        self.modules = 0
        self.refuses: str | None = None
        self.breaks = False
        """A kernel reaches where it must not, and CUDA does nothing more in this process."""
        self.darker = 0
        """Levels by which all colored pictures are wrong."""

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

    def cuLaunchKernel(self, kernel: str, *given: Any) -> Any:  # noqa: N802
        self._cudart.current_device()
        if self.refuses == "cuLaunchKernel":
            return (719,)
        *sizes, shared, stream, (values, types), extra = given
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


class PlaneOnCard:
    """A plane whose memory nobody may touch but through CUDA."""

    def __init__(self, plane: Any) -> None:
        self._plane = plane

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self) -> Any:
        return self._plane.__dlpack__()


class PictureOnCard:
    """What PyAV gives of NVDEC: a picture whose pixels are there once the default stream has got to it."""

    def __init__(self, decoded: VideoFrame, layout: str, cudart: Cudart, *, tells_layout: bool = True) -> None:
        self.decoded = decoded
        self._right = decoded.reformat(format=layout)
        self.memory = VideoFrame(decoded.width, decoded.height, layout)
        for plane in self.memory.planes:
            plane.update(bytes(plane.buffer_size))
        self.format = VideoFormat("cuda", decoded.width, decoded.height)
        if tells_layout:
            self.sw_format = self.memory.format
        self.planes = tuple(PlaneOnCard(plane) for plane in self.memory.planes)
        cudart.enqueue(LEGACY, self._arrive)

    def _arrive(self) -> None:
        for plane, right in zip(self.memory.planes, self._right.planes, strict=True):
            plane.update(bytes(right))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoded, name)


class Nvdec:
    """Has every file decoded "on the card" that is opened with a card's decoder.

    Attributes:
        layout: of the pictures in its memory.
        software_from: number of the picture from which on the card gives up; None: none.
        downloads: how many pictures were brought down whole.
    """

    def __init__(self, patch: pytest.MonkeyPatch, cudart: Cudart) -> None:
        self.layout, self.software_from, self.downloads, self.pictures = "nv12", None, 0, 0
        self.tells_layout = True
        self.asked: list[tuple[str, int | None]] = []
        decode, convert = FileSource._decode, FrameConverter._convert

        converting: dict[int, threading.Lock] = {}

        def acceleration(decoder: str, gpu: int | None = None) -> dict[str, Any]:
            if gpu is not None:
                assert cudart.current_device() == gpu, "FFmpeg takes the context that is current"
            self.asked.append((decoder, gpu))
            return {}

        def decoded(source: FileSource, packet: Any) -> Any:
            given = []
            for picture in decode(source, packet):
                self.pictures += 1
                on_gpu = source._decoder in ("nvdec", "auto")
                if on_gpu and (self.software_from is None or self.pictures <= self.software_from):
                    given.append(PictureOnCard(picture, self.layout, cudart, tells_layout=self.tells_layout))
                else:
                    given.append(picture)
            return given

        def converted(reader: FrameConverter, picture: Any, layout: str, **colors: int) -> VideoFrame:
            if isinstance(picture, PictureOnCard):
                alone = converting.setdefault(id(reader._reformatter), threading.Lock())
                assert alone.acquire(blocking=False), "two threads in one VideoReformatter"
                time.sleep(0.002)
                alone.release()
                self.downloads += 1
                cudart.run(LEGACY)
                picture.memory.pts = picture.pts
                picture = picture.memory
            return convert(reader, picture, layout, **colors)

        patch.setattr("rtseg.io.inputs.safe_open.acceleration", acceleration)

        def decoder_name(video: Any, decoder: str) -> str:
            return f"{video.codec_context.name}{' (nvdec)' if decoder in ('nvdec', 'auto') else ''}"

        # Several files may be open at the same time, some of them for the fidelity check.
        patch.setattr("rtseg.io.inputs.opened_file.decoder_name", decoder_name)
        patch.setattr(
            "rtseg.io.inputs.opened_file.OpenedFile.accelerated", property(lambda opened: "(nvdec)" in opened.codec)
        )
        patch.setattr(FileSource, "_decode", decoded)
        patch.setattr(FrameConverter, "_convert", converted)
