"""A sink for pictures of one size, opened anew where their size changes."""

from __future__ import annotations

from collections.abc import Callable

from rtseg.core.frame import Passthrough, SegmentedFrame
from rtseg.io.outputs import Sink
from rtseg.live.live_frame import LiveFrame


class Restarting:
    """Opens a sink at the first frame, and another when size or layout change. Implements `rtseg.io.outputs.Sink`."""

    def __init__(self, name: str, open_sink: Callable[[LiveFrame], Sink]) -> None:
        """Opens nothing yet.

        Args:
            name: for statistics, without passwords.
            open_sink: opens a sink for frames like this one.
        """
        self.name = name
        self._open_sink = open_sink
        self._sink: Sink | None = None
        self._shape: object = None
        self._written_before = self._dropped_before = 0
        self._warnings_before: tuple[str, ...] = ()

    @property
    def written(self) -> int:
        """Frames written so far, by all of them."""
        return self._written_before + (self._sink.written if self._sink else 0)

    @property
    def dropped(self) -> int:
        """Frames that they left out themselves, because nobody received."""
        return self._dropped_before + int(getattr(self._sink, "dropped", 0))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What went wrong so far, one line for each of them."""
        return (*self._warnings_before, *getattr(self._sink, "warnings", ()))

    @property
    def late(self) -> str | None:
        """What it means that the one that is open did not end in time; None: that is no failure."""
        return getattr(self._sink, "late", None)

    def write(self, item: SegmentedFrame) -> None:
        """Writes a frame. Raises SinkError."""
        assert isinstance(item, LiveFrame)
        rendered = item.rendered
        shape = rendered.width, rendered.height, rendered.pixel_format, rendered.color
        if self._sink is None or shape != self._shape:
            self.close()
            self._sink, self._shape = self._open_sink(item), shape
        self._sink.write(item)

    def pass_through(self, packet: Passthrough) -> None:
        """The picture alone."""

    def close(self) -> None:
        """Closes the one that is open. Raises SinkError."""
        if self._sink is not None:
            self._sink.close()
            self._written_before += self._sink.written
            self._dropped_before += int(getattr(self._sink, "dropped", 0))
            self._warnings_before = self.warnings
            self._sink = None

    def abort(self) -> None:
        """Ends the one that is open."""
        if self._sink is not None:
            self._sink.abort()
