"""What a run cost: frames per second, latency percentiles of every stage, and the stage that limits.

Memory is constant however long the run: durations are kept as histograms whose buckets are 1 % wide.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rtseg.core.frame import ClassMap

STAGES = ("decode", "infer", "overlay", "encode")


class Histogram:
    """Durations in logarithmic buckets of 1 %, from a microsecond to a quarter of an hour."""

    _FLOOR_SECONDS = 1e-6
    _STEP = math.log(1.01)

    def __init__(self) -> None:
        self._counts = np.zeros(2080, dtype=np.int64)
        self.total_seconds = 0.0
        self.max_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Counts one duration."""
        bucket = int(math.log(max(seconds, self._FLOOR_SECONDS) / self._FLOOR_SECONDS) / self._STEP)
        self._counts[min(bucket, len(self._counts) - 1)] += 1
        self.total_seconds += seconds
        self.max_seconds = max(self.max_seconds, seconds)

    def __len__(self) -> int:
        return int(self._counts.sum())

    def percentile_ms(self, percent: float) -> float:
        """The duration that `percent` of all stay below, in milliseconds, within 1 %; 0.0 if there are none."""
        count = len(self)
        if not count:
            return 0.0
        bucket = int(np.searchsorted(np.cumsum(self._counts), max(1, math.ceil(count * percent / 100))))
        middle = self._FLOOR_SECONDS * math.exp((bucket + 0.5) * self._STEP)
        return round(min(middle, self.max_seconds) * 1e3, 3)

    def percentiles(self) -> dict[str, float]:
        """`p50`, `p95` and `p99` in milliseconds."""
        return {f"p{p}": self.percentile_ms(p) for p in (50, 95, 99)}


class Stats:
    """Counts and clocks of one run. Each stage is written by the one thread that runs it."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.stages = {stage: Histogram() for stage in STAGES}
        self.latency = Histogram()
        self.frames = {"read": 0, "segmented": 0, "written": 0, "dropped": 0, "corrupt": 0}
        """`read` is what was decoded so far; what of it is still in work is in none of the other counts."""
        self.warmup_ms = 0.0
        self.streams = 1
        """Frames that are in the model at the same time, each in a thread of its own."""
        self._counting = threading.Lock()
        self._ended = False
        self._classes = classes
        self._pixels = np.zeros(256, dtype=np.float64)
        self._hud: tuple[float, tuple[str, ...]] = (0.0, ())
        self._wall_start = self._wall_end = time.perf_counter()
        self._cpu_start = self._cpu_end = time.process_time()

    def start(self) -> None:
        """Start-up and warm-up are over: clocks run from here."""
        self._wall_start, self._cpu_start = time.perf_counter(), time.process_time()
        self.stop()

    def stop(self) -> None:
        """The run has ended (or: so far)."""
        self._wall_end, self._cpu_end = time.perf_counter(), time.process_time()

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Times one piece of work of a stage."""
        begin = time.perf_counter()
        yield
        self.stages[stage].add(time.perf_counter() - begin)

    def segmented(self, classes: ClassMap, seconds: float) -> None:
        """A frame got its class map, and the model took so long for it. Without effect after `end`."""
        with self._counting:
            if self._ended:
                return
            self.frames["segmented"] += 1
        self.stages["infer"].add(seconds)
        self.see_classes(classes)

    def end(self) -> None:
        """No frame is worked on any more: those that were decoded and not segmented end as dropped."""
        with self._counting:
            self._ended = True
            self.frames["dropped"] = max(0, self.frames["read"] - self.frames["segmented"])

    def see_classes(self, classes: ClassMap) -> None:
        """Adds a class map to the class shares."""
        self._pixels += cv2.calcHist([np.ascontiguousarray(classes)], [0], None, [256], [0, 256]).reshape(-1)

    def left(self, captured_ns: int) -> None:
        """A frame captured at that monotonic time has left the last sink."""
        self.latency.add((time.monotonic_ns() - captured_ns) / 1e9)
        self.frames["written"] += 1

    def hud_lines(self) -> tuple[str, ...]:
        """What `--hud` burns in; it changes twice a second, so that it can be read."""
        now = time.perf_counter()
        if now - self._hud[0] > 0.5:
            written, seconds = self.frames["written"], max(now - self._wall_start, 1e-9)
            engine, age = self.stages["infer"].percentile_ms(50), self.latency.percentile_ms(50)
            self._hud = (now, (f"{written / seconds:.0f} fps", f"model {engine:.1f} ms", f"latency {age:.0f} ms"))
        return self._hud[1]

    @property
    def seconds(self) -> float:
        """Wall time of the run without start-up."""
        return self._wall_end - self._wall_start

    @property
    def fps(self) -> float:
        """Frames written a second."""
        return self.frames["written"] / self.seconds if self.seconds > 0 else 0.0

    @property
    def bottleneck(self) -> str:
        """The stage that worked the largest share of the run."""
        return max(self.stages, key=self._working_seconds)

    def _working_seconds(self, stage: str) -> float:
        return self.stages[stage].total_seconds / (self.streams if stage == "infer" else 1)

    def class_shares(self) -> dict[str, float]:
        """Share of all pixels by class name."""
        total = max(1.0, float(self._pixels.sum()))
        return {name: round(float(self._pixels[i]) / total, 4) for i, name in enumerate(self._classes)}

    def to_dict(self) -> dict[str, Any]:
        """The measured part of `--stats FILE.json`; `read = segmented + dropped + corrupt`, also while the run lasts."""
        seconds = max(self.seconds, 1e-9)
        with self._counting:
            frames = dict(self.frames)
        frames["read"] = frames["segmented"] + frames["dropped"] + frames["corrupt"]
        return {
            "frames": frames,
            "seconds": round(seconds, 4),
            "fps": round(self.fps, 3),
            "cpu_seconds": round(self._cpu_end - self._cpu_start, 4),
            "peak_rss_mib": round(peak_rss_mib(), 1),
            "warmup_ms": round(self.warmup_ms, 1),
            "latency_ms": {**self.latency.percentiles(), "max": round(self.latency.max_seconds * 1e3, 3)},
            "stages": {
                name: {**h.percentiles(), "busy": round(min(1.0, self._working_seconds(name) / seconds), 4)}
                for name, h in self.stages.items()
            },
            "bottleneck": self.bottleneck,
            "classes": self.class_shares(),
        }


def peak_rss_mib() -> float:
    """The largest resident memory of this process so far, in MiB; 0.0 where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would tell the parent's where that was larger: Linux hands it on over fork and exec
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
