"""Frames as an encoder takes them: even sizes, the encoder's pixel format, and color tags."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter

from rtseg.core.color import guess_matrix
from rtseg.core.errors import SinkError
from rtseg.core.frame import Color, Frame, StreamInfo

_SPACE_TAG = {"bt601": 6, "bt709": 1, "bt2020": 9, "rgb": 1}
_CHROMA_SUBSAMPLING = {"yuv422p": "4:2:2", "yuv444p": "4:4:4", "gbrp": "RGB"}


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """Format of the frames of an encoder."""

    pixel_format: str
    """Pixel format in FFmpeg."""

    rendered_size: tuple[int, int]
    """(width, height) of the rendered frames, pixels."""

    size: tuple[int, int]
    """(width, height) of the encoded frames, pixels: rounded up to even if the pixel format requires it."""

    color: Color
    """Colors of the encoded frames. RGB becomes limited-range BT.709."""

    rate: Fraction
    """Frame rate in Hz, for rate control and for containers with a constant rate. Timestamps do not depend on it."""

    warnings: tuple[str, ...]
    """Messages about changes to the frames, one line each."""

    @classmethod
    def create(cls, info: StreamInfo, size: tuple[int, int], pixel_format: str = "yuv420p") -> FrameFormat:
        """Return the format of the frames of a source that are rendered at `size`, (width, height) in pixels."""
        width, height = size
        warnings = []
        if "420" in pixel_format or pixel_format == "nv12":
            width, height = width + width % 2, height + height % 2
            if info.pixel_format in _CHROMA_SUBSAMPLING:
                warnings.append(
                    f"color of {_CHROMA_SUBSAMPLING[info.pixel_format]} frames stored at half resolution (4:2:0)"
                )
        if (width, height) != size:
            warnings.append(f"{size[0]}x{size[1]} rounded up to {width}x{height} by repeating the edge")
        color = info.color
        # Players guess the matrix of an untagged stream from its size. If the output's size changes the guess, set a tag.
        untagged = color.space_tag == 2 and guess_matrix(width, height) != color.matrix
        rgb = color.matrix == "rgb"
        return cls(
            pixel_format=pixel_format,
            rendered_size=size,
            size=(width, height),
            color=Color(
                matrix="bt709" if rgb else color.matrix,
                full_range=color.full_range and not rgb,
                space_tag=_SPACE_TAG[color.matrix] if untagged or rgb else color.space_tag,
                primaries_tag=color.primaries_tag,
                transfer_tag=color.transfer_tag,
                range_tag=1 if rgb else 2 if color.full_range else color.range_tag,
            ),
            rate=(info.frame_rate or Fraction(25)).limit_denominator(10_000),
            warnings=tuple(warnings),
        )


class FrameFormatter:
    """Converter of rendered frames to the format of an encoder."""

    def __init__(self, frame_format: FrameFormat) -> None:
        self._format = frame_format
        self._buffer: VideoFrame | None = None
        self._reformatter = VideoReformatter()

    def check_size(self, rendered: Frame) -> None:
        """Raise SinkError if a frame has another size than the format."""
        if (rendered.width, rendered.height) != self._format.rendered_size:
            width, height = self._format.rendered_size
            raise SinkError(f"a frame is {rendered.width}x{rendered.height}, the others are {width}x{height}")

    def convert(self, rendered: Frame) -> VideoFrame:
        """Copy a frame to the encoder's buffer, because a decoder may still use the frame's planes for prediction.

        Pads to even sizes by repeating the edge, and converts to the encoder's pixel format. The buffer is used again for the
        next frame unless the encoder keeps it.
        """
        frame_format = self._format
        buffer = self._buffer
        if buffer is None or buffer.format.name != rendered.pixel_format:
            buffer = self._buffer = VideoFrame(*frame_format.size, rendered.pixel_format)
        buffer.make_writable()
        for plane, source in zip(buffer.planes, rendered.planes, strict=True):
            height, width = source.shape
            target = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)  # type: ignore[call-overload]
            target[:height, :width] = source
            if plane.width > width:
                target[:height, width : plane.width] = source[:, -1:]
            if plane.height > height:
                target[height:] = target[height - 1]
        color, rgb = frame_format.color, rendered.pixel_format == "gbrp"
        buffer.colorspace, buffer.color_range = (0, 2) if rgb else (color.space_tag, color.range_tag)
        buffer.color_primaries, buffer.color_trc = color.primaries_tag, color.transfer_tag
        if rendered.pixel_format == frame_format.pixel_format:
            return buffer
        colors = {"dst_colorspace": color.space_tag, "dst_color_range": 1} if rgb else {}
        return self._reformatter.reformat(buffer, format=frame_format.pixel_format, threads=1, **colors)
