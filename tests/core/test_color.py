"""Tests of the conversion between RGB and YUV against the values of the standards and against swscale."""

from __future__ import annotations

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from rtseg.core.color import guess_matrix, rgb_to_planes, yuv_to_rgb_matrix
from rtseg.core.frame import Color

MATRICES = ("bt601", "bt709", "bt2020")
SWSCALE = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709, "bt2020": getattr(Colorspace, "BT2020", None)}
STREAMS = [Color(matrix, full) for matrix in MATRICES for full in (False, True)]  # type: ignore[arg-type]


def sample_colors() -> np.ndarray:
    corners = np.array([(r, g, b) for r in (0, 128, 255) for g in (0, 128, 255) for b in (0, 128, 255)])
    return np.concatenate([corners, np.random.default_rng(1).integers(0, 256, (997, 3))]).astype(np.uint8)


# 8-bit color bars of ITU-R BT.601-7 and BT.709-6, limited range; JPEG's (JFIF 1.02) for full range.
@pytest.mark.parametrize(
    ("color", "rgb", "yuv"),
    [
        (Color("bt601", False), (255, 255, 255), (235, 128, 128)),
        (Color("bt601", False), (0, 0, 0), (16, 128, 128)),
        (Color("bt601", False), (255, 0, 0), (81, 90, 240)),
        (Color("bt601", False), (0, 255, 0), (145, 54, 34)),
        (Color("bt601", False), (0, 0, 255), (41, 240, 110)),
        (Color("bt709", False), (255, 255, 255), (235, 128, 128)),
        (Color("bt709", False), (255, 0, 0), (63, 102, 240)),
        (Color("bt709", False), (0, 255, 0), (173, 42, 26)),
        (Color("bt709", False), (0, 0, 255), (32, 240, 118)),
        (Color("bt601", True), (255, 0, 0), (76, 85, 255)),
        (Color("bt601", True), (0, 0, 0), (0, 128, 128)),
        (Color("rgb", True), (10, 20, 30), (20, 30, 10)),
    ],
)
def test_matches_published_values(color: Color, rgb: tuple[int, int, int], yuv: tuple[int, int, int]) -> None:
    assert tuple(rgb_to_planes(np.array([rgb], dtype=np.uint8), color)[0]) == yuv


@pytest.mark.parametrize("color", STREAMS, ids=str)
def test_round_trip_restores_rgb(color: Color) -> None:
    rgb = sample_colors()
    matrix = yuv_to_rgb_matrix(color)
    round_trip = rgb_to_planes(rgb, color) @ matrix[:, :3].T + matrix[:, 3]
    # Rounding error of half a level in Y, U and V, scaled by 255/219 and 255/224 times 2 (1 - Kb).
    assert np.abs(round_trip - rgb).max() <= 2.0


# Before PyAV 18, swscale has no BT.2020.
@pytest.mark.parametrize("color", [color for color in STREAMS if SWSCALE[color.matrix]], ids=str)
def test_both_directions_match_swscale(color: Color) -> None:
    rgb, space = sample_colors(), SWSCALE[color.matrix]
    color_range = ColorRange.JPEG if color.full_range else ColorRange.MPEG
    yuv = rgb_to_planes(rgb, color)
    frame = av.VideoFrame.from_ndarray(rgb.reshape(32, 32, 3), format="rgb24")
    expected = frame.reformat(format="yuv444p", dst_colorspace=space, dst_color_range=color_range).to_ndarray()
    assert np.abs(expected.reshape(3, -1).T.astype(int) - yuv).max() <= 1

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(yuv.T).reshape(3, 32, 32), format="yuv444p")
    back = frame.reformat(
        format="rgb24", src_colorspace=space, src_color_range=color_range, dst_color_range=ColorRange.JPEG
    )
    matrix = yuv_to_rgb_matrix(color)
    result = np.clip(yuv @ matrix[:, :3].T + matrix[:, 3], 0, 255)
    assert np.abs(back.to_ndarray().reshape(-1, 3) - result).max() <= 2.5


@pytest.mark.parametrize("color", STREAMS, ids=str)
def test_gray_has_neutral_chroma(color: Color) -> None:
    grays = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    planes = rgb_to_planes(grays, color)
    assert (planes[:, 1:] == 128).all()
    assert (planes[0, 0], planes[255, 0]) == ((0, 255) if color.full_range else (16, 235))


def test_guessed_matrix_depends_on_the_frame_size() -> None:
    assert {guess_matrix(*size) for size in ((480, 360), (720, 576))} == {"bt601"}
    assert {guess_matrix(*size) for size in ((1280, 720), (1920, 1080), (608, 1080))} == {"bt709"}
