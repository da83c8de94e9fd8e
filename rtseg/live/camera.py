"""What a live run is made of: a camera with its own sinks, and a frame on its way out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from rtseg.core.frame import ClassMap, Frame, Passthrough, StreamInfo
from rtseg.live.reconnect import Disconnects
from rtseg.live.sink_thread import SinkThread
from rtseg.live.stats import LiveStats


class LiveSource(Protocol):
    """A source that lasts: one that reconnects, or a file at its own pace."""

    @property
    def info(self) -> StreamInfo:
        """Of the newest frame's stream."""

    @property
    def corrupt(self) -> int:
        """Frames so far that could not be decoded."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was met and mended so far."""

    @property
    def decode_seconds(self) -> float:
        """What the newest frame took to decode."""

    @property
    def disconnects(self) -> Disconnects:
        """Times without pictures."""

    @property
    def tried(self) -> threading.Event:
        """Set once the first frame is there or the first try has failed."""

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        """Frames with rising `pts`."""

    def close(self) -> None:
        """Ends the reading, from any thread."""


@dataclass
class Camera:
    """One camera of a run, with the sinks that are its alone."""

    name: str
    """`camera0`, `url1`: in file names, logs and statistics."""

    source: LiveSource
    sinks: list[SinkThread] = field(default_factory=list)
    """Recording, masks, lines: the recording first."""

    segment: Callable[[Frame, float], ClassMap] | None = None
    """This camera's own way through the network, where something is kept of its frames before; None: the run's."""


class FrameCompletion:
    """Waits for the last sink of a frame; only then has it left."""

    def __init__(self, sinks: int, captured_ns: int, stats: LiveStats, on_left: Callable[[float], None]) -> None:
        """Of a frame that was captured then and goes to so many sinks; `on_left` is told its age, milliseconds."""
        self._sinks, self._captured_ns, self._stats, self._on_left = sinks, captured_ns, stats, on_left
        self._slowest: float | None = None
        self._lock = threading.Lock()

    def one(self, seconds: float | None) -> None:
        """One sink has written the frame in so many seconds, or dropped it (None)."""
        with self._lock:
            self._sinks -= 1
            if seconds is not None:
                self._slowest = max(seconds, self._slowest or 0.0)
            last = self._sinks == 0
        if last and self._slowest is not None:
            self._stats.spent("encode", self._slowest)
            self._stats.left(self._captured_ns)
            self._on_left((time.monotonic_ns() - self._captured_ns) / 1e6)
