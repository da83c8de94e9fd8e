"""Live loop: latest-frame queue, frame counts, sink threads, bounded age."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest

from rtseg.core.errors import BackendError, SinkError, SourceError
from rtseg.core.frame import ClassMap, Color, Frame, Passthrough, SegmentedFrame, StreamInfo
from rtseg.core.palette import CAMVID_CLASSES, load_palette
from rtseg.io.inputs.live_clock import TIME_BASE
from rtseg.live.camera import Camera
from rtseg.live.controls import Controls, DisplaySettings, LiveMetrics
from rtseg.live.loop import STOP_SECONDS, LiveLoop
from rtseg.live.reconnect import Disconnects
from rtseg.live.report import sink_failures
from rtseg.live.sink_thread import SinkThread
from rtseg.pipeline.frame_queue import MAX_WAITING_FRAMES, CapturedFrame, LatestFrameQueue
from rtseg.render.overlay import Overlay

pytestmark = pytest.mark.timeout(180)

COLOR = Color("bt601", full_range=False)
INFO = StreamInfo("fake", 64, 48, "yuv420p", COLOR, TIME_BASE, Fraction(30))


def frame(index: int, age_seconds: float = 0.0) -> Frame:
    luma = np.full((48, 64), 16 + index % 200, np.uint8)
    chroma = np.full((24, 32), 128, np.uint8)
    captured = time.monotonic_ns() - round(age_seconds * 1e9)
    return Frame((luma, chroma, chroma), "yuv420p", COLOR, index * 3000, TIME_BASE, index, captured_ns=captured)


class FakeCamera:
    """Camera of `frames` frames that calls `gate` before each, then ends (or waits for `close`)."""

    def __init__(
        self,
        frames: int,
        *,
        gate: Callable[[int], None] = lambda _: None,
        age_seconds: float = 0.0,
        endless: bool = False,
        fails: str | None = None,
    ) -> None:
        self.info = INFO
        self.corrupt = 2
        self.warnings: tuple[str, ...] = ()
        self.decode_seconds = 0.001
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


class CollectingSink:
    """Sink that stores its items; may block or fail."""

    def __init__(self, name: str = "sink", *, fail_at: int | None = None, blocks: bool = False) -> None:
        self.name = name
        self.written = 0
        self.items: list[SegmentedFrame] = []
        self.ended = ""
        self.go = threading.Event()
        self._fail_at, self._blocks = fail_at, blocks

    def write(self, item: SegmentedFrame) -> None:
        if self._blocks:
            self.go.wait(120)
        if self.written == self._fail_at:
            raise SinkError("no space left on device")
        self.items.append(item)
        self.written += 1

    def pass_through(self, packet: Passthrough) -> None: ...

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


def classes_by_brightness(frame: Frame, aspect: float) -> ClassMap:
    return (frame.planes[0][::2, ::2] // 24).astype(np.uint8)


def style(settings: DisplaySettings) -> Overlay:
    return Overlay(load_palette("street", CAMVID_CLASSES), view=settings.view, alpha=settings.alpha)  # type: ignore[arg-type]


def live(
    *cameras: Camera, segment: Callable[[Frame, float], ClassMap] = classes_by_brightness, **options: object
) -> LiveLoop:
    options.setdefault("controls", Controls())
    options.setdefault("metrics", LiveMetrics())
    return LiveLoop(cameras, segment, style, CAMVID_CLASSES, **options)  # type: ignore[arg-type]


def wait_until(condition: Callable[[], bool]) -> None:
    """Block until the condition is true; fail after 60 s."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.001)


def adds_up(report: dict[str, dict[str, int]]) -> bool:
    frames = report["frames"]
    return frames["read"] == frames["segmented"] + frames["dropped"] + frames["corrupt"]


# Latest-frame queue


def test_queue_returns_latest_frame_and_counts_dropped() -> None:
    queue = LatestFrameQueue(1)
    for index in range(5):
        assert queue.put(CapturedFrame(0, frame(index), INFO))
    taken = queue.take()
    assert taken is not None
    assert taken.frame.index == 4
    assert (queue.captured, queue.counts(0)) == ([5], (0, 4))


