"""CPU time per frame of statistics, progress bar and the record for the fidelity report.

    python benchmarks/overhead.py --json benchmarks/results/overhead.json

A constant source, a model without computation and a sink that discards frames run through the pipeline of `rtseg video`, with its
statistics, progress bar (on a pseudo-terminal) and recorder, and without each of them in turn. The result is the CPU time per frame
in all threads, median of the rounds. The last column is its share of the frame time of the fastest model in
`bench-720p-ultrafast.json`, the lowest cost of a frame in the whole pipeline.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pty
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rtseg.bench.measure import machine
from rtseg.cli.progress import ProgressDisplay
from rtseg.core.frame import ClassMap, Color, Frame, Passthrough, ProcessedFrame, StreamInfo
from rtseg.core.palette import CAMVID_CLASSES, load_palette
from rtseg.core.progress import track
from rtseg.core.stats import Stats
from rtseg.inference.temporal_smoothing import TemporalSmoothing
from rtseg.io.outputs import Sink
from rtseg.pipeline.pipeline import run
from rtseg.pipeline.processor import FrameProcessor
from rtseg.render.overlay import Overlay
from rtseg.video.verify import Recorder

FRAMES, ROUNDS = 4000, 7
INFO = StreamInfo("constant", 64, 48, "yuv420p", Color("bt709", False), Fraction(1, 25), Fraction(25))
RESULT = Path(__file__).parent / "results" / "bench-720p-ultrafast.json"


class ConstantSource:
    """The same small frame, repeated."""

    info, corrupt, warnings = INFO, 0, ()

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        luma, chroma = np.zeros((48, 64), np.uint8), np.full((24, 32), 128, np.uint8)
        for index in range(FRAMES):
            yield Frame((luma, chroma, chroma), "yuv420p", INFO.color, index, INFO.time_base, index, duration=1)

    def close(self) -> None: ...


class DiscardingSink(Sink):
    """Sink that discards frames."""

    name, written = "discard", 0

    def write(self, item: ProcessedFrame) -> None: ...


class NoStats(Stats):
    """Statistics that count nothing."""

    def add_stage(self, stage: str, seconds: float) -> None: ...
    def add_processed(self, item: ProcessedFrame) -> None: ...
    def add_written(self, captured_ns: int) -> None: ...


class ConstantModel:
    """Model with one class map, of the size of the network's for 16:9."""

    streams = 1
    _classes = np.zeros((270, 480), np.uint8)

    def segment(self, frame: Frame, pixel_aspect: float, smoothing: TemporalSmoothing | None) -> ClassMap:
        return self._classes

    def prepare(self, width: int, height: int, pixel_aspect: float) -> None: ...

    def new_smoothing(self) -> None:
        return None


def cpu_ms(stats: bool = True, progress: bool = True, recorder: bool = True) -> float:
    """Measure the CPU time per frame."""
    overlay = Overlay(load_palette("street", CAMVID_CLASSES))
    counted: Stats = (Stats if stats else NoStats)(CAMVID_CLASSES)
    begin = time.process_time()
    with track(ProgressDisplay(quiet=not progress).task(), "constant.mp4", FRAMES) as advance:
        run(
            ConstantSource(),
            FrameProcessor(ConstantModel(), overlay),
            [DiscardingSink()],
            counted,
            observe=Recorder(INFO).observe if recorder else lambda item: None,
            on_frame=advance,
        )
    return (time.process_time() - begin) / FRAMES * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    master, terminal = pty.openpty()
    threading.Thread(target=_drain, args=(master,), daemon=True).start()
    stderr, sys.stderr = sys.stderr, io.TextIOWrapper(os.fdopen(terminal, "wb", 0), write_through=True)
    try:
        variants = ({}, {"stats": False}, {"progress": False}, {"recorder": False})
        rounds = [[cpu_ms(**variant) for variant in variants] for _ in range(ROUNDS)]
    finally:
        sys.stderr = stderr
    full, *reduced = (statistics.median(column) for column in zip(*rounds, strict=True))
    frame_ms = min(item["cpu_ms_a_frame"] for item in json.loads(RESULT.read_text())["items"])
    costs = {
        name: full - part for name, part in zip(("statistics", "progress bar", "record of times"), reduced, strict=True)
    }
    result: dict[str, Any] = {"machine": machine().to_dict(), "frame_ms": frame_ms, "cpu_ms_a_frame": {}}
    for name, cost in costs.items():
        result["cpu_ms_a_frame"][name] = round(cost, 4)
        print(f"{name:16}{cost:8.4f} ms{cost / frame_ms:8.2%}")
    args.json.write_text(json.dumps(result, indent=2) + "\n")


def _drain(master: int) -> None:
    with contextlib.suppress(OSError):  # the other end is closed
        while os.read(master, 65536):
            pass


if __name__ == "__main__":
    main()
