"""Legend and performance numbers (HUD) as small patches, which are drawn once and blended into the planes of each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from rtseg.core.color import rgb_to_planes
from rtseg.core.frame import SUBSAMPLING, Color, PixelFormat, Plane
from rtseg.core.palette import Rgb

FONT = cv2.FONT_HERSHEY_SIMPLEX
CAPITAL_AT_SCALE_1 = 21
"""Height of a capital letter of `FONT` at scale 1, in pixels."""
TEXT: Rgb = (255, 255, 255)
BACKING: Rgb = (18, 18, 22)
OUTLINE: Rgb = (140, 140, 140)
"""Border of the swatches, which keeps dark ones visible on the backing."""
BACKING_OPACITY = 175
"""Opacity of the backing, 0 to 255: white text is legible on white sky, and the street remains visible."""
CAPITAL_SHARE = 1 / 50
"""Height of a capital letter as a share of the shorter side of the frame."""
LEGIBLE_CAPITAL = 8
"""Minimum height in pixels of a capital letter for good legibility. Text is smaller only if the frame has too little space."""
MIN_CAPITAL = 6
"""Minimum height in pixels of a capital letter in `FONT`. Smaller text is drawn at this size and scaled down."""
LEGEND_SHARE = 1 / 2
"""Maximum width of the legend as a share of the frame width."""
MIN_FRAME_SIDE = 16
"""Minimum length in pixels of the shorter side of a frame with legend or performance numbers."""

Entry = tuple[str, Rgb | None]
"""Text of a line, and the color of its swatch if it has one."""


@dataclass(frozen=True)
class Patch:
    """Small image with opacity, in the planes of a frame. Read-only, because threads share it."""

    left: int
    """First column in the frame; even, for chroma alignment."""

    top: int
    """First row in the frame; even."""

    colors: tuple[Plane, ...]
    """Colors multiplied by opacity, uint8, each at the resolution of its plane."""

    frame_weights: tuple[Plane, ...]
    """Weight of the frame below, uint8, 0 to 255, each at the resolution of its plane."""

    subsampling: tuple[int, int]
    """Subsampling of the second and third plane, (horizontal, vertical)."""

    def blend_into(self, planes: Sequence[Plane]) -> None:
        """Blend the patch into planes in place. They must not belong to a decoder."""
        for index, (color, frame_weight) in enumerate(zip(self.colors, self.frame_weights, strict=True)):
            horizontal, vertical = self.subsampling if index else (1, 1)
            top, left = self.top // vertical, self.left // horizontal
            height, width = color.shape
            region = planes[index][top : top + height, left : left + width]
            region[...] = cv2.add(cv2.multiply(region, frame_weight, scale=1 / 255), color)


@lru_cache(maxsize=32)
def hud_patch(
    lines: tuple[str, ...], width: int, height: int, right: int, pixel_format: PixelFormat, color: Color
) -> Patch | None:
    """Draw lines of text for the upper left corner of a frame.

    Args:
        lines: the text; ASCII.
        width: width of the frame in pixels.
        height: height of the frame in pixels. Width and height determine the text size.
        right: first column that is not available, such as that of the legend, or the width of the frame.
        pixel_format, color: those of the frame.

    Returns:
        The patch; None if the frame is too small for text.
    """
    if min(width, height) < MIN_FRAME_SIDE:
        return None
    margin = _margin(width, height)
    space = right - 2 * margin, height - 2 * margin
    layouts = [_Layout([(line, None) for line in lines], capital, 1) for capital in _capitals(width, height)]
    rgb, opacity = _draw_within(layouts, space)
    return _to_patch(rgb, opacity, margin, margin, pixel_format, color)


@lru_cache(maxsize=32)
def legend_patch(
    entries: tuple[Entry, ...], width: int, height: int, left: int, pixel_format: PixelFormat, color: Color
) -> Patch | None:
    """Draw class names and color swatches for the upper right corner of a frame.

    In street video, that corner has trees and sky; the lower corners have cars and pedestrians.

    Args:
        entries: names (ASCII) and colors in display order.
        width: width of the input frame in pixels.
        height: height of the input frame in pixels. Width and height determine the text size and the number of columns.
        left: first column of the annotated half in the rendered frame, even; not 0 in `side-by-side`.
        pixel_format, color: those of the frame.

    Returns:
        The patch; None if there are no entries or the frame is too small for text.
    """
    if not entries or min(width, height) < MIN_FRAME_SIDE:
        return None
    margin = _margin(width, height)
    space = round(width * LEGEND_SHARE) - margin, height - 2 * margin
    layouts = [
        _Layout(entries, capital, columns)
        for capital in _capitals(width, height)
        for columns in range(1, len(entries) + 1)
    ]
    rgb, opacity = _draw_within(layouts, space)
    x = left + width - margin - opacity.shape[1]
    return _to_patch(rgb, opacity, x - x % 2, margin, pixel_format, color)


class _Layout:
    """Layout of text and swatches on a dark backing. All lengths are in pixels."""

    def __init__(self, entries: Sequence[Entry], capital: int, columns: int) -> None:
        """Measure the text, whose capital letters have the height `capital`."""
        self.entries = entries
        self.rows = -(-len(entries) // columns)
        self.line = round(capital * 1.9)
        self.padding = round(capital * 0.7)
        self.swatch = round(capital * 1.3)
        self.capital = capital
        self.scale = capital / CAPITAL_AT_SCALE_1
        self.thickness = max(1, capital // 14)
        self.indent = self.swatch + round(capital * 0.6) if entries[0][1] else 0
        """Distance from the left edge of a column to its text."""
        widths = [cv2.getTextSize(text, FONT, self.scale, self.thickness)[0][0] for text, _ in entries]
        self.column = self.indent + int(max(widths)) + 2 * self.padding
        width, height = columns * self.column, self.rows * self.line + self.padding
        self.size = width + width % 2, height + height % 2
        """(width, height), both even."""

    def draw(self) -> tuple[Plane, Plane]:
        """Return the image, uint8 `[height, width, 3]`, RGB, and its opacity, uint8 `[height, width]`."""
        width, height = self.size
        rgb = np.full((height, width, 3), BACKING, dtype=np.uint8)
        opacity = np.full((height, width), BACKING_OPACITY, dtype=np.uint8)
        for number, (text, color) in enumerate(self.entries):
            x = number // self.rows * self.column + self.padding
            top = number % self.rows * self.line + self.padding // 2
            if color:
                y = top + (self.line - self.swatch) // 2
                rgb[y : y + self.swatch, x : x + self.swatch] = OUTLINE
                rgb[y + 1 : y + self.swatch - 1, x + 1 : x + self.swatch - 1] = color
                opacity[y : y + self.swatch, x : x + self.swatch] = 255
            baseline = (x + self.indent, top + (self.line + self.capital) // 2)
            # The same coverage for color and opacity: anti-aliased edges fade from opaque white into the backing.
            cv2.putText(rgb, text, baseline, FONT, self.scale, TEXT, self.thickness, cv2.LINE_AA)
            cv2.putText(opacity, text, baseline, FONT, self.scale, (255,), self.thickness, cv2.LINE_AA)
        return rgb, opacity


def _capitals(width: int, height: int) -> range:
    """Return the text sizes (heights of a capital letter in pixels), from the preferred to the smallest."""
    preferred = max(LEGIBLE_CAPITAL, round(min(width, height) * CAPITAL_SHARE))
    return range(preferred, MIN_CAPITAL - 1, -1)


def _margin(width: int, height: int) -> int:
    """Return the distance of a patch from the edges of the frame in pixels, even."""
    return min(width, height) // 100 * 2


def _draw_within(layouts: Sequence[_Layout], space: tuple[int, int]) -> tuple[Plane, Plane]:
    """Draw the first layout that fits into the space. If none fits, draw the closest one and scale it down."""
    for layout in layouts:
        if layout.size[0] <= space[0] and layout.size[1] <= space[1]:
            return layout.draw()

    def scale(layout: _Layout) -> float:
        return min(space[0] / layout.size[0], space[1] / layout.size[1])

    best = max(layouts, key=scale)
    width, height = (max(2, int(length * scale(best)) // 2 * 2) for length in best.size)
    rgb, opacity = (cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA) for part in best.draw())
    return rgb, opacity


def _to_patch(rgb: Plane, opacity: Plane, left: int, top: int, pixel_format: PixelFormat, color: Color) -> Patch:
    """Convert an image to the planes of a frame. Its size is even, so that it contains whole chroma samples."""
    horizontal, vertical = SUBSAMPLING[pixel_format]
    height, width = opacity.shape
    plane_values = rgb_to_planes(rgb.reshape(-1, 3), color).reshape(height, width, 3)
    premultiplied = plane_values * (opacity[:, :, None] / np.float32(255))
    colors, frame_weights = [], []
    for index in range(3):
        size = (width // horizontal, height // vertical) if index else (width, height)
        resized = cv2.resize(premultiplied[:, :, index], size, interpolation=cv2.INTER_AREA)
        frame_weight = cv2.resize(255.0 - opacity.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        colors.append(np.rint(resized).astype(np.uint8))
        frame_weights.append(np.rint(frame_weight).astype(np.uint8))
    return Patch(left, top, tuple(colors), tuple(frame_weights), (horizontal, vertical))
