"""Sink for frames of one size that is reopened when the size changes."""

from __future__ import annotations

from collections.abc import Callable

from rtseg.core.frame import ProcessedFrame
from rtseg.io.outputs import Sink


class RestartingSink(Sink):
    """Opens a sink at the first frame and a new one when the size or layout changes."""

    def __init__(self, name: str, open_sink: Callable[[ProcessedFrame], Sink]) -> None:
        """Create the sink without opening it.

        Args:
            name: name in statistics, without passwords.
            open_sink: opens a sink for frames like the given one.
        """
        self.name = name
        self._open_sink = open_sink
        self._sink: Sink | None = None
        self._shape: object = None
        self._written_before = self._dropped_before = 0
        self._warnings_before: tuple[str, ...] = ()

    @property
    def written(self) -> int:
        """Number of frames written so far, by all sinks."""
        return self._written_before + (self._sink.written if self._sink else 0)

    @property
    def dropped(self) -> int:
        """Number of frames that the sinks dropped because there was no receiver."""
        return self._dropped_before + (self._sink.dropped if self._sink else 0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems so far, one line each."""
        return (*self._warnings_before, *(self._sink.warnings if self._sink else ()))

    @property
    def unfinished_message(self) -> str | None:
        """Message if the open sink did not end in time; None if that is not a failure."""
        return self._sink.unfinished_message if self._sink else None

    def write(self, item: ProcessedFrame) -> None:
        """Write a frame. Raises SinkError."""
        rendered = item.rendered
        shape = rendered.width, rendered.height, rendered.pixel_format, rendered.color
        if self._sink is None or shape != self._shape:
            self.close()
            self._sink, self._shape = self._open_sink(item), shape
        self._sink.write(item)

    def close(self) -> None:
        """Close the open sink. Raises SinkError."""
        if self._sink is not None:
            self._sink.close()
            self._written_before += self._sink.written
            self._dropped_before += self._sink.dropped
            self._warnings_before = self.warnings
            self._sink = None

    def abort(self) -> None:
        """Abort the open sink."""
        if self._sink is not None:
            self._sink.abort()
