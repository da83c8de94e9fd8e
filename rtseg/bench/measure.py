"""What each stage costs alone, what the whole road reaches, and what it could reach at most.

The bound is the number of cores divided by the processor time that a frame takes in all stages, each measured alone: no order of
work, however clever, is faster on this machine with these stages. A road that reaches its share of it by wasting less is better;
one that reaches it because its stages waste time is not, so both are told: frames per second against the bound, and processor
time of a frame on the road against the sum of the stages.
"""

from __future__ import annotations

import itertools
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from rtseg import __version__
from rtseg.cores import processor_name, usable_cores
from rtseg.errors import OptionError
from rtseg.frame import ClassMap, Frame, Segmented, StreamInfo
from rtseg.overlay import Overlay
from rtseg.segmenter import Segmenter
from rtseg.sinks.video import VideoSink
from rtseg.sources import open_source
from rtseg.stats import Histogram, peak_rss_mib
from rtseg.video import Encoding, Look, process

KEPT_BYTES = 256 << 20
"""Memory for the decoded frames that infer, overlay and encode are measured on."""

MOST_KEPT = 64
"""Frames kept at most: two seconds, run through forwards and backwards, which encodes like the drive itself."""

SECONDS = 3.0
"""How long a stage is measured at least, unless told otherwise."""


@dataclass(frozen=True)
class StageCost:
    """One stage, run alone."""

    wall: Histogram
    """Time of each frame, as its caller waits for it."""

    cpu_ms: float
    """Processor time of a frame in all threads, milliseconds."""

    fps: float
    """Frames a second, alone on the machine."""

    def to_dict(self) -> dict[str, float]:
        """`p50`, `p95`, `p99`, `cpu_ms` in milliseconds, and `fps`."""
        return {**self.wall.percentiles(), "cpu_ms": round(self.cpu_ms, 3), "fps": round(self.fps, 1)}