def test_frames_received_while_model_loads_count_as_dropped() -> None:
    sent = threading.Event()
    sink = CollectingSink()

    def prepare(_: StreamInfo) -> None:
        assert sent.wait(60)
        wait_until(lambda: run._queue.captured == [5])

    source = FakeCamera(5, gate=lambda index: sent.set() if index == 4 else None)
    run = live(Camera("door", source, [SinkThread(sink)]), prepare=prepare)
    report = run.run()
    assert report["frames"]["read"] == 5 + source.corrupt
    assert (report["frames"]["segmented"], report["frames"]["dropped"]) == (1, 4)
    assert [item.frame.index for item in sink.items] == [4]


def test_cameras_are_served_in_turn_at_any_frame_rate() -> None:
    queue = LatestFrameQueue(3)
    served = []
    for turn in range(6):
        for camera in (0, 0, 0, 1, 2):
            queue.put(CapturedFrame(camera, frame(turn), INFO))
        taken = queue.take()
        assert taken is not None
        served.append(taken.camera)
        queue.done(taken)
    assert served == [0, 1, 2, 0, 1, 2]


def test_every_frame_blocks_put_instead_of_dropping() -> None:
    queue = LatestFrameQueue(1, every_frame=True)
    more = MAX_WAITING_FRAMES + 5
    thread = threading.Thread(target=lambda: [queue.put(CapturedFrame(0, frame(i), INFO)) for i in range(more)])
    thread.start()
    seen = []
    for _ in range(more):
        taken = queue.take()
        assert taken is not None
        seen.append(taken.frame.index)
        queue.done(taken)
    thread.join(60)
    assert seen == list(range(more))
    assert queue.counts(0) == (0, more)


def test_take_skips_camera_with_frame_in_progress() -> None:
    queue = LatestFrameQueue(2)
    queue.put(CapturedFrame(0, frame(0), INFO))
    first = queue.take()
    queue.put(CapturedFrame(0, frame(1), INFO))
    queue.put(CapturedFrame(1, frame(0), INFO))
    other = queue.take()
    assert first is not None
    assert other is not None
    assert other.camera == 1
    more: list[CapturedFrame | None] = []
    thread = threading.Thread(target=lambda: more.append(queue.take()))
    thread.start()
    thread.join(0.2)
    assert not more, "taken while the previous frame was in progress"
    queue.done(first)
    thread.join(60)
    assert more[0] is not None
    assert (more[0].camera, more[0].frame.index) == (0, 1)


def test_model_runs_cameras_concurrently_and_each_camera_in_order() -> None:
    together = threading.Barrier(2)
    seen: dict[int, list[int]] = {0: [], 1: []}
    in_progress: set[int] = set()

    def segment_of(number: int) -> Callable[[Frame, float], ClassMap]:
        def segment(frame: Frame, aspect: float) -> ClassMap:
            assert number not in in_progress, "two frames of one camera at the same time"
            in_progress.add(number)
            if not seen[number]:
                together.wait(60)  # fails unless the other camera's frame is in the model too
            seen[number].append(frame.index)
            in_progress.discard(number)
            return classes_by_brightness(frame, aspect)

        return segment

    sinks = [CollectingSink("first"), CollectingSink("second")]
    cameras = [
        Camera(f"camera{number}", FakeCamera(40), [SinkThread(sink, capacity=100)], segment_of(number))
        for number, sink in enumerate(sinks)
    ]
    report = live(*cameras, streams=2, every_frame=True).run()
    assert seen == {0: list(range(40)), 1: list(range(40))}
    assert [[item.frame.index for item in sink.items] for sink in sinks] == [list(range(40))] * 2
    assert all(item["frames"]["segmented"] == 40 for item in report["items"])


def test_close_unblocks_take_and_rejects_put() -> None:
    queue = LatestFrameQueue(2)
    ends: list[object] = []
    thread = threading.Thread(target=lambda: ends.append(queue.take()))
    thread.start()
    queue.close()
    thread.join(60)
    assert ends == [None]
    assert not queue.put(CapturedFrame(0, frame(0), INFO))
    assert queue.captured == [0, 0]
    assert queue.counts(0) == queue.counts(1) == (0, 0)


