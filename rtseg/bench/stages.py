"""Separate measurement of each stage of the pipeline with the same file."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rtseg.bench.report import StageCostReport
from rtseg.core.errors import OptionError
from rtseg.core.frame import Frame, StreamInfo
from rtseg.core.stats import Histogram
from rtseg.gpu.gpu_frame import GpuFrame
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.io.outputs.video import open_video
from rtseg.pipeline.gpu_processor import SELF_CHECK_FRAMES, open_gpu_source, open_processor
from rtseg.pipeline.processor import FrameProcessor
from rtseg.render.overlay import Overlay

MAX_STORED_BYTES = 256 << 20
"""Maximum memory for the decoded frames that infer, overlay and encode use as input."""

MAX_STORED_FRAMES = 64
"""Maximum number of stored frames: two seconds, used forward and backward."""

MAX_ENCODED_FRAMES = 300
"""Maximum number of encoded frames. The cost depends on the content, and the first seconds may differ from the rest."""

_IDLE_CPU_SECONDS = 0.002
"""Maximum CPU time in 20 ms of an idle process."""


def measure_stages(
    video: str,
    output: str,
    segmenter: Segmenter,
    overlay: Overlay,
    output_options: OutputOptions,
    input_options: InputOptions,
    seconds: float,
    log: Callable[[str], None],
) -> tuple[dict[str, StageCostReport], StageCostReport]:
    """Return the cost of each stage, and of the network without preprocessing.

    Each stage except for encoding is measured for at least `seconds`. `log` is called with the name of each stage.

    Raises:
        OptionError: the video has no frames.
    """
    log("decode")
    decode, info, cpu_reason, frames = _bench_decode(video, segmenter, overlay, input_options, seconds)
    segmenter.prepare(info.width, info.height, float(info.sample_aspect_ratio))
    log("engine")
    size = segmenter.input_size_for(info.width, info.height, float(info.sample_aspect_ratio))
    engine = replace(_bench_engine(segmenter, size, seconds), streams=segmenter.streams)
    processor = open_processor(info, segmenter, overlay, cpu_reason)
    try:
        log("infer")
        for frame in itertools.islice(_ping_pong(frames), 2 * SELF_CHECK_FRAMES):  # ends the self-check of the GPU
            processor.infer(frame, info)
        infer = _measure(lambda frame: processor.infer(frame, info), _ping_pong(frames), seconds, segmenter.streams)
        results = [(frame, processor.infer(frame, info)) for frame in frames]
        log("overlay")
        rendering = _measure(lambda pair: processor.render(*pair), _ping_pong(results), seconds)
        log("encode")
        encode = _bench_encode(video, output, processor, output_options, input_options, segmenter)
    finally:
        processor.close()
    return {"decode": decode, "infer": infer, "overlay": rendering, "encode": encode}, engine


def _bench_decode(
    video: str, segmenter: Segmenter, overlay: Overlay, input_options: InputOptions, seconds: float
) -> tuple[StageCostReport, StreamInfo, str | None, list[Frame]]:
    """Decode the file repeatedly and store its first frames: copies, or GPU frames without a copy."""
    stored: list[Frame] = []
    wall, cpu, elapsed = Histogram(), 0.0, 0.0
    while not stored or elapsed < seconds:
        first = not stored
        source, cpu_reason = open_gpu_source(video, segmenter, overlay, input_options)
        try:
            info, items = source.info, iter(source)
            start, start_cpu = time.perf_counter(), time.process_time()
            excluded = excluded_cpu = 0.0
            while True:
                begin = time.perf_counter()
                item = next(items, None)
                if item is None:
                    break
                if isinstance(item, Frame):
                    wall.add(time.perf_counter() - begin)
                    if first and len(stored) < _max_stored(item.width, item.height):
                        copy_start, copy_start_cpu = time.perf_counter(), time.thread_time()
                        stored.append(_stored(item))
                        excluded += time.perf_counter() - copy_start
                        excluded_cpu += time.thread_time() - copy_start_cpu
            elapsed += time.perf_counter() - start - excluded
            cpu += time.process_time() - start_cpu - excluded_cpu
        finally:
            source.close()
    if not stored:
        raise OptionError(f"{video} has no frame to measure with")
    return _cost(wall, cpu, elapsed), info, cpu_reason, stored


def _stored(frame: Frame) -> Frame:
    """Return a copy of a CPU frame, so that the decoder can reuse its buffer; a GPU frame unchanged."""
    if isinstance(frame, GpuFrame):
        return frame
    y, u, v = (np.array(plane) for plane in frame.planes)
    return frame.with_planes((y, u, v))


def _bench_engine(segmenter: Segmenter, size: tuple[int, int], seconds: float) -> StageCostReport:
    """Measure the network only, with noise of its input size: the cost does not depend on the content."""
    images = np.random.default_rng(0).integers(0, 255, (4, 1, size[1], size[0], 3), dtype=np.uint8)
    return _measure(segmenter.infer, itertools.cycle(images), seconds, segmenter.streams)


def _bench_encode(
    video: str,
    output: str,
    processor: FrameProcessor,
    output_options: OutputOptions,
    input_options: InputOptions,
    segmenter: Segmenter,
) -> StageCostReport:
    """Measure encoding of the rendered frames, including flushing; decoding and rendering in between are not counted."""
    source, _ = open_gpu_source(video, segmenter, processor.overlay, input_options)
    info = source.info
    size = processor.overlay.output_size(info.width, info.height)
    sink = open_video(output, info, size, replace(output_options, audio=False))
    frames = itertools.islice((item for item in source if isinstance(item, Frame)), MAX_ENCODED_FRAMES)
    wall, elapsed, cpu = Histogram(), 0.0, 0.0
    try:
        while True:
            chunk = list(itertools.islice(frames, _max_stored(info.width, info.height)))
            rendered = [processor.process(frame, info) for frame in chunk]
            start, start_cpu = time.perf_counter(), time.process_time()
            for item in rendered:
                begin = time.perf_counter()
                sink.write(item)
                wall.add(time.perf_counter() - begin)
            if not rendered:
                sink.finish()
            elapsed += time.perf_counter() - start
            _wait_until_idle()
            cpu += time.process_time() - start_cpu
            if not rendered:
                return _cost(wall, cpu, elapsed)
    finally:
        sink.abort()
        source.close()


def _wait_until_idle() -> None:
    """Wait for the threads of the encoder, which still encode the last frames."""
    previous = -1.0
    while time.process_time() - previous > _IDLE_CPU_SECONDS:
        previous = time.process_time()
        time.sleep(0.02)


def _max_stored(width: int, height: int) -> int:
    """Return the maximum number of frames of a size that are stored."""
    return max(1, min(MAX_STORED_FRAMES, MAX_STORED_BYTES // max(1, width * height * 3 // 2)))


def _measure(work: Callable[[Any], object], items: Iterator[Any], seconds: float, threads: int = 1) -> StageCostReport:
    """Run a stage repeatedly in `threads` threads, at least once in each."""
    for _ in range(2 * threads):
        work(next(items))
    wall, lock = Histogram(), threading.Lock()
    start, start_cpu = time.perf_counter(), time.process_time()

    def loop() -> None:
        while True:
            with lock:
                item = next(items)
            begin = time.perf_counter()
            work(item)
            duration = time.perf_counter() - begin
            with lock:
                wall.add(duration)
            if time.perf_counter() - start >= seconds:
                return

    workers = [threading.Thread(target=loop, daemon=True) for _ in range(threads - 1)]
    for worker in workers:
        worker.start()
    loop()
    for worker in workers:
        worker.join()
    return _cost(wall, time.process_time() - start_cpu, time.perf_counter() - start)


def _cost(wall: Histogram, cpu_seconds: float, seconds: float) -> StageCostReport:
    p50, p95, p99 = wall.percentiles().values()
    cpu_ms, fps = cpu_seconds * 1000 / wall.count, wall.count / seconds
    return StageCostReport(p50=p50, p95=p95, p99=p99, cpu_ms=round(cpu_ms, 3), fps=round(fps, 1))


def _ping_pong(items: Sequence[Any]) -> Iterator[Any]:
    """Repeat the items forward and backward without end, so that the motion stays smooth."""
    return itertools.cycle([*items, *items[-2:0:-1]])
