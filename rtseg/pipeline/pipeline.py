"""The pipeline of a file: decode, process, write to the sinks. No frame is dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing

from rtseg.core.frame import Frame, Passthrough, ProcessedFrame
from rtseg.core.interrupts import deferred_interrupts
from rtseg.core.stats import Stats
from rtseg.io.inputs import Source
from rtseg.io.outputs import Sink
from rtseg.pipeline.frame_queue import FrameQueue
from rtseg.pipeline.processor import FrameProcessor

JOIN_SECONDS = 5.0
"""Timeout for the end of the canceled threads. A decoder that is still blocked in a read then ends with the process."""

QUEUE_BYTES = 128 << 20
"""Memory for the frames between decoder and encoder: an encoder reads them in bursts, and the network should not wait for it."""

QUEUE_FRAMES = range(8, 33)
"""Minimum and maximum number of these frames, whatever their size."""

Item = Frame | Passthrough
Processed = ProcessedFrame | Passthrough


def run(
    source: Source,
    processor: FrameProcessor,
    sinks: Sequence[Sink],
    stats: Stats,
    *,
    observe: Callable[[Item], None] = lambda item: None,
    on_frame: Callable[[], None] = lambda: None,
) -> None:
    """Pass every frame of the source through the processor and into every sink.

    Decoding and processing run in their own threads, encoding in the caller's.

    Args:
        source: source of the frames; the caller closes it.
        processor: processor of the frames.
        sinks: outputs for the rendered frames; the caller closes or aborts them.
        stats: updated during the run.
        observe: called with each item of the source, in order, before any stage processes it.
        on_frame: called after each frame has left the last sink, for progress.

    Raises:
        RtsegError: a stage failed. Every exception of a stage is raised here, after the run's threads were canceled.
    """
    stats.workers = processor.workers
    stats.start()

    def process(frame: Frame) -> ProcessedFrame:
        stats.frames.begin()
        return processor.process(frame, source.info, stats.hud_lines() if processor.overlay.hud else ())

    capacity = queue_capacity(source.info.width, source.info.height)
    try:
        with closing(_concurrently(_decode(source, stats, observe), process, stats.workers, capacity)) as results:
            _write(results, sinks, stats, on_frame)
    finally:
        stats.frames.end()


def queue_capacity(width: int, height: int) -> int:
    """Return the number of frames of a size between decoder and encoder."""
    return max(QUEUE_FRAMES[0], min(QUEUE_FRAMES[-1], QUEUE_BYTES // max(1, width * height * 3 // 2)))


def _decode(source: Source, stats: Stats, observe: Callable[[Item], None]) -> Iterator[Item]:
    items = iter(source)
    while True:
        begin = time.perf_counter()
        try:
            item = next(items, None)
        finally:
            stats.frames.set_corrupt(source.corrupt)
        stats.add_stage("decode", time.perf_counter() - begin)
        if item is None:
            return
        if isinstance(item, Frame):
            stats.frames.add()
        observe(item)
        yield item


def _concurrently(
    items: Iterator[Item], process: Callable[[Frame], ProcessedFrame], workers: int, capacity: int
) -> Generator[Processed, None, None]:
    """Yield the processed items in their order. An exception is raised at the position of its item."""
    results: FrameQueue[Future[Processed]] = FrameQueue(capacity)
    frames: FrameQueue[tuple[Frame, Future[Processed]]] = FrameQueue(capacity)

    def decode() -> None:
        failed: Future[Processed] = Future()
        try:
            for item in items:
                future: Future[Processed] = Future()
                if not results.put(future):
                    return
                if isinstance(item, Frame):
                    frames.put((item, future))
                else:
                    future.set_result(item)
        except BaseException as error:  # raised again by the consumer
            failed.set_exception(error)
            results.put(failed)
        finally:
            results.close()
            frames.close()

    def process_all() -> None:
        while (entry := frames.get()) is not None:
            frame, future = entry
            try:
                future.set_result(process(frame))
            except BaseException as error:  # raised again by the consumer
                future.set_exception(error)

    threads = [threading.Thread(target=decode, name="rtseg-decode", daemon=True)]
    threads += [threading.Thread(target=process_all, name="rtseg-process", daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        while (future := results.get()) is not None:
            yield future.result()
    finally:
        for queue in (results, frames):
            queue.close(discard=True)
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _write(items: Iterator[Processed], sinks: Sequence[Sink], stats: Stats, on_frame: Callable[[], None]) -> None:
    for item in items:
        if isinstance(item, Passthrough):
            with deferred_interrupts():
                for sink in sinks:
                    sink.pass_through(item)
            continue
        stats.frames.finish()
        stats.add_processed(item)
        begin = time.perf_counter()
        with deferred_interrupts():
            for sink in sinks:
                sink.write(item)
        stats.add_stage("encode", time.perf_counter() - begin)
        stats.add_written(item.frame.captured_ns)
        on_frame()
    stats.stop()