# Sink threads


def test_slow_sink_gets_latest_frame_and_counts_dropped() -> None:
    sink = CollectingSink(blocks=True)
    sink_thread = SinkThread(sink)
    results: list[float | None] = []
    items = [SegmentedFrame(frame(i), np.zeros((2, 2), np.uint8), frame(i)) for i in range(10)]
    sink_thread.offer(items[0], results.append)
    wait_until(lambda: not sink_thread._waiting)
    for item in items[1:]:
        sink_thread.offer(item, results.append)
    sink.go.set()
    sink_thread.finish()
    assert sink_thread.join(60)
    assert [item.frame.index for item in sink.items] == [0, 9]
    assert (sink_thread.written, sink_thread.dropped, len(results)) == (2, 8, 10)
    assert sink.ended == "closed"


def test_failed_sink_is_aborted_and_its_frames_count_as_dropped() -> None:
    errors: list[str] = []
    sink = CollectingSink(fail_at=1)
    sink_thread = SinkThread(sink, capacity=100, on_error=lambda name, failure: errors.append(f"{name}: {failure}"))
    results: list[float | None] = []
    for i in range(5):
        sink_thread.offer(SegmentedFrame(frame(i), np.zeros((2, 2), np.uint8), frame(i)), results.append)
    assert sink_thread.join(60)
    sink_thread.offer(SegmentedFrame(frame(9), np.zeros((2, 2), np.uint8), frame(9)), results.append)
    assert (sink_thread.written, sink_thread.dropped) == (1, 5)
    assert [seconds is None for seconds in results].count(True) == 5
    assert errors == ["sink: no space left on device"]
    assert sink_failures([sink_thread]) == errors
    assert sink.ended == "aborted"


def test_blocking_offer_waits_for_space_but_not_for_failed_sink() -> None:
    sink = CollectingSink(fail_at=6)
    sink_thread = SinkThread(sink, capacity=2, block_when_full=True)
    for i in range(12):
        sink_thread.offer(SegmentedFrame(frame(i), np.zeros((2, 2), np.uint8), frame(i)), lambda _: None)
    assert sink_thread.join(60)
    assert [item.frame.index for item in sink.items] == list(range(6))
    assert (sink_thread.written, sink_thread.dropped) == (6, 6)


# The loop


def test_each_frame_is_segmented_dropped_or_corrupt() -> None:
    sink, later_frame_captured = CollectingSink(), threading.Event()

    def gate(index: int) -> None:
        if index == 100:
            later_frame_captured.set()

    def slow(frame: Frame, aspect: float) -> ClassMap:
        assert later_frame_captured.wait(60)
        return classes_by_brightness(frame, aspect)

    camera = Camera("camera0", FakeCamera(200, gate=gate), [SinkThread(sink, capacity=300)])
    report = live(camera, segment=slow).run()
    frames = report["frames"]
    assert frames["read"] == 202
    assert frames["corrupt"] == 2
    assert frames["dropped"] > 0
    assert adds_up(report)
    assert frames["segmented"] == frames["written"] == len(sink.items)
    indices = [item.frame.index for item in sink.items]
    assert indices == sorted(set(indices))
    assert indices[-1] == 199, "the last frame of an input is never dropped"
    assert report["sinks"]["sink"]["dropped"] == 0
    assert report["latency_ms"]["max"] > 0


def test_every_frame_drops_no_frame() -> None:
    sink = CollectingSink()

    def slow(frame: Frame, aspect: float) -> ClassMap:
        time.sleep(0.002)
        return classes_by_brightness(frame, aspect)

    camera = Camera("camera0", FakeCamera(100), [SinkThread(sink, capacity=2, block_when_full=True)])
    report = live(camera, segment=slow, every_frame=True).run()
    assert [item.frame.index for item in sink.items] == list(range(100))
    assert report["frames"] == {"read": 102, "segmented": 100, "written": 100, "dropped": 0, "corrupt": 2, "stale": 0}


