"""Run statistics: frames per second, latency percentiles of every stage, and the bottleneck.

Memory use is constant: durations are stored in histograms with buckets of 1 %.
"""

from __future__ import annotations

import math
import re
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np

from rtseg.core.frame import ClassMap, ProcessedFrame
from rtseg.core.frame_counter import FrameCounter
from rtseg.core.live_report import IntervalReport
from rtseg.core.report import Percentiles, PipelineReport, StageReport

STAGES = ("decode", "infer", "overlay", "encode")


class Histogram:
    """Histogram of durations with logarithmic buckets of 1 %, from 1 microsecond to 15 minutes."""

    _FLOOR_SECONDS = 1e-6
    _STEP = math.log(1.01)

    def __init__(self) -> None:
        self._counts = np.zeros(2080, dtype=np.int64)
        self.count = 0
        self.total_seconds = 0.0
        self.max_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Add one duration."""
        bucket = int(math.log(max(seconds, self._FLOOR_SECONDS) / self._FLOOR_SECONDS) / self._STEP)
        self._counts[min(bucket, len(self._counts) - 1)] += 1
        self.count += 1
        self.total_seconds += seconds
        self.max_seconds = max(self.max_seconds, seconds)

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile in milliseconds, with an error of up to 1 %; 0.0 if the histogram is empty."""
        if not self.count:
            return 0.0
        bucket = int(np.searchsorted(np.cumsum(self._counts), max(1, math.ceil(self.count * percent / 100))))
        middle = self._FLOOR_SECONDS * math.exp((bucket + 0.5) * self._STEP)
        return round(min(middle, self.max_seconds) * 1e3, 3)

    def percentiles(self) -> dict[str, float]:
        """Return `p50`, `p95` and `p99` in milliseconds."""
        return {f"p{p}": self.percentile_ms(p) for p in (50, 95, 99)}


