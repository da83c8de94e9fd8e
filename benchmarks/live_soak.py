"""Soak test of a live run: latency and memory over minutes, with a camera that is faster than the model.

    cd benchmarks/results
    python ../live_soak.py --out live-soak-slowed.json       # 10 minutes, 720p at 30 fps, 60 ms more for each frame
    python ../live_soak.py --slow-ms 0 --frame-size 320x192 --minutes 2 --out live-soak-keeps-up.json

A synthetic scene plays in real time in a loop. The model takes `--slow-ms` longer than normal. The result is recorded in segments,
of which only a few are kept. A machine that keeps up drops nothing, and its p99 age is below `kept_up_bound_ms`: twice the sum of
the stages' medians, or 50 ms. A frame's age is the time from its capture to the moment it leaves its last sink. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from rtseg.core.frame import ClassMap, Frame
from rtseg.core.live_report import LiveReport
from rtseg.core.process_setup import keep_memory_flat
from rtseg.core.report import Percentiles
from rtseg.inference.segmenter import Segmenter
from rtseg.inference.temporal_smoothing import TemporalSmoothing
from rtseg.live.camera import Camera
from rtseg.live.controls import Controls
from rtseg.live.inputs import find_inputs
from rtseg.live.loop import LiveLoop
from rtseg.live.options import LiveOptions, Outputs
from rtseg.live.outputs import SharedSinks, camera_sinks
from rtseg.live.report import LiveReporter
from rtseg.pipeline.processor import FrameProcessor
from rtseg.render.style import Style
from rtseg.synthetic import SyntheticDrive
from rtseg.synthetic.video_file import write_video

_VERSIONED = ("rtseg", "openvino", "torch", "av", "cv2", "numpy")
"""Modules whose versions are reported if they are loaded."""


def soak(
    minutes: float, frame_size: tuple[int, int], slow_ms: float, model: str | None, input_size: tuple[int, int] | None
) -> dict[str, Any]:
    """Run for `minutes` and return the measurements."""
    ages: list[tuple[float, Percentiles]] = []
    memory: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder, Segmenter(model, size=input_size) as segmenter:
        video = Path(folder) / "drive.mp4"
        write_video(SyntheticDrive(*frame_size, frames=60, fps=30), str(video))
        style, controls = Style(), Controls()
        outputs = Outputs(record=str(Path(folder) / "out.mp4"), segment_seconds=60, keep_bytes=200_000_000)
        sinks = camera_sinks(outputs, None, None, segmenter.classes, None, False)
        source = find_inputs(urls=[str(video)], realtime=True, loop=True)[0].source(0, print)

        def segment(frame: Frame, pixel_aspect: float, smoothing: TemporalSmoothing | None) -> ClassMap:
            time.sleep(slow_ms / 1e3)
            return original(frame, pixel_aspect, smoothing)

        def on_report(report: LiveReport) -> None:
            assert report.totals.now is not None
            ages.append((time.monotonic(), report.totals.now.age_ms))
            memory.append((time.monotonic(), resident_mib()))

        original, segmenter.segment = segmenter.segment, segment  # type: ignore[method-assign]
        overlay = style.overlay(segmenter.description)
        cameras = [Camera("soak", source, FrameProcessor(segmenter, overlay), sinks)]
        reporter = LiveReporter(cameras, [], segmenter.classes, segmenter.run_identity("live", "soak", ""))
        run = LiveLoop(
            cameras,
            [segmenter],
            style,
            reporter,
            controls,
            sinks=SharedSinks(),
            options=LiveOptions(),
            ready=threading.Event(),
            on_report=on_report,
        )
        begin = time.monotonic()
        timer = threading.Timer(minutes * 60, controls.quit)
        timer.start()
        run.run()
        report = reporter.report().to_dict()
        timer.cancel()
        return {
            "machine": f"{segmenter.device}, {os.cpu_count()} cores",
            "versions": {
                "python": platform.python_version(),
                **{name: sys.modules[name].__version__ for name in _VERSIONED if name in sys.modules},
            },
            "model": segmenter.description.name,
            "backend": f"{segmenter.backend} {segmenter.precision}",
            "minutes": minutes,
            "frame_size": list(frame_size),
            "slow_ms": slow_ms,
            "load_average": os.getloadavg(),
            "frames": report["frames"],
            "adds_up": report["frames"]["read"]
            == sum(report["frames"][k] for k in ("segmented", "dropped", "corrupt")),
            "sinks": report["sinks"],
            "bottleneck": report["bottleneck"],
            "stages_p50_ms": {name: stage["p50"] for name, stage in report["stages"].items()},
            "latency_ms": report["latency_ms"],
            "kept_up_bound_ms": round(max(50.0, 2 * sum(stage["p50"] for stage in report["stages"].values())), 1),
            **compare(ages, memory, begin, minutes * 60),
        }


def compare(
    ages: list[tuple[float, Percentiles]], memory: list[tuple[float, float]], begin: float, seconds: float
) -> dict[str, Any]:
    """Return ages at the beginning (from the tenth second) and at the end, and the memory growth after the start phase.

    The ages are medians of the percentiles of each second.
    """
    window = min(60.0, (seconds - 10) / 2)
    early = [age for at, age in ages if 10 <= at - begin < 10 + window]
    late = [age for at, age in ages if seconds - window <= at - begin < seconds]
    settled = min(60.0, seconds / 3)
    before = [mib for at, mib in memory if settled * 0.9 <= at - begin < settled * 1.1]
    after = [mib for at, mib in memory if at - begin >= seconds - max(5.0, seconds / 60)]
    p50, p99 = (
        [float(np.median([getattr(age, name) for age in part])) for part in (early, late)] for name in ("p50", "p99")
    )
    return {
        "window_seconds": window,
        "early_age_ms": {"p50": round(p50[0], 1), "p99": round(p99[0], 1)},
        "late_age_ms": {"p50": round(p50[1], 1), "p99": round(p99[1], 1)},
        "p99_change": round(p99[1] / p99[0] - 1, 4),
        "memory_by_minute_mib": [
            round(float(np.median([mib for at, mib in memory if minute <= (at - begin) / 60 < minute + 1] or [0])), 1)
            for minute in range(int(seconds // 60))
        ],
        "memory_mib": [round(float(np.median(part)), 2) for part in (before, after)],
        "memory_growth_mib": round(float(np.median(after) - np.median(before)), 2),
    }


def resident_mib() -> float:
    """Return the resident memory of this process; 0.0 if the system does not report it."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if statm.exists() else 0.0


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--frame-size", type=_size, default=(1280, 720))
    parser.add_argument("--slow-ms", type=float, default=60.0)
    parser.add_argument("--model")
    parser.add_argument("--size", type=_size, help="size of the network's input")
    parser.add_argument("--out", help="also write the JSON here")
    parser.add_argument(
        "--keep-flat",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="limit memory growth",
    )
    args = parser.parse_args()
    if args.keep_flat:
        keep_memory_flat()
    result = soak(args.minutes, args.frame_size, args.slow_ms, args.model, args.size)
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        Path(args.out).write_text(text + "\n")


if __name__ == "__main__":
    main()
