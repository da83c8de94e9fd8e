"""Frames in NVIDIA GPU memory: device addresses of their planes, and planes that are downloaded on first access.

NVDEC writes NV12: a luma plane, and below it one chroma plane with U and V interleaved.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, cast

from av import VideoFrame
from av.video.format import VideoFormat

from rtseg.core.frame import Frame, Plane, Planes

_DLPACK_BITS_OFFSET = 21
"""Offset of `dtype.bits` in DLPack's DLTensor, after the address (8 bytes), device (8), dimensions (4) and type code (1)."""


@dataclass(frozen=True, slots=True)
class GpuSurface:
    """8-bit NV12 surface in GPU memory."""

    luma: int
    """Device address of the luma plane, uint8 `[height, width]`."""

    chroma: int
    """Device address of the chroma plane, uint8 `[height / 2, width / 2, 2]`."""

    luma_pitch: int
    """Bytes from one row of luma to the next."""

    chroma_pitch: int
    """Bytes from one row of chroma to the next."""

    width: int
    """Width, pixels, even."""

    height: int
    """Height, pixels, even."""

    owner: Any = field(repr=False, compare=False)
    """Owner of the memory, kept alive: the `av.VideoFrame`."""


class LazyPlanes:
    """The three planes of a frame, downloaded at the first access."""

    def __init__(self, fetch: Callable[[], Planes]) -> None:
        """Store `fetch`, which is called at most once, by any thread."""
        self._fetch: Callable[[], Planes] | None = fetch
        self._planes: Planes | None = None
        self._lock = threading.Lock()

    def _get(self) -> Planes:
        with self._lock:
            if self._planes is None:
                assert self._fetch is not None
                self._planes, self._fetch = self._fetch(), None
            return self._planes

    def __getitem__(self, number: int) -> Plane:
        return self._get()[number]

    def __iter__(self) -> Iterator[Plane]:
        return iter(self._get())

    def __len__(self) -> int:
        return 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFrame(Frame):
    """Frame in GPU memory. Its `planes` are `LazyPlanes`: the first access downloads them."""

    surface: GpuSurface
    """The frame's surface."""

    def __post_init__(self) -> None:
        if self.pixel_format != "yuv420p":
            raise ValueError(f"a frame in GPU memory is yuv420p, not {self.pixel_format}")

    @property
    def width(self) -> int:
        """Width, pixels."""
        return self.surface.width

    @property
    def height(self) -> int:
        """Height, pixels."""
        return self.surface.height

    def with_planes(self, planes: Planes) -> Frame:
        """Return the frame with other planes, in CPU memory."""
        values = {each.name: getattr(self, each.name) for each in fields(Frame)}
        return Frame(**{**values, "planes": planes})


def in_gpu_memory(frame: VideoFrame) -> bool:
    """Return True if a decoded frame is in GPU memory."""
    return frame.format.name == "cuda"


def software_layout(frame: VideoFrame) -> VideoFormat:
    """Return the pixel format of a decoded frame; of a frame in GPU memory, the format of its memory there."""
    if not in_gpu_memory(frame):
        return frame.format
    known = getattr(frame, "sw_format", None)  # since PyAV 18
    if known is not None:
        return cast(VideoFormat, known)
    return VideoFormat(_layout_in_pyav_17(frame), frame.width, frame.height)


def _layout_in_pyav_17(frame: VideoFrame) -> str:
    """Derive the pixel format from PyAV 17's planes: the chroma resolution, and the bits where DLPack exposes the memory."""
    if len(frame.planes) == 3:
        return "yuv444p"
    plane: Any = frame.planes[0]
    try:
        capsule = plane.__dlpack__()
    except NotImplementedError:  # PyAV exposes NV12, P010 and P016
        return "nv16"
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    bits = ctypes.c_uint8.from_address(pointer(capsule, b"dltensor") + _DLPACK_BITS_OFFSET).value
    return "nv12" if bits == 8 else "p010le"


def gpu_surface(frame: VideoFrame) -> GpuSurface | None:
    """Return the surface of a decoded frame; None unless it is in GPU memory as 8-bit NV12 of even size."""
    if not in_gpu_memory(frame) or frame.width % 2 or frame.height % 2 or software_layout(frame).name != "nv12":
        return None
    luma, chroma = frame.planes  # FFmpeg: data[i] of AV_PIX_FMT_CUDA are device addresses
    return GpuSurface(
        luma.buffer_ptr, chroma.buffer_ptr, luma.line_size, chroma.line_size, frame.width, frame.height, frame
    )
