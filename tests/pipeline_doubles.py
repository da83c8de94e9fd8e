"""Test doubles of a source and a sink, for tests of the pipeline and of the live loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from rtseg.core.frame import ClassMap, Color, Frame, Passthrough, ProcessedFrame, StreamInfo
from rtseg.core.model_info import ModelInfo
from rtseg.core.palette import CAMVID_CLASSES, load_palette
from rtseg.inference.temporal_smoothing import TemporalSmoothing
from rtseg.io.inputs import Source
from rtseg.io.outputs import Sink
from rtseg.pipeline.processor import FrameProcessor
from rtseg.render.overlay import Overlay

COLOR = Color("bt709", full_range=False)
TIME_BASE = Fraction(1, 30)


class NoiseSource(Source):
    """Source of frames whose pixels depend on their number, with a packet after every third frame."""

    info = StreamInfo("noise", 64, 48, "yuv420p", COLOR, TIME_BASE)

    def __init__(self, frames: int, fail_at: int | None = None, block_at: int | None = None) -> None:
        self._frames, self._fail_at, self._block_at = frames, fail_at, block_at
        self.closed = threading.Event()
        self.blocked = False

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        for index in range(self._frames):
            if index == self._fail_at:
                raise RuntimeError("the decoder broke")
            if index == self._block_at:
                self.blocked = True
                self.closed.wait(120)
                self.blocked = False
            rng = np.random.default_rng(index)
            luma = rng.integers(16, 235, (48, 64), dtype=np.uint8)
            chroma = rng.integers(16, 240, (2, 24, 32), dtype=np.uint8)
            yield Frame(
                (luma, chroma[0], chroma[1]),
                "yuv420p",
                COLOR,
                index,
                TIME_BASE,
                index,
                captured_ns=time.monotonic_ns(),
            )
            if index % 3 == 0:
                yield Passthrough(f"packet {index}", 1)

    def close(self) -> None:
        self.closed.set()


class CollectingSink(Sink):
    """Sink that stores its items, in order."""

    name = "collecting"
    written = 0

    def __init__(self, fail_at: int | None = None) -> None:
        self.items: list[ProcessedFrame | Passthrough] = []
        self._fail_at = fail_at

    def write(self, item: ProcessedFrame) -> None:
        if self.written == self._fail_at:
            raise OSError("the disk is full")
        self.items.append(item)
        self.written += 1

    def pass_through(self, packet: Passthrough) -> None:
        self.items.append(packet)


Segment = Callable[[Frame], ClassMap]


def classes_by_brightness(frame: Frame) -> ClassMap:
    return (frame.planes[0][::2, ::2] // 24).astype(np.uint8)


def overlay() -> Overlay:
    return Overlay(load_palette("street", CAMVID_CLASSES))


class FakeModel:
    """Model that segments with a function."""

    description = ModelInfo("fake", CAMVID_CLASSES, (64, 48))

    def __init__(
        self, segment: Segment = classes_by_brightness, streams: int = 1, prepare: Callable[[], None] = lambda: None
    ) -> None:
        self.streams = streams
        self._segment, self._prepare = segment, prepare

    def segment(self, frame: Frame, pixel_aspect: float, smoothing: TemporalSmoothing | None) -> ClassMap:
        return self._segment(frame)

    def prepare(self, width: int, height: int, pixel_aspect: float) -> None:
        self._prepare()

    def new_smoothing(self) -> TemporalSmoothing | None:
        return None

    def input_size_for(self, width: int, height: int, pixel_aspect: float) -> tuple[int, int]:
        return self.description.input_size


def processor(segment: Segment = classes_by_brightness, streams: int = 1) -> FrameProcessor:
    return FrameProcessor(FakeModel(segment, streams), overlay())
