"""Load shedding (`--adaptive`): reduce the work on a live stream so that its frame rate is stable on a slow machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rtseg.core.live_report import AdaptiveReport, IntervalReport

SLOWER_SECONDS = 3
"""Number of consecutive overloaded seconds before the work is reduced."""

FASTER_SECONDS = 10
"""Number of consecutive seconds with spare capacity before the work is increased; doubled each time that this was too much."""

MAX_FASTER_SECONDS = 300
"""Upper limit of that number."""

TARGET_LOAD = 0.8
"""Highest expected load, as a share of the available time, at which the work is increased."""

MAX_FRAME_INTERVAL = 4
"""Largest interval of processed frames: at least one frame in four is processed."""


@dataclass(frozen=True)
class LoadLevel:
    """Amount of work per stream."""

    model: int
    """0: the requested model; 1: the smaller one."""

    frame_interval: int
    """Every n-th frame of a camera is processed; 1: all."""


class LoadShedder:
    """Selects the load level once per second from the metrics of the run. `level` may be read by any thread.

    The levels are, in this order: the smaller model (if there is one), every second frame, every third, and so on. Work
    increases one level at a time, when the measured cost predicts a load of at most `TARGET_LOAD` at the next level.
    """

    def __init__(self, models: Sequence[str], log: Callable[[str], None] = lambda _: None) -> None:
        """Start with the requested model on every frame.

        Args:
            models: name of the requested model, and of the smaller one if there is one.
            log: called with one line at each change.
        """
        self._models, self._log = models, log
        self._levels = [LoadLevel(model, 1) for model in range(len(models))]
        self._levels += [LoadLevel(len(models) - 1, interval) for interval in range(2, MAX_FRAME_INTERVAL + 1)]
        self._index = 0
        self._cost_ms = 0.0
        self._cost_ratio = 0.0
        """Cost of a frame with the requested model, divided by its cost with the smaller one; 0: not yet measured."""
        self._overloaded_seconds = self._spare_seconds = 0
        self._faster_seconds = FASTER_SECONDS
        self._seconds_since_faster = MAX_FASTER_SECONDS
        self._changes = 0

    @property
    def level(self) -> LoadLevel:
        """Current load level."""
        return self._levels[self._index]

    def update(self, now: IntervalReport) -> None:
        """Select the load level from the metrics of one second."""
        self._seconds_since_faster += 1
        if not now.work_ms:
            return  # no frame was processed: the camera is disconnected
        if self.level.model and not self._cost_ratio:
            self._cost_ratio = self._cost_ms / now.work_ms
        self._cost_ms = now.work_ms
        overloaded = self._load(self._index, now.capture_fps) > 1.0 or now.stale > 0
        spare = self._index > 0 and not overloaded and self._load(self._index - 1, now.capture_fps) <= TARGET_LOAD
        self._overloaded_seconds = self._overloaded_seconds + 1 if overloaded else 0
        self._spare_seconds = self._spare_seconds + 1 if spare else 0
        if self._overloaded_seconds >= SLOWER_SECONDS and self._index + 1 < len(self._levels):
            if self._seconds_since_faster < self._faster_seconds:  # the last increase was too much
                self._faster_seconds = min(2 * self._faster_seconds, MAX_FASTER_SECONDS)
            self._change(+1, f"can't keep up ({_load_text(now)})")
        elif self._spare_seconds >= self._faster_seconds:
            self._seconds_since_faster = 0
            self._change(-1, f"spare capacity again ({_load_text(now)})")
        elif self._seconds_since_faster >= MAX_FASTER_SECONDS:
            self._faster_seconds = FASTER_SECONDS

    def report(self) -> AdaptiveReport:
        """Return the current load level."""
        return AdaptiveReport(
            model=self._models[self.level.model], every=self.level.frame_interval, changes=self._changes
        )

    def _load(self, index: int, capture_fps: float) -> float:
        """Return the expected load at a level, as a share of the available time, from the current cost of a frame."""
        level = self._levels[index]
        cost_ms = self._cost_ms * (self._cost_ratio if level.model < self.level.model else 1.0)
        return cost_ms * capture_fps / level.frame_interval / 1e3

    def _change(self, by: int, reason: str) -> None:
        before, self._index = self.level, self._index + by
        if before.model < self.level.model:
            self._cost_ratio = 0.0  # measured again in the next second
        self._overloaded_seconds = self._spare_seconds = 0
        self._changes += 1
        level = self.level
        name = f" on the model {self._models[level.model]}" if len(self._models) > 1 else ""
        frames = "every frame" if level.frame_interval == 1 else f"one frame in {level.frame_interval}"
        self._log(f"{reason}: now {frames}{name}")


def _load_text(now: IntervalReport) -> str:
    stale = f", {now.stale} frames too old" if now.stale else ""
    interval_ms = 1e3 / max(now.capture_fps, 0.1)
    return f"{now.work_ms:.0f} ms per frame, a frame every {interval_ms:.0f} ms{stale}"
