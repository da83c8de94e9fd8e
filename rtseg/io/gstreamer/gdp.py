"""Raw frames in a pipe to and from GStreamer.

The GStreamer Data Protocol (elements `gdppay` and `gdpdepay`, gst/gdp/dataprotocol.c in gst-plugins-bad) puts 62 bytes before
each raw frame: its length and time. Formats are separate packets, so a change of size within the stream is detected, and
a frame with an unexpected size is an error instead of a distorted image.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.color import guess_matrix
from rtseg.core.frame import Color, Matrix, PixelFormat, Plane

HEADER = struct.Struct(">BBBBHIQQQQHQ6xHH")
"""Version major and minor, flags, padding, type, payload length, pts, duration, offset and its end, flags, dts, checksums."""

NO_TIME = 2**64 - 1
"""GST_CLOCK_TIME_NONE."""

NANOSECOND = Fraction(1, 1_000_000_000)
"""Unit of time in GStreamer, seconds."""

BUFFER, CAPS, STREAM_START, SEGMENT = 1, 2, 64 + 10254, 64 + 17934
"""Packet types: a frame, its format, and the events that precede the first frame (64 + GstEventType)."""

_VERSION = (1, 0)
_LONGEST_TEXT = 1 << 16


class Header(NamedTuple):
    """Header of a packet."""

    kind: int
    """`BUFFER`, `CAPS` or an event."""

    length: int
    """Length of the payload, bytes."""

    pts_ns: int | None
    """Time of the frame by the pipeline's clock; None: it has none."""

    duration_ns: int | None
    """Duration of the frame; None: unknown."""


def read_header(data: bytes) -> Header:
    """Parse the 62 bytes before a payload.

    Raises:
        ValueError: they are not such a header.
    """
    major, minor, _, _, kind, length, pts, duration, *_ = HEADER.unpack(data)
    if (major, minor) != _VERSION or (kind != BUFFER and length > _LONGEST_TEXT):
        raise ValueError("not the GStreamer Data Protocol 1.0")
    return Header(kind, length, None if pts == NO_TIME else pts, None if duration == NO_TIME else duration)


def write_header(kind: int, length: int, pts_ns: int = 0, duration_ns: int = 0) -> bytes:
    """Return the 62 bytes before a payload, without checksums."""
    return HEADER.pack(
        *_VERSION, 0, 0, kind, length, pts_ns, duration_ns or NO_TIME, NO_TIME, NO_TIME, 0, NO_TIME, 0, 0
    )


