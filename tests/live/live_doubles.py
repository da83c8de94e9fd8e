"""Fake camera, collecting sink and live loop for the tests of the live loop."""

from __future__ import annotations

import itertools
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from command import MODEL
from pipeline_doubles import FakeModel, Segment, classes_by_brightness, processor
from web_client import IDENTITY

from rtseg.core.errors import SinkError
from rtseg.core.frame import ClassMap, Color, Frame, Passthrough, ProcessedFrame, StreamInfo
from rtseg.core.live_report import IntervalReport, LiveReport
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.core.report import Percentiles
from rtseg.inference.segmenter import Segmenter
from rtseg.io.inputs import Source
from rtseg.io.inputs.live_clock import TIME_BASE
from rtseg.io.outputs import Sink
from rtseg.live.camera import Camera
from rtseg.live.controls import Controls
from rtseg.live.disconnects import Disconnects
from rtseg.live.inputs import Input
from rtseg.live.load_shedding import LoadShedder
from rtseg.live.loop import LiveLoop
from rtseg.live.options import LiveOptions, Outputs
from rtseg.live.outputs import SharedSinks
from rtseg.live.report import LiveReporter
from rtseg.live.run import DEFAULT_OPTIONS, run_live
from rtseg.live.sink_thread import SinkThread
from rtseg.render.style import Style

COLOR = Color("bt601", full_range=False)

INFO = StreamInfo("fake", 64, 48, "yuv420p", COLOR, TIME_BASE, Fraction(30))


def frame(index: int, age_seconds: float = 0.0) -> Frame:
    luma = np.full((48, 64), 16 + index % 200, np.uint8)
    chroma = np.full((24, 32), 128, np.uint8)
    captured = time.monotonic_ns() - round(age_seconds * 1e9)
    return Frame((luma, chroma, chroma), "yuv420p", COLOR, index * 3000, TIME_BASE, index, captured_ns=captured)


class FakeCamera(Source):
    """Camera of `frames` frames that calls `gate` before each, then ends (or waits for `close`)."""

    info, corrupt, decode_seconds = INFO, 2, 0.001

    def __init__(
        self,
        frames: int,
        *,
        gate: Callable[[int], None] = lambda _: None,
        age_seconds: float = 0.0,
        endless: bool = False,
        fails: str | None = None,
    ) -> None:
        self.disconnects = Disconnects(connected=fails is None, reason=fails or "")
        self.connect_attempted = threading.Event()
        self.closed = threading.Event()
        self._frames, self._gate, self._age = frames, gate, age_seconds
        self._endless, self._fails = endless, fails

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        self.connect_attempted.set()
        if self._fails:
            self.closed.wait(120)
            return
        for index in range(self._frames):
            self._gate(index)
            yield frame(index, self._age)
        if self._endless:
            self.closed.wait(120)

    def close(self) -> None:
        self.closed.set()


class CollectingSink(Sink):
    """Sink that stores its items; may block or fail."""

    written = 0

    def __init__(self, name: str = "sink", *, fail_at: int | None = None, blocks: bool = False) -> None:
        self.name = name
        self.items: list[ProcessedFrame] = []
        self.ended = ""
        self.go = threading.Event()
        self._fail_at, self._blocks = fail_at, blocks

    def write(self, item: ProcessedFrame) -> None:
        if self._blocks:
            self.go.wait(120)
        if self.written == self._fail_at:
            raise SinkError("no space left on device")
        self.items.append(item)
        self.written += 1

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


def slow(seconds: float) -> Segment:
    """Return a network that takes this time for a frame."""

    def segment(frame: Frame) -> ClassMap:
        time.sleep(seconds)
        return classes_by_brightness(frame)

    return segment


def camera(
    name: str, source: FakeCamera, sinks: Sequence[SinkThread] = (), segment: Segment = classes_by_brightness
) -> Camera:
    return Camera(name, source, processor(segment), list(sinks))


class Live:
    """A run with fake cameras, and its report as JSON."""

    def __init__(
        self,
        *cameras: Camera,
        segment: Segment | None = None,
        streams: int = 1,
        prepare: Callable[[], None] = lambda: None,
        controls: Controls | None = None,
        shared_sinks: Sequence[SinkThread] = (),
        load_shedder: LoadShedder | None = None,
        on_report: Callable[[LiveReport], None] = lambda _: None,
        **options: Any,
    ) -> None:
        for each in cameras if segment else ():
            each.processor.model = FakeModel(segment)
        sinks = SharedSinks(tuple(shared_sinks))
        self.reporter = LiveReporter(cameras, sinks.all, CAMVID_CLASSES, IDENTITY, load_shedder=load_shedder)
        self.loop = LiveLoop(
            cameras,
            [FakeModel(segment or classes_by_brightness, streams, prepare)],
            Style(),
            self.reporter,
            controls or Controls(),
            sinks=sinks,
            options=LiveOptions(**options),
            ready=threading.Event(),
            load_shedder=load_shedder,
            on_report=on_report,
        )

    def run(self) -> dict[str, Any]:
        self.loop.run()
        return self.report()

    def report(self) -> dict[str, Any]:
        return self.reporter.report().to_dict()


NO_OUTPUT = Outputs(show=("none",))


def run_inputs(
    inputs: Sequence[Input],
    outputs: Outputs = NO_OUTPUT,
    options: LiveOptions = DEFAULT_OPTIONS,
    controls: Controls | None = None,
) -> dict[str, Any]:
    """Run `run_live` with the test model and return its report as JSON."""
    with Segmenter(MODEL, size=(96, 64)) as segmenter:
        return run_live(inputs, outputs, [segmenter], Style(), controls or Controls(), options).to_dict()


def interval(capture_fps: float, work_ms: float, stale: int = 0) -> IntervalReport:
    return IntervalReport(
        capture_fps=capture_fps,
        shown_fps=capture_fps,
        dropped=0,
        age_ms=Percentiles(p50=0.0, p95=0.0, p99=0.0),
        bottleneck="infer",
        engine_ms=work_ms,
        work_ms=work_ms,
        stale=stale,
        classes={},
    )


def wait_until(condition: Callable[[], bool]) -> None:
    """Block until the condition is true; fail after 60 s."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.001)


def wait_for(
    condition: Callable[[], object], process: subprocess.Popen[str], nudge: Callable[[], None] = lambda: None
) -> None:
    """Block until the condition is true, with `nudge` every 10 s; fail after 120 s, and if the process ends."""
    deadline, next_nudge = time.monotonic() + 120, time.monotonic() + 10
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "timeout"
        if time.monotonic() > next_nudge:
            next_nudge = time.monotonic() + 10
            nudge()
        time.sleep(0.05)


def adds_up(report: dict[str, dict[str, int]]) -> bool:
    frames = report["frames"]
    return frames["read"] == frames["segmented"] + frames["dropped"] + frames["corrupt"]


def seconds_in(path: Path) -> list[float]:
    """Return the time of each frame of a file in seconds; the whole file must be decodable."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0) if frame.time is not None]


def rises(seconds: list[float]) -> bool:
    return all(before < after for before, after in itertools.pairwise(seconds))
