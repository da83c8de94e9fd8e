"""Overlay of class colors on a frame, computed in the planes of the frame.

The palette is converted to one lookup table per plane, once per stream. For each frame and plane, the table is applied to the
small class map, and the result is scaled to the size of the plane and blended with it into a new plane. Blending and the YUV
matrices are affine, so blending in YUV is equivalent to blending in RGB and needs no conversion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.buffer_pool import BufferPool
from rtseg.core.choices import View
from rtseg.core.color import rgb_to_planes
from rtseg.core.errors import OptionError
from rtseg.core.frame import SUBSAMPLING, ClassMap, Color, Frame, Plane
from rtseg.core.letterbox import resize_classes
from rtseg.core.palette import Palette
from rtseg.render.annotations import hud_patch, legend_patch


@dataclass(frozen=True)
class Tables:
    """Lookup tables of a palette for one stream by plane and class, uint8. Read-only, because threads share them."""

    solid: Plane
    """Colors, `[3, 256]`; black for hidden classes."""

    premultiplied: Plane
    """Colors times alpha, `[3, 256]`; 0 for hidden classes."""

    frame_weight: Plane
    """Weight of the frame, `[256]`, 0 to 255; 255 for hidden classes."""


class Overlay:
    """Renderer of class colors on frames. It has no state of a stream except buffers, and is thread-safe."""

    def __init__(
        self,
        palette: Palette,
        *,
        view: View = "overlay",
        alpha: float = 0.5,
        only: Sequence[int] | None = None,
        legend: bool = False,
        hud: bool = False,
    ) -> None:
        """Create a renderer.

        Args:
            palette: names and colors of the model's classes.
            view: `overlay`, `mask` or `side-by-side`.
            alpha: opacity of the colors, 0 (frame only) to 1 (colors only). Not used in the view `mask`.
            only: indices of the classes to color; None means all. Pixels of other classes are not changed, or black in `mask`.
            legend: list the colored classes in the upper right corner.
            hud: draw the text that is passed to `apply` in the upper left corner.

        Raises:
            OptionError: the view is unknown, alpha is out of range, or an index is not a class.
        """
        if view not in get_args(View):
            raise OptionError(f"no view '{view}'; there are {', '.join(get_args(View))}")
        if not 0.0 <= alpha <= 1.0:
            raise OptionError(f"alpha is {alpha:g}; give a number from 0 (frame only) to 1 (colors only)")
        colored = tuple(range(len(palette.classes))) if only is None else tuple(sorted(set(only)))
        if any(not 0 <= index < len(palette.classes) for index in colored):
            raise OptionError(f"class indices {list(colored)} must be between 0 and {len(palette.classes) - 1}")
        self._buffers = BufferPool()
        self.palette = palette
        self.view: View = view
        self.alpha = alpha
        self.only = colored
        self.legend = legend
        self.hud = hud

    def output_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) of the rendered frame for an input frame of a size.

        `side-by-side` doubles the width. The right half begins at an even column for chroma alignment: an odd width is padded
        by one column.
        """
        return (_even(width) + width if self.view == "side-by-side" else width), height

    def apply(self, frame: Frame, classes: ClassMap, hud_lines: Sequence[str] = ()) -> Frame:
        """Render a frame into new planes. The input frame is not modified.

        Args:
            frame: the input frame.
            classes: class map of the whole frame at any resolution, uint8 `[rows, columns]`. Values that are not a class of
                the palette, such as 255, are not colored.
            hud_lines: text for the upper left corner; ignored unless `hud` is set.

        Returns:
            The rendered frame, of the size `output_size`.

        Raises:
            ValueError: `classes` is empty or not a two-dimensional uint8 array.
        """
        if classes.dtype != np.uint8 or classes.ndim != 2 or classes.size == 0:
            raise ValueError(f"a class map is uint8 [height, width], not {classes.dtype} {list(classes.shape)}")
        tables = _tables(self.palette, self.alpha, self.only, frame.color)
        planes = self._mask(frame, classes, tables) if self.view == "mask" else self._blend(frame, classes, tables)
        if self.view == "side-by-side":
            planes = [cv2.hconcat([left, right]) for left, right in zip(_padded(frame), planes, strict=True)]
        rendered = frame.with_planes((planes[0], planes[1], planes[2]))
        self.annotate(rendered, frame.width, hud_lines)
        return rendered

    def _blend(self, frame: Frame, classes: ClassMap, tables: Tables) -> list[Plane]:
        """Return the planes of the frame blended with the class colors."""
        all_colored = len(self.only) == len(self.palette.classes) and int(classes.max()) < len(self.palette.classes)
        planes = []
        for index, plane in enumerate(frame.planes):
            if all_colored:
                colors = self._scale(cv2.LUT(classes, tables.solid[index]), frame, index)
                blended = cv2.addWeighted(plane, 1.0 - self.alpha, colors, self.alpha, 0.0, dst=colors)
            else:
                colors = self._scale(cv2.LUT(classes, tables.premultiplied[index]), frame, index)
                weight = self._scale(cv2.LUT(classes, tables.frame_weight), frame, index)
                blended = cv2.add(cv2.multiply(plane, weight, dst=weight, scale=1 / 255), colors, dst=colors)
            planes.append(blended)
        return planes

    def _scale(self, small: Plane, frame: Frame, index: int) -> Plane:
        """Return a small map of plane values, interpolated to the size of plane `index` and aligned with the luma."""
        horizontal, vertical = SUBSAMPLING[frame.pixel_format] if index else (1, 1)
        if frame.width % horizontal or frame.height % vertical:
            return _subsample(self._resize(small, frame.width, frame.height), frame, index)
        return self._resize(small, frame.width // horizontal, frame.height // vertical)

    def _resize(self, small: Plane, width: int, height: int) -> Plane:
        if small.shape == (height, width):
            return small
        shrinks = small.shape[1] > width and small.shape[0] > height
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(small, (width, height), self._buffers.empty(height, width), interpolation=method)  # type: ignore[no-any-return]

    def _mask(self, frame: Frame, classes: ClassMap, tables: Tables) -> list[Plane]:
        """Return planes with the class colors only, without interpolation."""
        full = (resize_classes(cv2.LUT(classes, table), frame.width, frame.height) for table in tables.solid)
        return [_subsample(plane, frame, index) for index, plane in enumerate(full)]

    def annotate(self, rendered: Frame, frame_width: int, hud_lines: Sequence[str] = ()) -> None:
        """Draw the legend and the performance numbers into a rendered frame in place, if they are enabled.

        `frame_width` is the width in pixels of the input frame, which is the right part of the rendered frame.
        """
        height, width, right = rendered.height, rendered.width, rendered.width
        if self.legend:
            entries = tuple((self.palette.classes[index], self.palette.colors[index]) for index in self.only)
            patch = legend_patch(
                entries, frame_width, height, width - frame_width, rendered.pixel_format, rendered.color
            )
            if patch:
                patch.blend_into(rendered.planes)
                right = patch.left
        if self.hud and hud_lines:
            patch = hud_patch(tuple(hud_lines), frame_width, height, right, rendered.pixel_format, rendered.color)
            if patch:
                patch.blend_into(rendered.planes)

    def weights(self, color: Color) -> npt.NDArray[np.float32]:
        """Return the blending weights by class for the GPU, float32 `[4, 256]`.

        Rows 0 to 2 are added to each plane, 0 to 255; row 3 is the weight of the frame, 0 to 1.
        """
        tables = _tables(self.palette, self.alpha, self.only, color)
        return np.stack([*tables.premultiplied, tables.frame_weight / 255.0]).astype(np.float32)


@lru_cache(maxsize=32)
def _tables(palette: Palette, alpha: float, only: tuple[int, ...], color: Color) -> Tables:
    """Return the lookup tables for frames of one color matrix and range, computed once per stream."""
    rgb = np.zeros((256, 3), dtype=np.uint8)
    rgb[list(only)] = palette.table()[list(only)]
    weight = np.zeros(256)
    weight[list(only)] = alpha
    solid = np.ascontiguousarray(rgb_to_planes(rgb, color).T)
    premultiplied = np.rint(solid * weight).astype(np.uint8)
    return Tables(solid, premultiplied, np.rint(255.0 * (1.0 - weight)).astype(np.uint8))


def _subsample(full: Plane, frame: Frame, index: int) -> Plane:
    """Reduce a full-size array to the size of plane `index`: a chroma sample is the mean of its pixels."""
    horizontal, vertical = SUBSAMPLING[frame.pixel_format] if index else (1, 1)
    if (horizontal, vertical) == (1, 1):
        return full
    height, width = full.shape
    right, bottom = -width % horizontal, -height % vertical
    if right or bottom:
        full = cv2.copyMakeBorder(full, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    size = (full.shape[1] // horizontal, full.shape[0] // vertical)
    return cv2.resize(full, size, interpolation=cv2.INTER_AREA)  # type: ignore[no-any-return]


def _padded(frame: Frame) -> list[Plane]:
    """Return the planes of a frame, with an odd width made even by repeating the last column."""
    planes = []
    for index, plane in enumerate(frame.planes):
        horizontal = SUBSAMPLING[frame.pixel_format][0] if index else 1
        missing = _even(frame.width) // horizontal - plane.shape[1]
        planes.append(np.pad(plane, ((0, 0), (0, missing)), mode="edge") if missing else plane)
    return planes


def _even(length: int) -> int:
    return length + length % 2
