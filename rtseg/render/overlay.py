"""Class map and palette to colored frame, in the frame's own planes.

The palette becomes one lookup table a plane, once per stream. Per frame and plane: table over the small class map,
scaled to the plane's size, blended with the plane into a new one. Blending is affine and so are the YUV matrices:
blending in YUV gives what blending in RGB would give, without the way there and back.
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

"""What is shown: the colored picture, the colors alone, or the picture as it came beside the colored one."""


@dataclass(frozen=True)
class Tables:
    """A palette in the planes of one stream; tables are uint8 `[256]` by class. Read-only: threads share them."""

    solid: tuple[Plane, Plane, Plane]
    """The colors; black where a class is not shown."""

    premultiplied: tuple[Plane, Plane, Plane]
    """The colors times alpha; 0 where a class is not shown."""

    keep: Plane
    """What remains of the picture, 255: all of it."""


class Overlay:
    """Colors frames by class. Holds nothing of a stream but memory: one object may serve several threads at once."""

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
        """Fixes what is shown.

        Args:
            palette: names and colors of the model's classes.
            view: `overlay`, `mask` or `side-by-side`.
            alpha: opacity of the colors, 0 (picture alone) to 1 (colors alone). `mask` does not use it.
            only: indices of the classes to color; None: all. The others stay as they came, in `mask` black.
            legend: whether to list the colored classes in the upper right corner.
            hud: whether to show the lines given to `apply` in the upper left corner.

        Raises:
            OptionError: no such view, alpha out of range, or an index that is no class.
        """
        if view not in get_args(View):
            raise OptionError(f"no view '{view}'; there are {', '.join(get_args(View))}")
        if not 0.0 <= alpha <= 1.0:
            raise OptionError(f"alpha is {alpha:g}; give a number from 0 (picture alone) to 1 (colors alone)")
        rendered = tuple(range(len(palette.classes))) if only is None else tuple(sorted(set(only)))
        if any(not 0 <= index < len(palette.classes) for index in rendered):
            raise OptionError(f"class indices {list(rendered)} must lie between 0 and {len(palette.classes) - 1}")
        self._memory = BufferPool()
        self.palette = palette
        self.view: View = view
        self.alpha = alpha
        self.only = rendered
        self.legend = legend
        self.hud = hud

    def output_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of what `apply` makes of a frame of this size.

        `side-by-side` doubles the width. The second picture begins at an even column, so that its chroma lines up: an
        odd width gets one column more between the two.
        """
        if self.view == "side-by-side":
            return _even(width) + width, height
        return width, height

    def apply(self, frame: Frame, classes: ClassMap, hud_lines: Sequence[str] = ()) -> Frame:
        """The frame as it is shown, in new planes; the given frame is not touched.

        Args:
            frame: the picture.
            classes: its class map, uint8 `[any height, any width]`, of the whole picture. Values that are no class of
                the palette (255 among them) stay uncolored.
            hud_lines: text for the upper left corner; not shown unless `hud` was set.

        Raises:
            ValueError: `classes` is empty or not a two-dimensional uint8 array.
        """
        if classes.dtype != np.uint8 or classes.ndim != 2 or classes.size == 0:
            raise ValueError(f"a class map is uint8 [height, width], not {classes.dtype} {list(classes.shape)}")
        tables = _tables(self.palette, self.alpha, self.only, frame.color)
        planes = self._mask(frame, classes, tables) if self.view == "mask" else self._blend(frame, classes, tables)
        if self.view == "side-by-side":
            planes = [_beside(left, right) for left, right in zip(_padded(frame), planes, strict=True)]
        rendered = frame.with_planes((planes[0], planes[1], planes[2]))
        self.annotate(rendered, frame.width, hud_lines)
        return rendered

    def _blend(self, frame: Frame, classes: ClassMap, tables: Tables) -> list[Plane]:
        """The picture under the colors."""
        covered = len(self.only) == len(self.palette.classes) and int(classes.max()) < len(self.palette.classes)
        planes = []
        for number, plane in enumerate(frame.planes):
            if covered:
                colors = self._scale(cv2.LUT(classes, tables.solid[number]), frame, number)
                blended = cv2.addWeighted(plane, 1.0 - self.alpha, colors, self.alpha, 0.0, dst=colors)
            else:
                colors = self._scale(cv2.LUT(classes, tables.premultiplied[number]), frame, number)
                keep = self._scale(cv2.LUT(classes, tables.keep), frame, number)
                blended = cv2.add(cv2.multiply(plane, keep, dst=keep, scale=1 / 255), colors, dst=colors)
            planes.append(blended)
        return planes

    def _scale(self, small: Plane, frame: Frame, number: int) -> Plane:
        """A small colored map at the size of the frame's plane `number`: an array of its own, smooth, aligned with the luma."""
        across, down = SUBSAMPLING[frame.pixel_format] if number else (1, 1)
        if frame.width % across or frame.height % down:
            return _subsample(self._resize(small, frame.width, frame.height), frame, number)
        return self._resize(small, frame.width // across, frame.height // down)

    def _resize(self, small: Plane, width: int, height: int) -> Plane:
        if small.shape == (height, width):
            return small
        shrinks = small.shape[1] > width and small.shape[0] > height
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(small, (width, height), self._memory.empty(height, width), interpolation=method)  # type: ignore[no-any-return]

    def _mask(self, frame: Frame, classes: ClassMap, tables: Tables) -> list[Plane]:
        """The colors alone, each pixel exactly its class's."""
        full = (resize_classes(cv2.LUT(classes, table), frame.width, frame.height) for table in tables.solid)
        return [_subsample(plane, frame, number) for number, plane in enumerate(full)]

    def annotate(self, rendered: Frame, picture_width: int, hud_lines: Sequence[str] = ()) -> None:
        """Draws legend and numbers, where they were asked for, into a colored frame.

        Args:
            shown: the frame; its planes are written into.
            picture_width: pixels across of the picture alone, at the right of what is shown.
            hud_lines: as `apply` takes them.
        """
        height, width, right = rendered.height, rendered.width, rendered.width
        if self.legend:
            entries = tuple((self.palette.classes[index], self.palette.colors[index]) for index in self.only)
            patch = legend_patch(
                entries, picture_width, height, width - picture_width, rendered.pixel_format, rendered.color
            )
            if patch:
                patch.lay_over(rendered.planes)
                right = patch.left
        if self.hud and hud_lines:
            patch = hud_patch(tuple(hud_lines), picture_width, height, right, rendered.pixel_format, rendered.color)
            if patch:
                patch.lay_over(rendered.planes)

    def weights(self, color: Color) -> npt.NDArray[np.float32]:
        """What `apply` blends with, for one who blends elsewhere: float32 `[4, 256]` by class.

        Rows 0 to 2 are what is added to each plane, 0 to 255; row 3 is the share of the picture that remains, 0 to 1.
        """
        tables = _tables(self.palette, self.alpha, self.only, color)
        return np.stack([*tables.premultiplied, tables.keep / 255.0]).astype(np.float32)


@lru_cache(maxsize=32)
def _tables(palette: Palette, alpha: float, only: tuple[int, ...], color: Color) -> Tables:
    """The palette for frames of one color matrix and range; computed once per stream."""
    rgb = np.zeros((256, 3), dtype=np.uint8)
    rgb[list(only)] = palette.table()[list(only)]
    weight = np.zeros(256)
    weight[list(only)] = alpha
    solid = rgb_to_planes(rgb, color)
    premultiplied = np.rint(solid * weight[:, None]).astype(np.uint8)
    return Tables(_columns(solid), _columns(premultiplied), np.rint(255.0 * (1.0 - weight)).astype(np.uint8))


def _columns(table: Plane) -> tuple[Plane, Plane, Plane]:
    first, second, third = (np.ascontiguousarray(table[:, number]) for number in range(3))
    return first, second, third


def _subsample(full: Plane, frame: Frame, number: int) -> Plane:
    """A full-size array at the size of the frame's plane `number`: chroma samples are means of their pixels."""
    across, down = SUBSAMPLING[frame.pixel_format] if number else (1, 1)
    if (across, down) == (1, 1):
        return full
    height, width = full.shape
    right, bottom = -width % across, -height % down
    if right or bottom:
        full = cv2.copyMakeBorder(full, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    size = (full.shape[1] // across, full.shape[0] // down)
    return cv2.resize(full, size, interpolation=cv2.INTER_AREA)  # type: ignore[no-any-return]


def _padded(frame: Frame) -> list[Plane]:
    """The frame's planes, their last column repeated where that makes the width even."""
    planes = []
    for number, plane in enumerate(frame.planes):
        across = SUBSAMPLING[frame.pixel_format][0] if number else 1
        missing = _even(frame.width) // across - plane.shape[1]
        planes.append(np.pad(plane, ((0, 0), (0, missing)), mode="edge") if missing else plane)
    return planes


def _beside(left: Plane, right: Plane) -> Plane:
    return cv2.hconcat([left, right])  # type: ignore[no-any-return]


def _even(length: int) -> int:
    return length + length % 2
