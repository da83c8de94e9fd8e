"""Tests of the legend and the performance numbers (HUD)."""

from __future__ import annotations

import numpy as np
import pytest
from render_frames import LINES, PALETTE, full_size, gray, to_rgb

from rtseg.core.frame import SUBSAMPLING, Color, Frame, PixelFormat
from rtseg.render.annotations import hud_patch, legend_patch
from rtseg.render.overlay import Overlay


def changed(frame: Frame, rendered: Frame) -> np.ndarray:
    """Return the pixels that differ, bool `[H, W]`."""
    pairs = zip(frame.planes, rendered.planes, strict=True)
    return np.any([full_size(a, frame) != full_size(b, frame) for a, b in pairs], axis=0)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "gbrp"])
@pytest.mark.parametrize("size", [(320, 240), (640, 360), (1280, 720), (360, 640)], ids=str)
def test_legend_shows_name_and_color_of_every_class(size: tuple[int, int], pixel_format: PixelFormat) -> None:
    frame = gray(size, 120, pixel_format)
    rendered = Overlay(PALETTE, alpha=0.0, legend=True).apply(frame, np.zeros((9, 16), np.uint8))
    mask = changed(frame, rendered)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert columns[0] > size[0] // 2, "the left half must not change"
    assert columns[-1] < size[0]
    assert rows[0] < size[1] // 10, "the legend must be at the top"
    rgb = to_rgb(rendered)
    centers = []
    for name, color in zip(PALETTE.classes, PALETTE.colors, strict=True):
        swatch = np.abs(rgb - color).max(axis=2) <= 6
        assert swatch.sum() >= 16, color
        if name != "pole":  # white, like the letters
            centers.append(np.flatnonzero(swatch.any(axis=1)).mean())
    assert centers == sorted(centers), "classes must be in the model's order, from the top"
    assert (rgb.min(axis=2)[mask] > 160).mean() > 0.03, "white letters"
    assert (rgb.max(axis=2)[mask] < 60).mean() > 0.3, "dark backing"


def test_legend_lists_only_colored_classes() -> None:
    frame = gray((480, 360), 120)
    only = PALETTE.indices(["road", "car"])
    rendered = Overlay(PALETTE, alpha=0.0, only=only, legend=True).apply(frame, np.zeros((9, 16), np.uint8))
    rgb = to_rgb(rendered)
    for index, color in enumerate(PALETTE.colors):
        swatch = (np.abs(rgb - color).max(axis=2) <= 4).sum() >= 16
        name = PALETTE.classes[index]
        assert swatch == (index in only) or name == "pole", name  # poles are white, like the text


def test_legend_of_side_by_side_is_on_the_overlay_half() -> None:
    frame, classes = gray((320, 240), 120), np.zeros((9, 16), np.uint8)
    rendered = Overlay(PALETTE, view="side-by-side", legend=True).apply(frame, classes)
    bare = Overlay(PALETTE, view="side-by-side").apply(frame, classes)
    columns = np.flatnonzero(changed(bare, rendered).any(axis=0))
    assert columns[0] > 320 + 160
    assert columns[-1] < 640


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("size", [(320, 240), (1280, 720)], ids=str)
def test_hud_is_legible_on_black_and_white(size: tuple[int, int], level: int) -> None:
    frame = gray(size, level, "yuv420p")
    overlay = Overlay(PALETTE, alpha=0.0, hud=True)
    classes = np.zeros((9, 16), np.uint8)
    rendered = overlay.apply(frame, classes, LINES)
    patch = hud_patch(LINES, *size, size[0], "yuv420p", frame.color)
    assert patch is not None
    height, width = patch.colors[0].shape
    luma = rendered.planes[0][patch.top : patch.top + height, patch.left : patch.left + width]
    assert np.median(luma) < 110, "backing"
    assert (luma > np.median(luma) + 80).mean() > 0.03, "letters"
    outside = rendered.planes[0].copy()
    outside[patch.top : patch.top + height, patch.left : patch.left + width] = level
    assert (outside == level).all()
    assert not changed(frame, overlay.apply(frame, classes)).any(), "no lines"
    assert not changed(frame, Overlay(PALETTE, alpha=0.0).apply(frame, classes, LINES)).any(), "hud is disabled"
    assert changed(rendered, overlay.apply(frame, classes, ("9 fps",))).any(), "other numbers"


@pytest.mark.parametrize(
    "size", [(320, 240), (160, 120), (97, 61), (61, 97), (33, 17), (17, 400), (16, 16), (15, 9), (1, 1)], ids=str
)
@pytest.mark.parametrize("pixel_format", list(SUBSAMPLING))
@pytest.mark.parametrize("view", ["overlay", "side-by-side"])
def test_legend_and_hud_fit_into_small_frames(size: tuple[int, int], pixel_format: PixelFormat, view: str) -> None:
    frame = gray(size, 120, pixel_format)
    classes = np.zeros((9, 16), np.uint8)
    bare = Overlay(PALETTE, view=view, alpha=0.0).apply(frame, classes)  # type: ignore[arg-type]
    for legend, hud in ((True, False), (False, True), (True, True)):
        rendered = Overlay(PALETTE, view=view, alpha=0.0, legend=legend, hud=hud).apply(frame, classes, LINES)  # type: ignore[arg-type]
        assert [plane.shape for plane in rendered.planes] == [plane.shape for plane in bare.planes]
        assert changed(bare, rendered).any() == (min(size) >= 16)


def test_patches_scale_with_the_frame_and_do_not_overlap() -> None:
    color = Color("bt709", False)
    entries = tuple(zip(PALETTE.classes, PALETTE.colors, strict=True))
    heights = []
    for width, height in ((160, 120), (320, 240), (1280, 720), (3840, 2160)):
        legend = legend_patch(entries, width, height, 0, "yuv420p", color)
        assert legend is not None
        hud = hud_patch(LINES, width, height, legend.left, "yuv420p", color)
        assert hud is not None
        assert hud.left + hud.colors[0].shape[1] <= legend.left
        heights.append(hud.colors[0].shape[0])
    assert heights[1] * 1.5 < heights[2]
    assert heights[3] == pytest.approx(3 * heights[2], rel=0.1)


def test_legend_of_many_classes_has_columns() -> None:
    names = tuple(f"class {number}" for number in range(40))
    entries = tuple((name, (number, 0, 0)) for number, name in enumerate(names))
    patch = legend_patch(entries, 480, 360, 0, "yuv420p", Color("bt601", False))
    assert patch is not None
    height, width = patch.colors[0].shape
    assert height <= 360
    assert width <= 240
    assert height % 2 == width % 2 == patch.left % 2 == patch.top % 2 == 0
