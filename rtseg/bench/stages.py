"""Each stage of the road by itself, on the same file."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rtseg.core.errors import OptionError
from rtseg.core.frame import Frame, RenderedFrame, SegmentedFrame, StreamInfo
from rtseg.core.stats import Histogram
from rtseg.gpu.gpu_frame import GpuFrame
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.pipeline.gpu_path import SELF_CHECK_FRAMES, FramePath, open_gpu_source
from rtseg.pipeline.pipeline import render_frame
from rtseg.render.overlay import Overlay
from rtseg.video.process import open_output

KEPT_BYTES = 256 << 20
"""Memory for the decoded frames that infer, overlay and encode are measured on."""

MOST_KEPT = 64
"""Frames kept at most: two seconds, run through forwards and backwards."""

MOST_ENCODED = 300
"""Frames of the file that are encoded alone: what that costs follows the picture, and the first seconds may be unlike the rest."""

_AT_REST = 0.002
"""Seconds of processor time in a fiftieth of a second that are no work."""


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


def alone(
    video: str,
    output: str,
    segmenter: Segmenter,
    overlay: Overlay,
    encoding: OutputOptions,
    reading: InputOptions,
    seconds: float,
    log: Callable[[str], None],
) -> tuple[dict[str, StageCost], StageCost]:
    """What each stage costs, and the network within the second of them.

    Args:
        video: the file that is decoded.
        output: written and thrown away.
        segmenter: the loaded model.
        overlay: how frames are colored.
        encoding: how they are encoded.
        reading: how the file is read, and by which decoder.
        seconds: how long a stage is measured; encoding takes as long as it takes.
        log: told what is being measured.
    """
    log("decode")
    decode, info, cpu_reason, frames = _bench_decode(video, segmenter, overlay, reading, seconds)
    segmenter.prepare(info.width, info.height, float(info.sample_aspect_ratio))
    log("engine")
    size = segmenter.input_size_for(info.width, info.height, float(info.sample_aspect_ratio))
    engine = _bench_engine(segmenter, size, seconds)
    frame_path = FramePath(info, segmenter, overlay, cpu_reason=cpu_reason)
    try:
        log("infer")
        for frame in itertools.islice(_ping_pong(frames), 2 * SELF_CHECK_FRAMES):  # until the card's work is believed
            frame_path.segment(frame)
        infer = _measure(frame_path.segment, _ping_pong(frames), seconds, frame_path.streams)
        pairs = [(frame, frame_path.segment(frame)) for frame in frames]
        log("overlay")
        overlaid = _measure(lambda pair: render_frame(pair[0], pair[1], overlay), _ping_pong(pairs), seconds)
        log("encode")
        encode = _bench_encode(video, output, frame_path, overlay, encoding, reading, segmenter)
    finally:
        frame_path.close()
    return {"decode": decode, "infer": infer, "overlay": overlaid, "encode": encode}, engine


def _bench_decode(
    video: str, segmenter: Segmenter, overlay: Overlay, reading: InputOptions, seconds: float
) -> tuple[StageCost, StreamInfo, str | None, list[Frame]]:
    """Decodes the file as often as fits into the time; keeps its first frames: copies, or where they lie on a card."""
    kept: list[Frame] = []
    wall, count, cpu, took = Histogram(), 0, 0.0, 0.0
    while not kept or took < seconds:
        first = not kept
        source, cpu_reason = open_gpu_source(video, segmenter, overlay, **asdict(reading))
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
                    if first and len(kept) < _kept_of(item.width, item.height):
                        mark, mark_cpu = time.perf_counter(), time.thread_time()
                        kept.append(_kept(item))
                        excluded += time.perf_counter() - mark
                        excluded_cpu += time.thread_time() - mark_cpu
            took += time.perf_counter() - begun - excluded
            cpu += time.process_time() - begun_cpu - excluded_cpu
        finally:
            source.close()
    if not kept:
        raise OptionError(f"{video} has no picture to measure with")
    return StageCost(wall, cpu * 1000 / count, count / took), info, cpu_reason, kept


def _kept(frame: Frame) -> Frame:
    """The frame for as long as it is wanted: a decoder's own memory is not kept from it."""
    if isinstance(frame, GpuFrame):
        return frame
    y, u, v = (np.array(plane) for plane in frame.planes)
    return frame.with_planes((y, u, v))


def _bench_engine(segmenter: Segmenter, size: tuple[int, int], seconds: float) -> StageCost:
    """The network alone, on noise of its own input size: its cost does not depend on what it sees."""
    pictures = np.random.default_rng(0).integers(0, 255, (4, 1, size[1], size[0], 3), dtype=np.uint8)
    return _measure(segmenter.infer, itertools.cycle(pictures), seconds, segmenter.streams)


def _bench_encode(
    video: str,
    output: str,
    frame_path: FramePath,
    overlay: Overlay,
    encoding: OutputOptions,
    reading: InputOptions,
    segmenter: Segmenter,
) -> StageCost:
    """Encodes the file's colored frames, flushing included; what makes them is done in between and not counted."""
    source, _ = open_gpu_source(video, segmenter, overlay, **asdict(reading))
    info = source.info
    size = overlay.output_size(info.width, info.height)
    sink = open_output(output, info, size, replace(encoding, audio=False))
    frames = itertools.islice((item for item in source if isinstance(item, Frame)), MOST_ENCODED)
    wall, took, cpu = Histogram(), 0.0, 0.0
    try:
        while True:
            some = list(itertools.islice(frames, _kept_of(info.width, info.height)))
            rendered = [_shown(frame, frame_path, overlay) for frame in some]
            begun, begun_cpu = time.perf_counter(), time.process_time()
            for item in rendered:
                begin = time.perf_counter()
                sink.write(item)
                wall.add(time.perf_counter() - begin)
            if not rendered:
                sink.finish()
            took += time.perf_counter() - begun
            _let_come_to_rest()
            cpu += time.process_time() - begun_cpu
            if not rendered:
                return StageCost(wall, cpu * 1000 / len(wall), len(wall) / took)
    finally:
        sink.abort()
        source.close()


def _shown(frame: Frame, frame_path: FramePath, overlay: Overlay) -> SegmentedFrame:
    found = frame_path.segment(frame)
    classes = found.classes if isinstance(found, RenderedFrame) else found
    return SegmentedFrame(frame, classes, render_frame(frame, found, overlay))


def _let_come_to_rest() -> None:
    """Waits for an encoder's own threads, which still work on the last frames that they were given."""
    before = -1.0
    while time.process_time() - before > _AT_REST:
        before = time.process_time()
        time.sleep(0.02)


def _kept_of(width: int, height: int) -> int:
    """How many frames of a size are kept in memory at a time."""
    return max(1, min(MOST_KEPT, KEPT_BYTES // max(1, width * height * 3 // 2)))


def _measure(work: Callable[[Any], object], items: Iterator[Any], seconds: float, threads: int = 1) -> StageCost:
    """Runs a stage again and again, in as many threads as it is made for; once at least, however short `seconds` are."""
    for _ in range(2 * threads):
        work(next(items))
    wall, lock = Histogram(), threading.Lock()
    begun, begun_cpu = time.perf_counter(), time.process_time()

    def loop() -> None:
        while True:
            with lock:
                item = next(items)
            begin = time.perf_counter()
            work(item)
            spent = time.perf_counter() - begin
            with lock:
                wall.add(spent)
            if time.perf_counter() - begun >= seconds:
                return

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
