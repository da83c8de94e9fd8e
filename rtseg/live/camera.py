"""Camera of a live run with its sinks, and the completion of a frame in all sinks."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

from rtseg.core.stats import Stats
from rtseg.io.inputs import Source
from rtseg.live.disconnects import Disconnects
from rtseg.live.sink_thread import SinkThread
from rtseg.pipeline.processor import FrameProcessor


class LiveSource(Source, Protocol):
    """Source of a live run: a stream that reconnects, or a file at its own frame rate."""

    disconnects: Disconnects
    """Periods without frames."""
    connect_attempted: threading.Event
    """Set after the first frame, or after the first failed attempt to connect."""


@dataclass
class Camera:
    """One camera of a run, with the sinks that serve only this camera."""

    name: str
    """Name in files, logs and statistics: `camera0`, `url1`."""

    source: LiveSource
    processor: FrameProcessor
    """Processor of this camera's frames, with its temporal smoothing."""

    sinks: list[SinkThread] = field(default_factory=list)
    """Recording, masks, JSON lines: the recording first."""


class FrameCompletion:
    """Counter of the sinks that still have to write a frame. The frame is complete when the last one is done."""

    def __init__(self, sinks: int, captured_ns: int, stats: Stats) -> None:
        """Start with this number of pending sinks. `stats` are updated when the frame is complete."""
        self._pending, self._captured_ns, self._stats = sinks, captured_ns, stats
        self._slowest_seconds: float | None = None
        self._lock = threading.Lock()

    def sink_done(self, seconds: float | None) -> None:
        """Record that one sink has written the frame in `seconds`, or has dropped it (None)."""
        with self._lock:
            self._pending -= 1
            if seconds is not None:
                self._slowest_seconds = max(seconds, self._slowest_seconds or 0.0)
            last = self._pending == 0
        if last and self._slowest_seconds is not None:
            self._stats.add_stage("encode", self._slowest_seconds)
            self._stats.add_written(self._captured_ns)
