"""Static and moving objects of the synthetic street, with their positions in meters. Deterministic for a seed."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rtseg.synthetic.canvas import Color

CHUNK_METERS = 32.0
"""Length of a chunk of the street. Each chunk is generated from the seed and the chunk's number."""

CAR_COLORS: tuple[Color, ...] = (
    (172, 176, 180), (44, 46, 52), (150, 30, 34), (32, 58, 120), (226, 226, 222),
    (96, 100, 106), (30, 72, 58), (196, 160, 60), (70, 96, 130), (120, 40, 60),
)  # fmt: skip
CLOTHES: tuple[Color, ...] = (
    (40, 44, 60), (150, 40, 44), (60, 90, 130), (200, 190, 170), (90, 84, 76),
    (30, 32, 34), (196, 150, 60), (80, 110, 80), (130, 80, 120),
)  # fmt: skip
SKIN: tuple[Color, ...] = ((224, 184, 156), (198, 150, 118), (142, 98, 72), (98, 66, 50))


@dataclass(frozen=True)
class Item:
    """An object on the street."""

    kind: str
    x: float
    """Distance to the right of the center of the camera's lane in meters; for long objects, of the face towards the road."""
    z: float
    """Position of the near end along the street, in meters."""
    length: float = 0.0
    """Length along the street, in meters."""
    height: float = 0.0
    variant: int = 0
    """Index that selects a texture or color."""
    phase: float = 0.0
    """Phase of the walking or pedaling motion, in radians."""
    towards: bool = False
    """True if the object faces the camera."""


@dataclass(frozen=True)
class Layout:
    """Cross-section of the street, in meters to the right of the center of the camera's lane. Left-hand traffic, as in CamVid."""

    left_parking: bool
    right_parking: bool

    def curb(self, side: int) -> float:
        """Return the position of the curb on a side, -1 left or 1 right. The plots begin 3.4 m behind it."""
        if side < 0:
            return -5.9 if self.left_parking else -3.7
        return 8.0 if self.right_parking else 5.8


@functools.lru_cache(maxsize=256)
def static_items(seed: int, chunk: int, layout: Layout) -> tuple[Item, ...]:
    """Return the static objects in a chunk of the street."""
    rng = np.random.default_rng((seed, 1, chunk + 1_000_000))
    start = chunk * CHUNK_METERS
    items: list[Item] = []
    for side in (-1, 1):
        z = start
        while z < start + CHUNK_METERS - 1.0:
            length = float(rng.uniform(8.0, 14.0))
            if start + CHUNK_METERS - z - length < 5.0:
                length = start + CHUNK_METERS - z
            items += _plot(rng, layout.curb(side) + side * 3.4, side, z, length)
            z += length
        items += _curbside(rng, layout, side, start)
    return tuple(items)


def _variant(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 16))


def _plot(rng: np.random.Generator, front: float, side: int, z: float, length: float) -> list[Item]:
    """Return the objects of a plot: a house, a house behind a fence, or a garden with trees.

    The length of an object behind a fence is the rest of the plot, so that it is drawn before nearer objects.
    """
    choice, variant = rng.random(), _variant(rng)
    if choice < 0.5:
        return [Item("house", front, z, length, variant=variant)]
    if choice < 0.72:
        items = [
            Item("house", front + side * 4.0, z, length, variant=variant),
            Item("fence", front, z, length, 1.15, variant),
        ]
        if rng.random() < 0.6:
            height = float(rng.uniform(3.5, 6))
            items.append(Item("garden tree", front + side * 1.8, z + length / 2, length / 2, height, variant))
        return items
    items = [Item("hedge", front + side * 5.0, z, length, float(rng.uniform(2.5, 4.5)), variant)]
    items.append(Item("fence", front, z, length, float(rng.uniform(0.95, 1.5)), variant))
    for step in np.arange(2.0, length, 5.5):
        x, height = front + side * float(rng.uniform(2, 4.5)), float(rng.uniform(6, 10))
        items.append(Item("garden tree", x, z + float(step), length - float(step), height, _variant(rng)))
    return items


