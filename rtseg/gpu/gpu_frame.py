"""Pictures in the memory of an NVIDIA card: where they lie, and frames whose planes come down only if somebody looks.

NVDEC writes NV12: a plane of luma, and below it one of chroma, U and V side by side.
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
    """An 8-bit NV12 picture on a card."""

    luma: int
    """Device address of the luma plane, uint8 `[height, width]`."""

    chroma: int
    """Device address of the chroma plane, uint8 `[height / 2, width / 2, 2]`."""

    luma_pitch: int
    """Bytes from one row of luma to the next."""

    chroma_pitch: int
    """Bytes from one row of chroma to the next."""

    width: int
    """Pixels across, even."""

    height: int
    """Pixels down, even."""

    owner: Any = field(repr=False, compare=False)
    """Keeps the memory: the `av.VideoFrame`."""


class Fetched:
    """The three planes of a picture, brought down when the first of them is looked at."""

    def __init__(self, fetch: Callable[[], Planes]) -> None:
        """`fetch` is called once at most, whatever number of threads look."""
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
    """A frame that lies on a card. Whoever looks at its planes gets them, at the price of a copy: `planes` is a `Fetched`."""

    picture: GpuSurface
    """Where it lies."""

    def __post_init__(self) -> None:
        if self.pixel_format != "yuv420p":
            raise ValueError(f"a frame on a card is yuv420p, not {self.pixel_format}")

    @property
    def width(self) -> int:
        """Pixels across."""
        return self.picture.width

    @property
    def height(self) -> int:
        """Pixels down."""
        return self.picture.height

    def with_planes(self, planes: Planes) -> Frame:
        """The frame with other planes, which lie in the processor's memory."""
        given = {each.name: getattr(self, each.name) for each in fields(Frame)}
        return Frame(**{**given, "planes": planes})


class _Tensor(NamedTuple):
    """What DLPack tells of one plane."""

    device_type: int
    address: int
    bits: int
    pitch: int
    """From one row to the next, in elements."""


def _tensor(frame: VideoFrame, number: int) -> _Tensor:
    # NumPy reads DLPack of the processor's memory alone, and PyTorch is not here.
    plane: Any = frame.planes[number]
    capsule = plane.__dlpack__()
    tensor = _DlTensor.from_address(_CAPSULE_POINTER(capsule, b"dltensor"))
    return _Tensor(
        plane.__dlpack_device__()[0],
        (tensor.data or 0) + tensor.byte_offset,
        tensor.dtype_bits,
        tensor.strides[0],
    )


def in_gpu_memory(frame: VideoFrame) -> bool:
    """Whether a decoded picture lies on a card."""
    return frame.format.name == "cuda"


def software_layout(frame: VideoFrame) -> VideoFormat:
    """The layout of a decoded picture, of one on a card that of its memory there."""
    if not in_gpu_memory(frame):
        return frame.format
    known = getattr(frame, "sw_format", None)  # from PyAV 18 on
    if known is not None:
        return cast(VideoFormat, known)
    return VideoFormat(_told_layout(frame), frame.width, frame.height)


def _told_layout(frame: VideoFrame) -> str:
    """What PyAV 17 lets one know: chroma's resolution, and the bits where it gives the memory away."""
    if len(frame.planes) == 3:
        return "yuv444p"
    try:
        return "nv12" if _tensor(frame, 0).bits == 8 else "p010le"
    except NotImplementedError:
        return "nv16"


def gpu_surface(frame: VideoFrame) -> GpuSurface | None:
    """Where a decoded picture lies on its card; None: not on a card, or not as 8-bit NV12 of an even size."""
    if not in_gpu_memory(frame) or frame.width % 2 or frame.height % 2 or len(frame.planes) != 2:
        return None
    try:
        luma, chroma = _tensor(frame, 0), _tensor(frame, 1)
    except NotImplementedError:  # PyAV gives away NV12, P010 and P016
        return None
    if luma.device_type != _CUDA or luma.bits != 8:
        return None
    return GpuSurface(luma.address, chroma.address, luma.pitch, chroma.pitch, frame.width, frame.height, frame)
