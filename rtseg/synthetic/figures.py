"""Cars, pedestrians, cyclists, lamps and signs of the synthetic street, drawn as polygons."""

from __future__ import annotations

import functools
import math

import numpy as np

from rtseg.synthetic.canvas import BICYCLIST, CAR, PEDESTRIAN, POLE, SIGN, Canvas, Color, Points, scaled
from rtseg.synthetic.scene import CAR_COLORS, CLOTHES, SKIN, Item
from rtseg.synthetic.view import CameraView

Point = tuple[float, float]
Corner = tuple[float, float, float]

_CIRCLE = [(math.cos(math.tau * k / 14), math.sin(math.tau * k / 14)) for k in range(14)]
_ROUGH_PIXELS_PER_METER = 22.0
"""Smaller figures are drawn with fewer parts, without a visible difference."""


@functools.cache
def _car_model(van: bool, nose: bool, flank: int, fine: bool, body: Color) -> tuple[Points, list[int], Points]:
    """Return the convex polygons of a hatchback or van in drawing order.

    Args:
        van: van instead of hatchback.
        nose: the front is near the camera instead of the rear.
        flank: visible side, -1 left or 1 right.
        fine: include details.
        body: color of the body.

    Returns:
        Points, `[N, 3]` in meters: right of the car's center, above the road, beyond the car's near end; the end index in them of
        each polygon; and the color of each polygon, `[polygons, 3]`.
    """
    points: list[Corner] = []
    ends: list[int] = []
    colors: list[Color] = []

    def face(corners: list[Corner], color: Color) -> None:
        points.extend(corners)
        ends.append(len(points))
        colors.append(color)

    def across(bottom: Corner, top: Corner, color: Color) -> None:
        """Add a face between two edges of equal distance to the left and right. An edge is (half its width, y, z)."""
        (x0, y0, z0), (x1, y1, z1) = bottom, top
        face([(-x0, y0, z0), (x0, y0, z0), (x1, y1, z1), (-x1, y1, z1)], color)

    def upright(x: float, width: float, low: float, high: float, z: float, color: Color) -> None:
        face([(x, low, z), (x + width, low, z), (x + width, high, z), (x, high, z)], color)

    length = 4.2
    roof, belt, sill = (2.05, 1.15, 0.32) if van else (1.46, 0.92, 0.3)
    half, top_half = 0.88, (0.8 if van else 0.66)
    glass: Color = (44, 54, 64)
    # positions along the car: bottom and top of the near glass, top and bottom of the far glass
    if van:
        foot, top, top_far, foot_far = (0.5, 1.1, 4.1, 4.15) if nose else (0.0, 0.1, 3.0, 3.7)
    else:
        foot, top, top_far, foot_far = (0.75, 1.6, 3.7, 4.0) if nose else (0.05, 0.5, 2.5, 3.3)
    near_end, far_end = (belt * 0.82, belt) if nose else (belt, belt * 0.82)

    side, top_side = flank * half, flank * top_half
    face([(-half, 0.05, 0), (half, 0.05, 0), (half, 0.05, length), (-half, 0.05, length)], (24, 24, 26))
    face([(side, 0.1, 0.3), (side, 0.1, length - 0.2), (side, sill, length - 0.2), (side, sill, 0.3)], (24, 24, 26))
    face([(side, sill, 0), (side, near_end, 0), (side, belt, foot), (side, belt, foot_far), (side, far_end, length),
          (side, sill, length)], scaled(body, 0.8))  # fmt: skip
    face(
        [(side, belt, foot), (top_side, roof, top), (top_side, roof, top_far), (side, belt, foot_far)],
        scaled(body, 0.84),
    )
    low, high = (side, belt + 0.05), (top_side, roof - 0.12)
    panes: tuple[tuple[float, float, float, float], ...] = ((foot + 0.35, top + 0.15, top_far - 0.1, foot_far - 0.3),)
    if fine:  # a pillar between the doors
        middle = (top + top_far) / 2
        panes = (
            (foot + 0.35, top + 0.15, middle - 0.06, middle - 0.04),
            (middle + 0.06, middle + 0.04, top_far - 0.1, foot_far - 0.3),
        )
    for a, b, c, d in panes:
        face([(*low, a), (*high, b), (*high, c), (*low, d)], (40, 48, 56))
    for wheel in (0.75, length - 0.8):
        for radius, color in ((0.33, (22.0, 22.0, 24.0)), (0.2, (124.0, 126.0, 130.0)))[: 2 if fine else 1]:
            face([(side, 0.33 + radius * y, wheel + radius * z) for z, y in _CIRCLE], color)
    for x in (-half + 0.12, half - 0.32):  # tires below the body
        upright(x, 0.2, 0.0, 0.4, 0.3, (20, 20, 22))
    across((half, sill - 0.08, 0), (half, near_end, 0), body)
    if nose:
        across((half, near_end, 0), (half, belt, foot), scaled(body, 1.2))
    across((half, belt, foot), (top_half, roof, top), scaled(body, 0.95))
    across((half - 0.1, belt + 0.05, foot), (top_half - 0.08, roof - 0.1, top), glass)
    if fine:  # a reflection in the glass, the mirrors
        bottom, upper = belt + 0.05, roof - 0.1
        shine = [(-half + 0.25, bottom, foot), (-half + 0.5, bottom, foot), (-0.1, upper, top), (-0.3, upper, top)]
        face(shine, (74, 88, 102))
    across((half, sill - 0.1, 0), (half, sill + 0.14, 0), scaled(body, 0.55))
    if fine:
        across((0.26, 0.44, 0), (0.26, 0.56, 0), (226, 226, 220) if nose else (220, 186, 60))
        if nose:
            across((0.42, 0.59, 0), (0.42, near_end - 0.07, 0), (30, 30, 34))
    for x in (-half + 0.03, half - 0.3):
        upright(x, 0.27, near_end - 0.23, near_end - 0.06, 0, (250, 246, 226) if nose else (206, 32, 30))
    return np.array(points), ends, np.array(colors)


