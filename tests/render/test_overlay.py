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

from rtseg.core.choices import View
from rtseg.core.color import rgb_to_planes, rgb_to_yuv_matrix, yuv_to_rgb_matrix
from rtseg.core.errors import OptionError
from rtseg.core.frame import SUBSAMPLING, Color, Frame, PixelFormat
from rtseg.core.palette import CAMVID_CLASSES, Palette, load_palette
from rtseg.render.annotations import hud_patch, legend_patch
from rtseg.render.overlay import Overlay

PALETTE = load_palette("street", CAMVID_CLASSES)
YUV = [Color(matrix, full) for matrix in ("bt601", "bt709", "bt2020") for full in (False, True)]  # type: ignore[arg-type]
STREAMS = [("gbrp", Color("rgb", True))] + [(f, c) for f in ("yuv420p", "yuv422p", "yuv444p") for c in YUV]
SIZES = [(48, 32), (47, 32), (48, 31), (33, 17)]
SWSCALE = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709, "bt2020": getattr(Colorspace, "BT2020", None)}
LINES = ("31 fps   inference 12 ms", "openvino bf16")

streams = pytest.mark.parametrize(("pixel_format", "color"), STREAMS, ids=lambda value: str(value))
sizes = pytest.mark.parametrize("size", SIZES, ids=str)


def noise(size: tuple[int, int], pixel_format: PixelFormat = "yuv420p", color: Color = YUV[2], seed: int = 1) -> Frame:
    """Return a frame of noise with read-only planes and padded lines, like those of a decoder."""
    rng = np.random.default_rng(seed)
    horizontal, vertical = SUBSAMPLING[pixel_format]
    width, height = size
    chroma = (-(-height // vertical), -(-width // horizontal))
    planes = []
    for shape in ((height, width), chroma, chroma):
        plane = rng.integers(16, 236, (shape[0], shape[1] + 13), dtype=np.uint8)[:, : shape[1]]
        plane.flags.writeable = False
        planes.append(plane)
    return Frame((planes[0], planes[1], planes[2]), pixel_format, color, 7000, Fraction(1, 1000), 7, 40, 99)


def gray(size: tuple[int, int], level: int, pixel_format: PixelFormat = "yuv444p") -> Frame:
    frame = noise(size, pixel_format, Color("rgb", True) if pixel_format == "gbrp" else Color("bt601", True))
    neutral = level if pixel_format == "gbrp" else 128
    values = (level, neutral, neutral)
    planes = tuple(np.full_like(plane, value) for plane, value in zip(frame.planes, values, strict=True))
    return replace(frame, planes=planes)


def full_size(plane: np.ndarray, frame: Frame) -> np.ndarray:
    """Return a plane at the size of the frame, with each sample repeated for its pixels."""
    vertical, horizontal = -(-frame.height // plane.shape[0]), -(-frame.width // plane.shape[1])
    return plane.repeat(vertical, axis=0).repeat(horizontal, axis=1)[: frame.height, : frame.width]


def to_rgb(frame: Frame) -> np.ndarray:
    """Convert a frame to RGB, float `[H, W, 3]`, without clipping."""
    planes = np.stack([full_size(plane, frame) for plane in frame.planes], axis=2).astype(float)
    if frame.color.matrix == "rgb":
        return planes[:, :, [2, 0, 1]]
    matrix = yuv_to_rgb_matrix(frame.color)
    return planes @ matrix[:, :3].T + matrix[:, 3]


def to_planes(rgb: np.ndarray, like: Frame) -> list[np.ndarray]:
    """Convert RGB to planes of floats; a chroma sample is the mean of its pixels."""
    if like.color.matrix == "rgb":
        return [rgb[:, :, 1], rgb[:, :, 2], rgb[:, :, 0]]
    matrix = rgb_to_yuv_matrix(like.color)
    yuv = rgb @ matrix[:, :3].T + matrix[:, 3]
    horizontal, vertical = SUBSAMPLING[like.pixel_format]
    height, width = yuv.shape[:2]
    padded = np.pad(yuv, ((0, -height % vertical), (0, -width % horizontal), (0, 0)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // vertical, vertical, padded.shape[1] // horizontal, horizontal, 3)
    means = blocks.mean(axis=(1, 3))
    return [yuv[:, :, 0], means[:, :, 1], means[:, :, 2]]


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


@pytest.mark.parametrize("color", YUV, ids=str)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p"])
def test_player_decodes_the_blended_colors(pixel_format: PixelFormat, color: Color) -> None:
    """swscale creates the frame and reads the result by the color tags, so the test uses no conversion of rtseg."""
    scene = np.full((32, 48, 3), (70, 120, 90), dtype=np.uint8)
    if SWSCALE[color.matrix] is None:
        pytest.skip("PyAV before 18 can't use BT.2020 in swscale")
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
    """Includes `--only`, 255 and values beyond the palette. Pixels away from the border of a colored class do not change."""
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


# Legend and performance numbers


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
    for width, height in ((320, 240), (1280, 720), (3840, 2160)):
        legend = legend_patch(entries, width, height, 0, "yuv420p", color)
        assert legend is not None
        hud = hud_patch(LINES, width, height, legend.left, "yuv420p", color)
        assert hud is not None
        assert hud.left + hud.colors[0].shape[1] <= legend.left
        heights.append(hud.colors[0].shape[0])
    legend = legend_patch(entries, 160, 120, 0, "yuv420p", color)
    hud = hud_patch(LINES, 160, 120, legend.left, "yuv420p", color) if legend else None
    assert legend is not None
    assert hud is not None
    assert hud.left + hud.colors[0].shape[1] <= legend.left, "the numbers must not overlap the legend of a narrow frame"
    assert heights[0] * 1.5 < heights[1]
    assert heights[2] == pytest.approx(3 * heights[1], rel=0.1)


def test_legend_of_many_classes_has_columns() -> None:
    names = tuple(f"class {number}" for number in range(40))
    entries = tuple((name, (number, 0, 0)) for number, name in enumerate(names))
    patch = legend_patch(entries, 480, 360, 0, "yuv420p", Color("bt601", False))
    assert patch is not None
    height, width = patch.colors[0].shape
    assert height <= 360
    assert width <= 240
    assert height % 2 == width % 2 == patch.left % 2 == patch.top % 2 == 0


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
