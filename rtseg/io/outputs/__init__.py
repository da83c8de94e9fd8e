"""Outputs: video files, masks and GStreamer."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from rtseg.core.frame import Passthrough, ProcessedFrame


class Sink(Protocol):
    """Output for rendered frames in presentation order. Either `close` or `abort` is called once, at the end.

    Sinks inherit from it, because most of its members have a default.
    """

    name: str
    """Short name for statistics and messages, such as `out.mp4`, `window` or `web`, without passwords."""

    @property
    def written(self) -> int:
        """Number of frames written so far."""

    @property
    def dropped(self) -> int:
        """Number of frames that were passed to `write` and dropped, for example because there was no receiver."""
        return 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems so far that did not end the output, one line each."""
        return ()

    @property
    def partial_path(self) -> Path | None:
        """Path of the output until it is complete; `abort` keeps it. None: the output has no temporary name."""
        return None

    @property
    def unfinished_message(self) -> str | None:
        """Message for a run that ends before `close` returns; None if that is not a failure."""
        return "not complete in time"

    def write(self, item: ProcessedFrame) -> None:
        """Write one frame. May raise SinkError."""

    def pass_through(self, packet: Passthrough) -> None:
        """Write a packet of another stream, in the order of the input. Sinks that write only video ignore it."""
        return

    def close(self) -> None:
        """Complete, verify and rename the output after the last frame. May raise SinkError."""
        return

    def abort(self) -> None:
        """Keep the unfinished output playable under its `.partial` name after an interruption or error. Does not raise."""
        return
