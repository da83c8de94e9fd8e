"""Mosaic of several cameras in one image, for a window or a web page."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from rtseg.core.frame import ProcessedFrame, rgb_frame
from rtseg.core.letterbox import Letterbox

MAX_SIZE = (1920, 1080)
"""Maximum width and height of the mosaic in pixels."""


class Mosaic:
    """Grid of the latest frames of all cameras, each with its own aspect ratio.

    A disconnected camera keeps its last frame, darkened, with its name and the duration of the disconnect.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Create the grid for cameras with these names, with the largest even 16:9 cells that fit `MAX_SIZE`."""
        self._names = names
        self._columns = math.ceil(math.sqrt(len(names)))
        rows = math.ceil(len(names) / self._columns)
        width = min(MAX_SIZE[0] // self._columns, MAX_SIZE[1] // rows * 16 // 9)
        self._cell_size = width // 2 * 2, width * 9 // 16 // 2 * 2
        self._canvas = np.zeros((rows * self._cell_size[1], self._columns * self._cell_size[0], 3), dtype=np.uint8)
        self._disconnected: set[int] = set()
        self._count = 0
        self._lock = threading.Lock()
        for number in range(len(names)):
            self._write(number, "no frame yet")

    def update(self, camera: int, item: ProcessedFrame) -> ProcessedFrame:
        """Draw the latest frame of a camera (from 0) and return the item with the mosaic as its rendered frame."""
        rendered, aspect = item.rendered, float(item.info.sample_aspect_ratio)
        box = Letterbox((rendered.width, rendered.height), self._cell_size, pixel_aspect=aspect)
        with self._lock:
            self._disconnected.discard(camera)
            cell = self._cell(camera)
            cell[:] = 0
            box.remove_padding(cell)[:] = box.remove_padding(box.network_input(rendered))
            self._count += 1
            mosaic = rgb_frame(self._canvas, self._count)
        mosaic = replace(mosaic, pts=rendered.pts, time_base=rendered.time_base, captured_ns=rendered.captured_ns)
        return replace(item, rendered=mosaic)

    def mark_disconnected(self, camera: int, text: str) -> None:
        """Darken the cell of a camera and write a text on it, until its next frame."""
        with self._lock:
            if camera not in self._disconnected:
                self._disconnected.add(camera)
                cell = self._cell(camera)
                cell[:] = cell // 3
            self._write(camera, text)

    def _cell(self, camera: int) -> np.ndarray:
        width, height = self._cell_size
        top, left = camera // self._columns * height, camera % self._columns * width
        return self._canvas[top : top + height, left : left + width]

    def _write(self, camera: int, text: str) -> None:
        cell = np.ascontiguousarray(self._cell(camera))
        scale = max(0.3, self._cell_size[1] / 540)
        baseline = round(34 * scale)
        cell[: baseline + baseline // 2] = 0
        for gray, thickness in ((0, 3), (255, 1)):  # the outline, then the text
            line = f"{self._names[camera]}: {text}"
            cv2.putText(cell, line, (8, baseline), cv2.FONT_HERSHEY_SIMPLEX, scale, (gray,) * 3, thickness, cv2.LINE_AA)
        self._cell(camera)[:] = cell
