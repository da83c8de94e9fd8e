"""Tests of the overlay: colors and positions in every pixel format, matrix and range."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import get_args

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from render_frames import LINES, PALETTE, gray, noise, to_planes, to_rgb

from rtseg.core.choices import View
from rtseg.core.color import rgb_to_planes
from rtseg.core.errors import OptionError
from rtseg.core.frame import SUBSAMPLING, Color, Frame, PixelFormat
from rtseg.core.palette import Palette
from rtseg.render.overlay import Overlay

YUV = [Color(matrix, full) for matrix in ("bt601", "bt709", "bt2020") for full in (False, True)]  # type: ignore[arg-type]
STREAMS = [("gbrp", Color("rgb", True))] + [(f, c) for f in ("yuv420p", "yuv422p", "yuv444p") for c in YUV]
SIZES = [(48, 32), (47, 32), (48, 31), (33, 17)]
SWSCALE = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709, "bt2020": getattr(Colorspace, "BT2020", None)}

streams = pytest.mark.parametrize(("pixel_format", "color"), STREAMS, ids=lambda value: str(value))
sizes = pytest.mark.parametrize("size", SIZES, ids=str)


def read_by_swscale(frame: Frame) -> np.ndarray:
    """Convert a YUV frame to RGB like a player: uint8 `[H, W, 3]`."""
    video_frame = av.VideoFrame(frame.width, frame.height, frame.pixel_format)
    for target, plane in zip(video_frame.planes, frame.planes, strict=True):
        lines = np.zeros((target.height, target.line_size), dtype=np.uint8)
        lines[:, : target.width] = plane
        target.update(lines.tobytes())
    return video_frame.reformat(
        format="rgb24",
        src_colorspace=SWSCALE[frame.color.matrix],
        src_color_range=ColorRange.JPEG if frame.color.full_range else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    ).to_ndarray()


def write_by_swscale(rgb: np.ndarray, pixel_format: PixelFormat, color: Color) -> Frame:
    """Convert an image, uint8 `[H, W, 3]`, to a YUV frame."""
    video_frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format=pixel_format,
        dst_colorspace=SWSCALE[color.matrix],
        dst_color_range=ColorRange.JPEG if color.full_range else ColorRange.MPEG,
    )
    planes = [np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width] for p in video_frame.planes]
    return Frame((planes[0], planes[1], planes[2]), pixel_format, color, 0, Fraction(1, 25), 0)


def quarters(width: int, height: int) -> np.ndarray:
    """Return four classes in four rectangles that meet off the center, at an even row and column."""
    classes = np.full((height, width), 3, dtype=np.uint8)
    y, x = height // 3 // 2 * 2, width // 3 // 2 * 2
    classes[:y, :x], classes[:y, x:], classes[y:, x:] = 0, 1, 8
    return classes


@streams
@sizes
@pytest.mark.parametrize("only", [None, (0, 8)], ids=str)
def test_blending_in_planes_equals_blending_in_rgb(
    pixel_format: PixelFormat, color: Color, size: tuple[int, int], only: tuple[int, ...] | None
) -> None:
    frame = noise(size, pixel_format, color)
    classes = quarters(*size)
    for alpha in (0.0, 0.35, 0.5, 1.0):
        rendered = Overlay(PALETTE, alpha=alpha, only=only).apply(frame, classes)
        weight = np.where(np.isin(classes, only or range(11)), alpha, 0.0)[:, :, None]
        blended = to_rgb(frame) * (1 - weight) + PALETTE.table()[classes] * weight
        for plane, expected in zip(rendered.planes, to_planes(blended, frame), strict=True):
            # Rounding error: half a level each in the table, the product and the sum; values are clipped to 0 to 255.
            assert np.abs(plane - np.clip(expected, 0, 255)).max() <= 1.6


# Before PyAV 18, swscale has no BT.2020.
@pytest.mark.parametrize("color", [color for color in YUV if SWSCALE[color.matrix]], ids=str)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p"])
def test_player_decodes_the_blended_colors(pixel_format: PixelFormat, color: Color) -> None:
    """swscale creates the frame and reads the result by the color tags, so the test uses no conversion of rtseg."""
    scene = np.full((32, 48, 3), (70, 120, 90), dtype=np.uint8)
    frame = write_by_swscale(scene, pixel_format, color)
    for name in ("road", "car", "sign", "pedestrian"):
        index = PALETTE.index(name)
        rendered = Overlay(PALETTE).apply(frame, np.full((9, 16), index, dtype=np.uint8))
        assert np.abs(read_by_swscale(rendered) - (scene / 2 + np.array(PALETTE.colors[index]) / 2)).max() <= 4


@streams
@sizes
def test_input_frame_is_not_modified(pixel_format: PixelFormat, color: Color, size: tuple[int, int]) -> None:
    frame = noise(size, pixel_format, color)
    before = [plane.copy() for plane in frame.planes]
    for view, alpha in product(get_args(View), (0.0, 0.5, 1.0)):
        overlay = Overlay(PALETTE, view=view, alpha=alpha, legend=True, hud=True)
        rendered = overlay.apply(frame, quarters(*size), LINES)
        assert all((a == b).all() for a, b in zip(before, frame.planes, strict=True))
        assert not any(np.shares_memory(a, b) for a in rendered.planes for b in frame.planes)
        assert (rendered.width, rendered.height) == overlay.output_size(*size)
        assert replace(rendered, planes=frame.planes) == replace(frame, planes=frame.planes), (
            "timestamps and index do not change"
        )


@streams
def test_alpha_0_keeps_the_frame_and_alpha_1_shows_only_colors(pixel_format: PixelFormat, color: Color) -> None:
    frame = noise((33, 17), pixel_format, color)
    classes = np.full((5, 9), 8, dtype=np.uint8)
    clear = Overlay(PALETTE, alpha=0.0).apply(frame, classes)
    assert all((a == b).all() for a, b in zip(clear.planes, frame.planes, strict=True))
    solid = Overlay(PALETTE, alpha=1.0).apply(frame, classes)
    car = rgb_to_planes(np.array([PALETTE.colors[8]], dtype=np.uint8), color)[0]
    assert all((plane == value).all() for plane, value in zip(solid.planes, car, strict=True))


@streams
@sizes
def test_pixels_of_uncolored_classes_do_not_change(
    pixel_format: PixelFormat, color: Color, size: tuple[int, int]
) -> None:
    """Check `--only`, 255 and values beyond the palette. Pixels away from the border of a colored class do not change."""
    frame = noise(size, pixel_format, color)
    everything, cars = Overlay(PALETTE), Overlay(PALETTE, only=[8])
    for overlay, uncolored in ((everything, 255), (everything, 11), (everything, 200), (cars, 3), (cars, 255)):
        classes = np.full((size[1], size[0]), uncolored, dtype=np.uint8)
        classes[:, :8] = 8
        rendered = overlay.apply(frame, classes)
        for number, (plane, source) in enumerate(zip(rendered.planes, frame.planes, strict=True)):
            border = 8 // (SUBSAMPLING[pixel_format][0] if number else 1)
            assert (plane[:, border:] == source[:, border:]).all()
            assert (plane[:, :border] != source[:, :border]).any()


@streams
@sizes
def test_mask_view_contains_only_class_colors(pixel_format: PixelFormat, color: Color, size: tuple[int, int]) -> None:
    frame = noise(size, pixel_format, color)
    classes = quarters(*size)
    rendered = Overlay(PALETTE, view="mask", only=[0, 1, 8], alpha=0.2).apply(frame, classes)
    black = (0, 0, 0)  # class 3 is excluded
    table = rgb_to_planes(np.array([*PALETTE.colors[:3], black, *PALETTE.colors[4:]], dtype=np.uint8), color)
    for number, plane in enumerate(rendered.planes):
        horizontal, vertical = SUBSAMPLING[pixel_format] if number else (1, 1)
        assert (plane == table[:, number][classes[::vertical, ::horizontal]]).all()


@pytest.mark.parametrize("view", ["overlay", "mask"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p"])
@pytest.mark.parametrize("width", [64, 65, 33])
def test_chroma_is_aligned_with_luma(view: str, pixel_format: PixelFormat, width: int) -> None:
    """At the border of a class, luma and chroma change at the same position, within a quarter of a pixel."""
    frame = noise((width, 18), pixel_format, Color("bt601", True))
    for columns in (width, 16, 11):
        for border in range(2, columns - 1):
            classes = np.zeros((6, columns), dtype=np.uint8)
            classes[:, border:] = PALETTE.index("pedestrian")
            rendered = Overlay(PALETTE, view=view, alpha=1.0).apply(frame, classes)  # type: ignore[arg-type]
            luma, chroma = (
                plane[9 // (1, SUBSAMPLING[pixel_format][1])[i]].astype(float)
                for i, plane in enumerate(rendered.planes[:2])
            )
            # The share of the line before the change is the position of the border. A chroma line may be half a sample longer.
            ends = [(line - line[-1]) / (line[0] - line[-1]) for line in (luma, chroma)]
            assert 2 * ends[1].sum() == pytest.approx(ends[0].sum(), abs=0.25)


@streams
@pytest.mark.parametrize("size", [(48, 32), (33, 17), (35, 16)], ids=str)
def test_side_by_side_shows_frame_left_and_overlay_right(
    pixel_format: PixelFormat, color: Color, size: tuple[int, int]
) -> None:
    frame, classes = noise(size, pixel_format, color), quarters(*size)
    both = Overlay(PALETTE, view="side-by-side").apply(frame, classes)
    overlay_only = Overlay(PALETTE).apply(frame, classes)
    assert both.width == 2 * size[0] + size[0] % 2
    for number, plane in enumerate(both.planes):
        horizontal = SUBSAMPLING[pixel_format][0] if number else 1
        second = (size[0] + size[0] % 2) // horizontal
        assert (plane[:, : frame.planes[number].shape[1]] == frame.planes[number]).all()
        assert (plane[:, second:] == overlay_only.planes[number]).all()


def test_small_class_maps_are_interpolated_without_shift() -> None:
    frame = gray((160, 90), 0)
    classes = np.zeros((9, 16), dtype=np.uint8)
    classes[:, 8:] = PALETTE.index("road")
    line = Overlay(PALETTE, alpha=1.0).apply(frame, classes).planes[0][45].astype(float)
    share = (line - line[0]) / (line[-1] - line[0])
    assert (np.diff(share) >= 0).all()
    assert share[79] + share[80] == pytest.approx(1.0, abs=0.03), "the border must be in the middle"
    assert ((share > 0.02) & (share < 0.98)).sum() <= 10, "no wider than one pixel of the map"


def test_one_overlay_renders_streams_with_different_color_matrices() -> None:
    overlay, classes = Overlay(PALETTE, alpha=1.0), np.full((4, 4), 8, dtype=np.uint8)
    for color in YUV:
        rendered = overlay.apply(noise((16, 16), "yuv444p", color), classes)
        assert [plane[0, 0] for plane in rendered.planes] == list(
            rgb_to_planes(np.array([PALETTE.colors[8]], dtype=np.uint8), color)[0]
        )


def test_concurrent_calls_return_separate_correct_frames() -> None:
    overlay = Overlay(PALETTE, only=[0, 1, 8], legend=True, hud=True)
    frames = [noise((96, 64), seed=seed) for seed in range(24)]
    maps = [np.random.default_rng(seed).integers(0, 11, (6, 8), dtype=np.uint8) for seed in range(24)]
    lines = [(f"{seed % 3} fps",) for seed in range(24)]
    expected = [overlay.apply(*job) for job in zip(frames, maps, lines, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(overlay.apply, frames, maps, lines))
    for one, other in zip(expected, results, strict=True):
        assert all((a == b).all() for a, b in zip(one.planes, other.planes, strict=True))
    planes = [plane for frame in results for plane in frame.planes]
    assert len({plane.__array_interface__["data"][0] for plane in planes}) == len(planes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view": "heatmap"}, "no view 'heatmap'; there are overlay, mask, side-by-side"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"only": [11]}, "between 0 and 10"),
        ({"only": [-1]}, "between 0 and 10"),
    ],
)
def test_rejects_invalid_options(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Overlay(PALETTE, **options)


@pytest.mark.parametrize("classes", [np.zeros((4, 4)), np.zeros((4, 4, 1), np.uint8), np.zeros((0, 4), np.uint8)])
def test_rejects_invalid_class_maps(classes: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a class map is uint8"):
        Overlay(PALETTE).apply(noise((16, 16)), classes)


def test_palette_with_one_class() -> None:
    one = Palette(("road",), ((110, 60, 170),))
    rendered = Overlay(one, legend=True).apply(noise((64, 48)), np.zeros((3, 4), np.uint8))
    assert (rendered.width, rendered.height) == (64, 48)


def test_each_class_of_a_camvid_image_gets_its_color(camvid) -> None:  # type: ignore[no-untyped-def]
    label = sorted((camvid / "val_labels").glob("*.png"))[50]
    image = next((camvid / "val").glob(label.stem + ".*"))
    rgb = np.ascontiguousarray(cv2.imread(str(image))[:, :, ::-1])
    classes = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
    frame = write_by_swscale(rgb, "yuv420p", Color("bt601", False))
    rendered = read_by_swscale(Overlay(PALETTE).apply(frame, classes))
    before = read_by_swscale(frame)
    for index, color in enumerate(PALETTE.colors):
        inside = cv2.erode((classes == index).astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
        if inside.sum() > 50:
            error = np.abs(rendered[inside].astype(float) - (before[inside] / 2 + np.array(color) / 2))
            assert error.mean() < 3, PALETTE.classes[index]
