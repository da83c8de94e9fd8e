"""Buildings of the synthetic street."""

from __future__ import annotations

import numpy as np

from rtseg.synthetic.canvas import BUILDING, Canvas, Color, scaled
from rtseg.synthetic.scene import Item
from rtseg.synthetic.textures import Materials
from rtseg.synthetic.view import CameraView

_STORY_METERS = 3.1
_TILES: Color = (104, 82, 76)
_SLATE: Color = (88, 92, 100)
_PANE = np.array([(0.0, 0.0), (1.1, 0.0), (1.1, 1.5), (0.0, 1.5)])


def draw_house(canvas: Canvas, view: CameraView, materials: Materials, item: Item) -> None:
    """Draw a house: the gable that faces the camera, the slope of the roof, and the facade along the street."""
    side = -1 if item.x < 0 else 1
    near, far = item.z - view.z, item.z + item.length - view.z
    start = max(near, view.near)
    facade = materials.facade(side, item.variant)
    height = _STORY_METERS * facade.floors + 0.6
    ridge_x, ridge = item.x + side * 4.0, height + (2.6 if item.variant % 2 else 0.4)
    if near > view.near:
        x = np.array([item.x, item.x, ridge_x, ridge_x + side * 6, ridge_x + side * 6])
        end = view.project(x, np.array([0, height, ridge, height, 0]), np.full(5, near))
        canvas.fill(end, scaled(facade.wall, 0.8), BUILDING, near)
        if item.variant % 5 < 3 and near < 80:
            feet = np.array([(x, _STORY_METERS * floor + 1.1) for x in (1.6, 5.2) for floor in range(facade.floors)])
            panes = (feet[:, None] + _PANE).reshape(-1, 2)
            points = view.project(item.x + side * panes[:, 0], panes[:, 1], np.full(len(panes), near))
            glass = np.tile((70.0, 80.0, 92.0), (len(panes) // 4, 1))
            canvas.polygons(points, range(4, len(panes) + 1, 4), glass, BUILDING, [near])
    depth = (start + far) / 2
    x, y = np.array([item.x, ridge_x, ridge_x, item.x]), np.array([height, ridge, ridge, height])
    slope = view.project(x, y, np.array([start, start, far, far]))
    canvas.fill(slope, _TILES if item.variant % 3 else _SLATE, BUILDING, depth)
    span = ((start - near) / item.length, 1.0)
    canvas.paste(facade.texture, view.wall(item.x, start, far, height), BUILDING, depth, span)
