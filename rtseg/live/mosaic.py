"""Several cameras in one picture, for a window or a page."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from rtseg.core.frame import rgb_frame
from rtseg.core.letterbox import Letterbox
from rtseg.live.live_frame import LiveFrame

LARGEST = (1920, 1080)
"""Pixels; the whole mosaic is at most this size."""

_TEXT, _EDGE = (255, 255, 255), (0, 0, 0)


class Mosaic:
    """Keeps the last picture of each camera and shows all of them, in rows, each in its own shape.

    A camera without pictures keeps its last one, darkened, with its name and for how long there has been none.
    """

    def __init__(self, names: Sequence[str], cell: tuple[int, int] | None = None) -> None:
        """Lays out the cells.

        Args:
            names: of the cameras.
            cell: (width, height) of each cell, even; None: as large as `LARGEST` allows, 16 to 9.
        """
        self._names = names
        self.columns = math.ceil(math.sqrt(len(names)))
        self.rows = math.ceil(len(names) / self.columns)
        if cell is None:
            width = min(LARGEST[0] // self.columns, LARGEST[1] // self.rows * 16 // 9)
            cell = width // 2 * 2, width * 9 // 16 // 2 * 2
        self.cell = cell
        self._canvas = np.zeros((self.rows * cell[1], self.columns * cell[0], 3), dtype=np.uint8)
        self._silent: set[int] = set()
        self._count = 0
        self._lock = threading.Lock()
        for number in range(len(names)):
            self._write(number, "no picture yet")

    def put(self, camera: int, item: LiveFrame) -> LiveFrame:
        """The item with the mosaic in place of its own picture.

        Args:
            camera: number of the camera it comes from.
            item: its newest frame.
        """
        rendered, aspect = item.rendered, float(item.info.sample_aspect_ratio)
        box = Letterbox((rendered.width, rendered.height), self.cell, pixel_aspect=aspect)
        with self._lock:
            self._silent.discard(camera)
            part = self._part(camera)
            part[:] = 0
            box.picture_part(part)[:] = box.picture_part(box.network_input(rendered))
            self._count += 1
            picture = rgb_frame(self._canvas, self._count)
        timed = replace(picture, pts=rendered.pts, time_base=rendered.time_base, captured_ns=rendered.captured_ns)
        return replace(item, rendered=timed)

    def silent(self, camera: int, text: str) -> None:
        """Says on a camera's cell that it has no pictures now; the next picture takes that away."""
        with self._lock:
            if camera not in self._silent:
                self._silent.add(camera)
                part = self._part(camera)
                part[:] = part // 3
            self._write(camera, text)

    def _part(self, camera: int) -> np.ndarray:
        width, height = self.cell
        top, left = camera // self.columns * height, camera % self.columns * width
        return self._canvas[top : top + height, left : left + width]

    def _write(self, camera: int, text: str) -> None:
        part = np.ascontiguousarray(self._part(camera))
        scale = max(0.3, self.cell[1] / 540)
        below = round(34 * scale)
        part[: below + below // 2] = 0
        for color, thickness in ((_EDGE, 3), (_TEXT, 1)):
            line = f"{self._names[camera]}: {text}"
            cv2.putText(part, line, (8, below), cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA)
        self._part(camera)[:] = part
