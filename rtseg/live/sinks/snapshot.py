"""Snapshots of a live run, saved as PNG on request."""

from __future__ import annotations

import logging
from datetime import datetime
from itertools import chain, count
from pathlib import Path

import cv2

from rtseg.core.errors import SinkError
from rtseg.core.files import mark_image, write_whole
from rtseg.core.frame import ProcessedFrame
from rtseg.core.letterbox import Letterbox
from rtseg.io.outputs import Sink

_log = logging.getLogger("rtseg.live")


class SnapshotSink(Sink):
    """Saves each frame as `rtseg-20261122-144012-345.png`."""

    name = "snapshots"
    written = 0

    def __init__(self, folder: Path) -> None:
        """Save to `folder`, which is created for the first snapshot."""
        self._folder = folder

    def write(self, item: ProcessedFrame) -> None:
        """Save the rendered frame. Raises SinkError."""
        rendered = item.rendered
        size = rendered.width, rendered.height
        image = cv2.cvtColor(Letterbox(size, size).network_input(rendered), cv2.COLOR_RGB2BGR)
        stem = f"rtseg-{datetime.now().strftime('%Y%m%d-%H%M%S-%f')[:-3]}"
        names = chain([stem], (f"{stem}-{number}" for number in count(2)))
        path = next(path for name in names if not (path := self._folder / f"{name}.png").exists())
        done, data = cv2.imencode(".png", image)
        if not done:
            raise SinkError(f"'{path}' can't be encoded as PNG")
        write_whole(path, mark_image(data.tobytes()))
        self.written += 1
        _log.warning("saved %s", path)
