"""Where frames go."""

from __future__ import annotations

from typing import Protocol

from rtseg.core.frame import Passthrough, SegmentedFrame


class Sink(Protocol):
    """Takes colored frames in presentation order. `close` or `abort` is called once, last."""

    @property
    def name(self) -> str:
        """Short, for statistics and messages: `out.mp4`, `window`, `web`."""

    @property
    def written(self) -> int:
        """Frames written so far."""

    def write(self, item: SegmentedFrame) -> None:
        """Takes one frame. May raise SinkError."""

    def pass_through(self, packet: Passthrough) -> None:
        """Takes a packet of another stream, in the order it was read. Sinks that hold no such streams ignore it."""

    def close(self) -> None:
        """All frames are in: flush, check what was written, and put it under its final name. May raise SinkError."""

    def abort(self) -> None:
        """The run was interrupted or failed: keep what was written playable, under its `.partial` name. Does not raise."""