class Stats:
    """Counters and timers of one stream, or of all streams together. All methods are thread-safe."""

    def __init__(self, classes: tuple[str, ...], total: Stats | None = None) -> None:
        """Start the timers. `total` are the statistics of all streams together, which are updated too."""
        self.frames: FrameCounter = FrameCounter(total.frames if total else None)
        self.warmup_ms = 0.0
        self.workers = 1
        """Number of frames that are processed at the same time."""
        self._classes, self._total = classes, total
        self._lock = threading.Lock()
        self._stages = {stage: Histogram() for stage in STAGES}
        self._latency = Histogram()
        self._written = self._stale = self._too_old = 0
        self._pixels = np.zeros(256, dtype=np.float64)
        self._latest_classes: ClassMap | None = None
        self._ages_ms: list[float] = []
        self._interval: dict[str, float] = {}
        self._interval_start = 0.0
        self._hud: tuple[float, tuple[str, ...]] = (0.0, ())
        self.start()

    def start(self) -> None:
        """Start the timers, after startup and warm-up."""
        self._wall_start, self._cpu_start = time.perf_counter(), time.process_time()
        self.interval()
        self.stop()

    def stop(self) -> None:
        """Stop the timers, or update them during the run."""
        self._wall_end, self._cpu_end = time.perf_counter(), time.process_time()

    def add_stage(self, stage: str, seconds: float) -> None:
        """Record the duration of one step of a stage."""
        with self._lock:
            self._stages[stage].add(seconds)
        if self._total:
            self._total.add_stage(stage, seconds)

    def add_processed(self, item: ProcessedFrame) -> None:
        """Record the times and the class map of a processed frame."""
        with self._lock:
            self._stages["infer"].add(item.infer_seconds)
            self._stages["overlay"].add(item.render_seconds)
            self._latest_classes = item.classes
            self._pixels += cv2.calcHist([np.ascontiguousarray(item.classes)], [0], None, [256], [0, 256]).reshape(-1)
        if self._total:
            self._total.add_processed(item)

    def add_stale(self, *, segmented: bool) -> None:
        """Count a frame that was too old to be displayed (`segmented`) or for the network."""
        with self._lock:
            self._stale += segmented
            self._too_old += 1
        if self._total:
            self._total.add_stale(segmented=segmented)

    def add_written(self, captured_ns: int) -> None:
        """Count a frame that its last sink has written, with its latency since `Frame.captured_ns`."""
        age_seconds = (time.monotonic_ns() - captured_ns) / 1e9
        with self._lock:
            self._latency.add(age_seconds)
            self._written += 1
            self._ages_ms.append(age_seconds * 1e3)
        if self._total:
            self._total.add_written(captured_ns)

    def hud_lines(self) -> tuple[str, ...]:
        """Return the text of `--hud`, which changes twice a second to be readable."""
        now = time.perf_counter()
        if now - self._hud[0] > 0.5:
            seconds = max(now - self._wall_start, 1e-9)
            with self._lock:
                model_ms, latency_ms = self._stages["infer"].percentile_ms(50), self._latency.percentile_ms(50)
            lines = (f"{self._written / seconds:.0f} fps", f"model {model_ms:.1f} ms", f"latency {latency_ms:.0f} ms")
            self._hud = (now, lines)
        return self._hud[1]

    def _working_seconds(self, stage: str) -> float:
        parallel = self.workers if stage in ("infer", "overlay") else 1
        return self._stages[stage].total_seconds / parallel

    def report(self, *, written: int | None = None, live: bool = False) -> PipelineReport:
        """Return the measurements since `start`, until `stop` if it was called.

        `written` is the number of frames that the most important sink has written; None: those that all sinks have written. In a
        `live` run frames can be too old to be displayed.
        """
        seconds = max(self._wall_end - self._wall_start, 1e-9)
        with self._lock:
            total_pixels = max(1.0, float(self._pixels.sum()))
            return PipelineReport(
                frames=self.frames.report(self._written if written is None else written, self._stale if live else None),
                seconds=round(seconds, 4),
                fps=round(self._written / seconds, 3),
                cpu_seconds=round(self._cpu_end - self._cpu_start, 4),
                peak_rss_mib=round(peak_rss_mib(), 1),
                warmup_ms=round(self.warmup_ms, 1),
                latency_ms=Percentiles(**self._latency.percentiles(), max=round(self._latency.max_seconds * 1e3, 3)),
                stages={
                    name: StageReport(
                        **stage.percentiles(), busy=round(min(1.0, self._working_seconds(name) / seconds), 4)
                    )
                    for name, stage in self._stages.items()
                },
                bottleneck=max(self._stages, key=self._working_seconds),
                classes={
                    name: round(float(self._pixels[index]) / total_pixels, 4)
                    for index, name in enumerate(self._classes)
                },
            )

    def interval(self) -> IntervalReport:
        """Return the measurements since the last call."""
        with self._lock:
            ages_ms, self._ages_ms = self._ages_ms, []
            latest = self._latest_classes
            totals = {
                "read": float(self.frames.decoded),
                "dropped": float(self.frames.dropped),
                "segmented": float(self._stages["infer"].count),
                "stale": float(self._too_old),
                **{name: stage.total_seconds for name, stage in self._stages.items()},
            }
            end = time.perf_counter()
            seconds, self._interval_start = max(end - self._interval_start, 1e-9), end
            delta = {key: value - self._interval.get(key, 0.0) for key, value in totals.items()}
            self._interval = totals
        ages = [round(float(age), 1) for age in np.percentile(ages_ms or [0.0], (50, 95, 99, 100))]
        segmented = max(1.0, delta["segmented"])
        return IntervalReport(
            capture_fps=round(delta["read"] / seconds, 1),
            shown_fps=round(len(ages_ms) / seconds, 1),
            dropped=int(delta["dropped"]),
            age_ms=Percentiles(p50=ages[0], p95=ages[1], p99=ages[2], max=ages[3]),
            bottleneck=max(STAGES, key=lambda stage: delta[stage]),
            engine_ms=round(delta["infer"] / segmented * 1e3, 1),
            work_ms=round((delta["infer"] + delta["overlay"]) / segmented * 1e3, 1),
            stale=int(delta["stale"]),
            classes={} if latest is None else class_shares(latest, self._classes),
        )


def class_shares(classes: ClassMap, names: tuple[str, ...]) -> dict[str, float]:
    """Return the share of pixels of each class that is in a class map, by class name."""
    counts = np.bincount(classes.reshape(-1), minlength=256)
    return {name: round(float(counts[i]) / classes.size, 4) for i, name in enumerate(names) if counts[i]}


def peak_rss_mib() -> float:
    """Return the peak resident memory of this process in MiB; 0.0 if the system does not report it."""
    # getrusage may return the parent's peak, which Linux inherits across fork and exec.
    status = Path("/proc/self/status")
    peak_kib = re.search(r"^VmHWM:\s*(\d+)", status.read_text() if status.exists() else "", re.MULTILINE)
    if peak_kib:
        return int(peak_kib[1]) / 2**10
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
