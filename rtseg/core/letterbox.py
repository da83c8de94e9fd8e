"""The way from a frame to the network's input and back: scaled to fit, never distorted unless asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.buffer_pool import BufferPool
from rtseg.core.choices import Fit
from rtseg.core.color import yuv_to_rgb_matrix
from rtseg.core.frame import ClassMap, Frame

PADDING = 114
"""Gray of the bars, near the mean of street pictures; what the network says there is never used."""


@dataclass(frozen=True)
class Letterbox:
    """Where a picture of one size lies in the network's input of another."""

    source_size: tuple[int, int]
    """(width, height) of the frames, pixels."""

    input_size: tuple[int, int]
    """(width, height) of the network's input, pixels."""

    fit: Fit = "letterbox"
    """`letterbox` keeps the aspect and pads; `stretch` fills the input."""

    pixel_aspect: float = 1.0
    """Width of a source pixel divided by its height; the network sees square pixels."""

    _memory: BufferPool = field(default_factory=BufferPool, init=False, repr=False, compare=False)

    @property
    def inner(self) -> tuple[int, int, int, int]:
        """The picture's rectangle in the network's input: (left, top, width, height)."""
        width, height = self.input_size
        if self.fit == "stretch":
            return 0, 0, width, height
        shown_width, shown_height = self.source_size[0] * self.pixel_aspect, self.source_size[1]
        scale = min(width / shown_width, height / shown_height)
        inner_width = min(width, max(1, round(shown_width * scale)))
        inner_height = min(height, max(1, round(shown_height * scale)))
        return (width - inner_width) // 2, (height - inner_height) // 2, inner_width, inner_height

    def network_input(self, frame: Frame) -> npt.NDArray[np.uint8]:
        """The frame as the network takes it: uint8 `[input height, input width, 3]`, RGB.

        The planes are scaled first and converted then: cheaper than the other way round, and the color matrix and
        range are the frame's own.
        """
        left, top, width, height = self.inner
        planes = [_scale(plane, width, height) for plane in frame.planes]
        canvas = self._canvas()
        picture = canvas[top : top + height, left : left + width]
        if frame.color.matrix == "rgb":
            cv2.merge([planes[2], planes[0], planes[1]], picture)
        else:
            merged = cv2.merge(planes, self._memory.empty(height, width, 3))
            cv2.transform(merged, yuv_to_rgb_matrix(frame.color), picture)
        return canvas

    def _canvas(self) -> npt.NDArray[np.uint8]:
        """The network's input with its bars painted, the rest arbitrary."""
        left, top, width, height = self.inner
        canvas = self._memory.empty(self.input_size[1], self.input_size[0], 3)
        for bar in (canvas[:top], canvas[top + height :], canvas[:, :left], canvas[:, left + width :]):
            bar[:] = PADDING
        return canvas

    def picture_part(self, classes: ClassMap) -> ClassMap:
        """The part of the network's answer that belongs to the picture: a view, uint8 `[inner height, inner width]`."""
        left, top, width, height = self.inner
        return classes[top : top + height, left : left + width]


def resize_classes(classes: ClassMap, width: int, height: int) -> ClassMap:
    """A class map at another size, nearest neighbor by pixel centers: uint8 `[height, width]`, contiguous.

    Pixel `x` of `width` takes its class from column `floor((x + 1/2) * columns / width)`, rows alike. (OpenCV's
    `INTER_NEAREST` goes by corners, and its `INTER_NEAREST_EXACT` rounds differently at some sizes.)
    """
    if classes.shape == (height, width):
        return np.ascontiguousarray(classes)
    rows, columns = _nearest(classes.shape[0], height), _nearest(classes.shape[1], width)
    return classes.take(columns, axis=1).take(rows, axis=0)


@lru_cache(maxsize=64)
def _nearest(length: int, wanted: int) -> npt.NDArray[np.intp]:
    """For each of `wanted` pixels the one of `length` that holds its center."""
    return (2 * np.arange(wanted) + 1) * length // (2 * wanted)


def halvings(size: tuple[int, int], wanted: tuple[int, int]) -> int:
    """How often a plane of a size, (width, height), is halved on its way to another: while it is even and twice as large."""
    (width, height), count = size, 0
    while width >= 2 * wanted[0] and height >= 2 * wanted[1] and width % 2 == height % 2 == 0:
        width, height, count = width // 2, height // 2, count + 1
    return count


def _scale(plane: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Resizes without aliasing: by halves, each a fast average of four, and the rest linear, or by area where much is left."""
    for _ in range(halvings((plane.shape[1], plane.shape[0]), (width, height))):
        plane = cv2.resize(plane, (plane.shape[1] // 2, plane.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if plane.shape == (height, width):
        return plane
    by_area = plane.shape[1] >= 2 * width and plane.shape[0] >= 2 * height
    method = cv2.INTER_AREA if by_area else cv2.INTER_LINEAR
    return cv2.resize(plane, (width, height), interpolation=method)  # type: ignore[no-any-return]
