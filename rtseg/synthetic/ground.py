"""Ground of the synthetic street: road, lane markings, curbs, pavements, surface texture and shadows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np

from rtseg.synthetic.canvas import PAVEMENT, ROAD, Canvas, Color, Points, fixed, scaled
from rtseg.synthetic.scene import CHUNK_METERS, Item, Layout
from rtseg.synthetic.textures import ASPHALT_LIFT, TILE, TILE_PIXELS_PER_METER, asphalt
from rtseg.synthetic.view import CameraView
from rtseg.synthetic.weather import Weather

_WHITE: Color = (196, 196, 190)
_YELLOW: Color = (186, 154, 56)
_DEPTHS = (12.0, 25.0, 50.0, 100.0, 800.0)
_MARKS_METERS = 100.0
_SHADOW_METERS = 60.0
_RING = np.linspace(0, 2 * np.pi, 14, endpoint=False)


def draw_ground(canvas: Canvas, view: CameraView, layout: Layout, weather: Weather, zebras: int) -> None:
    """Draw the ground up to the horizon. Every fourth chunk of the street, from `zebras` (0 to 3), has a zebra crossing."""
    left, right = layout.curb(-1), layout.curb(1)
    paving, tarmac = (
        (r - ASPHALT_LIFT, g - ASPHALT_LIFT, b - ASPHALT_LIFT) for r, g, b in (weather.paving, weather.asphalt)
    )
    bands = list(itertools.pairwise((view.near, *_DEPTHS)))[::-1]
    middles = [(near + min(far, 200.0)) / 2 for near, far in bands]
    _strips(canvas, [view.flat(-60, 60, *band) for band in bands], paving, PAVEMENT, middles)
    _strips(canvas, [view.flat(left, right, *band) for band in bands], tarmac, ROAD, middles)
    for side, curb in ((-1, left), (1, right)):
        faces = [view.wall(curb, *band, 0.12) for band in bands]
        tops = [view.flat(curb, curb + side * 0.28, *band, 0.12) for band in bands]
        _strips(canvas, faces, scaled(paving, 0.75), PAVEMENT, middles)
        _strips(canvas, tops, scaled(paving, 1.22), PAVEMENT, middles)
    _dashes(canvas, view, 1.75, 0.13, 6.0, 3.2)
    for parking, curb, side in ((layout.left_parking, left, -1), (layout.right_parking, right, 1)):
        if parking:
            _dashes(canvas, view, curb - side * 2.2, 0.1, 3.0, 1.5)
            continue
        for x in (curb - side * 0.3, curb - side * 0.55):
            canvas.fill(view.flat(x - 0.05, x + 0.05, view.near, 90), _YELLOW, ROAD, 20)
    for chunk in range(int(view.z // CHUNK_METERS) - 1, int((view.z + 90) // CHUNK_METERS) + 1):
        near = chunk * CHUNK_METERS + 2.0 - view.z
        if chunk % 4 == zebras and near + 3 > view.near:
            start = max(near, view.near)
            bars = [view.flat(x, x + 0.6, start, near + 3) for x in np.arange(left + 0.5, right - 0.5, 1.2)]
            _strips(canvas, bars, _WHITE, ROAD, [near] * len(bars))
    _roughen(canvas, view)


def _dashes(canvas: Canvas, view: CameraView, x: float, half_width: float, period: float, length: float) -> None:
    """Draw a dashed white line along the street at `x`. All lengths are in meters."""
    first = int((view.z + view.near - length) // period) + 1
    starts = [k * period - view.z for k in range(first, first + int(_MARKS_METERS / period))]
    strips = [view.flat(x - half_width, x + half_width, max(start, view.near), start + length) for start in starts]
    _strips(canvas, strips, _WHITE, ROAD, starts)


def _strips(canvas: Canvas, quads: list[Points], color: Color, label: int, depths: Sequence[float]) -> None:
    """Fill quadrilaterals of one color and class, with a depth each."""
    ends = range(4, 4 * len(quads) + 1, 4)
    canvas.polygons(np.concatenate(quads), ends, np.array([color] * len(quads)), label, depths)


def _roughen(canvas: Canvas, view: CameraView) -> None:
    """Add the texture of the asphalt, fixed to the street. It is smoother at a distance, which prevents flicker."""
    height, width = canvas.pixels.shape[:2]
    rows = [int(np.clip(view.row(depth), 0, height)) for depth in (60.0, 22.0, 9.0, view.near)]
    far = canvas.pixels[min(int(view.horizon) + 2, rows[0]) : rows[0]]
    if len(far):
        cv2.add(far, (ASPHALT_LIFT, ASPHALT_LIFT, ASPHALT_LIFT, 0), dst=far)
    for tile, (top, bottom) in zip(reversed(asphalt()), itertools.pairwise(rows), strict=True):
        if bottom > top:
            to_tile = view.to_ground(TILE_PIXELS_PER_METER, top, TILE)
            size, flags = (width, bottom - top), cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
            grain = cv2.warpPerspective(tile, to_tile, size, flags=flags, borderMode=cv2.BORDER_WRAP)
            band = canvas.pixels[top:bottom]
            cv2.add(band, grain, dst=band)


def draw_shadows(canvas: Canvas, view: CameraView, weather: Weather, items: Sequence[Item]) -> None:
    """Darken the ground in the shadows of objects. The classes do not change."""
    height, width = canvas.pixels.shape[:2]
    top = int(np.clip(view.row(_SHADOW_METERS), 0, height - 1))
    mask = np.zeros((height - top, width), dtype=np.uint8)
    for item in items:
        outline = _shadow(view, weather, item)
        if outline is not None:
            cv2.fillConvexPoly(mask, fixed(outline - (0, top)), 255, cv2.LINE_8, 4)
    ground = canvas.pixels[top:]
    cv2.copyTo(cv2.multiply(ground, weather.shadow), mask, ground)


def _shadow(view: CameraView, weather: Weather, item: Item) -> Points | None:
    """Return the outline of an object's shadow on the ground, `[N, 2]` in pixels; None if it has no shadow."""
    near, far = item.z - view.z, item.z + item.length - view.z
    if far < view.near + 0.1 or near > _SHADOW_METERS:
        return None
    near = max(near, view.near)
    match item.kind:
        case "car" | "parked car":
            return view.flat(item.x - 1.0, item.x + 1.0, max(near - 0.15, view.near), far + 0.1)
        case "pedestrian" | "bicyclist":
            return view.flat(item.x - 0.3, item.x + 0.3, near, near + 0.5)
    if weather.clear < 0.35 or (item.x > 0) != (weather.sun > 0):
        return None
    match item.kind:
        case "house":
            return view.flat(item.x, item.x - weather.sun * (2.2 + 1.1 * (item.variant % 5)), near, far)
        case "tree" | "garden tree":
            radius = item.height * 0.36
            z = np.maximum(near + 0.5 + radius * np.sin(_RING), view.near)
            return view.project(item.x - weather.sun * 1.4 + radius * 1.3 * np.cos(_RING), 0.0, z)
    return None
