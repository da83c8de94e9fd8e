"""Legend and numbers burned into the picture: small patches, drawn once and laid over each frame's own planes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from rtseg.core.color import rgb_to_planes
from rtseg.core.frame import SUBSAMPLING, Color, PixelFormat, Plane
from rtseg.core.palette import Rgb

FONT = cv2.FONT_HERSHEY_SIMPLEX
CAPITAL_AT_SCALE_1 = 21
"""Pixels of a capital letter of `FONT` at scale 1."""
TEXT: Rgb = (255, 255, 255)
BACKING: Rgb = (18, 18, 22)
OUTLINE: Rgb = (140, 140, 140)
"""Around swatches: a dark one would drown in the backing."""
BACKING_OPACITY = 175
"""Of 255. White text stands out over a white sky, and the street still shows through."""
CAPITAL_SHARE = 1 / 50
"""Height of a capital letter as a share of the picture's shorter side."""
LEGIBLE_CAPITAL = 8
"""Pixels of a capital letter below which text is hard to read; it gets smaller only where the picture has no room."""
SMALLEST_CAPITAL = 6
"""Pixels of a capital letter below which the font falls apart: smaller text is drawn at this size and shrunk."""
LEGEND_SHARE = 1 / 2
"""The share of the picture's width that a legend may take at most."""
SMALLEST_PICTURE = 16
"""Pixels; a picture with a shorter side than this gets neither legend nor numbers."""

Entry = tuple[str, Rgb | None]
"""A line of text, and the color of the swatch before it."""


@dataclass(frozen=True)
class Patch:
    """A small picture with opacity, in the planes of the frames that it is laid over. Read-only: threads share it."""

    left: int
    """Its first column in the frame; even, so that its chroma lines up."""

    top: int
    """Its first row in the frame; even."""

    colors: tuple[Plane, ...]
    """uint8, multiplied by opacity, each at its plane's resolution."""

    keep: tuple[Plane, ...]
    """uint8, what remains of the picture below; 255: all of it."""

    subsampling: tuple[int, int]
    """Of the second and third plane, (across, down)."""

    def lay_over(self, planes: Sequence[Plane]) -> None:
        """Blends the patch into `planes`, in place: they must be the caller's own, never a decoder's."""
        for number, (color, keep) in enumerate(zip(self.colors, self.keep, strict=True)):
            across, down = self.subsampling if number else (1, 1)
            top, left = self.top // down, self.left // across
            height, width = color.shape
            below = planes[number][top : top + height, left : left + width]
            below[...] = cv2.add(cv2.multiply(below, keep, scale=1 / 255), color)


@lru_cache(maxsize=32)
def hud_patch(
    lines: tuple[str, ...], width: int, height: int, right: int, pixel_format: PixelFormat, color: Color
) -> Patch | None:
    """Lines of text for the upper left corner of a frame.

    Args:
        lines: the text; ASCII.
        width: of the picture, pixels.
        height: of the picture, pixels. The text's size follows from both.
        right: first column that is taken by something else, such as the legend, or the frame's width; pixels.
        pixel_format: of the frame.
        color: of the frame.

    Returns:
        The patch; None where the picture is too small for any text.
    """
    if min(width, height) < SMALLEST_PICTURE:
        return None
    margin = _margin(width, height)
    room = right - 2 * margin, height - 2 * margin
    layouts = [_Layout(tuple((line, None) for line in lines), capital, 1) for capital in _capitals(width, height)]
    rgb, opacity = _draw_within(layouts, room)
    return _to_patch(rgb, opacity, margin, margin, pixel_format, color)


@lru_cache(maxsize=32)
def legend_patch(
    entries: tuple[Entry, ...], width: int, height: int, left: int, pixel_format: PixelFormat, color: Color
) -> Patch | None:
    """Class names beside swatches of their colors, for the upper right corner of a picture.

    There a street has its trees and sky; the lower corners have its cars and pedestrians.

    Args:
        entries: names (ASCII) and colors, in the order they are listed.
        width: of the picture, pixels.
        height: of the picture, pixels. The text's size follows from both; more columns where one is too high.
        left: where the picture begins in the frame, pixels, even; not 0 in `side-by-side`.
        pixel_format: of the frame.
        color: of the frame.

    Returns:
        The patch; None where nothing is listed or the picture is too small for any text.
    """
    if not entries or min(width, height) < SMALLEST_PICTURE:
        return None
    margin = _margin(width, height)
    room = round(width * LEGEND_SHARE) - margin, height - 2 * margin
    layouts = [
        _Layout(entries, capital, columns)
        for capital in _capitals(width, height)
        for columns in range(1, len(entries) + 1)
    ]
    rgb, opacity = _draw_within(layouts, room)
    x = left + width - margin - opacity.shape[1]
    return _to_patch(rgb, opacity, x - x % 2, margin, pixel_format, color)


