"""Class map and palette to coloured frame, in the frame's own planes.

The palette becomes one lookup table a plane, once per stream. Per frame and plane: table over the small class map,
scaled to the plane's size, blended with the plane into a new one. Blending is affine and so are the YUV matrices:
blending in YUV gives what blending in RGB would give, without the way there and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.buffer_pool import Recycled
from rtseg.core.color import rgb_to_planes
from rtseg.core.errors import OptionError
from rtseg.core.frame import SUBSAMPLING, ClassMap, Colour, Frame, Plane
from rtseg.core.letterbox import resize_classes
from rtseg.core.palette import Palette
from rtseg.render.annotations import hud_patch, legend_patch

View = Literal["overlay", "mask", "side-by-side"]
"""What is shown: the coloured picture, the colours alone, or the picture as it came beside the coloured one."""


@dataclass(frozen=True)
class Tables:
    """A palette in the planes of one stream; tables are uint8 `[256]` by class. Read-only: threads share them."""

    solid: tuple[Plane, Plane, Plane]
    """The colours; black where a class is not shown."""

    premultiplied: tuple[Plane, Plane, Plane]
    """The colours times alpha; 0 where a class is not shown."""

    keep: Plane
    """What remains of the picture, 255: all of it."""


class Overlay:
    """Colours frames by class. Holds nothing of a stream but memory: one object may serve several threads at once."""

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
            palette: names and colours of the model's classes.
            view: `overlay`, `mask` or `side-by-side`.
            alpha: opacity of the colours, 0 (picture alone) to 1 (colours alone). `mask` does not use it.
            only: indices of the classes to colour; None: all. The others stay as they came, in `mask` black.
            legend: whether to list the coloured classes in the upper right corner.
            hud: whether to show the lines given to `apply` in the upper left corner.

        Raises:
            OptionError: no such view, alpha out of range, or an index that is no class.
        """
        if view not in get_args(View):
            raise OptionError(f"no view '{view}'; there are {', '.join(get_args(View))}")
        if not 0.0 <= alpha <= 1.0:
            raise OptionError(f"alpha is {alpha:g}; give a number from 0 (picture alone) to 1 (colours alone)")
        shown = tuple(range(len(palette.classes))) if only is None else tuple(sorted(set(only)))
        if any(not 0 <= index < len(palette.classes) for index in shown):
            raise OptionError(f"class indices {list(shown)} must lie between 0 and {len(palette.classes) - 1}")
        self._memory = Recycled()
        self.palette = palette
        self.view: View = view
        self.alpha = alpha
        self.only = shown
        self.legend = legend
        self.hud = hud

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
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
                the palette (255 among them) stay uncoloured.
            hud_lines: text for the upper left corner; not shown unless `hud` was set.

        Raises:
            ValueError: `classes` is empty or not a two-dimensional uint8 array.
        """
        if classes.dtype != np.uint8 or classes.ndim != 2 or classes.size == 0:
            raise ValueError(f"a class map is uint8 [height, width], not {classes.dtype} {list(classes.shape)}")
        tables = _tables(self.palette, self.alpha, self.only, frame.colour)
        planes = self._mask(frame, classes, tables) if self.view == "mask" else self._blend(frame, classes, tables)
        if self.view == "side-by-side":
            planes = [_beside(left, right) for left, right in zip(_padded(frame), planes, strict=True)]
        shown = frame.with_planes((planes[0], planes[1], planes[2]))
        self.annotate(shown, frame.width, hud_lines)
        return shown

    def _blend(self, frame: Frame, classes: ClassMap, tables: Tables) -> list[Plane]:
        """The picture under the colours."""
        covered = len(self.only) == len(self.palette.classes) and int(classes.max()) < len(self.palette.classes)
        planes = []
        for number, plane in enumerate(frame.planes):
            if covered:
                colours = self._scale(cv2.LUT(classes, tables.solid[number]), frame, number)
                blended = cv2.addWeighted(plane, 1.0 - self.alpha, colours, self.alpha, 0.0, dst=colours)
            else:
                colours = self._scale(cv2.LUT(classes, tables.premultiplied[number]), frame, number)
                keep = self._scale(cv2.LUT(classes, tables.keep), frame, number)
                blended = cv2.add(cv2.multiply(plane, keep, dst=keep, scale=1 / 255), colours, dst=colours)
            planes.append(blended)
        return planes

    def _scale(self, small: Plane, frame: Frame, number: int) -> Plane:
        """A small coloured map at the size of the frame's plane `number`: an array of its own, smooth, aligned with the luma."""
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
        """The colours alone, each pixel exactly its class's."""
        full = (resize_classes(cv2.LUT(classes, table), frame.width, frame.height) for table in tables.solid)
        return [_subsample(plane, frame, number) for number, plane in enumerate(full)]

    def annotate(self, shown: Frame, picture_width: int, hud_lines: Sequence[str] = ()) -> None:
        """Draws legend and numbers, where they were asked for, into a coloured frame.

        Args:
            shown: the frame; its planes are written into.
            picture_width: pixels across of the picture alone, at the right of what is shown.
            hud_lines: as `apply` takes them.
        """
        height, width, right = shown.height, shown.width, shown.width
        if self.legend:
            entries = tuple((self.palette.classes[index], self.palette.colours[index]) for index in self.only)
            patch = legend_patch(
                entries, picture_width, height, width - picture_width, shown.pixel_format, shown.colour
            )
            if patch:
                patch.lay_over(shown.planes)
                right = patch.left
        if self.hud and hud_lines:
            patch = hud_patch(tuple(hud_lines), picture_width, height, right, shown.pixel_format, shown.colour)
            if patch:
                patch.lay_over(shown.planes)

    def weights(self, colour: Colour) -> npt.NDArray[np.float32]:
        """What `apply` blends with, for one who blends elsewhere: float32 `[4, 256]` by class.

        Rows 0 to 2 are what is added to each plane, 0 to 255; row 3 is the share of the picture that remains, 0 to 1.
        """
        tables = _tables(self.palette, self.alpha, self.only, colour)
        return np.stack([*tables.premultiplied, tables.keep / 255.0]).astype(np.float32)


@lru_cache(maxsize=32)
def _tables(palette: Palette, alpha: float, only: tuple[int, ...], colour: Colour) -> Tables:
    """The palette for frames of one colour matrix and range; computed once per stream."""
    rgb = np.zeros((256, 3), dtype=np.uint8)
    rgb[list(only)] = palette.table()[list(only)]
    weight = np.zeros(256)
    weight[list(only)] = alpha
    solid = rgb_to_planes(rgb, colour)
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