def test_frames_older_than_max_age_are_not_displayed() -> None:
    sink = CollectingSink()
    camera = Camera("camera0", FakeCamera(20, age_seconds=60.0), [SinkThread(sink)])
    report = live(camera, max_age_ms=30_000).run()
    assert sink.items == []
    assert report["frames"]["segmented"] == 0
    assert adds_up(report)


def test_frame_that_becomes_stale_in_network_is_not_displayed() -> None:
    sink = CollectingSink()

    def slow(frame: Frame, aspect: float) -> ClassMap:
        time.sleep(0.3)
        return classes_by_brightness(frame, aspect)

    camera = Camera("camera0", FakeCamera(1), [SinkThread(sink)])
    report = live(camera, segment=slow, max_age_ms=250).run()
    assert sink.items == []
    assert adds_up(report)
    assert report["frames"]["stale"] + report["frames"]["dropped"] == 1


def test_blocked_sink_does_not_delay_other_sinks_or_the_end() -> None:
    controls = Controls()
    blocked, working = CollectingSink("blocked", blocks=True), CollectingSink("working")
    gates = []

    def quit_at_last(index: int) -> None:
        gates.append(index)
        if index == 99:
            wait_until(lambda: working.written > 0)
            controls.quit()

    sinks = [SinkThread(working, capacity=200), SinkThread(blocked)]
    report = live(Camera("camera0", FakeCamera(100, gate=quit_at_last, endless=True), sinks), controls=controls).run()
    assert working.written == report["frames"]["segmented"] > 0
    assert working.ended == "closed"
    assert report["sinks"]["blocked"]["written"] == 0
    assert blocked.ended == ""
    blocked.go.set()


def test_quit_closes_endless_camera() -> None:
    controls = Controls()
    threading.Timer(0.3, controls.quit).start()
    source = FakeCamera(3, endless=True)
    report = live(Camera("camera0", source, []), controls=controls).run()
    assert source.closed.is_set(), "the run must close its sources"
    assert adds_up(report)


def test_no_camera_raises_source_error_with_reasons() -> None:
    cameras = [Camera(f"camera{i}", FakeCamera(0, fails=f"camera {i}: not found"), []) for i in range(2)]
    with pytest.raises(SourceError, match="camera 0: not found; camera 1: not found"):
        live(*cameras).run()


def test_failed_camera_does_not_stop_other_camera() -> None:
    sinks = [CollectingSink("one"), CollectingSink("two")]
    mosaic, controls = CollectingSink("web"), Controls()

    def quit_at_last(index: int) -> None:
        if index == 29:
            wait_until(lambda: sinks[1].written > 0 and mosaic.written > 0)
            controls.quit()

    cameras = [
        Camera("camera0", FakeCamera(0, fails="camera 0: not found"), [SinkThread(sinks[0])]),
        Camera("camera1", FakeCamera(30, gate=quit_at_last, endless=True), [SinkThread(sinks[1], capacity=50)]),
    ]
    report = live(*cameras, controls=controls, shared_sinks=[SinkThread(mosaic, capacity=50)]).run()
    assert sinks[0].written == 0
    assert sinks[1].written == report["items"][1]["frames"]["segmented"] > 0
    assert all(item.rendered.width == sinks[1].items[0].rendered.width for item in sinks[1].items)
    assert mosaic.items[0].rendered.width > sinks[1].items[0].rendered.width
    assert [item["disconnects"]["connected"] for item in report["items"]] == [False, True]
    assert report["frames"]["read"] == sum(item["frames"]["read"] for item in report["items"])
    assert adds_up(report)


def test_fast_camera_does_not_starve_slow_camera() -> None:
    """One camera yields frames without end; the other waits until its previous frame was written."""
    sinks, controls = [CollectingSink("one"), CollectingSink("two")], Controls()

    def wait_for_previous(index: int) -> None:
        wait_until(lambda: sinks[1].written == index or controls.quitting)
        if index == 20:
            controls.quit()

    cameras = [
        Camera("fast", FakeCamera(10**9), [SinkThread(sinks[0])]),
        Camera("slow", FakeCamera(21, gate=wait_for_previous), [SinkThread(sinks[1], capacity=50)]),
    ]
    live(*cameras, controls=controls).run()
    assert sinks[1].written >= 20, "the fast camera starved the slow one"
    assert sinks[0].written > 0


