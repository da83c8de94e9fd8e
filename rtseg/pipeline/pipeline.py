"""The pipeline: decode, segment, render, write to the sinks. `run` is the entry point of every run over a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from rtseg.core.frame import ClassMap, Frame, Passthrough, ProcessedFrame, RenderedFrame, StreamInfo
from rtseg.core.stats import Stats
from rtseg.io.inputs import Source
from rtseg.io.outputs import Sink
from rtseg.pipeline.prefetch import Prefetcher
from rtseg.render.overlay import Overlay

JOIN_SECONDS = 5.0
"""Timeout for the end of a canceled stage. A decoder that is still blocked in a read then ends with the process."""

PREFETCH_BYTES = 64 << 20
"""Memory for the frames that wait before a stage: an encoder reads them in bursts, and the network should not wait for it."""

PREFETCH_FRAMES = range(4, 17)
"""Minimum and maximum number of waiting frames, whatever their size."""


class Observer(Protocol):
    """Observer of all items of the source, in order; the fidelity report uses one."""

    def observe(self, item: Frame | Passthrough) -> None:
        """Record one item, before any stage processes it."""


@dataclass(frozen=True, slots=True)
class Classified:
    """A frame with its class map, between the model and the overlay."""

    frame: Frame
    result: ClassMap | RenderedFrame
    seconds: float
    """Time that the model took."""


def run(
    source: Source,
    segment: Callable[[Frame], ClassMap | RenderedFrame],
    overlay: Overlay,
    sinks: Sequence[Sink],
    stats: Stats,
    *,
    observer: Observer | None = None,
    on_frame: Callable[[ProcessedFrame], None] | None = None,
    threads: bool = True,
    streams: int = 1,
) -> None:
    """Pass every frame of the source through the model and into every sink.

    Decoding, inference and rendering run in their own threads, encoding in the caller's. With `threads=False` the same
    functions run in sequence; the result is bit-identical.

    Args:
        source: source of the frames; the caller closes it.
        segment: returns the class map of a frame, or the rendered frame with its class map where the GPU computes both.
        overlay: renders the frame that is written.
        sinks: outputs for the rendered frames; the caller closes or aborts them.
        stats: updated during the run.
        observer: receives the items of the source.
        on_frame: called after each frame has left the last sink, for progress.
        threads: False runs everything in the caller's thread.
        streams: number of concurrent calls of `segment`, each in its own thread; frames stay in order.

    Raises:
        RtsegError: a stage failed. Every exception of a stage is raised here, after the run's threads were canceled.
    """
    stats.start()
    stats.streams = streams if threads else 1
    decoded = _decode(source, stats, observer)
    classify = partial(_classify, segment=segment)
    render = partial(_render, overlay=overlay, stats=stats, info=source.info)
    if not threads:
        try:
            _write(map(render, map(classify, decoded)), sinks, stats, on_frame)
        finally:
            stats.end()
        return
    capacity = prefetch_capacity(source.info.width, source.info.height)
    prefetched: Prefetcher[Frame | Passthrough] = Prefetcher(decoded, "decode", capacity=capacity)
    classified = Prefetcher(prefetched, "infer", classify, workers=streams, capacity=capacity)
    # Rendering in the caller's thread would leave a multithreaded encoder idle meanwhile.
    rendered = Prefetcher(classified, "overlay", render, capacity=PREFETCH_FRAMES[0])
    stages = (prefetched, classified, rendered)
    try:
        _write(rendered, sinks, stats, on_frame)
    finally:
        # Cancel all stages before joining any: each may be waiting for another.
        for stage in stages:
            stage.cancel()
        for stage in stages:
            stage.join(JOIN_SECONDS)
        stats.end()


def prefetch_capacity(width: int, height: int) -> int:
    """Return the number of frames of a size that may wait before a stage."""
    return max(PREFETCH_FRAMES[0], min(PREFETCH_FRAMES[-1], PREFETCH_BYTES // max(1, width * height * 3 // 2)))


def _decode(source: Source, stats: Stats, observer: Observer | None) -> Iterator[Frame | Passthrough]:
    items = iter(source)
    while True:
        try:
            with stats.clock("decode"):
                item = next(items, None)
        finally:
            stats.frames["corrupt"] = source.corrupt
        if item is None:
            return
        if isinstance(item, Frame):
            stats.frames["read"] += 1
        if observer:
            observer.observe(item)
        yield item


def _classify(
    item: Frame | Passthrough, segment: Callable[[Frame], ClassMap | RenderedFrame]
) -> Classified | Passthrough:
    if isinstance(item, Passthrough):
        return item
    begin = time.perf_counter()
    return Classified(item, segment(item), time.perf_counter() - begin)


def _render(
    item: Classified | Passthrough, overlay: Overlay, stats: Stats, info: StreamInfo
) -> ProcessedFrame | Passthrough:
    if isinstance(item, Passthrough):
        return item
    classes = item.result.classes if isinstance(item.result, RenderedFrame) else item.result
    stats.segmented(classes, item.seconds)
    with stats.clock("overlay"):
        rendered = render_frame(item.frame, item.result, overlay, stats.hud_lines() if overlay.hud else ())
    return ProcessedFrame(item.frame, classes, rendered, info)


def render_frame(
    frame: Frame, result: ClassMap | RenderedFrame, overlay: Overlay, hud_lines: Sequence[str] = ()
) -> Frame:
    """Return the frame as it is displayed: rendered here, or only annotated if the GPU rendered it."""
    if not isinstance(result, RenderedFrame):
        return overlay.apply(frame, result, hud_lines)
    overlay.annotate(result.rendered, result.rendered.width, hud_lines)
    return result.rendered


def _write(
    items: Iterator[ProcessedFrame | Passthrough],
    sinks: Sequence[Sink],
    stats: Stats,
    on_frame: Callable[[ProcessedFrame], None] | None,
) -> None:
    for item in items:
        if isinstance(item, Passthrough):
            for sink in sinks:
                sink.pass_through(item)
            continue
        with stats.clock("encode"):
            for sink in sinks:
                sink.write(item)
        stats.frame_written(item.frame.captured_ns)
        if on_frame:
            on_frame(item)
    stats.stop()
