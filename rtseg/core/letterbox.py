"""Scaling of frames to the input size of the network, and of class maps back."""

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
"""Gray level of the padding, near the mean of street images. The network's output there is never used."""


@dataclass(frozen=True)
class Letterbox:
    """Position of a frame in the input of the network, and conversion of the frame to that input."""

    source_size: tuple[int, int]
    """(width, height) of the frames, pixels."""

    input_size: tuple[int, int]
    """(width, height) of the network's input, pixels."""

    fit: Fit = "letterbox"
    """`letterbox` keeps the aspect ratio and pads; `stretch` fills the input."""

    pixel_aspect: float = 1.0
    """Width of a source pixel divided by its height. The pixels of the network's input are square."""

    _buffers: BufferPool = field(default_factory=BufferPool, init=False, repr=False, compare=False)

    @property
    def inner(self) -> tuple[int, int, int, int]:
        """The frame's rectangle in the network's input: (left, top, width, height) in pixels."""
        width, height = self.input_size
        if self.fit == "stretch":
            return 0, 0, width, height
        display_width, display_height = self.source_size[0] * self.pixel_aspect, self.source_size[1]
        scale = min(width / display_width, height / display_height)
        inner_width = min(width, max(1, round(display_width * scale)))
        inner_height = min(height, max(1, round(display_height * scale)))
        return (width - inner_width) // 2, (height - inner_height) // 2, inner_width, inner_height

    def network_input(self, frame: Frame) -> npt.NDArray[np.uint8]:
        """Convert a frame to the input of the network.

        The planes are scaled before they are converted to RGB, which is faster than the reverse. The conversion uses the
        color matrix and range of the frame.

        Returns:
            uint8 `[input height, input width, 3]`, RGB.
        """
        left, top, width, height = self.inner
        planes = [_scale(plane, width, height) for plane in frame.planes]
        image = self._buffers.empty(self.input_size[1], self.input_size[0], 3)
        for bar in (image[:top], image[top + height :], image[:, :left], image[:, left + width :]):
            bar[:] = PADDING
        inner = self.remove_padding(image)
        if frame.color.matrix == "rgb":
            cv2.merge([planes[2], planes[0], planes[1]], inner)
        else:
            merged = cv2.merge(planes, self._buffers.empty(height, width, 3))
            cv2.transform(merged, yuv_to_rgb_matrix(frame.color), inner)
        return image

    def remove_padding(self, classes: ClassMap) -> ClassMap:
        """Return the frame's part of a class map of the input's size: a view, uint8 `[inner height, inner width]`."""
        left, top, width, height = self.inner
        return classes[top : top + height, left : left + width]


def resize_classes(classes: ClassMap, width: int, height: int) -> ClassMap:
    """Resize a class map with nearest-neighbor interpolation by pixel centers.

    Pixel `x` of `width` takes its class from column `floor((x + 1/2) * columns / width)`, rows likewise. (OpenCV's
    `INTER_NEAREST` uses pixel corners, and its `INTER_NEAREST_EXACT` rounds differently at some sizes.)

    Returns:
        uint8 `[height, width]`, contiguous.
    """
    if classes.shape == (height, width):
        return np.ascontiguousarray(classes)
    rows, columns = _nearest(classes.shape[0], height), _nearest(classes.shape[1], width)
    return classes.take(columns, axis=1).take(rows, axis=0)


@lru_cache(maxsize=64)
def _nearest(source: int, target: int) -> npt.NDArray[np.intp]:
    """Return, for each of `target` pixels, the index of the pixel among `source` ones that contains its center."""
    return (2 * np.arange(target) + 1) * source // (2 * target)


def halvings(size: tuple[int, int], target: tuple[int, int]) -> int:
    """Return the number of times that a plane is halved before it is scaled to the target size.

    It is halved while its width and height are even and at least twice the target's. Sizes are (width, height).
    """
    (width, height), count = size, 0
    while width >= 2 * target[0] and height >= 2 * target[1] and width % 2 == height % 2 == 0:
        width, height, count = width // 2, height // 2, count + 1
    return count


def _scale(plane: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Resize a plane without aliasing.

    First halve it repeatedly (a fast average of four pixels), then interpolate linearly, or by area if the rest is still a
    factor of 2 or more.
    """
    for _ in range(halvings((plane.shape[1], plane.shape[0]), (width, height))):
        plane = cv2.resize(plane, (plane.shape[1] // 2, plane.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if plane.shape == (height, width):
        return plane
    by_area = plane.shape[1] >= 2 * width and plane.shape[0] >= 2 * height
    method = cv2.INTER_AREA if by_area else cv2.INTER_LINEAR
    return cv2.resize(plane, (width, height), interpolation=method)  # type: ignore[no-any-return]