def draw_car(canvas: Canvas, view: CameraView, item: Item) -> None:
    """Draw a hatchback or van from behind, or from the front if `item.towards` is set."""
    near = item.z - view.z
    fine = view.focal / max(near, view.near) > _ROUGH_PIXELS_PER_METER
    body = CAR_COLORS[item.variant % len(CAR_COLORS)]
    corners, ends, colors = _car_model(item.variant % 7 == 0, item.towards, 1 if item.x < view.x else -1, fine, body)
    depths = np.maximum(near + corners[:, 2], view.near)
    points = view.project(item.x + corners[:, 0], corners[:, 1], depths)
    canvas.polygons(points, ends, colors, CAR, [max(near, 0.0)])


class _Figure:
    """Flat parts of a person, bicycle or sign in drawing order. Coordinates are meters right of and above its foot."""

    def __init__(self, view: CameraView, item: Item) -> None:
        self.depth = item.z - view.z
        self.scale = view.focal / self.depth
        self.rough = self.scale < _ROUGH_PIXELS_PER_METER
        self.foot = (view.center + view.mirror * (item.x - view.x) * self.scale, view.row(self.depth))
        self.points: list[Point] = []
        self.ends: list[int] = []
        self.colors: list[Color] = []

    def part(self, points: list[Point], color: Color) -> None:
        self.points += points
        self.ends.append(len(self.points))
        self.colors.append(color)

    def symmetric(self, right: list[Point], color: Color) -> None:
        """Add a part whose left half mirrors the right one, which is given from the bottom up."""
        self.part([*right, *((-x, y) for x, y in reversed(right))], color)

    def box(self, left: float, bottom: float, right: float, top: float, color: Color) -> None:
        self.part([(left, bottom), (right, bottom), (right, top), (left, top)], color)

    def limb(self, start: Point, end: Point, width: float, color: Color) -> None:
        x, y = end[0] - start[0], end[1] - start[1]
        scale = width / 2 / max(math.hypot(x, y), 1e-6)
        u, v = -y * scale, x * scale
        self.part([(start[0] - u, start[1] - v), (start[0] + u, start[1] + v), (end[0] + 0.8 * u, end[1] + 0.8 * v),
                   (end[0] - 0.8 * u, end[1] - 0.8 * v)], color)  # fmt: skip

    def disc(self, x: float, y: float, radius: float, color: Color, stretch: float = 1.0) -> None:
        self.part([(x + radius * u, y + radius * stretch * v) for u, v in _CIRCLE], color)

    def draw(self, canvas: Canvas, label: int) -> None:
        pixels = np.array(self.points) * (self.scale, -self.scale) + self.foot
        canvas.polygons(pixels, self.ends, np.array(self.colors), label, [self.depth])


