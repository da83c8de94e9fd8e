"""Video frames, packets and stream properties that the pipeline passes between its stages.

A frame keeps its decoded planes (8-bit planar YUV for video, planar RGB for still images): no stage makes a full-size RGB
copy. Frames are upright: a source applies the rotation that is stored in its container.
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
"""Pixel layout of a frame, three 8-bit planes each. The planes of `gbrp` are green, blue, red, as in FFmpeg."""

Matrix = Literal["bt601", "bt709", "bt2020", "rgb"]

SUBSAMPLING: Mapping[str, tuple[int, int]] = {"yuv420p": (2, 2), "yuv422p": (2, 1), "yuv444p": (1, 1), "gbrp": (1, 1)}
"""Number of pixels per chroma sample, (horizontal, vertical)."""


@dataclass(frozen=True, slots=True)
class Color:
    """Color matrix, value range and color tags of a frame."""

    matrix: Matrix
    """The YUV matrix; `rgb` if the planes contain red, green and blue."""

    full_range: bool
    """True: 0 to 255 (JPEG). False: 16 to 235 for luma, 16 to 240 for chroma (television)."""

    space_tag: int = 2
    """Matrix tag of the stream (ITU-T H.273 MatrixCoefficients), copied to the output unchanged; 2 is unspecified."""

    primaries_tag: int = 2
    """ColorPrimaries tag of the stream (H.273); 2 is unspecified."""

    transfer_tag: int = 2
    """TransferCharacteristics tag of the stream (H.273); 2 is unspecified."""

    range_tag: int = 0
    """Range tag of the stream in FFmpeg's numbering: 0 unspecified, 1 limited, 2 full."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One upright video frame or still image."""

    planes: Planes
    """uint8 arrays: the first `[height, width]`, the others that size divided by `SUBSAMPLING`, rounded up. Read-only by
    convention: the decoder may still use them as reference frames."""

    pixel_format: PixelFormat
    """Layout of the planes."""

    color: Color
    """Color matrix, range and tags."""

    pts: int
    """Presentation timestamp in units of `time_base`."""

    time_base: Fraction
    """Unit of `pts`, in seconds."""

    index: int
    """Index among the decoded frames of the stream, from 0."""

    duration: int = 0
    """Display duration in units of `time_base`; 0 if unknown."""

    captured_ns: int = 0
    """`time.monotonic_ns()` when the frame was decoded (file) or when its packet was read (live)."""

    def __post_init__(self) -> None:
        horizontal, vertical = SUBSAMPLING[self.pixel_format]
        height, width = self.planes[0].shape
        chroma_shape = (-(-height // vertical), -(-width // horizontal))
        for index, plane in enumerate(self.planes):
            expected = chroma_shape if index else (height, width)
            if plane.dtype != np.uint8 or plane.shape != expected:
                raise ValueError(
                    f"plane {index} of a {width}x{height} {self.pixel_format} frame must be uint8 {expected}, "
                    f"not {plane.dtype} {plane.shape}"
                )

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.planes[0].shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.planes[0].shape[0])

    @property
    def pts_seconds(self) -> float:
        """Presentation timestamp in seconds, on the clock of the stream."""
        return float(self.pts * self.time_base)

    def with_planes(self, planes: Planes) -> Frame:
        """Return a copy of the frame with other planes, which may have another size."""
        return replace(self, planes=planes)


@dataclass(frozen=True, slots=True)
class Passthrough:
    """A packet of audio, subtitles or data that is copied unchanged."""

    packet: Any
    """The `av.Packet`, which still refers to its input stream."""

    stream_index: int
    """Index of the input stream."""


TIME_CODE = "time code"
"""Codec name of a time code track, which muxers create from the `timecode` of a video stream."""


def time_code_of(metadata: Mapping[str, str]) -> str | None:
    """Return the time code in the metadata of a container or stream (key `timecode`, as in FFmpeg); None if there is none."""
    return next((value for key, value in metadata.items() if key.lower() == "timecode"), None)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Properties of a video stream, available before its first frame."""

    name: str
    """Name of the input as the user wrote it, without passwords."""

    width: int
    """Width in pixels, after rotation."""

    height: int
    """Height in pixels, after rotation."""

    pixel_format: PixelFormat
    """Pixel layout of all frames."""

    color: Color
    """Color matrix, range and tags of all frames."""

    time_base: Fraction
    """Unit of a frame's `pts`, in seconds."""

    frame_rate: Fraction | None = None
    """Average number of frames per second; None if unknown."""

    frame_count: int | None = None
    """Expected number of frames, for progress bars only; None if unknown."""

    duration_seconds: float | None = None
    """Duration in the container's header; None if unknown."""

    sample_aspect_ratio: Fraction = Fraction(1)
    """Width of a pixel divided by its height."""

    codec: str = ""
    """Name of the input codec."""

    on_gpu: bool = False
    """True if the frames are in GPU memory (`GpuFrame`). Single frames may still be in CPU memory."""

    notes: tuple[str, ...] = ()
    """Changes that the source made to the frames and that the user should know of, such as `turned by 90 degrees clockwise`."""

    streams: tuple[Any, ...] = ()
    """The other input streams (`av` stream objects), used as templates when `Passthrough` packets are copied."""

    covers: Mapping[int, Any] = field(default_factory=dict)
    """Cover images: the single `av.Packet` of each, by the index of its stream, which is one of `streams`."""

    changing: frozenset[int] = frozenset()
    """Indices of audio streams whose sample rate or channels change in a way that only MPEG-TS can store."""

    template: Any = None
    """The input video stream (an `av` stream object) with its index, metadata and disposition; None if there is none."""

    time_code: str | None = None
    """Time code of the first frame (`10:11:12:13`); None if there is none."""

    no_time_code: str = ""
    """Reason to drop the time codes of the streams, such as `for a part of a video`; empty: keep them."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    """Metadata of the container."""

    chapters: tuple[Any, ...] = ()
    """Chapters of the container, as PyAV returns them."""


@dataclass(frozen=True, slots=True)
class ProcessedFrame:
    """Input of every sink: a frame, its class map, the rendered frame, and the times of its processing."""

    frame: Frame
    """The input frame."""

    classes: ClassMap
    """Class map of the frame at the network's resolution, without letterbox padding."""

    rendered: Frame
    """The output frame: with overlay, legend and performance numbers; twice as wide in the view `side-by-side`."""

    info: StreamInfo
    """Stream of the frame."""

    camera: str = ""
    """Name of the camera in a live run: `camera0`, `url1`."""

    start_ns: int = 0
    """Start of the processing, `time.monotonic_ns()`."""

    infer_seconds: float = 0.0
    """Duration of the inference, including the resize to the input size of the network."""

    render_seconds: float = 0.0
    """Duration of the rendering."""

    @property
    def age_ms(self) -> float:
        """Time since the capture of the frame, which is independent of its timestamp in the stream."""
        return (time.monotonic_ns() - self.frame.captured_ns) / 1e6

    @property
    def age_at_inference_ms(self) -> float:
        """Age of the frame at the start of the processing."""
        return (self.start_ns - self.frame.captured_ns) / 1e6


@dataclass(frozen=True, slots=True)
class RenderedFrame:
    """A class map and its overlay, computed in one step on the GPU."""

    classes: ClassMap
    """Class map of the frame at the network's resolution, without letterbox padding."""

    rendered: Frame
    """The frame with its overlay, without legend and performance numbers. Shares no memory with the input frame."""


def rgb_frame(rgb: Plane, index: int = 0) -> Frame:
    """Return an RGB image, uint8 `[H, W, 3]`, as a frame in the format `gbrp`."""
    red, green, blue = (np.ascontiguousarray(rgb[:, :, channel]) for channel in range(3))
    color = Color("rgb", full_range=True, space_tag=0, range_tag=2)
    return Frame((green, blue, red), "gbrp", color, index, Fraction(1, 25), index, captured_ns=time.monotonic_ns())