@dataclass(frozen=True)
class RawVideo:
    """Format of raw video (`video/x-raw`) in GStreamer's layout: rows are padded to four bytes."""

    layout: str
    """Name of the layout in GStreamer: `NV12`, `I420`, `Y42B`, `Y444`, `GBR`."""

    width: int
    height: int
    color: Color
    frame_rate: Fraction | None = None
    """Frames per second; None: unknown or variable."""

    pixel_aspect: Fraction = Fraction(1)
    """Width of a pixel divided by its height."""

    def __post_init__(self) -> None:
        if self.layout not in _LAYOUTS or self.width < 1 or self.height < 1:
            raise ValueError(f"raw video that rtseg does not support: {self.layout} {self.width}x{self.height}")

    @property
    def pixel_format(self) -> PixelFormat:
        """Pixel format of the planes that `planes` returns."""
        return _LAYOUTS[self.layout]

    @property
    def rows(self) -> list[tuple[int, int, int]]:
        """(bytes between rows, rows in memory, bytes used of each row) of each plane in memory.

        As in `gst_video_info_set_format`.
        """
        width, height = self.width, self.height
        even_width, even_height = _up(width, 2), _up(height, 2)
        match self.layout:
            case "NV12":
                return [(_up(width, 4), even_height, width), (_up(width, 4), even_height // 2, even_width)]
            case "I420":
                half = even_width // 2
                return [(_up(width, 4), even_height, width)] + [(_up(half, 4), even_height // 2, half)] * 2
            case "Y42B":
                half = even_width // 2
                return [(_up(width, 4), height, width)] + [(_up(half, 4), height, half)] * 2
            case _:
                return [(_up(width, 4), height, width)] * 3

    @property
    def size(self) -> int:
        """Length of a frame, bytes."""
        return sum(stride * rows for stride, rows, _ in self.rows)

    def planes(self, data: npt.NDArray[np.uint8]) -> tuple[Plane, Plane, Plane]:
        """Return the three planes of a frame, as views of `data` if possible.

        Args:
            data: uint8 `[size]`; must not be changed afterwards.
        """
        inside = self._inside(data)
        if self.layout == "NV12":
            both = inside[1][: -(-self.height // 2)]
            u, v = cv2.split(both.reshape(both.shape[0], -1, 2))
            return inside[0][: self.height], u, v
        across, down = (self.height, -(-self.height // 2)) if self.layout == "I420" else (self.height, self.height)
        return inside[0][:across], inside[1][:down], inside[2][:down]

    def fill(self, data: npt.NDArray[np.uint8], planes: tuple[Plane, Plane, Plane]) -> None:
        """Copy three planes into the bytes of a frame, cropped to its size: the inverse of `planes`. Not for `NV12`."""
        for target, plane in zip(self._inside(data), planes, strict=True):
            height, width = min(plane.shape[0], target.shape[0]), min(plane.shape[1], target.shape[1])
            target[:height, :width] = plane[:height, :width]

    def caps(self) -> str:
        """Return the caps of the format as text."""
        rate = self.frame_rate or Fraction(0)
        aspect = self.pixel_aspect
        return (
            f"video/x-raw, format=(string){self.layout}, width=(int){self.width}, height=(int){self.height}, "
            f"framerate=(fraction){rate.numerator}/{rate.denominator}, "
            f"pixel-aspect-ratio=(fraction){aspect.numerator}/{aspect.denominator}, interlace-mode=(string)progressive, "
            f"colorimetry=(string){_colorimetry(self.color)}"
        )

    def _inside(self, data: npt.NDArray[np.uint8]) -> list[Plane]:
        parts, offset = [], 0
        for stride, rows, used in self.rows:
            parts.append(data[offset : offset + stride * rows].reshape(rows, stride)[:, :used])
            offset += stride * rows
        return parts


_LAYOUTS: dict[str, PixelFormat] = {
    "NV12": "yuv420p",
    "I420": "yuv420p",
    "Y42B": "yuv422p",
    "Y444": "yuv444p",
    "GBR": "gbrp",
}
LAYOUT_OF: dict[str, str] = {"yuv420p": "I420", "yuv422p": "Y42B", "yuv444p": "Y444", "gbrp": "GBR"}
"""Layout in GStreamer by pixel format."""


def read_caps(text: str) -> RawVideo:
    """Parse caps such as `video/x-raw, ...`.

    Raises:
        ValueError: not raw video, or an unsupported layout.
    """
    fields = dict(re.findall(r"([\w-]+)=(?:\([\w.]+\))?\"?([^,;\"\0]+)", text))
    if not text.startswith("video/x-raw") or "memory:" in text.split(",")[0]:
        raise ValueError(f"the pipeline ends in {text.split(',')[0]}, not in raw video")
    width, height = int(fields.get("width", 0)), int(fields.get("height", 0))
    rate = Fraction(fields.get("framerate", "0/1"))
    return RawVideo(
        layout=fields.get("format", "").strip(),
        width=width,
        height=height,
        color=_color(fields.get("colorimetry", ""), width, height),
        frame_rate=rate if rate > 0 else None,
        pixel_aspect=Fraction(fields.get("pixel-aspect-ratio", "1/1")),
    )


def stream_header(video: RawVideo) -> bytes:
    """Return the packets that precede the first frame: start of the stream, format and segment."""
    segment = (
        'GstEventSegment, segment=(GstSegment)"segment, flags=(GstSegmentFlags)GST_SEGMENT_FLAG_NONE, rate=(double)1, '
        "applied-rate=(double)1, format=(GstFormat)time, base=(guint64)0, offset=(guint64)0, start=(guint64)0, "
        f'stop=(guint64){NO_TIME}, time=(guint64)0, position=(guint64)0, duration=(guint64){NO_TIME};";'
    )
    start = (
        "GstEventStreamStart, stream-id=(string)rtseg, flags=(GstStreamFlags)GST_STREAM_FLAG_NONE, group-id=(uint)1;"
    )
    return b"".join(
        write_header(kind, len(text) + 1) + text.encode() + b"\0"
        for kind, text in ((STREAM_START, start), (CAPS, video.caps()), (SEGMENT, segment))
    )


# GstVideoColorimetry, `range:matrix:transfer:primaries` in GStreamer's own numbers, which are not those of H.273.
_NAMED = {
    "bt601": "2:4:16:4",
    "bt709": "2:3:5:1",
    "smpte240m": "2:5:6:5",
    "sRGB": "1:1:7:1",
    "bt2020": "2:6:11:7",
    "bt2020-10": "2:6:13:7",
}
_MATRIX: dict[int, Matrix] = {2: "bt601", 3: "bt709", 4: "bt601", 5: "bt709", 6: "bt2020"}
_SPACE_TAG = {2: 4, 3: 1, 4: 6, 5: 7, 6: 9}
_PRIMARIES_TAG = {1: 1, 2: 4, 3: 5, 4: 6, 5: 7, 6: 8, 7: 9}
_TRANSFER_TAG = {1: 8, 4: 4, 5: 1, 6: 7, 7: 13, 8: 5, 9: 9, 10: 10, 11: 15, 13: 14, 14: 16, 15: 18, 16: 6}


def _color(text: str, width: int, height: int) -> Color:
    numbers = _NAMED.get(text, text).split(":")
    limits, matrix, transfer, primaries = (int(n) for n in numbers) if len(numbers) == 4 else (0, 0, 0, 0)
    return Color(
        matrix=_MATRIX.get(matrix, cast(Matrix, guess_matrix(width, height))),
        full_range=limits == 1,
        space_tag=_SPACE_TAG.get(matrix, 2),
        primaries_tag=_PRIMARIES_TAG.get(primaries, 2),
        transfer_tag=_TRANSFER_TAG.get(transfer, 2),
        range_tag={1: 2, 2: 1}.get(limits, 0),
    )


def _colorimetry(color: Color) -> str:
    """Return the colorimetry of a frame. Missing matrix and range tags are replaced by the values that rtseg uses."""
    limits = 1 if color.full_range else 2
    if color.matrix == "rgb":
        return "1:1:7:1"
    matrix = next((k for k, tag in _SPACE_TAG.items() if tag == color.space_tag), None)
    matrix = matrix or {"bt709": 3, "bt601": 4, "bt2020": 6}[color.matrix]
    transfer = next((k for k, tag in _TRANSFER_TAG.items() if tag == color.transfer_tag), 0)
    primaries = next((k for k, tag in _PRIMARIES_TAG.items() if tag == color.primaries_tag), 0)
    return f"{limits}:{matrix}:{transfer}:{primaries}"


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
