"""The numbers of a live run: since its start, and of the last second."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from rtseg.core.frame import ClassMap
from rtseg.core.stats import STAGES, Stats
from rtseg.live.live_frame import class_shares


class LiveStats:
    """Counts and clocks of one camera, or of all together. Every method may be called from any thread."""

    def __init__(self, classes: tuple[str, ...], whole: LiveStats | None = None) -> None:
        """Starts the clocks.

        Args:
            classes: the model's class names.
            whole: numbers of all cameras together, which are told everything too.
        """
        self.stats = Stats(classes)
        self.segmented = 0
        """Frames that went through the network."""
        self.late = 0
        """Frames among them that were too old to be shown when it had answered."""
        self.too_old = 0
        """Frames that were too old for the network: dropped."""
        self._classes = classes
        self._whole = whole
        self._lock = threading.Lock()
        self._ages_ms: list[float] = []
        self._newest: ClassMap | None = None
        self._tick = time.perf_counter()
        self._before: dict[str, float] = {}
        self.stats.start()

    def spent(self, stage: str, seconds: float) -> None:
        """A stage has worked on one frame for so long."""
        with self._lock:
            self.stats.stages[stage].add(seconds)
        if self._whole:
            self._whole.spent(stage, seconds)

    def saw(self, classes: ClassMap) -> None:
        """The network has answered."""
        with self._lock:
            self.segmented += 1
            self._newest = classes
            self.stats.see_classes(classes)
        if self._whole:
            self._whole.saw(classes)

    def refused(self, *, segmented: bool) -> None:
        """A frame was too old, before the network or (`segmented`) behind it."""
        with self._lock:
            if segmented:
                self.late += 1
            else:
                self.too_old += 1
        if self._whole:
            self._whole.refused(segmented=segmented)

    def left(self, captured_ns: int) -> None:
        """A frame has left the last of its sinks."""
        with self._lock:
            self.stats.left(captured_ns)
            self._ages_ms.append((time.monotonic_ns() - captured_ns) / 1e6)
        if self._whole:
            self._whole.left(captured_ns)

    def second(self, read: int, dropped: int) -> dict[str, Any]:
        """The numbers since the last call, as `LiveNumbers` describes them under `now`; called once a second.

        Args:
            read: frames decoded since the start.
            dropped: frames dropped since the start, those that were too old for the network included.
        """
        with self._lock:
            ages, self._ages_ms = self._ages_ms, []
            newest = self._newest
            totals = {stage: self.stats.stages[stage].total_seconds for stage in STAGES}
            late = self.late + self.too_old
            after = {"read": read, "dropped": dropped, "segmented": self.segmented, "late": late, **totals}
            tick = time.perf_counter()
        seconds, self._tick = max(tick - self._tick, 1e-9), tick
        since = {key: value - self._before.get(key, 0) for key, value in after.items()}
        self._before = dict(after)
        p50, p99, largest = np.percentile(ages, (50, 99, 100)) if ages else (0.0, 0.0, 0.0)
        segmented = max(1, since["segmented"])
        engine, work = since["infer"] / segmented * 1e3, (since["infer"] + since["overlay"]) / segmented * 1e3
        return {
            "capture_fps": round(since["read"] / seconds, 1),
            "shown_fps": round(len(ages) / seconds, 1),
            "dropped": int(since["dropped"]),
            "age_ms": {"p50": round(float(p50), 1), "p99": round(float(p99), 1), "max": round(float(largest), 1)},
            "bottleneck": max(STAGES, key=lambda stage: since[stage]),
            "engine_ms": round(engine, 1),
            "work_ms": round(work, 1),
            "late": int(since["late"]),
            "classes": {} if newest is None else class_shares(newest, self._classes),
        }

    def to_dict(self, segmented: int, dropped: int, corrupt: int) -> dict[str, Any]:
        """Return the measured part of `--stats`, as of now; `read = segmented + dropped + corrupt` always.

        A frame that waits or is in work is in none of these counts yet; where the run ends with it, it is dropped.

        Args:
            segmented: frames that went through the network.
            dropped: frames that did not, those that were too old included.
            corrupt: frames that could not be decoded.
        """
        with self._lock:
            self.stats.stop()
            told = self.stats.to_dict()
            told["frames"] = {
                "read": segmented + dropped + corrupt,
                "segmented": segmented,
                "written": self.stats.frames["written"],
                "dropped": dropped,
                "corrupt": corrupt,
                "late": self.late,
            }
        return told


def status_line(now: Mapping[str, Any]) -> str:
    """The numbers of a second in one line, for people."""
    age = now["age_ms"]
    return (
        f"capture {now['capture_fps']:.0f} fps, shown {now['shown_fps']:.0f} fps, dropped {now['dropped']}, "
        f"age p50 {age['p50']:.0f} ms p99 {age['p99']:.0f} ms, engine {now['engine_ms']:.1f} ms, "
        f"limited by {now['bottleneck']}"
    )
