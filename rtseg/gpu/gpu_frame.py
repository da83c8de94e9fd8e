"""Frames in NVIDIA GPU memory: device addresses of their planes (DLPack), and planes that are downloaded on first access.

NVDEC writes NV12: a luma plane, and below it one chroma plane with U and V interleaved.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, cast

from av import VideoFrame
from av.video.format import VideoFormat

from rtseg.core.frame import Frame, Plane, Planes

_CUDA = 2
"""DLPack's kDLCUDA."""

_CAPSULE_POINTER = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class _DlTensor(ctypes.Structure):
    """DLPack's DLTensor, as in `dlpack.h` of its versions 0.x and 1.x."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("dtype_code", ctypes.c_uint8),
        ("dtype_bits", ctypes.c_uint8),
        ("dtype_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


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


class _PlaneTensor(NamedTuple):
    """DLPack's description of one plane."""

    device_type: int
    address: int
    bits: int
    pitch: int
    """Elements from one row to the next."""


def _plane_tensor(frame: VideoFrame, number: int) -> _PlaneTensor:
    # NumPy reads DLPack of CPU memory only, and PyTorch is no dependency here.
    plane: Any = frame.planes[number]
    capsule = plane.__dlpack__()
    tensor = _DlTensor.from_address(_CAPSULE_POINTER(capsule, b"dltensor"))
    return _PlaneTensor(
        plane.__dlpack_device__()[0],
        (tensor.data or 0) + tensor.byte_offset,
        tensor.dtype_bits,
        tensor.strides[0],
    )


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
    try:
        return "nv12" if _plane_tensor(frame, 0).bits == 8 else "p010le"
    except NotImplementedError:
        return "nv16"


def gpu_surface(frame: VideoFrame) -> GpuSurface | None:
    """Return the surface of a decoded frame; None unless it is in GPU memory as 8-bit NV12 of even size."""
    if not in_gpu_memory(frame) or frame.width % 2 or frame.height % 2 or len(frame.planes) != 2:
        return None
    try:
        luma, chroma = _plane_tensor(frame, 0), _plane_tensor(frame, 1)
    except NotImplementedError:  # PyAV exposes NV12, P010 and P016
        return None
    if luma.device_type != _CUDA or luma.bits != 8:
        return None
    return GpuSurface(luma.address, chroma.address, luma.pitch, chroma.pitch, frame.width, frame.height, frame)
