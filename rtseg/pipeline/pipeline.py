"""The road: decode, segment, color, hand to the sinks. Every run of rtseg goes through `run`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from rtseg.core.frame import ClassMap, Frame, Passthrough, RenderedFrame, SegmentedFrame
from rtseg.core.stats import Stats
from rtseg.io.inputs import Source
from rtseg.io.outputs import Sink
from rtseg.pipeline.prefetch import Prefetcher
from rtseg.render.overlay import Overlay

JOIN_SECONDS = 5.0
"""How long a stage may take to end once it was told to; a decoder blocked in a read is then left to the end of the process."""

PREFETCH_BYTES = 64 << 20
"""Memory for the frames that wait before a stage: an encoder takes them in bursts, and the network should not wait meanwhile."""

PREFETCH_FRAMES = range(4, 17)
"""At least and at most so many, whatever their size."""


class Observer(Protocol):
    """Sees all that leaves the source, in order; the fidelity report is made of it."""

    def see(self, item: Frame | Passthrough) -> None:
        """One item, before any stage touched it."""


@dataclass(frozen=True, slots=True)
class Classified:
    """A frame with its class map, between the model and the overlay."""

    frame: Frame
    found: ClassMap | RenderedFrame
    seconds: float
    """What the model took for it."""


def run(
    source: Source,
    segment: Callable[[Frame], ClassMap | RenderedFrame],
    overlay: Overlay,
    sinks: Sequence[Sink],
    stats: Stats,
    *,
    observer: Observer | None = None,
    on_frame: Callable[[SegmentedFrame], None] | None = None,
    threads: bool = True,
    streams: int = 1,
) -> None:
    """Takes every frame of the source through the model and into every sink.

    Decoding, inference and coloring run in threads of their own, encoding in the caller's. With `threads=False` the same
    functions run one after the other: same result, bit for bit.

    Args:
        source: where frames come from; the caller closes it.
        segment: gives the class map of a frame's picture, and the colored frame too where a card makes both at once.
        overlay: gives the frame that is shown.
        sinks: take what is shown; the caller closes or aborts them.
        stats: filled as the run goes.
        observer: sees what the source yields.
        on_frame: called after each frame has left the last sink, for progress.
        threads: False runs everything in the caller's thread.
        streams: frames that are in `segment` at the same time, each in a thread of its own; their order stays.

    Raises:
        RtsegError: what a stage met. Whatever a stage raises is raised here, and no thread of the run is left behind.
    """
    stats.start()
    stats.streams = streams if threads else 1
    decoded = _decode(source, stats, observer)
    classify = partial(_classify, segment=segment)
    color = partial(_color, overlay=overlay, stats=stats)
    if not threads:
        try:
            _write(map(color, map(classify, decoded)), sinks, stats, on_frame)
        finally:
            stats.end()
        return
    waiting = prefetch_frames(source.info.width, source.info.height)
    ahead: Prefetcher[Frame | Passthrough] = Prefetcher(decoded, "decode", capacity=waiting)
    classified = Prefetcher(ahead, "infer", classify, workers=streams, capacity=waiting)
    # Coloring in the encoder's thread would leave an encoder with threads of its own without a picture meanwhile.
    colored = Prefetcher(classified, "overlay", color, capacity=PREFETCH_FRAMES[0])
    stages = (ahead, classified, colored)
    try:
        _write(colored, sinks, stats, on_frame)
    finally:
        # All are told before any is waited for: each may be waiting for another.
        for stage in stages:
            stage.cancel()
        for stage in stages:
            stage.join(JOIN_SECONDS)
        stats.end()


def prefetch_frames(width: int, height: int) -> int:
    """How many frames of a size may wait before a stage."""
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
            observer.see(item)
        yield item


def _classify(
    item: Frame | Passthrough, segment: Callable[[Frame], ClassMap | RenderedFrame]
) -> Classified | Passthrough:
    if isinstance(item, Passthrough):
        return item
    begin = time.perf_counter()
    return Classified(item, segment(item), time.perf_counter() - begin)


def _color(item: Classified | Passthrough, overlay: Overlay, stats: Stats) -> SegmentedFrame | Passthrough:
    if isinstance(item, Passthrough):
        return item
    classes = item.found.classes if isinstance(item.found, RenderedFrame) else item.found
    stats.segmented(classes, item.seconds)
    with stats.clock("overlay"):
        rendered = colored(item.frame, item.found, overlay, stats.hud_lines() if overlay.hud else ())
    return SegmentedFrame(item.frame, classes, rendered)


def colored(frame: Frame, found: ClassMap | RenderedFrame, overlay: Overlay, hud_lines: Sequence[str] = ()) -> Frame:
    """The frame as it is shown: colored here, or only written upon where the card colored it."""
    if not isinstance(found, RenderedFrame):
        return overlay.apply(frame, found, hud_lines)
    overlay.annotate(found.rendered, found.rendered.width, hud_lines)
    return found.rendered


def _write(
    items: Iterator[SegmentedFrame | Passthrough],
    sinks: Sequence[Sink],
    stats: Stats,
    on_frame: Callable[[SegmentedFrame], None] | None,
) -> None:
    for item in items:
        if isinstance(item, Passthrough):
            for sink in sinks:
                sink.pass_through(item)
            continue
        with stats.clock("encode"):
            for sink in sinks:
                sink.write(item)
        stats.left(item.frame.captured_ns)
        if on_frame:
            on_frame(item)
    stats.stop()
