"""Statistics of a live run: since its start and of the last second."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from rtseg.core.frame import ClassMap
from rtseg.core.stats import STAGES, Stats, class_shares


class LiveStats:
    """Counts and clocks of one camera, or of all cameras together. All methods may be called from any thread."""

    def __init__(self, classes: tuple[str, ...], total: LiveStats | None = None) -> None:
        """Start the clocks.

        Args:
            classes: class names of the model.
            total: statistics of all cameras together, which are updated too.
        """
        self.stats = Stats(classes)
        self.segmented = 0
        """Number of frames segmented by the network."""
        self.stale = 0
        """Number of segmented frames that were too old to be displayed."""
        self.stale_before_inference = 0
        """Number of frames that were too old for the network; they count as dropped."""
        self._classes = classes
        self._total = total
        self._lock = threading.Lock()
        self._ages_ms: list[float] = []
        self._latest_classes: ClassMap | None = None
        self._interval_start = time.perf_counter()
        self._totals_before: dict[str, float] = {}
        self.stats.start()

    def add_stage_time(self, stage: str, seconds: float) -> None:
        """Add the time of one frame in a stage."""
        with self._lock:
            self.stats.stages[stage].add(seconds)
        if self._total:
            self._total.add_stage_time(stage, seconds)

    def add_segmented(self, classes: ClassMap) -> None:
        """Count a segmented frame."""
        with self._lock:
            self.segmented += 1
            self._latest_classes = classes
            self.stats.add_classes(classes)
        if self._total:
            self._total.add_segmented(classes)

    def add_stale(self, *, segmented: bool) -> None:
        """Count a frame that was too old, after (`segmented`) or before the network."""
        with self._lock:
            if segmented:
                self.stale += 1
            else:
                self.stale_before_inference += 1
        if self._total:
            self._total.add_stale(segmented=segmented)

    def add_completed(self, captured_ns: int) -> None:
        """Count a frame that its last sink has written."""
        with self._lock:
            self.stats.frame_written(captured_ns)
            self._ages_ms.append((time.monotonic_ns() - captured_ns) / 1e6)
        if self._total:
            self._total.add_completed(captured_ns)

    def interval_report(self, read: int, dropped: int) -> dict[str, Any]:
        """Return the statistics since the last call: `now` in `LiveMetrics`. Called once per second.

        Args:
            read: number of frames decoded since the start.
            dropped: number of frames dropped since the start, including those too old for the network.
        """
        with self._lock:
            ages_ms, self._ages_ms = self._ages_ms, []
            latest = self._latest_classes
            stage_seconds = {stage: self.stats.stages[stage].total_seconds for stage in STAGES}
            stale = self.stale + self.stale_before_inference
            totals = {"read": read, "dropped": dropped, "segmented": self.segmented, "stale": stale, **stage_seconds}
            end = time.perf_counter()
        seconds, self._interval_start = max(end - self._interval_start, 1e-9), end
        delta = {key: value - self._totals_before.get(key, 0) for key, value in totals.items()}
        self._totals_before = dict(totals)
        p50, p99, largest = np.percentile(ages_ms, (50, 99, 100)) if ages_ms else (0.0, 0.0, 0.0)
        segmented = max(1, delta["segmented"])
        engine_ms = delta["infer"] / segmented * 1e3
        work_ms = (delta["infer"] + delta["overlay"]) / segmented * 1e3
        return {
            "capture_fps": round(delta["read"] / seconds, 1),
            "shown_fps": round(len(ages_ms) / seconds, 1),
            "dropped": int(delta["dropped"]),
            "age_ms": {"p50": round(float(p50), 1), "p99": round(float(p99), 1), "max": round(float(largest), 1)},
            "bottleneck": max(STAGES, key=lambda stage: delta[stage]),
            "engine_ms": round(engine_ms, 1),
            "work_ms": round(work_ms, 1),
            "stale": int(delta["stale"]),
            "classes": {} if latest is None else class_shares(latest, self._classes),
        }

    def to_dict(self, segmented: int, dropped: int, corrupt: int) -> dict[str, Any]:
        """Return the measured part of `--stats`; `read = segmented + dropped + corrupt` always.

        A frame that waits or is being processed is not counted yet. It counts as dropped if the run ends first.

        Args:
            segmented: number of frames segmented by the network.
            dropped: number of frames dropped before the network, including those too old for it.
            corrupt: number of frames that could not be decoded.
        """
        with self._lock:
            self.stats.stop()
            report = self.stats.to_dict()
            report["frames"] = {
                "read": segmented + dropped + corrupt,
                "segmented": segmented,
                "written": self.stats.frames["written"],
                "dropped": dropped,
                "corrupt": corrupt,
                "stale": self.stale,
            }
        return report


def status_line(now: Mapping[str, Any]) -> str:
    """Return the metrics of one second as a human-readable line."""
    age = now["age_ms"]
    return (
        f"capture {now['capture_fps']:.0f} fps, shown {now['shown_fps']:.0f} fps, dropped {now['dropped']}, "
        f"age p50 {age['p50']:.0f} ms p99 {age['p99']:.0f} ms, engine {now['engine_ms']:.1f} ms, "
        f"limited by {now['bottleneck']}"
    )
