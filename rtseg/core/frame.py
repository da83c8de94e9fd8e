"""A picture on its way through rtseg, and what is known of the stream it belongs to.

Frames stay in the planes they were decoded to (8-bit planar YUV for video, planar RGB for stills): no stage makes a full-size
RGB copy. Frames are upright: a source applies the rotation that its container asks for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8]
Planes = tuple[Plane, Plane, Plane]
ClassMap = npt.NDArray[np.uint8]
"""Class indices, uint8 `[height, width]`; 255 means no class."""

PixelFormat = Literal["yuv420p", "yuv422p", "yuv444p", "gbrp"]
"""The layouts that a frame can have: three 8-bit planes each. In `gbrp` they are green, blue, red, as FFmpeg orders them."""

Matrix = Literal["bt601", "bt709", "bt2020", "rgb"]

SUBSAMPLING: Mapping[str, tuple[int, int]] = {"yuv420p": (2, 2), "yuv422p": (2, 1), "yuv444p": (1, 1), "gbrp": (1, 1)}
"""How many pixels share one chroma sample, (across, down)."""


@dataclass(frozen=True, slots=True)
class Color:
    """How a frame's numbers become light."""

    matrix: Matrix
    """The YUV matrix that applies; `rgb` where the planes are red, green and blue themselves."""

    full_range: bool
    """True: 0 to 255 (JPEG). False: 16 to 235 for luma, 16 to 240 for chroma (television)."""

    space_tag: int = 2
    """The stream's own matrix tag, ITU-T H.273 MatrixCoefficients, handed on unchanged; 2 is unspecified."""

    primaries_tag: int = 2
    """The stream's ColorPrimaries tag (H.273); 2 is unspecified."""

    transfer_tag: int = 2
    """The stream's TransferCharacteristics tag (H.273); 2 is unspecified."""

    range_tag: int = 0
    """The stream's own range tag as FFmpeg numbers it: 0 unspecified, 1 limited, 2 full."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One upright picture."""

    planes: Planes
    """uint8, the first `[height, width]`, the others divided by `SUBSAMPLING`, rounded up. Never write into them:
    a decoder may still predict from them."""

    pixel_format: PixelFormat
    """Layout of the planes."""

    color: Color
    """Matrix and range."""

    pts: int
    """Presentation time stamp in units of `time_base`."""

    time_base: Fraction
    """Seconds in one unit of `pts`."""

    index: int
    """Number of the frame in its stream, from 0, counting only frames that were decoded."""

    duration: int = 0
    """How long it is shown, in units of `time_base`; 0: not known."""

    captured_ns: int = 0
    """`time.monotonic_ns()` when the frame was decoded (file) or its packet was read (live)."""

    def __post_init__(self) -> None:
        across, down = SUBSAMPLING[self.pixel_format]
        height, width = self.planes[0].shape
        chroma = (-(-height // down), -(-width // across))
        for number, plane in enumerate(self.planes):
            expected = chroma if number else (height, width)
            if plane.dtype != np.uint8 or plane.shape != expected:
                raise ValueError(
                    f"plane {number} of a {width}x{height} {self.pixel_format} frame must be uint8 {expected}, "
                    f"not {plane.dtype} {plane.shape}"
                )

    @property
    def width(self) -> int:
        """Pixels across."""
        return int(self.planes[0].shape[1])

    @property
    def height(self) -> int:
        """Pixels down."""
        return int(self.planes[0].shape[0])

    @property
    def pts_seconds(self) -> float:
        """When the frame is shown, in the stream's own time."""
        return float(self.pts * self.time_base)

    def with_planes(self, planes: Planes) -> Frame:
        """The frame with other planes, of its size or another."""
        return replace(self, planes=planes)


@dataclass(frozen=True, slots=True)
class Passthrough:
    """A packet of audio, subtitles or data that travels beside the frames, untouched."""

    packet: Any
    """The `av.Packet`, still tied to its input stream."""

    stream_index: int
    """Index of its stream in the input."""


def time_code_of(metadata: Mapping[str, str]) -> str | None:
    """Return the time code in a container's or stream's metadata, under the name that FFmpeg's muxers look for."""
    return next((value for key, value in metadata.items() if key.lower() == "timecode"), None)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a source knows of its picture stream before the first frame is out."""

    name: str
    """The input as the user named it, without passwords."""

    width: int
    """Pixels across, after rotation."""

    height: int
    """Pixels down, after rotation."""

    pixel_format: PixelFormat
    """Layout of all its frames."""

    color: Color
    """Matrix, range and tags of all its frames."""

    time_base: Fraction
    """Seconds in one unit of a frame's `pts`."""

    frame_rate: Fraction | None = None
    """Average frames per second; None: not known."""

    frame_count: int | None = None
    """How many frames there should be, for progress bars only; None: not known."""

    duration_seconds: float | None = None
    """Length as the container states it; None: not known."""

    sample_aspect_ratio: Fraction = Fraction(1)
    """Width of a pixel divided by its height."""

    codec: str = ""
    """Name of the codec the frames were decoded from."""

    on_gpu: bool = False
    """Whether its frames lie on a card: they are `GpuFrame`s, unless one could not stay there."""

    notes: tuple[str, ...] = ()
    """What the source did to the picture that the user should know, such as `rotated by 90 degrees`."""

    streams: tuple[Any, ...] = ()
    """The input's other streams (`av` stream objects), templates for copying packets of `Passthrough`."""

    covers: Mapping[int, Any] = field(default_factory=dict)
    """Cover pictures: the one `av.Packet` of each by the index of its stream, which is one of `streams`."""

    changing: frozenset[int] = frozenset()
    """Indices of audio streams whose rate or channels change in a way that only MPEG-TS holds."""

    template: Any = None
    """The input's own video stream (an `av` stream object): its index, metadata and disposition; None: there is none."""

    time_code: str | None = None
    """Time code of the first frame (`10:11:12:13`); None: there is none."""

    no_time_code: str = ""
    """Why the time codes of its streams are not to be kept, such as `for a part of a video`; empty: they are."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    """The container's own metadata."""

    chapters: tuple[Any, ...] = ()
    """The container's chapters as PyAV gives them."""


@dataclass(frozen=True, slots=True)
class SegmentedFrame:
    """A frame with what the model said of it and how it is to be shown: what every sink is given."""

    frame: Frame
    """The picture as it came."""

    classes: ClassMap
    """The class map of the picture (bars cut off), at the network's resolution."""

    rendered: Frame
    """The picture as it leaves: colored, with legend and numbers; in `side-by-side` twice as wide."""


@dataclass(frozen=True, slots=True)
class RenderedFrame:
    """A class map and the colored picture, where one step makes both."""

    classes: ClassMap
    """The class map of the picture (bars cut off), at the network's resolution."""

    rendered: Frame
    """The colored picture, without legend and numbers, in planes of its own."""


def rgb_frame(rgb: Plane, index: int = 0) -> Frame:
    """A still picture, uint8 `[H, W, 3]`, as a frame of planar RGB."""
    red, green, blue = (np.ascontiguousarray(rgb[:, :, channel]) for channel in range(3))
    color = Color("rgb", full_range=True, space_tag=0, range_tag=2)
    return Frame((green, blue, red), "gbrp", color, index, Fraction(1, 25), index, captured_ns=time.monotonic_ns())
