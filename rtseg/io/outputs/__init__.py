"""Outputs: video files, masks and GStreamer."""

from __future__ import annotations

from typing import Protocol

from rtseg.core.frame import Passthrough, ProcessedFrame


class Sink(Protocol):
    """Output for rendered frames in presentation order. Either `close` or `abort` is called once, at the end."""

    @property
    def name(self) -> str:
        """Short name for statistics and messages, such as `out.mp4`, `window` or `web`."""

    @property
    def written(self) -> int:
        """Number of frames written so far."""

    def write(self, item: ProcessedFrame) -> None:
        """Write one frame. May raise SinkError."""

    def pass_through(self, packet: Passthrough) -> None:
        """Write a packet of another stream, in the order of the input. Sinks that write only video ignore it."""

    def close(self) -> None:
        """Complete, verify and rename the output after the last frame. May raise SinkError."""

    def abort(self) -> None:
        """Keep the unfinished output playable under its `.partial` name after an interruption or error. Does not raise."""
