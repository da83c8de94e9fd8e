"""Conversion between RGB and YUV with the matrices of BT.601, BT.709 and BT.2020, in limited and full range."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rtseg.core.frame import Color, Matrix

LUMA: dict[str, tuple[float, float]] = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
"""Kr and Kb of ITU-R BT.601-7, BT.709-6 and BT.2020-2 (non-constant luminance)."""


def rgb_to_yuv_matrix(color: Color) -> npt.NDArray[np.float64]:
    """Return the affine map from RGB to YUV: float64 `[3, 4]`, all values 0 to 255. The last column contains the offsets."""
    kr, kb = LUMA[color.matrix]
    kg = 1.0 - kr - kb
    y = np.array([kr, kg, kb])
    u = (np.array([0.0, 0.0, 1.0]) - y) / (2.0 * (1.0 - kb))
    v = (np.array([1.0, 0.0, 0.0]) - y) / (2.0 * (1.0 - kr))
    luma_scale, chroma_scale, black = (1.0, 1.0, 0.0) if color.full_range else (219.0 / 255.0, 224.0 / 255.0, 16.0)
    matrix = np.zeros((3, 4))
    matrix[:, :3] = np.stack([y * luma_scale, u * chroma_scale, v * chroma_scale])
    matrix[:, 3] = black, 128.0, 128.0
    return matrix


def yuv_to_rgb_matrix(color: Color) -> npt.NDArray[np.float64]:
    """Return the inverse of `rgb_to_yuv_matrix`: float64 `[3, 4]`, from Y, U, V to R, G, B."""
    forward = rgb_to_yuv_matrix(color)
    inverse = np.linalg.inv(forward[:, :3])
    return np.concatenate([inverse, -(inverse @ forward[:, 3:])], axis=1)


def rgb_to_planes(table: npt.NDArray[np.uint8], color: Color) -> npt.NDArray[np.uint8]:
    """Convert RGB colors, uint8 `[n, 3]`, to the plane values of a frame.

    Returns:
        uint8 `[n, 3]` in the order of the frame's planes: Y, U, V, or green, blue, red for the matrix `rgb`.
    """
    if color.matrix == "rgb":
        return np.ascontiguousarray(table[:, [1, 2, 0]])
    matrix = rgb_to_yuv_matrix(color)
    yuv = table.astype(np.float64) @ matrix[:, :3].T + matrix[:, 3]
    planes: npt.NDArray[np.uint8] = np.clip(np.rint(yuv), 0, 255).astype(np.uint8)
    return planes


def guess_matrix(width: int, height: int) -> Matrix:
    """Return the matrix that players assume for a stream without a matrix tag: BT.709 from 720p up, BT.601 below."""
    return "bt709" if width >= 1280 or height > 576 else "bt601"
