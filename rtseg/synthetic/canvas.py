"""Canvas for drawing colors and classes in one step.

The canvas is uint8 `[H, W, 4]`: red, green, blue and the class index. Every shape is drawn into all four channels without
anti-aliasing, so that the class map always matches the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.palette import CAMVID_CLASSES

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
Color = tuple[float, float, float]

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(len(CAMVID_CLASSES))

_SUBPIXEL_BITS = 4
_HAZE_STEPS = 32
_PLAIN_PIXELS = 7.0  # narrower walls are filled with the mean color of their texture


def scaled(color: Color, factor: float) -> Color:
    """Return a color multiplied by a brightness factor, clipped to at most 255."""
    return (min(color[0] * factor, 255.0), min(color[1] * factor, 255.0), min(color[2] * factor, 255.0))


@dataclass
class Texture:
    """RGBA image with mipmap levels, created on first use, which prevent flicker of distant objects."""

    rgba: Image
    ragged: bool = False
    """True for leaves: nearest-neighbor sampling unless enlarged, which is three times as fast without a visible difference."""
    _levels: dict[tuple[int, int], Image] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pierced = bool(cv2.minMaxLoc(cv2.extractChannel(self.rgba, 3))[0] < 128)
        """True if the texture has transparent pixels."""
        r, g, b = cv2.mean(self.rgba)[:3]
        self.mean: Color = (r, g, b)

    def level(self, width: float, height: float) -> Image:
        """Return the mipmap level for a drawn size of `width` x `height` pixels."""
        rows, columns = self.rgba.shape[:2]
        key = (_halvings(columns, width), _halvings(rows, height))
        if key not in self._levels:
            size = (max(columns >> key[0], 2), max(rows >> key[1], 2))
            self._levels[key] = np.asarray(cv2.resize(self.rgba, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        return self._levels[key]


def _halvings(source: int, target: float) -> int:
    """Return the number of times that a length of `source` pixels is halved to be about `target`; at most 6."""
    return min(int(math.log2(max(source / max(target, 1.0), 1.0)) + 0.3), 6)


def fixed(points: Points) -> npt.NDArray[np.int32]:
    """Convert pixel coordinates to OpenCV's fixed-point format, for subpixel motion."""
    return np.rint(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)


@dataclass
class Haze:
    """Atmospheric haze, which blends distant objects with its color."""

    color: Color
    meters: float
    """Distance at which the haze replaces about half of an object's color."""
    _tables: dict[tuple[int, int], Image] = field(default_factory=dict)

    def share(self, depth: float) -> float:
        """Return the share of an object's color that is replaced: 0 near the camera, at most 0.85."""
        return 0.85 * (1.0 - math.exp(-max(depth - 10.0, 0.0) / self.meters))

    def table(self, label: int, step: int) -> Image:
        """Return a lookup table for RGBA that mixes in `step` / 32 of haze and replaces alpha by a class index."""
        if (label, step) not in self._tables:
            k = step / _HAZE_STEPS
            ramp = np.arange(256.0)[:, None] * (1.0 - k) + np.array(self.color) * k
            table = np.full((1, 256, 4), label, dtype=np.uint8)
            table[0, :, :3] = np.rint(ramp)
            self._tables[label, step] = table
        return self._tables[label, step]


@dataclass
class Canvas:
    """Canvas of one frame."""

    pixels: Image
    """uint8 `[H, W, 4]`, modified in place."""
    haze: Haze

    def fill(self, points: Points, color: Color, label: int, depth: float = 0.0) -> None:
        """Fill a convex polygon, float `[N, 2]` in pixels, with a color and a class, at a depth in meters."""
        self.polygons(points, [len(points)], np.array([color]), label, [depth])

    def polygons(
        self, points: Points, ends: Sequence[int], colors: Points, label: int, depths: Sequence[float]
    ) -> None:
        """Fill convex polygons of one class.

        Args:
            points: float `[N, 2]` in pixels, the corners of all polygons.
            ends: end index in `points` of each polygon.
            colors: `[polygons, 3]`.
            label: class index.
            depths: distance of each polygon from the camera in meters, for the haze; a single one is that of all.
        """
        k = np.array([self.haze.share(depth) for depth in depths])[:, None]
        tones = (np.minimum(colors, 255.0) * (1.0 - k) + np.array(self.haze.color) * k).tolist()
        corners = fixed(points)
        start = 0
        for end, (r, g, b) in zip(ends, tones, strict=True):
            cv2.fillConvexPoly(self.pixels, corners[start:end], (r, g, b, label), cv2.LINE_8, _SUBPIXEL_BITS)
            start = end

    def paste(
        self, texture: Texture, quad: Points, label: int, depth: float, span: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        """Draw a texture into a quadrilateral.

        Args:
            texture: the texture. Pixels with an alpha below one half are transparent.
            quad: float `[4, 2]` in pixels: the top left, top right, bottom right and bottom left corners.
            label: class index.
            depth: distance from the camera in meters, for the haze.
            span: horizontal part of the texture that is visible, 0 to 1.
        """
        height, width = self.pixels.shape[:2]
        low_x, low_y = quad.min(axis=0).tolist()
        high_x, high_y = quad.max(axis=0).tolist()
        left, top = max(math.floor(low_x), 0), max(math.floor(low_y), 0)
        right, bottom = min(math.ceil(high_x) + 1, width), min(math.ceil(high_y) + 1, height)
        if right <= left or bottom <= top:
            return
        if high_x - low_x < _PLAIN_PIXELS and not texture.pierced:
            self.fill(quad, texture.mean, label, depth)
            return
        share = max(span[1] - span[0], 1e-3)
        edges = np.abs(quad[:2, 1] - quad[:1:-1, 1])  # heights of the left and right edges
        source = texture.level((high_x - low_x) / share, float(edges.max()))
        rows, columns = source.shape[:2]
        u0, u1 = span[0] * columns - 0.5, span[1] * columns - 0.5
        corners = np.array([[u0, -0.5], [u1, -0.5], [u1, rows - 0.5], [u0, rows - 0.5]], dtype=np.float32)
        to_screen = cv2.getPerspectiveTransform(corners, (quad - (left, top)).astype(np.float32))
        size = (right - left, bottom - top)
        enlarged = high_y - low_y > 1.4 * rows
        interpolation = cv2.INTER_NEAREST if texture.ragged and not enlarged else cv2.INTER_LINEAR
        warped = cv2.warpPerspective(source, to_screen, size, flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
        mask = np.zeros((size[1], size[0]), dtype=np.uint8)
        cv2.fillConvexPoly(mask, fixed(quad - (left, top)), 255, cv2.LINE_8, _SUBPIXEL_BITS)
        if texture.pierced:
            cv2.bitwise_and(mask, cv2.extractChannel(warped, 3), dst=mask)
            cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY, dst=mask)
        step = round(self.haze.share(depth) * _HAZE_STEPS)
        if step == 0:
            cv2.insertChannel(np.full((size[1], size[0]), label, dtype=np.uint8), warped, 3)
        else:
            warped = cv2.LUT(warped, self.haze.table(label, step))
        cv2.copyTo(warped, mask, self.pixels[top:bottom, left:right])
