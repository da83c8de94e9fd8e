"""Conversion of decoded frames to the planes of a `Frame`: 8 bits, three planes, upright, one size for the whole stream."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
from av import VideoFrame
from av.sidedata.sidedata import Type as SideDataType
from av.video.format import VideoFormat
from av.video.reformatter import VideoReformatter

from rtseg.core.color import guess_matrix
from rtseg.core.frame import SUBSAMPLING, Color, Matrix, PixelFormat, Plane
from rtseg.gpu.gpu_frame import in_gpu_memory, software_layout

_MATRIX: dict[int, Matrix] = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020", 10: "bt2020"}
"""Matrix for each H.273 MatrixCoefficients value. FCC (4) and SMPTE 240M (7) differ from theirs by a few levels."""

_TRANSFER = {16: "HDR10 (PQ)", 18: "HLG"}
_RESAMPLING = 0x4 | 0x2000 | 0x40000
"""FFmpeg's SWS_BICUBIC, SWS_FULL_CHR_H_INT and SWS_ACCURATE_RND; PyAV has names for all from 18.0 on."""


class Orientation(NamedTuple):
    """Transform that makes a coded frame upright: first a transpose, then flips."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def describe(self) -> str:
        """Return a human-readable description; empty for the identity."""
        return {
            (False, False, False): "",
            (False, True, True): "turned by 180 degrees",
            (True, True, False): "turned by 90 degrees clockwise",
            (True, False, True): "turned by 90 degrees counterclockwise",
            (False, True, False): "mirrored left to right",
            (False, False, True): "mirrored top to bottom",
            (True, False, False): "mirrored left to right and turned by 90 degrees counterclockwise",
            (True, True, True): "mirrored left to right and turned by 90 degrees clockwise",
        }[self]

    def apply(self, plane: Plane) -> Plane:
        """Return the plane upright and contiguous."""
        if self.transpose:
            plane = plane.T
        if self.flip_x:
            plane = plane[:, ::-1]
        if self.flip_y:
            plane = plane[::-1]
        return np.ascontiguousarray(plane)


UPRIGHT = Orientation()

_BY_ROTATION = {
    0: UPRIGHT,
    90: Orientation(True, False, True),
    180: Orientation(False, True, True),
    270: Orientation(True, True, False),
}
"""Orientation by degrees counterclockwise, as PyAV returns them."""


def orientation_of(frame: VideoFrame) -> Orientation | None:
    """Return the orientation of a frame's display matrix; None: its angle is not a multiple of 90 degrees.

    The matrix is nine 32-bit integers, `x' = a x + c y`, `y' = b x + d y` (FFmpeg's display.h).
    """
    try:
        side_data: Any = frame.side_data  # Its type differs between PyAV versions; all support access by key.
        data = side_data[SideDataType.DISPLAYMATRIX]
    except KeyError:
        return UPRIGHT
    except ValueError:
        # PyAV 18 does not support EXIF side data (FFmpeg 8's AV_FRAME_DATA_EXIF), and then returns no side data.
        return _BY_ROTATION.get(int(frame.rotation) % 360)
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    if b == 0 and c == 0 and a and d:
        return Orientation(False, a < 0, d < 0)
    if a == 0 and d == 0 and b and c:
        return Orientation(True, c < 0, b < 0)
    return None


def target_format(layout: VideoFormat, transposed: bool) -> PixelFormat:
    """Return the `Frame` format that loses least of `layout`: the same chroma resolution, or the next finer one."""
    if _is_rgb(layout):
        return "yuv444p"
    if len(layout.components) <= 2:
        return "yuv420p"
    chroma = layout.components[1]
    across, down = chroma.width < layout.width, chroma.height < layout.height
    if across and down:
        return "yuv420p"
    return "yuv422p" if across and not transposed else "yuv444p"


@dataclass(frozen=True, slots=True)
class FrameConverter:
    """Converter from decoded frames to planes of one size and format, set by the first frame of the stream."""

    width: int
    """Coded width in pixels, before `orientation`."""

    height: int
    """Coded height in pixels, before `orientation`."""

    pixel_format: PixelFormat
    color: Color
    orientation: Orientation
    notes: tuple[str, ...]
    """Remarks about the conversion for the user, for `StreamInfo.notes`."""

    _reformatter: VideoReformatter = field(default_factory=VideoReformatter, repr=False)
    # One for all frames: to set up swscale and its threads for each frame costs more than the conversion.

    @classmethod
    def of(cls, first: VideoFrame) -> FrameConverter:
        """Return the converter for the stream that starts with `first`."""
        notes = []
        orientation = orientation_of(first)
        if orientation is None:
            orientation = UPRIGHT
            notes.append("the display matrix turns by an angle that is no multiple of 90 degrees: not applied")
        elif orientation != UPRIGHT:
            notes.append(orientation.describe())
        layout = software_layout(first)
        pixel_format = target_format(layout, orientation.transpose)
        color = _color_of(first)
        if _is_rgb(layout):
            standard = "BT.709" if color.matrix == "bt709" else "BT.601"
            notes.append(f"{layout.name} frames converted to YUV 4:4:4 ({standard}, limited range)")
        elif max(component.bits for component in layout.components) > 8:
            notes.append(f"{layout.name} reduced to 8 bits, matrix, range and transfer unchanged")
        if first.color_trc in _TRANSFER:
            notes.append(
                f"{_TRANSFER[first.color_trc]} kept as coded, not tone-mapped: the model gets a low-contrast image"
            )
        if len(layout.components) == 4 or layout.name == "pal8":
            notes.append("transparency ignored")
        if first.interlaced_frame:
            notes.append("interlaced frames are processed whole, not deinterlaced")
        return cls(first.width, first.height, pixel_format, color, orientation, tuple(notes))

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the planes that `read` returns."""
        return (self.height, self.width) if self.orientation.transpose else (self.width, self.height)

    def fits(self, frame: VideoFrame) -> bool:
        """Return whether `frame` has the size of the first frame; otherwise `read` stretches it."""
        return (frame.width, frame.height) == (self.width, self.height)

    def needs_no_change(self, frame: VideoFrame) -> bool:
        """Return whether a frame needs no stretching, rotation, or planes other than 4:2:0."""
        return self.orientation == UPRIGHT and self.pixel_format == "yuv420p" and self.fits(frame)

    def read(self, frame: VideoFrame) -> tuple[Plane, Plane, Plane]:
        """Return the planes of `frame`, upright: views of the decoder's memory if no conversion was needed."""
        planes = self._coded_planes(frame)
        if self.orientation == UPRIGHT:
            return planes
        y, u, v = (self.orientation.apply(plane) for plane in planes)
        return y, u, v

    def _coded_planes(self, frame: VideoFrame) -> tuple[Plane, Plane, Plane]:
        if in_gpu_memory(frame):
            frame = self._convert(frame, self.pixel_format)  # PyAV copies it to CPU memory first
        if len(frame.format.components) <= 2 and not frame.format.has_palette:
            return self._gray_planes(frame)
        # swscale converts all other formats, and keeps matrix and range.
        has_format = frame.format.name.replace("yuvj", "yuv") == self.pixel_format
        if not (has_format and self.fits(frame) and all(plane.line_size > 0 for plane in frame.planes)):
            colors: dict[str, int] = {}
            if _is_rgb(frame.format):
                colors = {"dst_colorspace": 1 if self.color.matrix == "bt709" else 5, "dst_color_range": 1}
            elif frame.format.name.startswith("yuvj"):
                # YUV with the range in its name; by default swscale converts it to limited range.
                colors = {"src_color_range": 2, "dst_color_range": 2}
            frame = self._convert(frame, self.pixel_format, **colors)
        y, u, v = (_view(frame, number) for number in range(3))
        return y, u, v

    def _convert(self, frame: VideoFrame, layout: str, **colors: int) -> VideoFrame:
        return self._reformatter.reformat(
            frame, self.width, self.height, layout, interpolation=_RESAMPLING, threads=1, **colors
        )

    def _gray_planes(self, frame: VideoFrame) -> tuple[Plane, Plane, Plane]:
        if frame.format.name != "gray" or not self.fits(frame):
            frame = self._convert(frame, "gray")
        across, down = SUBSAMPLING[self.pixel_format]
        neutral = np.full((-(-self.height // down), -(-self.width // across)), 128, np.uint8)
        return _view(frame, 0), neutral, neutral


def _is_rgb(layout: VideoFormat) -> bool:
    return layout.is_rgb or layout.has_palette or layout.is_bayer


def _view(frame: VideoFrame, number: int) -> Plane:
    # The array keeps the plane alive, the plane its frame, the frame its buffer.
    plane = frame.planes[number]
    rows = np.frombuffer(cast(bytes, plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


def _color_of(frame: VideoFrame) -> Color:
    guess = guess_matrix(frame.width, frame.height)
    layout = software_layout(frame)
    if _is_rgb(layout):
        return Color(guess, False, 1 if guess == "bt709" else 6, frame.color_primaries, frame.color_trc, 1)
    full_range = frame.color_range == 2 or layout.name.startswith("yuvj")
    return Color(
        matrix=_MATRIX.get(frame.colorspace, guess),
        full_range=full_range,
        space_tag=frame.colorspace,
        primaries_tag=frame.color_primaries,
        transfer_tag=frame.color_trc,
        range_tag=2 if full_range else frame.color_range,
    )