def bench(
    video: str,
    segmenter: Segmenter,
    look: Look,
    encoding: Encoding,
    *,
    seconds: float = SECONDS,
    rounds: int = 3,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measures one model on one backend with one file.

    Args:
        video: the file that is decoded.
        segmenter: the loaded model.
        look: how frames are coloured.
        encoding: how the result is encoded; its file is thrown away.
        seconds: how long each stage is measured.
        rounds: runs of the whole road; the one of median speed is told.
        say: told what is being measured.

    Returns:
        The statistics of that run, as `--stats` writes them, and beside them `preset`, `alone` (by stage, see `StageCost`),
        `engine` (the network without scaling and colour conversion), `cores`, `bound_fps`, `of_bound` (share of the bound that
        was reached), `cpu_ms_a_frame` (on the road), `cpu_ratio` (that by the sum of the stages alone), `fps_runs`, `advice`
        and `machine`.

    Raises:
        RtsegError: as `process`.
    """
    if rounds < 1:
        raise OptionError(f"rounds is {rounds}; give 1 or more")
    overlay = look.overlay(segmenter)
    with tempfile.TemporaryDirectory(prefix="rtseg-bench-") as folder:
        output = str(
            Path(folder) / ("out" + (Path(video).suffix if Path(video).suffix in {".mkv", ".webm"} else ".mp4"))
        )
        say("decode")
        decode, info, frames = _bench_decode(video, seconds)
        aspect = float(info.sample_aspect_ratio)
        segmenter.prepare(info.width, info.height, aspect)
        say("engine")
        engine = _bench_engine(segmenter, segmenter.input_size_for(info.width, info.height, aspect), seconds)
        say("infer")
        infer = _measure(lambda frame: segmenter.segment(frame, aspect), _ping_pong(frames), seconds, segmenter.streams)
        classes = [segmenter.segment(frame, aspect) for frame in frames]
        say("overlay")
        overlaid = _measure(
            lambda pair: overlay.apply(*pair), _ping_pong(list(zip(frames, classes, strict=True))), seconds
        )
        say("encode")
        encode = _bench_encode(output, info, frames, classes, overlay, encoding, seconds)
        runs = []
        for number in range(rounds):
            say(f"the whole road, {number + 1} of {rounds}")
            runs.append(process(video, output, segmenter, look, encoding, quiet=True))
    runs.sort(key=lambda run: float(run["fps"]))
    stages = {"decode": decode, "infer": infer, "overlay": overlaid, "encode": encode}
    return {**_result(runs, stages, engine, video, segmenter), "preset": encoding.preset or "veryfast"}


def machine() -> dict[str, Any]:
    """Processor, cores, system and versions: what a figure has to name to mean anything."""
    versions = {}
    for package in (
        "numpy",
        "av",
        "opencv-python",
        "opencv-python-headless",
        "openvino",
        "torch",
        "tensorrt",
        "tensorrt-rtx",
    ):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


def _result(
    runs: list[dict[str, Any]], stages: dict[str, StageCost], engine: StageCost, video: str, segmenter: Segmenter
) -> dict[str, Any]:
    run, cores = runs[len(runs) // 2], usable_cores()
    together_ms = sum(stage.cpu_ms for stage in stages.values())
    bound = cores * 1000 / together_ms
    if segmenter.backend.startswith("tensorrt") or "NVIDIA" in segmenter.device:
        bound = min(bound, stages["infer"].fps)  # a GPU's time is not the cores'
    road_ms = run["cpu_seconds"] * 1000 / max(1, run["frames"]["written"])
    return {
        **run,
        "command": "bench",
        "input": Path(video).name,
        "output": "",
        "alone": {name: stage.to_dict() for name, stage in stages.items()},
        "engine": {**engine.to_dict(), "streams": segmenter.streams},
        "cores": cores,
        "bound_fps": round(bound, 2),
        "of_bound": round(run["fps"] / bound, 4),
        "cpu_ms_a_frame": round(road_ms, 3),
        "cpu_ratio": round(road_ms / together_ms, 4),
        "fps_runs": [round(float(one["fps"]), 2) for one in runs],
        "advice": advice(stages, cores, bound),
        "peak_rss_mib": round(peak_rss_mib(), 1),
        "machine": machine(),
        "rtseg": __version__,
    }


def advice(stages: dict[str, StageCost], cores: int, bound: float) -> str:
    """What limits, and what to do about it, in one line."""
    total = sum(stage.cpu_ms for stage in stages.values())
    if bound < cores * 1000 / total:
        slowest, share = "infer", f"the model alone reaches no more than {bound:.0f} fps"
    else:
        slowest = max(stages, key=lambda name: stages[name].cpu_ms)
        share = f"{slowest} takes {stages[slowest].cpu_ms / total:.0%} of the processor time"
    remedy = {
        "decode": "a smaller or less compressed input is decoded faster, and so is one by a hardware decoder",
        "infer": "a smaller model (--model nano), a smaller --size, INT8 (rtseg build --precision int8) or a GPU is faster",
        "overlay": "smaller frames are coloured faster",
        "encode": "a faster --preset (ultrafast) makes larger files sooner; a hardware encoder frees the cores",
    }
    return f"{share}: {remedy[slowest]}"


def _bench_decode(video: str, seconds: float) -> tuple[StageCost, StreamInfo, list[Frame]]:
    """Decodes the file as often as fits into the time; keeps copies of its first frames."""
    kept: list[Frame] = []
    wall, count, cpu, took = Histogram(), 0, 0.0, 0.0
    while not kept or took < seconds:
        first = not kept
        source = open_source(video)
        try:
            info, items = source.info, iter(source)
            begun, begun_cpu = time.perf_counter(), time.process_time()
            excluded = excluded_cpu = 0.0
            while True:
                begin = time.perf_counter()
                item = next(items, None)
                if item is None:
                    break
                if isinstance(item, Frame):
                    wall.add(time.perf_counter() - begin)
                    count += 1
                    if (
                        first
                        and len(kept) < MOST_KEPT
                        and (len(kept) + 1) * sum(p.nbytes for p in item.planes) < KEPT_BYTES
                    ):
                        mark, mark_cpu = time.perf_counter(), time.thread_time()
                        y, u, v = (np.array(plane) for plane in item.planes)
                        kept.append(replace(item, planes=(y, u, v)))
                        excluded += time.perf_counter() - mark
                        excluded_cpu += time.thread_time() - mark_cpu
            took += time.perf_counter() - begun - excluded
            cpu += time.process_time() - begun_cpu - excluded_cpu
        finally:
            source.close()
    if not kept:
        raise OptionError(f"{video} has pictures too large to keep one for measuring")
    return StageCost(wall, cpu * 1000 / count, count / took), info, kept


def _bench_engine(segmenter: Segmenter, size: tuple[int, int], seconds: float) -> StageCost:
    """The network alone, on noise of its own input size: its cost does not depend on what it sees."""
    pictures = np.random.default_rng(0).integers(0, 255, (4, 1, size[1], size[0], 3), dtype=np.uint8)
    return _measure(segmenter.infer, itertools.cycle(pictures), seconds, segmenter.streams)


def _bench_encode(
    output: str,
    info: StreamInfo,
    frames: Sequence[Frame],
    classes: Sequence[ClassMap],
    overlay: Overlay,
    encoding: Encoding,
    seconds: float,
) -> StageCost:
    """Encodes the coloured frames, forwards and backwards, flushing included."""
    shown = [Segmented(frame, seen, overlay.apply(frame, seen)) for frame, seen in zip(frames, classes, strict=True)]
    step = max(1, round(1 / ((info.frame_rate or 25) * info.time_base)))
    sink = VideoSink(
        output, info, size=overlay.shown_size(info.width, info.height), codec=encoding.codec, crf=encoding.crf,
        preset=encoding.preset, audio=False,
    )  # fmt: skip
    wall, count = Histogram(), 0
    begun, begun_cpu = time.perf_counter(), time.process_time()
    try:
        for number, item in enumerate(_ping_pong(shown)):
            begin = time.perf_counter()
            if begin - begun > seconds and number >= len(shown):
                break
            sink.write(replace(item, shown=replace(item.shown, pts=number * step, duration=step)))
            wall.add(time.perf_counter() - begin)
            count += 1
        sink.finish()
    finally:
        sink.abort()
    took, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    return StageCost(wall, cpu * 1000 / count, count / took)


def _measure(work: Callable[[Any], object], items: Iterator[Any], seconds: float, threads: int = 1) -> StageCost:
    """Runs a stage again and again, in as many threads as it is made for."""
    for _ in range(2 * threads):
        work(next(items))
    wall, lock = Histogram(), threading.Lock()
    begun, begun_cpu = time.perf_counter(), time.process_time()

    def loop() -> None:
        while time.perf_counter() - begun < seconds:
            with lock:
                item = next(items)
            begin = time.perf_counter()
            work(item)
            spent = time.perf_counter() - begin
            with lock:
                wall.add(spent)

    workers = [threading.Thread(target=loop, daemon=True) for _ in range(threads - 1)]
    for worker in workers:
        worker.start()
    loop()
    for worker in workers:
        worker.join()
    took, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    return StageCost(wall, cpu * 1000 / len(wall), len(wall) / took)


def _ping_pong(items: Sequence[Any]) -> Iterator[Any]:
    """Forwards and backwards without end: moves as smoothly as the drive does."""
    return itertools.cycle([*items, *items[-2:0:-1]])