def test_settings_apply_to_next_frame_and_pause_freezes_only_the_display() -> None:
    controls, screen, file = Controls(), CollectingSink("web"), CollectingSink("file")

    def change_settings(index: int) -> None:
        wait_until(lambda: file.written == index)  # all previous frames are written
        if index == 10:
            controls.set(view="side-by-side")
        if index == 20:
            controls.set(view="mask", paused=True)

    camera = Camera("camera0", FakeCamera(40, gate=change_settings), [SinkThread(file, capacity=100)])
    live(camera, controls=controls, shared_sinks=[SinkThread(screen, capacity=100)]).run()
    widths = [item.rendered.width for item in file.items]
    assert set(widths) == {64, 128}
    assert file.items[-1].frame.index == 39
    assert screen.items[-1].frame.index < 25
    assert screen.items[-1].rendered.width == 128


def test_model_error_ends_run_and_closes_files() -> None:
    sink = CollectingSink()

    def fails(frame: Frame, aspect: float) -> ClassMap:
        if frame.index >= 3:
            raise BackendError("the device was lost")
        return classes_by_brightness(frame, aspect)

    camera = Camera("camera0", FakeCamera(50, gate=lambda _: time.sleep(0.005)), [SinkThread(sink, capacity=60)])
    with pytest.raises(BackendError, match="lost"):
        live(camera, segment=fails).run()
    assert sink.ended == "closed"


def test_metrics_are_published_every_second() -> None:
    metrics, controls = LiveMetrics(), Controls()

    def gate(index: int) -> None:
        time.sleep(0.02)
        if metrics.latest and metrics.latest["now"]["shown_fps"] > 0:
            controls.quit()

    def slow(frame: Frame, pixel_aspect: float) -> ClassMap:
        time.sleep(0.005)
        return classes_by_brightness(frame, pixel_aspect)

    camera = Camera("camera0", FakeCamera(5000, gate=gate), [])
    report = live(camera, segment=slow, controls=controls, metrics=metrics).run()
    now = metrics.latest["now"]
    assert 0 < now["capture_fps"] < 60
    assert set(now) == {
        *("capture_fps", "shown_fps", "dropped", "age_ms", "bottleneck", "engine_ms", "work_ms", "stale", "classes")
    }
    assert sum(now["classes"].values()) == pytest.approx(1.0, abs=0.01)
    assert now["engine_ms"] >= 5
    assert now["age_ms"]["max"] > 0
    assert set(report["stages"]) == {"decode", "infer", "overlay", "encode"}


def test_each_camera_uses_its_own_segment_function() -> None:
    """The frames of each camera pass through the function of that camera, in order."""
    seen: dict[str, list[int]] = {"one": [], "two": []}
    cameras = []
    for name in seen:

        def segment(frame: Frame, aspect: float, name: str = name) -> ClassMap:
            seen[name].append(frame.index)
            return classes_by_brightness(frame, aspect)

        cameras.append(Camera(name, FakeCamera(20, gate=lambda _: time.sleep(0.002)), [], segment))
    report = live(*cameras).run()
    for item, indices in zip(report["items"], seen.values(), strict=True):
        assert len(indices) == item["frames"]["segmented"] > 0
        assert indices == sorted(set(indices))


def test_recording_may_take_longer_to_close_than_stop_limit() -> None:
    """Closing takes longer than `STOP_SECONDS`, the limit for other sinks."""

    class Slow(CollectingSink):
        def close(self) -> None:
            time.sleep(STOP_SECONDS + 0.5)
            super().close()

    controls, slow = Controls(), Slow("out.mp4")

    def quit_at_last(index: int) -> None:
        if index == 4:
            controls.quit()

    sinks = [SinkThread(slow, capacity=50, closing_seconds=30)]
    live(Camera("camera0", FakeCamera(5, gate=quit_at_last, endless=True), sinks), controls=controls).run()
    assert slow.ended == "closed"
    assert sink_failures(sinks) == []
