"""Snapshots: frames as still images, and the sink that saves them as PNG on request."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import SinkError
from rtseg.core.files import mark_image, numbered_names, write_whole
from rtseg.core.frame import Frame, ProcessedFrame
from rtseg.core.letterbox import Letterbox
from rtseg.io.outputs import Sink

_log = logging.getLogger("rtseg.live")

JPEG_QUALITY = 80


class SnapshotSink(Sink):
    """Saves each frame as `rtseg-20261122-144012-345.png`."""

    name = "snapshots"
    written = 0

    def __init__(self, folder: Path) -> None:
        """Save to `folder`, which is created for the first snapshot."""
        self._folder = folder

    def write(self, item: ProcessedFrame) -> None:
        """Save the rendered frame. Raises SinkError."""
        name = f"rtseg-{datetime.now().strftime('%Y%m%d-%H%M%S-%f')[:-3]}.png"
        path = next(path for path in numbered_names(self._folder / name) if not path.exists())
        write_whole(path, mark_image(encode(item.rendered, ".png")))
        self.written += 1
        _log.warning("saved %s", path)


def encode(frame: Frame, suffix: str, max_width: int | None = None) -> bytes:
    """Return a frame as an image in the format of `suffix`, `.jpg` or `.png`; see `to_bgr`. Raises SinkError on failure."""
    ok, data = cv2.imencode(suffix, to_bgr(frame, max_width), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise SinkError(f"a frame of {frame.width}x{frame.height} can't be encoded as {suffix}")
    return data.tobytes()


def to_bgr(frame: Frame, max_width: int | None = None) -> npt.NDArray[np.uint8]:
    """Return a frame of any pixel format, color matrix and range as BGR, uint8 `[height, width, 3]`.

    Frames wider than `max_width` are scaled down to it; None: no scaling.
    """
    width, height = frame.width, frame.height
    if max_width is not None and width > max_width:
        width, height = max_width, max(1, round(height * max_width / width))
    rgb = Letterbox((frame.width, frame.height), (width, height), "stretch").network_input(frame)
    return np.ascontiguousarray(rgb[:, :, ::-1])