def _curbside(rng: np.random.Generator, layout: Layout, side: int, start: float) -> list[Item]:
    """Return the lamp, signs, tree and parked cars at a curb."""
    left, curb = side < 0, layout.curb(side)
    items = [Item("lamp", curb + side * 0.5, start + (6.0 if left else 22.0), height=7.0)]
    for _ in range(int(rng.integers(1, 3))):
        kind = ("round sign", "triangle sign", "board sign", "traffic light")[int(rng.integers(4))]
        z, height = start + float(rng.uniform(9 if left else 2, 20)), float(rng.uniform(2.3, 3.0))
        items.append(Item(kind, curb + side * 0.45, z, height=height, variant=_variant(rng)))
    if rng.random() < 0.75:
        z, height = start + float(rng.uniform(24, 30)), float(rng.uniform(5, 8))
        items.append(Item("tree", curb + side * 0.9, z, height=height, variant=_variant(rng)))
    if layout.left_parking if left else layout.right_parking:
        for bay in range(int(CHUNK_METERS / 6)):
            if rng.random() < 0.62:
                z = start + 6.0 * bay + float(rng.uniform(0.3, 1.2))
                items.append(Item("parked car", curb - side * 1.1, z, 4.2, variant=_variant(rng), towards=not left))
    return items


@dataclass(frozen=True)
class Stream:
    """Endless sequence of objects that move along the street."""

    number: int
    kind: str
    x: float
    spread: float
    speed: float
    """Speed along the street in meters per second; negative is towards the camera."""
    spacing: float

    def between(self, seed: int, near: float, far: float, seconds: float) -> Iterator[Item]:
        """Yield the objects between two positions of the street at a time."""
        moved = self.speed * seconds
        stride = 3.8 if self.kind == "pedestrian" else 1.2  # radians per meter
        for k in range(int((near - moved) // self.spacing) - 1, int((far - moved) // self.spacing) + 1):
            position, lateral, phase, variant = _member(seed, self.number, k)
            z = (k + 0.6 * position) * self.spacing + moved
            if near <= z <= far:
                x, length = self.x + self.spread * lateral, 4.2 if self.kind == "car" else 0.3
                motion_phase = stride * abs(moved) + math.tau * phase
                yield Item(self.kind, x, z, length, variant=variant, phase=motion_phase, towards=self.speed < 0)


@functools.lru_cache(maxsize=4096)
def _member(seed: int, stream: int, k: int) -> tuple[float, float, float, int]:
    """Return the random properties of object `k` of a stream.

    Returns:
        Longitudinal position, 0 to 1; lateral position, -1 to 1; phase, 0 to 1; variant.
    """
    rng = np.random.default_rng((seed, 2, stream, k + 1_000_000))
    return float(rng.random()), float(rng.uniform(-1, 1)), float(rng.random()), int(rng.integers(1 << 16))


def traffic_streams(layout: Layout, rng: np.random.Generator) -> list[Stream]:
    """Return the traffic of the street: oncoming cars, and cyclists and pedestrians in both directions."""
    left, right = layout.curb(-1) - 1.9, layout.curb(1) + 1.9
    return [
        Stream(0, "car", 3.5, 0.12, -9.0, float(rng.uniform(26, 45))),
        Stream(1, "bicyclist", -2.5, 0.2, 5.2, float(rng.uniform(24, 40))),
        Stream(2, "bicyclist", 5.15, 0.12, -4.6, float(rng.uniform(40, 60))),
        Stream(3, "pedestrian", left, 0.7, 1.3, float(rng.uniform(9, 18))),
        Stream(4, "pedestrian", left, 0.7, -1.2, float(rng.uniform(9, 18))),
        Stream(5, "pedestrian", right, 0.7, 1.2, float(rng.uniform(9, 18))),
        Stream(6, "pedestrian", right, 0.7, -1.4, float(rng.uniform(9, 18))),
    ]