def _outfit(variant: int) -> tuple[Color, Color, Color, Color]:
    hair: Color = ((40, 30, 26), (96, 64, 40), (170, 130, 80), (60, 60, 64))[variant % 4]
    return CLOTHES[variant % 9], CLOTHES[(variant // 9) % 9], SKIN[(variant // 81) % 4], hair


def draw_pedestrian(canvas: Canvas, view: CameraView, item: Item) -> None:
    """Draw a walking pedestrian."""
    figure = _Figure(view, item)
    coat, trousers, skin, hair = _outfit(item.variant)
    swing = math.sin(item.phase)
    shoes: Color = (30, 28, 28)
    for leg in (-1, 1):
        lift = 0.10 * max(0.0, swing * leg)
        foot = (leg * 0.09 + 0.09 * swing * leg, 0.05 + lift)
        if figure.rough:
            figure.limb((leg * 0.09, 0.92), (foot[0], 0.0), 0.19, scaled(trousers, 0.85))
            continue
        knee = (leg * 0.10 + 0.06 * swing * leg, 0.48 + lift * 0.8)
        figure.limb((leg * 0.09, 0.92), knee, 0.19, scaled(trousers, 0.95 if leg > 0 else 0.8))
        figure.limb(knee, foot, 0.15, scaled(trousers, 0.9 if leg > 0 else 0.75))
        figure.part([(foot[0] - 0.07, foot[1] - 0.05), (foot[0] + 0.08, foot[1] - 0.05), (foot[0] + 0.06, foot[1] + 0.05),
                     (foot[0] - 0.06, foot[1] + 0.05)], shoes)  # fmt: skip
    if not figure.rough:
        for arm in (-1, 1):
            hand = (arm * 0.27 - 0.05 * swing, 0.86 + 0.05 * swing * arm)
            figure.limb((arm * 0.21, 1.4), hand, 0.13, scaled(coat, 0.8))
            figure.disc(*hand, 0.05, skin)
    figure.symmetric([(0.18, 0.84), (0.21, 1.2), (0.22, 1.42), (0.1, 1.5)], coat)
    if item.variant % 3 == 0 and not item.towards:  # a rucksack
        figure.box(-0.14, 1.02, 0.14, 1.4, CLOTHES[(item.variant + 4) % 9])
    figure.disc(0, 1.64, 0.12, skin if item.towards else hair, 1.2)
    if item.towards:
        figure.symmetric([(0.12, 1.68), (0.1, 1.77), (0, 1.8)], hair)
    figure.draw(canvas, PEDESTRIAN)


def draw_cyclist(canvas: Canvas, view: CameraView, item: Item) -> None:
    """Draw a cyclist from behind or from the front, with moving legs."""
    figure = _Figure(view, item)
    coat, trousers, skin, hair = _outfit(item.variant)
    frame = CAR_COLORS[(item.variant // 7) % len(CAR_COLORS)]
    turn = math.sin(item.phase)
    figure.disc(0, 0.34, 0.065, (26, 26, 28), 5.2)
    figure.box(-0.04, 0.3, 0.04, 0.95, frame)
    for leg in (-1, 1):
        pedal = (leg * 0.13, 0.32 + 0.15 * turn * leg)
        knee = (leg * 0.17, 0.72 + 0.12 * turn * leg)
        figure.limb((leg * 0.1, 1.0), knee, 0.17, scaled(trousers, 0.9))
        figure.limb(knee, pedal, 0.13, scaled(trousers, 0.8))
        if not figure.rough:
            figure.disc(pedal[0], pedal[1] - 0.02, 0.07, (34, 30, 30), 0.6)
    figure.box(-0.3, 1.06, 0.3, 1.11, (40, 40, 44))
    for arm in (-1, 1):
        figure.limb((arm * 0.2, 1.45), (arm * 0.29, 1.1), 0.12, scaled(coat, 0.82))
    figure.symmetric([(0.16, 0.92), (0.23, 1.4), (0.12, 1.52)], coat)
    figure.disc(0, 1.66, 0.115, skin if item.towards else hair, 1.15)
    helmet = CAR_COLORS[item.variant % len(CAR_COLORS)]
    figure.symmetric([(0.135, 1.68), (0.12, 1.78), (0.05, 1.83)], helmet)
    if item.towards:
        figure.disc(0, 0.98, 0.04, (250, 246, 220))
    else:
        figure.box(-0.09, 0.96, 0.09, 1.04, (40, 36, 34))
        figure.disc(0, 0.8, 0.05, (220, 40, 36))
    figure.draw(canvas, BICYCLIST)


def draw_lamp(canvas: Canvas, view: CameraView, item: Item) -> None:
    """Draw a street lamp with an arm over the road."""
    figure = _Figure(view, item)
    gray: Color = (112, 116, 118)
    reach = (-1.6 if item.x > 0 else 1.6) * view.mirror
    top = item.height
    figure.box(-0.1, 0, 0.1, 1.2, scaled(gray, 0.75))
    figure.box(-0.07, 0, 0.07, top, gray)
    figure.part([(0, top - 0.1), (reach, top + 0.3), (reach, top + 0.43), (0, top + 0.03)], gray)
    figure.part(
        [(reach * 0.8, top + 0.2), (reach * 1.3, top + 0.24), (reach * 1.3, top + 0.4), (reach * 0.8, top + 0.42)],
        scaled(gray, 0.8),
    )
    figure.draw(canvas, POLE)


def draw_sign(canvas: Canvas, view: CameraView, item: Item) -> None:
    """Draw a traffic sign or traffic light on its pole."""
    pole = _Figure(view, item)
    top = item.height
    pole.box(-0.05, 0, 0.05, top, (128, 130, 132))
    pole.draw(canvas, POLE)
    figure = _Figure(view, item)
    red, white, blue, black = (196.0, 30.0, 36.0), (240.0, 240.0, 236.0), (28.0, 70.0, 160.0), (30.0, 30.0, 34.0)
    odd = item.variant % 2 == 1
    match item.kind:
        case "round sign":
            figure.disc(0, top, 0.38, red if odd else blue)
            figure.disc(0, top, 0.28, white if odd else (60, 110, 200))
            figure.box(-0.14, top - 0.05, 0.14, top + 0.05, black if odd else white)
        case "triangle sign":
            for size, color in ((0.46, red), (0.29, white)):
                figure.part([(-size, top - size * 0.7), (size, top - size * 0.7), (0, top + size)], color)
            figure.box(-0.04, top - 0.16, 0.04, top + 0.1, black)
        case "board sign":
            figure.box(-0.55, top - 0.4, 0.55, top + 0.4, white)
            figure.box(-0.5, top - 0.35, 0.5, top + 0.35, (20, 100, 70) if odd else blue)
            for y in (-0.18, 0.08):
                figure.box(-0.38, top + y, 0.3, top + y + 0.1, white)
        case _:
            figure.box(-0.2, top - 0.5, 0.2, top + 0.5, (26, 28, 30))
            lit = item.variant % 3
            for number, color in enumerate(((230.0, 40.0, 34.0), (240.0, 170.0, 40.0), (60.0, 220.0, 120.0))):
                figure.disc(0, top + 0.3 - 0.3 * number, 0.11, color if number == lit else scaled(color, 0.3))
    figure.draw(canvas, SIGN)
