"""Single pictures of a live run, saved as PNG when someone asks for one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import chain, count
from pathlib import Path

import cv2

from rtseg.core.errors import SinkError
from rtseg.core.files import mark_image, write_whole
from rtseg.core.frame import Passthrough, SegmentedFrame
from rtseg.core.letterbox import Letterbox


class Snapshots:
    """Saves each frame it is given as `rtseg-20261122-144012-345.png`. Implements `rtseg.io.outputs.Sink`."""

    name = "snapshots"

    def __init__(self, folder: Path, on_saved: Callable[[Path], None] = lambda _: None) -> None:
        """Saves into `folder`, which is made when the first picture comes; `on_saved` is told each file."""
        self.written = 0
        self._folder, self._on_saved = folder, on_saved

    def write(self, item: SegmentedFrame) -> None:
        """Saves one picture, as it is shown. Raises SinkError."""
        rendered = item.rendered
        size = rendered.width, rendered.height
        picture = cv2.cvtColor(Letterbox(size, size).network_input(rendered), cv2.COLOR_RGB2BGR)
        stem = f"rtseg-{datetime.now().strftime('%Y%m%d-%H%M%S-%f')[:-3]}"
        names = chain([stem], (f"{stem}-{number}" for number in count(2)))
        path = next(path for name in names if not (path := self._folder / f"{name}.png").exists())
        done, data = cv2.imencode(".png", picture)
        if not done:
            raise SinkError(f"'{path}' can't be encoded as PNG")
        write_whole(path, mark_image(data.tobytes()))
        self.written += 1
        self._on_saved(path)

    def pass_through(self, packet: Passthrough) -> None:
        """Pictures hold no other streams."""

    def close(self) -> None:
        """Nothing is open."""

    def abort(self) -> None:
        """Nothing is left behind."""
