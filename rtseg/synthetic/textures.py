"""Textures of the synthetic street, generated from a seed on first use."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.synthetic.canvas import Color, Image, Texture, scaled

Noise = npt.NDArray[np.float32]
T = TypeVar("T")

TILE = 1024
"""Side length of an asphalt tile in pixels."""

TILE_PIXELS_PER_METER = 144.0

ASPHALT_LIFT = 24
"""Mean of the asphalt tiles. The ground is drawn darker by this value before a tile is added."""

_FLOORS = (2, 3, 3, 4, 2, 3, 5, 4)
_WALLS: tuple[Color, ...] = (
    (150, 84, 66), (172, 112, 84), (196, 172, 134), (210, 200, 180), (168, 150, 122), (226, 214, 190),
    (140, 132, 126), (186, 150, 120), (128, 92, 80), (206, 180, 168), (176, 190, 196), (222, 206, 160),
)  # fmt: skip
_ACCENTS: tuple[Color, ...] = (
    (40, 70, 110), (120, 30, 36), (30, 84, 60), (40, 40, 44), (190, 150, 50), (70, 110, 130), (110, 60, 100),
)  # fmt: skip


@dataclass(frozen=True)
class Facade:
    """Front of a house, with the color of its wall and the number of floors."""

    texture: Texture
    wall: Color
    floors: int


@dataclass
class Materials:
    """Textures of one street. Each texture has its own seed, so that it does not depend on the order of access."""

    seed: int
    lights: dict[int, float]
    """Brightness of the objects on the left (-1) and right (1) side of the street."""
    tree_light: float
    sun: float
    """Side of the image with the sun: -1 left, 1 right."""
    _cache: dict[tuple[int, int, int], object] = field(default_factory=dict)

    def facade(self, side: int, variant: int) -> Facade:
        """Return one of eight facades."""
        floors = _FLOORS[variant % 8]
        return self._get((0, side + 1, variant % 8), lambda rng: make_facade(rng, self.lights[side], floors))

    def hedge(self, side: int, variant: int) -> Texture:
        """Return one of three hedges."""
        return self._get((1, side + 1, variant % 3), lambda rng: make_hedge(rng, self.lights[side]))

    def fence(self, side: int, variant: int) -> Texture:
        """Return one of four fences."""
        return self._get((2, side + 1, variant % 4), lambda rng: make_fence(rng, self.lights[side]))

    def tree(self, variant: int) -> Texture:
        """Return one of six trees."""
        return self._get((3, 1, variant % 6), lambda rng: make_tree(rng, self.tree_light, self.sun))

    def _get(self, key: tuple[int, int, int], make: Callable[[np.random.Generator], T]) -> T:
        if key not in self._cache:
            self._cache[key] = make(np.random.default_rng((self.seed, 3, *key)))
        return self._cache[key]  # type: ignore[return-value]


@functools.lru_cache(maxsize=16)
def _noise_field(side: int, sigma: float) -> Noise:
    """Return seamless noise, `[side, side]`, mean 0, standard deviation 1, blurred by a Gaussian of `sigma` pixels."""
    noise = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
    if sigma:
        pad = int(np.ceil(4 * sigma))
        noise = cv2.GaussianBlur(np.pad(noise, pad, mode="wrap"), (0, 0), sigma)[pad:-pad, pad:-pad]
    return np.asarray(noise / noise.std(), dtype=np.float32)


def _noise(rng: np.random.Generator, width: int, height: int, sigma: float) -> Noise:
    """Return a random section of a noise field, `[height, width]`, both at most `TILE`."""
    top, left = int(rng.integers(TILE - height + 1)), int(rng.integers(TILE - width + 1))
    return _noise_field(TILE, sigma)[top : top + height, left : left + width]


@functools.lru_cache(maxsize=1)
def asphalt() -> tuple[Image, ...]:
    """Return three seamless tiles to be added to the ground, uint8 `[TILE, TILE, 4]`, each smoother than the one before."""
    patches = np.pad(_noise_field(TILE // 4, 7.0), 4, mode="wrap")
    patches = cv2.resize(patches, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)[16:-16, 16:-16]
    grain = np.asarray(4.5 * _noise_field(TILE, 1.6) + 3.0 * patches, dtype=np.float32)
    tiles = []
    for sigma in (0.0, 5.0, 14.0):
        pad = int(np.ceil(3 * sigma))
        smooth = cv2.GaussianBlur(np.pad(grain, pad, mode="wrap"), (0, 0), sigma)[pad:-pad, pad:-pad] if pad else grain
        tile = np.zeros((TILE, TILE, 4), dtype=np.uint8)
        tile[..., :3] = np.clip(ASPHALT_LIFT + smooth, 0, 60)[..., None]
        tiles.append(tile)
    return tuple(tiles)


def clouds(rng: np.random.Generator, width: int, height: int, octaves: int) -> Noise:
    """Return smooth noise, float32 `[height, width]`, 0 to 1: a sum of random grids of increasing resolution."""
    total = np.zeros((height, width), dtype=np.float32)
    weight_sum = 0.0
    for octave in range(octaves):
        grid = rng.random((2 + 2**octave, 3 + 2 * 2**octave), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(0.55**octave)
        weight_sum += 0.55**octave
    return np.asarray(np.clip(total / np.float32(weight_sum), 0, 1), dtype=np.float32)


def _texture(rgb: Noise, alpha: Image | None = None, ragged: bool = False) -> Texture:
    rgba = np.full((*rgb.shape[:2], 4), 255, dtype=np.uint8)
    rgba[..., :3] = np.clip(rgb, 0, 255)
    if alpha is not None:
        rgba[..., 3] = alpha
    return Texture(rgba, ragged)


def make_facade(rng: np.random.Generator, light: float, floors: int) -> Facade:
    """Return a facade with windows and a door or a shop. `light` is the brightness of its side of the street."""
    size = 320
    wall = scaled(_WALLS[rng.integers(len(_WALLS))], float(rng.uniform(0.85, 1.08)) * light)
    image = np.empty((size, size, 3), dtype=np.float32)
    image[:] = wall
    image *= 0.9 + 0.2 * clouds(rng, size, size, 4)[..., None]
    image += 5 * _noise(rng, size, size, 0.0)[..., None]
    story = size / (floors + 0.25)
    image[:: max(int(story / 9), 4)] *= 0.93
    image[: int(story * 0.12)] = scaled(wall, 1.22)
    image[int(story * 0.12) : int(story * 0.16)] *= 0.6
    columns = int(rng.integers(3, 6))
    trim = scaled((232, 228, 218), light)
    high, wide = float(rng.uniform(0.5, 0.66)), float(rng.uniform(0.4, 0.58))
    for floor in range(floors):
        top = size - story * (floor + 1)
        if floor == 0 and rng.random() < 0.45:
            _shop(image, rng, top, story, light)
            continue
        for column in range(columns):
            pitch = size / columns
            x = pitch * (column + 0.5 - wide / 2)
            door = floor == 0 and column == columns // 2
            if door:
                glass = scaled(_ACCENTS[rng.integers(len(_ACCENTS))], light)
            else:
                glass = scaled((62, 76, 92), light * rng.uniform(0.6, 1.7))
            y, bottom = top + story * 0.2, (size if door else top + story * (0.2 + high))
            _pane(image, x - 4, y - 4, x + pitch * wide + 4, bottom + 3, trim)
            _pane(image, x, y, x + pitch * wide, bottom, glass)
            if not door:
                _pane(image, x, y, x + pitch * wide, y + story * 0.12, scaled(glass, 0.6))
                _pane(image, x + pitch * wide / 2 - 1, y, x + pitch * wide / 2 + 1, bottom, trim)
                _pane(image, x, (y + bottom) / 2 - 1, x + pitch * wide, (y + bottom) / 2 + 1, trim)
                _pane(image, x - 6, bottom + 3, x + pitch * wide + 6, bottom + 6, scaled(wall, 0.7))
    image[-int(story * 0.1) :] *= 0.75
    return Facade(_texture(image), wall, floors)


def _pane(image: Noise, left: float, top: float, right: float, bottom: float, color: Color) -> None:
    image[max(int(top), 0) : int(bottom), max(int(left), 0) : int(right)] = color


def _shop(image: Noise, rng: np.random.Generator, top: float, story: float, light: float) -> None:
    size = image.shape[1]

    def pane(left: float, high: float, right: float, low: float, color: Color) -> None:
        """Fill a rectangle between two heights, in stories below the top of the shop."""
        _pane(image, left, top + story * high, right, top + story * low, color)

    accent = scaled(_ACCENTS[rng.integers(len(_ACCENTS))], light * rng.uniform(0.9, 1.5))
    _pane(image, 0, top + story * 0.08, size, size, scaled(accent, 0.8))
    pane(0, 0.08, size, 0.3, accent)
    for start in np.arange(0.3, 0.7, 0.06):  # shop sign: a row of bright blocks
        pane(size * start, 0.13, size * (start + 0.035), 0.25, scaled((240, 230, 200), light))
    panes = int(rng.integers(2, 4))
    for k in range(panes):
        left, right = size * (k + 0.06) / panes, size * (k + 0.94) / panes
        pane(left, 0.38, right, 0.88, scaled((92, 104, 108), light * rng.uniform(0.6, 1.4)))
        pane(left, 0.6, right, 0.88, scaled((120, 108, 84), light * rng.uniform(0.5, 1.2)))
    if rng.random() < 0.6:  # striped awning
        for stripe in range(16):
            color = scaled((236, 232, 220), light) if stripe % 2 else accent
            pane(size * stripe / 16, 0.3, size * (stripe + 1) / 16, 0.44, color)


def make_hedge(rng: np.random.Generator, light: float) -> Texture:
    """Return a hedge: leaves that are lighter at the top."""
    width, height = 512, 256
    green = np.array((rng.uniform(52, 84), rng.uniform(88, 116), rng.uniform(34, 52)), dtype=np.float32) * light
    leaves = 0.75 * _noise(rng, width, height, 2.6) + 0.5 * _noise(rng, width, height, 7.0)
    shade = np.linspace(1.15, 0.6, height, dtype=np.float32)[:, None] + 0.15 * leaves
    return _texture(np.asarray(green * shade[..., None], dtype=np.float32), ragged=True)


def make_tree(rng: np.random.Generator, light: float, sun: float) -> Texture:
    """Return a tree, 0.8 times as wide as high. `sun` is -1 for light from the left, 1 from the right."""
    width, height = 480, 600
    middle, crown_y = width / 2, 0.36 * height
    trunk = np.zeros((height, width), dtype=np.uint8)
    stem = np.array([[0.47, 0.6], [0.53, 0.6], [0.55, 1.0], [0.45, 1.0]]) * (width, height)
    cv2.fillConvexPoly(trunk, stem.astype(np.int32), 255)
    crown = np.zeros_like(trunk)
    shade = np.full((height, width), 0.6, dtype=np.float32)
    slim = float(rng.uniform(0.55, 1.0))
    for _ in range(int(rng.integers(26, 44))):
        angle, reach, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random()), rng.uniform(0.06, 0.14) * width
        x, y = slim * reach * np.cos(angle), reach * np.sin(angle)  # within the crown, -1 to 1
        center = (int(middle + 0.34 * width * x), int(crown_y + 0.256 * height * y))
        cv2.circle(crown, center, int(radius), 255, cv2.FILLED)
        cv2.circle(shade, center, int(radius), float(0.85 - 0.27 * y + 0.14 * sun * x), cv2.FILLED)
    edge = _noise(rng, width, height, 4.6)
    inside = cv2.GaussianBlur(crown, (0, 0), 7.5).astype(np.float32)
    crown = np.where((inside > 20) & (inside + 34 * edge > 120), 255, 0).astype(np.uint8)
    crown = np.asarray(cv2.medianBlur(crown, 5), dtype=np.uint8)  # remove leaves that are detached from the crown
    crown[int(0.78 * height) :] = 0
    leaves = 0.75 * _noise(rng, width, height, 2.4) + 0.5 * _noise(rng, width, height, 6.0)
    hues = ((66, 104, 40), (84, 110, 44), (52, 92, 48), (128, 104, 44), (96, 120, 60))
    green = np.array(hues[rng.integers(len(hues))], dtype=np.float32)
    foliage = green * light * (cv2.GaussianBlur(shade, (0, 0), 5) + 0.15 * leaves)[..., None]
    bark = np.array((82, 66, 52), dtype=np.float32) * light * (1.0 + 0.12 * leaves[..., None])
    image = np.asarray(np.where(crown[..., None] > 0, foliage, bark), dtype=np.float32)
    return _texture(image, np.maximum(trunk, crown), ragged=True)


def make_fence(rng: np.random.Generator, light: float) -> Texture:
    """Return a fence of upright boards, or dark railings in front of a hedge."""
    width, height, pitch = 256, 64, 16
    boards = rng.random() < 0.6
    wood: Color = ((150, 112, 76), (118, 88, 64), (176, 168, 152), (96, 112, 96))[rng.integers(4)]
    image = np.empty((height, width, 3), dtype=np.float32)
    image[:] = scaled(wood, light) if boards else scaled((58, 74, 52), light)
    for x in range(0, width, pitch):
        if boards:
            image[:, x : x + pitch] *= rng.uniform(0.85, 1.12)
            image[:, x : x + 2] *= 0.55
        else:
            image[:, x : x + 5] = scaled((34, 36, 40), light)
    for y in (6, height - 16):
        image[y : y + 6] = scaled(wood, light * 0.7) if boards else scaled((30, 32, 36), light)
    image[:3] *= 1.25
    image += 4 * _noise(rng, width, height, 0.0)[..., None]
    return _texture(image)
