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
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rtseg.core.color import guess_matrix
from rtseg.core.frame import Color, Matrix, Planes

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
    """Format of raw video (`video/x-raw`) in GStreamer's layout `I420`: three planes, 4:2:0, with rows padded to four bytes."""

    width: int
    height: int
    color: Color
    frame_rate: Fraction | None = None
    """Frames per second; None: unknown or variable."""

    pixel_aspect: Fraction = Fraction(1)
    """Width of a pixel divided by its height."""

    @property
    def size(self) -> int:
        """Length of a frame, bytes."""
        return sum(stride * rows for stride, rows, _, _ in self._layout)

    def planes(self, data: npt.NDArray[np.uint8]) -> Planes:
        """Return the three planes of a frame, as views of its bytes, uint8 `[size]`."""
        planes, offset = [], 0
        for stride, rows, height, width in self._layout:
            planes.append(data[offset : offset + stride * rows].reshape(rows, stride)[:height, :width])
            offset += stride * rows
        return planes[0], planes[1], planes[2]

    def caps(self) -> str:
        """Return the caps of the format as text."""
        rate = self.frame_rate or Fraction(0)
        aspect = self.pixel_aspect
        return (
            f"video/x-raw, format=(string)I420, width=(int){self.width}, height=(int){self.height}, "
            f"framerate=(fraction){rate.numerator}/{rate.denominator}, "
            f"pixel-aspect-ratio=(fraction){aspect.numerator}/{aspect.denominator}, interlace-mode=(string)progressive, "
            f"colorimetry=(string){_colorimetry(self.color)}"
        )

    @property
    def _layout(self) -> list[tuple[int, int, int, int]]:
        """(bytes between rows, rows in memory, height, width) of each plane, as in `gst_video_info_set_format`."""
        half_width, half_height = -(-self.width // 2), -(-self.height // 2)
        chroma = (-(-half_width // 4) * 4, half_height, half_height, half_width)
        return [(-(-self.width // 4) * 4, 2 * half_height, self.height, self.width), chroma, chroma]


def read_caps(text: str) -> RawVideo:
    """Parse caps such as `video/x-raw, ...`.

    Raises:
        ValueError: not raw video in the layout I420.
    """
    fields = dict(re.findall(r"([\w-]+)=(?:\([\w.]+\))?\"?([^,;\"\0]+)", text))
    if not text.startswith("video/x-raw") or "memory:" in text.split(",")[0]:
        raise ValueError(f"the pipeline ends in {text.split(',')[0]}, not in raw video")
    layout, width, height = fields.get("format", "").strip(), int(fields.get("width", 0)), int(fields.get("height", 0))
    if layout != "I420" or width < 1 or height < 1:
        raise ValueError(f"raw video that rtseg does not support: {layout} {width}x{height}")
    rate = Fraction(fields.get("framerate", "0/1"))
    return RawVideo(
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
        matrix=_MATRIX.get(matrix, guess_matrix(width, height)),
        full_range=limits == 1,
        space_tag=_SPACE_TAG.get(matrix, 2),
        primaries_tag=_PRIMARIES_TAG.get(primaries, 2),
        transfer_tag=_TRANSFER_TAG.get(transfer, 2),
        range_tag={1: 2, 2: 1}.get(limits, 0),
    )


def _colorimetry(color: Color) -> str:
    """Return the colorimetry of a frame. Missing matrix and range tags are replaced by the values that rtseg uses."""
    limits = 1 if color.full_range else 2
    matrix = next((k for k, tag in _SPACE_TAG.items() if tag == color.space_tag), None)
    matrix = matrix or {"bt709": 3, "bt601": 4, "bt2020": 6}[color.matrix]
    transfer = next((k for k, tag in _TRANSFER_TAG.items() if tag == color.transfer_tag), 0)
    primaries = next((k for k, tag in _PRIMARIES_TAG.items() if tag == color.primaries_tag), 0)
    return f"{limits}:{matrix}:{transfer}:{primaries}"
