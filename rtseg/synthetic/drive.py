"""Synthetic street video: arguments, random access to frames, and the drawing order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import OptionError
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.synthetic.buildings import draw_house
from rtseg.synthetic.canvas import FENCE, PAVEMENT, TREE, Canvas, Image
from rtseg.synthetic.figures import draw_car, draw_cyclist, draw_lamp, draw_pedestrian, draw_sign
from rtseg.synthetic.ground import draw_ground, draw_shadows
from rtseg.synthetic.scene import CHUNK_METERS, Item, Layout, static_items, traffic_streams
from rtseg.synthetic.textures import Materials
from rtseg.synthetic.view import CameraView
from rtseg.synthetic.weather import Weather

MIN_SIDE = 32
"""Minimum width and height in pixels; the street is not recognizable in smaller frames."""

SPEED = 10.0
"""Speed of the camera in meters per second."""

_SUNNY = 1807
"""Second part of the random seed, chosen such that the default seed 0 has sunny weather."""

_SIGHT_METERS = 200.0
_SIGHT = {
    "house": 200.0,
    "hedge": 200.0,
    "car": 140.0,
    "parked car": 140.0,
    "fence": 140.0,
    "tree": 180.0,
    "garden tree": 180.0,
}
"""Maximum drawing distance in meters; 90 for the small objects that are not listed."""

_LAYERS = {"house": 0, "hedge": 0, "garden tree": 0, "fence": 1, "parked car": 3, "bicyclist": 4, "car": 5}
"""Drawing order from the outside to the middle of the road, because inner objects hide outer ones. Objects on the pavement
are in layer 2."""


class SyntheticDrive:
    """Video of a drive along a synthetic street, with random access to its frames and class maps. Deterministic."""

    classes = CAMVID_CLASSES
    """Class names in the order of the indices in a class map."""

    def __init__(
        self, width: int = 960, height: int = 540, frames: int = 150, seed: int = 0, fps: float | Fraction = 30
    ) -> None:
        """Create the street and its light.

        Args:
            width: width in pixels, at least `MIN_SIDE`; may be odd.
            height: height in pixels, at least `MIN_SIDE`; may be odd.
            frames: number of frames, at least 1.
            seed: random seed of the street, the traffic and the light, 0 or more.
            fps: frames per second, above 0. It determines the motion from frame to frame.

        Raises:
            OptionError: an argument is out of its range.
        """
        if width < MIN_SIDE or height < MIN_SIDE:
            raise OptionError(
                f"a synthetic video of {width}x{height} is too small; give at least {MIN_SIDE}x{MIN_SIDE}"
            )
        if frames < 1:
            raise OptionError(f"a synthetic video needs at least 1 frame, not {frames}")
        if seed < 0:
            raise OptionError(f"the seed is {seed}; give a whole number of 0 or more")
        if not (fps > 0 and math.isfinite(fps)):
            raise OptionError(f"the frame rate is {fps}; give a number above 0")
        self.width, self.height, self.seed, self.fps = width, height, seed, fps
        self._frames = frames
        rng = np.random.default_rng((seed, _SUNNY))
        self._mirror = -1.0 if rng.random() < 0.5 else 1.0
        self._layout = Layout(bool(rng.random() < 0.3), bool(rng.random() < 0.55))
        self._streams = traffic_streams(self._layout, rng)
        self._lead_gaps = (float(rng.uniform(13, 24)), float(rng.uniform(38, 55)), float(rng.uniform(75, 95)))
        weather = self._weather = Weather.random(rng)
        lights = {side: weather.light(side) for side in (-1, 1)}
        self._materials = Materials(seed, lights, 0.95 + 0.15 * weather.clear, weather.sun * self._mirror)
        self._sky = weather.sky(rng, width + width // 4, height * 5 // 8 + 8)
        self._noise = weather.sensor(rng, width + 67, height + 61)

    def __len__(self) -> int:
        return self._frames

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
        return (self.frame(index) for index in range(self._frames))

    def frame(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Draw one frame. The frames may be drawn in any order.

        Returns:
            The image, uint8 `[H, W, 3]`, RGB, and its class map, uint8 `[H, W]`, indices into `classes`. Both are new arrays.

        Raises:
            IndexError: the index is negative or not below the number of frames.
        """
        if not 0 <= index < self._frames:
            raise IndexError(f"frame {index} of a video of {self._frames} frames")
        seconds = float(index / Fraction(self.fps))
        view = CameraView.at(self.width, self.height, seconds, SPEED, self._mirror)
        canvas = Canvas(self._backdrop(view), self._weather.haze)
        self._draw_skyline(canvas, view)
        items = self._visible_items(view, seconds)
        draw_ground(canvas, view, self._layout, self._weather, self.seed % 4)
        draw_shadows(canvas, view, self._weather, items)
        for item in items:
            self._draw(canvas, view, item)
        return self._apply_camera_effects(canvas.pixels, index)

    def _backdrop(self, view: CameraView) -> Image:
        """Return a canvas with the sky above the horizon and hazy ground below it."""
        pixels = np.empty((self.height, self.width, 4), dtype=np.uint8)
        horizon = min(int(view.horizon) + 2, self._sky.shape[0])
        spare = self._sky.shape[1] - self.width
        left = int(np.clip(spare / 2 - (view.center - self.width / 2), 0, spare))
        pixels[:horizon] = self._sky[self._sky.shape[0] - horizon :, left : left + self.width]
        ground = (*self._weather.haze.color, PAVEMENT)
        cv2.rectangle(pixels, (0, horizon), (self.width, self.height), ground, cv2.FILLED)
        return pixels

    def _draw_skyline(self, canvas: Canvas, view: CameraView) -> None:
        """Draw a distant row of trees on the horizon."""
        step = view.focal * 0.04
        k = np.arange(int(-view.center / step) - 2, int((self.width - view.center) / step) + 2)
        rise = view.focal * (0.014 + 0.02 * ((k * 7919) % 13) / 13)
        x = np.array((0.0, 0.5, 1.0, 1.3, -0.3)) * step + view.center + k[:, None] * step
        y = view.horizon - np.array((0.7, 1.0, 0.8, 0.0, 0.0)) * rise[:, None] + np.array((0, 0, 0, 2, 2))
        points = np.stack([x, y], axis=-1).reshape(-1, 2)
        greens = np.array((70.0, 92.0, 60.0)) * (0.9 + 0.2 * ((k * 31) % 7) / 7)[:, None]
        canvas.polygons(points, range(5, len(points) + 1, 5), greens, TREE, [_SIGHT_METERS * 0.8])

    def _visible_items(self, view: CameraView, seconds: float) -> list[Item]:
        """Return all visible objects in drawing order."""
        items: list[Item] = []
        for chunk in range(int((view.z - 16) // CHUNK_METERS), int((view.z + _SIGHT_METERS) // CHUNK_METERS) + 1):
            items += static_items(self.seed, chunk, self._layout)
        for stream in self._streams:
            items += stream.between(self.seed, view.z - 4, view.z + _SIGHT_METERS, seconds)
        for number, gap in enumerate(self._lead_gaps):  # cars ahead in the camera's lane, at a varying distance
            z = view.z + gap * (1 + 0.22 * math.sin(0.35 * seconds + 2 * number + self.seed))
            x = 0.1 * math.sin(0.3 * seconds + number)
            items.append(Item("car", x, z, length=4.2, variant=self.seed * 31 + number * 7 + 3))
        visible = [item for item in items if self._is_visible(view, item)]
        return sorted(visible, key=lambda item: (_LAYERS.get(item.kind, 2), -item.z - item.length, -abs(item.x)))

    def _is_visible(self, view: CameraView, item: Item) -> bool:
        """Return whether an object may overlap the image. Distant small objects are not visible."""
        near, far = item.z - view.z, item.z + item.length - view.z
        if far < view.near + 0.05 or near > _SIGHT.get(item.kind, 90.0):
            return False
        if item.length == 0.0 or item.kind in ("garden tree", "pedestrian", "bicyclist"):  # flat, and facing the camera
            if near < view.near:
                return False
            far = near
        margin = (0.8 * item.height if item.kind.endswith("tree") else 2.2) * view.focal / far
        column = view.mirror * (item.x - view.x) / far * view.focal + view.center
        return -margin < column < self.width + margin

    def _draw(self, canvas: Canvas, view: CameraView, item: Item) -> None:
        side = -1 if item.x < 0 else 1
        near = item.z - view.z
        match item.kind:
            case "house":
                draw_house(canvas, view, self._materials, item)
            case "fence" | "hedge":
                start, far = max(near, view.near), near + item.length
                wall, span = view.wall(item.x, start, far, item.height), ((start - near) / item.length, 1.0)
                if item.kind == "fence":
                    canvas.paste(self._materials.fence(side, item.variant), wall, FENCE, (start + far) / 2, span)
                else:
                    canvas.paste(self._materials.hedge(side, item.variant), wall, TREE, (start + far) / 2, span)
            case "tree" | "garden tree":
                quad = view.upright(item.x, near, item.height * 0.8, item.height)
                canvas.paste(self._materials.tree(item.variant), quad, TREE, near)
            case "car" | "parked car":
                draw_car(canvas, view, item)
            case "pedestrian":
                draw_pedestrian(canvas, view, item)
            case "bicyclist":
                draw_cyclist(canvas, view, item)
            case "lamp":
                draw_lamp(canvas, view, item)
            case _:
                draw_sign(canvas, view, item)

    def _apply_camera_effects(self, pixels: Image, index: int) -> tuple[Image, Image]:
        """Separate colors and classes, and apply blur, exposure, tint and noise to the colors."""
        labels = np.asarray(cv2.extractChannel(pixels, 3), dtype=np.uint8)
        blur = np.array((1, 6, 1), dtype=np.float32) / 8  # symmetric, half a pixel
        rgb = cv2.sepFilter2D(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), -1, blur, blur)
        down, across = (index * 37) % 61, (index * 53) % 67
        noise = self._noise[down : down + self.height, across : across + self.width]
        return np.asarray(cv2.addWeighted(rgb, self._weather.gain, noise, 1.0, -128.0), dtype=np.uint8), labels