@dataclass(frozen=True)
class _Layout:
    """Where text and swatches lie on a dark backing; all lengths in pixels."""

    entries: tuple[Entry, ...]
    capital: int
    columns: int

    @property
    def rows(self) -> int:
        return -(-len(self.entries) // self.columns)

    @property
    def line(self) -> int:
        return round(self.capital * 1.9)

    @property
    def padding(self) -> int:
        return round(self.capital * 0.7)

    @property
    def swatch(self) -> int:
        return round(self.capital * 1.3)

    @property
    def thickness(self) -> int:
        return max(1, self.capital // 14)

    @property
    def indent(self) -> int:
        """From a column's left edge to its text."""
        return self.swatch + round(self.capital * 0.6) if self.entries[0][1] else 0

    @property
    def column(self) -> int:
        """Width of a column, without the padding around it."""
        return self.indent + max(_text_width(text, self.capital, self.thickness) for text, _ in self.entries)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), both even."""
        width = self.columns * (self.column + 2 * self.padding)
        height = self.rows * self.line + self.padding
        return width + width % 2, height + height % 2

    def draw(self) -> tuple[Plane, Plane]:
        """The picture, uint8 `[height, width, 3]`, RGB, and its opacity, uint8 `[height, width]`."""
        width, height = self.size
        rgb = np.full((height, width, 3), BACKING, dtype=np.uint8)
        opacity = np.full((height, width), BACKING_OPACITY, dtype=np.uint8)
        for number, (text, color) in enumerate(self.entries):
            x = number // self.rows * (self.column + 2 * self.padding) + self.padding
            top = number % self.rows * self.line + self.padding // 2
            if color:
                y = top + (self.line - self.swatch) // 2
                rgb[y : y + self.swatch, x : x + self.swatch] = OUTLINE
                rgb[y + 1 : y + self.swatch - 1, x + 1 : x + self.swatch - 1] = color
                opacity[y : y + self.swatch, x : x + self.swatch] = 255
            baseline = (x + self.indent, top + (self.line + self.capital) // 2)
            # One coverage for both: the letters' smooth edges fade from opaque white into the backing.
            scale = self.capital / CAPITAL_AT_SCALE_1
            cv2.putText(rgb, text, baseline, FONT, scale, TEXT, self.thickness, cv2.LINE_AA)
            cv2.putText(opacity, text, baseline, FONT, scale, (255,), self.thickness, cv2.LINE_AA)
        return rgb, opacity


def _capitals(width: int, height: int) -> Iterator[int]:
    """Text sizes to try, the right one first, in pixels of a capital letter."""
    right = max(LEGIBLE_CAPITAL, round(min(width, height) * CAPITAL_SHARE))
    return iter(range(right, SMALLEST_CAPITAL - 1, -1))


def _margin(width: int, height: int) -> int:
    """Distance of a patch from the picture's edges, pixels, even."""
    return min(width, height) // 100 * 2


def _text_width(text: str, capital: int, thickness: int) -> int:
    return int(cv2.getTextSize(text, FONT, capital / CAPITAL_AT_SCALE_1, thickness)[0][0])


def _draw_within(layouts: Sequence[_Layout], room: tuple[int, int]) -> tuple[Plane, Plane]:
    """Draws the first layout that has room; where none has, the one that needs to be shrunk least, shrunk."""
    for layout in layouts:
        if layout.size[0] <= room[0] and layout.size[1] <= room[1]:
            return layout.draw()

    def scale(layout: _Layout) -> float:
        return min(room[0] / layout.size[0], room[1] / layout.size[1])

    best = max(layouts, key=scale)
    width, height = (max(2, int(length * scale(best)) // 2 * 2) for length in best.size)
    rgb, opacity = (cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA) for part in best.draw())
    return rgb, opacity


def _to_patch(rgb: Plane, opacity: Plane, left: int, top: int, pixel_format: PixelFormat, color: Color) -> Patch:
    """A drawing in a frame's planes. Its size is even, so that no chroma sample lies half outside."""
    across, down = SUBSAMPLING[pixel_format]
    height, width = opacity.shape
    in_planes = rgb_to_planes(rgb.reshape(-1, 3), color).reshape(height, width, 3)
    premultiplied = in_planes * (opacity[:, :, None] / np.float32(255))
    colors, keeps = [], []
    for number in range(3):
        size = (width // across, height // down) if number else (width, height)
        resized = cv2.resize(premultiplied[:, :, number], size, interpolation=cv2.INTER_AREA)
        keep = cv2.resize(255.0 - opacity.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        colors.append(np.rint(resized).astype(np.uint8))
        keeps.append(np.rint(keep).astype(np.uint8))
    return Patch(left, top, tuple(colors), tuple(keeps), (across, down))
