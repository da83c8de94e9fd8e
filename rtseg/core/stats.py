"""Run statistics: frames per second, latency percentiles of every stage, and the bottleneck.

Memory use is constant: durations are stored in histograms with buckets of 1 %.
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
    """Histogram of durations with logarithmic buckets of 1 %, from 1 microsecond to 15 minutes."""

    _FLOOR_SECONDS = 1e-6
    _STEP = math.log(1.01)

    def __init__(self) -> None:
        self._counts = np.zeros(2080, dtype=np.int64)
        self.total_seconds = 0.0
        self.max_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Add one duration."""
        bucket = int(math.log(max(seconds, self._FLOOR_SECONDS) / self._FLOOR_SECONDS) / self._STEP)
        self._counts[min(bucket, len(self._counts) - 1)] += 1
        self.total_seconds += seconds
        self.max_seconds = max(self.max_seconds, seconds)

    def __len__(self) -> int:
        return int(self._counts.sum())

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile in milliseconds, with an error of up to 1 %; 0.0 if the histogram is empty."""
        count = len(self)
        if not count:
            return 0.0
        bucket = int(np.searchsorted(np.cumsum(self._counts), max(1, math.ceil(count * percent / 100))))
        middle = self._FLOOR_SECONDS * math.exp((bucket + 0.5) * self._STEP)
        return round(min(middle, self.max_seconds) * 1e3, 3)

    def percentiles(self) -> dict[str, float]:
        """Return `p50`, `p95` and `p99` in milliseconds."""
        return {f"p{p}": self.percentile_ms(p) for p in (50, 95, 99)}


class Stats:
    """Counters and timers of one run. Only one thread may record the durations of a stage."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.stages = {stage: Histogram() for stage in STAGES}
        self.latency = Histogram()
        self.frames = {"read": 0, "segmented": 0, "written": 0, "dropped": 0, "corrupt": 0}
        """`read` counts all decoded frames. Frames that are still being processed are in no other count."""
        self.warmup_ms = 0.0
        self.streams = 1
        """Number of frames that the model processes at the same time, each in a separate thread."""
        self._count_lock = threading.Lock()
        self._ended = False
        self._classes = classes
        self._pixels = np.zeros(256, dtype=np.float64)
        self._hud: tuple[float, tuple[str, ...]] = (0.0, ())
        self._wall_start = self._wall_end = time.perf_counter()
        self._cpu_start = self._cpu_end = time.process_time()

    def start(self) -> None:
        """Start the timers, after startup and warm-up."""
        self._wall_start, self._cpu_start = time.perf_counter(), time.process_time()
        self.stop()

    def stop(self) -> None:
        """Stop the timers, or update them during the run."""
        self._wall_end, self._cpu_end = time.perf_counter(), time.process_time()

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Measure the duration of the `with` block as one step of a stage."""
        begin = time.perf_counter()
        yield
        self.stages[stage].add(time.perf_counter() - begin)

    def segmented(self, classes: ClassMap, seconds: float) -> None:
        """Record a segmented frame and the duration of its inference in seconds. No effect after `end`."""
        with self._count_lock:
            if self._ended:
                return
            self.frames["segmented"] += 1
        self.stages["infer"].add(seconds)
        self.add_classes(classes)

    def end(self) -> None:
        """End the counting: decoded frames that were not segmented count as dropped."""
        with self._count_lock:
            self._ended = True
            self.frames["dropped"] = max(0, self.frames["read"] - self.frames["segmented"])

    def add_classes(self, classes: ClassMap) -> None:
        """Add a class map to the class shares."""
        self._pixels += cv2.calcHist([np.ascontiguousarray(classes)], [0], None, [256], [0, 256]).reshape(-1)

    def frame_written(self, captured_ns: int) -> None:
        """Record a frame that the last sink has written, and its latency since `Frame.captured_ns`."""
        self.latency.add((time.monotonic_ns() - captured_ns) / 1e9)
        self.frames["written"] += 1

    def hud_lines(self) -> tuple[str, ...]:
        """Return the text of `--hud`, which changes twice a second to be readable."""
        now = time.perf_counter()
        if now - self._hud[0] > 0.5:
            written, seconds = self.frames["written"], max(now - self._wall_start, 1e-9)
            model_ms, latency_ms = self.stages["infer"].percentile_ms(50), self.latency.percentile_ms(50)
            lines = (f"{written / seconds:.0f} fps", f"model {model_ms:.1f} ms", f"latency {latency_ms:.0f} ms")
            self._hud = (now, lines)
        return self._hud[1]

    @property
    def seconds(self) -> float:
        """Wall time of the run in seconds, without startup."""
        return self._wall_end - self._wall_start

    @property
    def fps(self) -> float:
        """Number of frames written per second."""
        return self.frames["written"] / self.seconds if self.seconds > 0 else 0.0

    @property
    def bottleneck(self) -> str:
        """Name of the stage that was busy for the largest share of the run."""
        return max(self.stages, key=self._working_seconds)

    def _working_seconds(self, stage: str) -> float:
        return self.stages[stage].total_seconds / (self.streams if stage == "infer" else 1)

    def class_shares(self) -> dict[str, float]:
        """Return the share of all pixels by class name, 0 to 1."""
        total = max(1.0, float(self._pixels.sum()))
        return {name: round(float(self._pixels[i]) / total, 4) for i, name in enumerate(self._classes)}

    def to_dict(self) -> dict[str, Any]:
        """Return the measurements of `--stats FILE.json`. `read = segmented + dropped + corrupt`, also during the run."""
        seconds = max(self.seconds, 1e-9)
        with self._count_lock:
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


def class_shares(classes: ClassMap, names: tuple[str, ...]) -> dict[str, float]:
    """Return the share of pixels of each class that is in a class map, by class name."""
    counts = np.bincount(classes.reshape(-1), minlength=256)
    return {name: round(float(counts[i]) / classes.size, 4) for i, name in enumerate(names) if counts[i]}


def peak_rss_mib() -> float:
    """Return the peak resident memory of this process in MiB; 0.0 if the system does not report it."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage may return the parent's peak, which Linux inherits across fork and exec
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
