"""Light of the synthetic video: sun, haze, sky, and the tint and noise of the camera, all from the seed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from rtseg.synthetic.canvas import SKY, Color, Haze, Image
from rtseg.synthetic.textures import clouds

_NOISE_TILE = 509
"""Side length of the sensor noise tile in pixels. The tile is repeated."""


@dataclass(frozen=True)
class Weather:
    """Weather between overcast (`clear` = 0) and sunny (`clear` = 1), with the sun on one side of the street."""

    clear: float
    sun: float
    """Side of the street with the sun: -1 left, 1 right."""
    haze: Haze
    asphalt: Color
    paving: Color
    gain: float
    """Exposure factor of the camera."""
    tint: tuple[float, float, float]
    """Offset of red, green and blue."""
    grain: float
    """Standard deviation of the sensor noise."""

    @classmethod
    def random(cls, rng: np.random.Generator) -> Weather:
        """Return random weather."""
        clear, sun = float(rng.random()), float(rng.choice((-1.0, 1.0)))
        haze = Haze(_blend((206, 212, 216), (196, 214, 232), clear), 110.0 + 220.0 * clear)
        tarmac, stone = float(rng.uniform(-14, 16)), float(rng.uniform(-20, 20))
        asphalt = (92 + tarmac + rng.uniform(-4, 4), 92 + tarmac + rng.uniform(-4, 4), 96 + tarmac + rng.uniform(-4, 4))
        paving = (150 + stone + rng.uniform(-8, 8), 144 + stone + rng.uniform(-8, 8), 136 + stone + rng.uniform(-8, 8))
        warm, offset = float(rng.uniform(-9, 9)), float(rng.uniform(-12, 6))
        tint = (offset + warm, offset, offset - warm)
        return cls(clear, sun, haze, asphalt, paving, float(rng.uniform(0.82, 1.1)), tint, float(rng.uniform(1.0, 3.0)))

    @property
    def shadow(self) -> tuple[float, float, float, float]:
        """Factors of a shadow for red, green, blue and the class; the class is kept (1)."""
        left = 0.8 - 0.28 * self.clear
        return (left, left + 0.02 * self.clear, left + 0.04 * self.clear, 1.0)

    def light(self, side: int) -> float:
        """Return the brightness of vertical objects on a side of the street. On the side of the sun, they are in shade."""
        return 0.95 + 0.17 * self.clear * (-1 if side == self.sun else 1)

    def sky(self, rng: np.random.Generator, width: int, height: int) -> Image:
        """Return the sky with its class, uint8 `[height, width, 4]`, with increasing haze towards the horizon."""
        rows, columns = max(height // 3, 8), max(width // 3, 8)
        down = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
        zenith = np.array(_blend((196, 204, 212), (96, 150, 214), self.clear), dtype=np.float32)
        sky = zenith * (1 - down) + np.array(self.haze.color, dtype=np.float32) * 1.06 * down
        cover = np.clip((clouds(rng, columns, rows, 5) - 0.58 + 0.14 * (1 - self.clear)) * 5, 0, 1)[..., None]
        white = 252 - 26 * (1 - self.clear) * clouds(rng, columns, rows, 4)[..., None]
        sky = cv2.resize(sky * (1 - 0.85 * cover) + white * 0.85 * cover, (width, height))
        pixels = np.full((height, width, 4), SKY, dtype=np.uint8)
        pixels[..., :3] = np.clip(sky, 0, 255)
        return pixels

    def sensor(self, rng: np.random.Generator, width: int, height: int) -> Image:
        """Return sensor noise plus tint around 128, uint8 `[height, width, 3]`."""
        noise = rng.standard_normal((_NOISE_TILE, _NOISE_TILE, 3), dtype=np.float32) * self.grain + np.array(self.tint)
        tile = np.clip(np.rint(128 + noise), 0, 255).astype(np.uint8)
        repeats = (height // _NOISE_TILE + 1, width // _NOISE_TILE + 1, 1)
        return np.tile(tile, repeats)[:height, :width]


def _blend(gray: Color, clear: Color, share: float) -> Color:
    red, green, blue = (a * (1 - share) + b * share for a, b in zip(gray, clear, strict=True))
    return red, green, blue
