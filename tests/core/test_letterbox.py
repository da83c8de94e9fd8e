"""Tests of the letterbox: no distortion, no shift, and no padding in the class map of the frame."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtseg.core.color import rgb_to_planes
from rtseg.core.frame import SUBSAMPLING, Color, Frame, PixelFormat
from rtseg.core.letterbox import PADDING, Letterbox, resize_classes

SIZES = [(320, 180), (160, 120), (101, 77), (77, 203), (180, 320), (33, 250), (320, 48), (2, 2)]
LENGTH = st.integers(1, 700)


def frame_from_rgb(rgb: np.ndarray, pixel_format: PixelFormat, color: Color) -> Frame:
    """Convert an image, uint8 `[H, W, 3]`, to a frame, with the chroma of the upper left pixel of each group."""
    horizontal, vertical = SUBSAMPLING[pixel_format]
    full = rgb_to_planes(rgb.reshape(-1, 3), color).reshape(rgb.shape)
    planes = (full[:, :, 0], full[::vertical, ::horizontal, 1], full[::vertical, ::horizontal, 2])
    return Frame(planes, pixel_format, color, 0, Fraction(1, 25), 0)


@given(source=st.tuples(LENGTH, LENGTH), target=st.tuples(st.integers(32, 700), st.integers(32, 700)))
@settings(max_examples=300, deadline=None)
def test_frame_fits_into_the_input_without_distortion(source: tuple[int, int], target: tuple[int, int]) -> None:
    left, top, width, height = Letterbox(source, target).inner
    assert width == target[0] or height == target[1], "the frame must fill one dimension"
    assert left >= 0
    assert left + width <= target[0]
    assert top >= 0
    assert top + height <= target[1]
    assert abs(2 * left + width - target[0]) <= 1, "must be centered"
    assert abs(2 * top + height - target[1]) <= 1, "must be centered"
    scale = min(target[0] / source[0], target[1] / source[1])
    assert abs(width - source[0] * scale) <= max(0.5, 1 - source[0] * scale), "at most half a pixel of distortion"
    assert abs(height - source[1] * scale) <= max(0.5, 1 - source[1] * scale)


def test_stretched_frame_and_frame_of_its_shape_fill_the_input() -> None:
    assert Letterbox((480, 360), (512, 288), "stretch").inner == (0, 0, 512, 288)
    # PAL widescreen: 720x576 with a pixel aspect ratio of 64:45 is displayed as 1024x576, which is 16:9.
    assert Letterbox((720, 576), (512, 288), pixel_aspect=64 / 45).inner == (0, 0, 512, 288)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("pixel_format", list(SUBSAMPLING))
def test_network_input_contains_the_color_and_gray_bars(size: tuple[int, int], pixel_format: PixelFormat) -> None:
    rgb = np.empty((size[1], size[0], 3), dtype=np.uint8)
    rgb[:] = (200, 90, 40)
    matrices = [Color("rgb", True)]
    if pixel_format != "gbrp":
        matrices = [Color(m, full) for m in ("bt601", "bt709", "bt2020") for full in (False, True)]  # type: ignore[arg-type]
    for color in matrices:
        box = Letterbox(size, (128, 96))
        image = box.network_input(frame_from_rgb(rgb, pixel_format, color))
        assert image.shape == (96, 128, 3)
        assert image.dtype == np.uint8
        left, top, width, height = box.inner
        inner = image[top : top + height, left : left + width]
        assert np.abs(inner.astype(int) - (200, 90, 40)).max() <= 3, color
        bars = np.ones((96, 128), dtype=bool)
        bars[top : top + height, left : left + width] = False
        assert (image[bars] == PADDING).all()


@pytest.mark.parametrize("pixel_format", list(SUBSAMPLING))
@pytest.mark.parametrize("size", [(640, 360), (480, 360), (301, 175), (175, 301)], ids=str)
def test_scaling_does_not_shift_objects(size: tuple[int, int], pixel_format: PixelFormat) -> None:
    """The center of a red block on gray is at the expected position in the network's input, within 0.75 pixels."""
    width, height = size
    rgb = np.full((height, width, 3), 100, dtype=np.uint8)
    x, y = width * 6 // 10, height * 3 // 10
    w, h = width // 5, height // 5
    rgb[y : y + h, x : x + w] = (250, 20, 20)
    color = Color("rgb", True) if pixel_format == "gbrp" else Color("bt709", False)
    box = Letterbox(size, (256, 160))
    image = box.network_input(frame_from_rgb(rgb, pixel_format, color)).astype(float)
    left, top, inner_width, inner_height = box.inner
    redness = np.clip(image[:, :, 0] - image[:, :, 1], 0, None)
    redness[redness < 10] = 0
    rows, columns = np.indices(redness.shape)
    center = tuple((redness * (position + 0.5)).sum() / redness.sum() for position in (columns, rows))
    expected = (left + (x + w / 2) * inner_width / width, top + (y + h / 2) * inner_height / height)
    assert center == pytest.approx(expected, abs=0.75)


def test_source_planes_are_not_modified() -> None:
    frame = frame_from_rgb(np.full((33, 47, 3), 90, dtype=np.uint8), "yuv420p", Color("bt601", False))
    before = [plane.copy() for plane in frame.planes]
    for plane in frame.planes:
        plane.flags.writeable = False
    Letterbox((47, 33), (64, 64)).network_input(frame)
    assert all((a == b).all() for a, b in zip(before, frame.planes, strict=True))


@given(source=st.tuples(LENGTH, LENGTH))
@settings(max_examples=100, deadline=None)
def test_remove_padding_returns_only_the_frame(source: tuple[int, int]) -> None:
    box = Letterbox(source, (64, 48))
    left, top, width, height = box.inner
    classes = np.full((48, 64), 99, dtype=np.uint8)
    classes[top : top + height, left : left + width] = 5
    part = box.remove_padding(classes)
    assert part.shape == (height, width)
    assert (part == 5).all()
    assert (resize_classes(part, *source) == 5).all()


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)), target=st.tuples(st.integers(1, 150), st.integers(1, 150))
)
@settings(max_examples=200, deadline=None)
def test_resize_classes_uses_pixel_centers(size: tuple[int, int], target: tuple[int, int]) -> None:
    width, height = size
    classes = (np.arange(width * height) % 251).astype(np.uint8).reshape(height, width)
    result = resize_classes(classes, *target)
    rows = [int(Fraction(2 * y + 1, 2) * height / target[1]) for y in range(target[1])]
    columns = [int(Fraction(2 * x + 1, 2) * width / target[0]) for x in range(target[0])]
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert (result == classes[np.ix_(rows, columns)]).all()


def test_resize_classes_keeps_a_map_of_the_target_size() -> None:
    classes = np.random.default_rng(1).integers(0, 11, (40, 60), dtype=np.uint8)
    cut = classes[5:35, 10:50]
    assert (resize_classes(cut, 40, 30) == cut).all()
