"""Frames for the tests of the overlay, and their conversion to RGB."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from rtseg.core.color import rgb_to_yuv_matrix, yuv_to_rgb_matrix
from rtseg.core.frame import SUBSAMPLING, Color, Frame, PixelFormat
from rtseg.core.palette import CAMVID_CLASSES, load_palette

PALETTE = load_palette("street", CAMVID_CLASSES)
DEFAULT_COLOR = Color("bt709", False)
LINES = ("31 fps   inference 12 ms", "openvino bf16")


def noise(
    size: tuple[int, int], pixel_format: PixelFormat = "yuv420p", color: Color = DEFAULT_COLOR, seed: int = 1
) -> Frame:
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
