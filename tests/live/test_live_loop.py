"""The live loop: the newest frame only, counted to the last one; sinks that nobody waits for; an age that stays bounded."""

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
from rtseg.live.controls import Controls, LiveNumbers, Wanted
from rtseg.live.loop import STOP_SECONDS, Live
from rtseg.live.reconnect import Disconnects
from rtseg.live.report import failures
from rtseg.live.sink_thread import SinkThread
from rtseg.pipeline.frame_queue import EVERY_FRAME_WAITS, Captured, LatestFrameQueue
from rtseg.render.overlay import Overlay

pytestmark = pytest.mark.timeout(180)

COLOR = Color("bt601", full_range=False)
INFO = StreamInfo("drawn", 64, 48, "yuv420p", COLOR, TIME_BASE, Fraction(30))


def frame(index: int, age_seconds: float = 0.0) -> Frame:
    luma = np.full((48, 64), 16 + index % 200, np.uint8)
    chroma = np.full((24, 32), 128, np.uint8)
    captured = time.monotonic_ns() - round(age_seconds * 1e9)
    return Frame((luma, chroma, chroma), "yuv420p", COLOR, index * 3000, TIME_BASE, index, captured_ns=captured)


class DrawnCamera:
    """A camera that gives `frames` frames, waiting for `gate` before each, then ends (or waits for `close`)."""

    def __init__(
        self,
        frames: int,
        *,
        gate: Callable[[int], None] = lambda _: None,
        age_seconds: float = 0.0,
        lasting: bool = False,
        fails: str | None = None,
    ) -> None:
        self.info = INFO
        self.corrupt = 2
        self.warnings: tuple[str, ...] = ()
        self.decode_seconds = 0.001
        self.disconnects = Disconnects(connected=fails is None, reason=fails or "")
        self.tried = threading.Event()
        self.closed = threading.Event()
        self._frames, self._gate, self._age = frames, gate, age_seconds
        self._lasting, self._fails = lasting, fails

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        self.tried.set()
        if self._fails:
            self.closed.wait(120)
            return
        for index in range(self._frames):
            self._gate(index)
            yield frame(index, self._age)
        if self._lasting:
            self.closed.wait(120)

    def close(self) -> None:
        self.closed.set()


class Keeper:
    """Keeps what it is given; may block or fail."""

    def __init__(self, name: str = "keeper", *, fail_at: int | None = None, blocks: bool = False) -> None:
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


def by_brightness(picture: Frame, aspect: float) -> ClassMap:
    return (picture.planes[0][::2, ::2] // 24).astype(np.uint8)


def style(wanted: Wanted) -> Overlay:
    return Overlay(load_palette("street", CAMVID_CLASSES), view=wanted.view, alpha=wanted.alpha)  # type: ignore[arg-type]


def live(*cameras: Camera, segment: Callable[[Frame, float], ClassMap] = by_brightness, **options: object) -> Live:
    options.setdefault("controls", Controls())
    options.setdefault("numbers", LiveNumbers())
    return Live(cameras, segment, style, CAMVID_CLASSES, **options)  # type: ignore[arg-type]


def wait_until(condition: Callable[[], bool]) -> None:
    """Returns once it holds, however slow the machine is; fails where it never does."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def adds_up(told: dict[str, dict[str, int]]) -> bool:
    frames = told["frames"]
    return frames["read"] == frames["segmented"] + frames["dropped"] + frames["corrupt"]


# Newest


def test_the_network_gets_the_newest_and_the_rest_is_counted() -> None:
    newest = LatestFrameQueue(1)
    for index in range(5):
        assert newest.put(Captured(0, frame(index), INFO))
    taken = newest.take()
    assert taken is not None
    assert taken.frame.index == 4
    assert (newest.captured, newest.counts(0)) == ([5], (0, 4))


def test_frames_that_came_while_the_model_was_made_ready_are_dropped_and_counted() -> None:
    sent = threading.Event()
    keeper = Keeper()

    def prepare(_: StreamInfo) -> None:
        assert sent.wait(60)
        wait_until(lambda: run._newest.captured == [5])

    source = DrawnCamera(5, gate=lambda index: sent.set() if index == 4 else None)
    run = live(Camera("door", source, [SinkThread(keeper)]), prepare=prepare)
    told = run.run()
    assert told["frames"]["read"] == 5 + source.corrupt
    assert (told["frames"]["segmented"], told["frames"]["dropped"]) == (1, 4)
    assert [item.frame.index for item in keeper.items] == [4]


def test_cameras_take_turns_however_fast_one_is() -> None:
    newest = LatestFrameQueue(3)
    served = []
    for turn in range(6):
        for camera in (0, 0, 0, 1, 2):
            newest.put(Captured(camera, frame(turn), INFO))
        taken = newest.take()
        assert taken is not None
        served.append(taken.camera)
        newest.done(taken)
    assert served == [0, 1, 2, 0, 1, 2]


def test_every_frame_waits_instead_of_dropping() -> None:
    newest = LatestFrameQueue(1, every_frame=True)
    more = EVERY_FRAME_WAITS + 5
    thread = threading.Thread(target=lambda: [newest.put(Captured(0, frame(i), INFO)) for i in range(more)])
    thread.start()
    seen = []
    for _ in range(more):
        taken = newest.take()
        assert taken is not None
        seen.append(taken.frame.index)
        newest.done(taken)
    thread.join(60)
    assert seen == list(range(more))
    assert newest.counts(0) == (0, more)


def test_a_cameras_next_frame_waits_until_the_one_before_is_done_with() -> None:
    newest = LatestFrameQueue(2)
    newest.put(Captured(0, frame(0), INFO))
    first = newest.take()
    newest.put(Captured(0, frame(1), INFO))
    newest.put(Captured(1, frame(0), INFO))
    other = newest.take()
    assert first is not None
    assert other is not None
    assert other.camera == 1
    more: list[Captured | None] = []
    thread = threading.Thread(target=lambda: more.append(newest.take()))
    thread.start()
    thread.join(0.2)
    assert not more, "taken while the frame before it was still in work"
    newest.done(first)
    thread.join(60)
    assert more[0] is not None
    assert (more[0].camera, more[0].frame.index) == (0, 1)


def test_frames_of_several_cameras_are_in_the_model_at_the_same_time_each_cameras_own_in_order() -> None:
    together = threading.Barrier(2)
    seen: dict[int, list[int]] = {0: [], 1: []}
    in_work: set[int] = set()

    def segment_of(number: int) -> Callable[[Frame, float], ClassMap]:
        def segment(picture: Frame, aspect: float) -> ClassMap:
            assert number not in in_work, "two frames of one camera at once"
            in_work.add(number)
            if not seen[number]:
                together.wait(60)  # breaks unless the other camera's frame comes too
            seen[number].append(picture.index)
            in_work.discard(number)
            return by_brightness(picture, aspect)

        return segment

    sinks = [Keeper("first"), Keeper("second")]
    cameras = [
        Camera(f"camera{number}", DrawnCamera(40), [SinkThread(sink, capacity=100)], segment_of(number))
        for number, sink in enumerate(sinks)
    ]
    told = live(*cameras, streams=2, every_frame=True).run()
    assert seen == {0: list(range(40)), 1: list(range(40))}
    assert [[item.frame.index for item in sink.items] for sink in sinks] == [list(range(40))] * 2
    assert all(item["frames"]["segmented"] == 40 for item in told["items"])


def test_closing_wakes_both_ends_and_counts_what_waited() -> None:
    newest = LatestFrameQueue(2)
    ends: list[object] = []
    thread = threading.Thread(target=lambda: ends.append(newest.take()))
    thread.start()
    newest.close()
    thread.join(60)
    assert ends == [None]
    assert not newest.put(Captured(0, frame(0), INFO))
    assert newest.captured == [0, 0]
    assert newest.counts(0) == newest.counts(1) == (0, 0)


# Apart


def test_a_slow_sink_gets_the_newest_and_says_what_it_missed() -> None:
    sink = Keeper(blocks=True)
    apart = SinkThread(sink)
    left: list[float | None] = []
    items = [SegmentedFrame(frame(i), np.zeros((2, 2), np.uint8), frame(i)) for i in range(10)]
    apart.offer(items[0], left.append)
    wait_until(lambda: not apart._waiting)
    for item in items[1:]:
        apart.offer(item, left.append)
    sink.go.set()
    apart.finish()
    assert apart.join(60)
    assert [item.frame.index for item in sink.items] == [0, 9]
    assert (apart.written, apart.dropped, len(left)) == (2, 8, 10)
    assert sink.ended == "closed"


def test_a_dead_sink_is_aborted_and_its_frames_count_as_dropped() -> None:
    told: list[str] = []
    sink = Keeper(fail_at=1)
    apart = SinkThread(sink, capacity=100, on_error=lambda name, failure: told.append(f"{name}: {failure}"))
    left: list[float | None] = []
    for i in range(5):
        apart.offer(SegmentedFrame(frame(i), np.zeros((2, 2), np.uint8), frame(i)), left.append)
    assert apart.join(60)
    apart.offer(SegmentedFrame(frame(9), np.zeros((2, 2), np.uint8), frame(9)), left.append)
    assert (apart.written, apart.dropped) == (1, 5)
    assert [seconds is None for seconds in left].count(True) == 5
    assert told == ["keeper: no space left on device"]
    assert failures([apart]) == told
    assert sink.ended == "aborted"


def test_a_patient_offer_waits_for_room_but_never_for_a_dead_sink() -> None:
    sink = Keeper(fail_at=6)
    apart = SinkThread(sink, capacity=2, patient=True)
    for i in range(12):
        apart.offer(SegmentedFrame(frame(i), np.zeros((2, 2), np.uint8), frame(i)), lambda _: None)
    assert apart.join(60)
    assert [item.frame.index for item in sink.items] == list(range(6))
    assert (apart.written, apart.dropped) == (6, 6)


# The loop


def test_every_frame_is_accounted_for() -> None:
    keeper, more_came = Keeper(), threading.Event()

    def gate(index: int) -> None:
        if index == 100:
            more_came.set()

    def slow(picture: Frame, aspect: float) -> ClassMap:
        assert more_came.wait(60)
        return by_brightness(picture, aspect)

    camera = Camera("camera0", DrawnCamera(200, gate=gate), [SinkThread(keeper, capacity=300)])
    told = live(camera, segment=slow).run()
    frames = told["frames"]
    assert frames["read"] == 202
    assert frames["corrupt"] == 2
    assert frames["dropped"] > 0
    assert adds_up(told)
    assert frames["segmented"] == frames["written"] == len(keeper.items)
    indices = [item.frame.index for item in keeper.items]
    assert indices == sorted(set(indices))
    assert indices[-1] == 199, "the last frame of an input that ends is not dropped"
    assert told["sinks"]["keeper"]["dropped"] == 0
    assert told["latency_ms"]["max"] > 0


def test_every_frame_drops_nothing() -> None:
    keeper = Keeper()

    def slow(picture: Frame, aspect: float) -> ClassMap:
        time.sleep(0.002)
        return by_brightness(picture, aspect)

    camera = Camera("camera0", DrawnCamera(100), [SinkThread(keeper, capacity=2, patient=True)])
    told = live(camera, segment=slow, every_frame=True).run()
    assert [item.frame.index for item in keeper.items] == list(range(100))
    assert told["frames"] == {"read": 102, "segmented": 100, "written": 100, "dropped": 0, "corrupt": 2, "late": 0}


def test_frames_older_than_allowed_are_not_shown() -> None:
    keeper = Keeper()
    camera = Camera("camera0", DrawnCamera(20, age_seconds=60.0), [SinkThread(keeper)])
    told = live(camera, max_age_ms=30_000).run()
    assert keeper.items == []
    assert told["frames"]["segmented"] == 0
    assert adds_up(told)


def test_a_frame_that_grew_too_old_in_the_network_is_not_shown() -> None:
    keeper = Keeper()

    def slow(picture: Frame, aspect: float) -> ClassMap:
        time.sleep(0.3)
        return by_brightness(picture, aspect)

    camera = Camera("camera0", DrawnCamera(1), [SinkThread(keeper)])
    told = live(camera, segment=slow, max_age_ms=250).run()
    assert keeper.items == []
    assert adds_up(told)
    assert told["frames"]["late"] + told["frames"]["dropped"] == 1


def test_a_hung_sink_slows_nobody_and_does_not_hold_up_the_end() -> None:
    controls = Controls()
    hung, fine = Keeper("hung", blocks=True), Keeper("fine")
    gates = []

    def quit_at_last(index: int) -> None:
        gates.append(index)
        if index == 99:
            wait_until(lambda: fine.written > 0)
            controls.quit()

    sinks = [SinkThread(fine, capacity=200), SinkThread(hung)]
    told = live(Camera("camera0", DrawnCamera(100, gate=quit_at_last, lasting=True), sinks), controls=controls).run()
    assert fine.written == told["frames"]["segmented"] > 0
    assert fine.ended == "closed"
    assert told["sinks"]["hung"]["written"] == 0
    assert hung.ended == ""
    hung.go.set()


def test_quitting_ends_a_camera_that_never_ends() -> None:
    controls = Controls()
    threading.Timer(0.3, controls.quit).start()
    source = DrawnCamera(3, lasting=True)
    told = live(Camera("camera0", source, []), controls=controls).run()
    assert source.closed.is_set(), "it was waited for"
    assert adds_up(told)


def test_no_camera_at_all_is_an_error_that_says_why() -> None:
    cameras = [Camera(f"camera{i}", DrawnCamera(0, fails=f"camera {i}: not there"), []) for i in range(2)]
    with pytest.raises(SourceError, match="camera 0: not there; camera 1: not there"):
        live(*cameras).run()


def test_a_dead_camera_does_not_stop_the_other() -> None:
    keepers = [Keeper("one"), Keeper("two")]
    mosaic, controls = Keeper("web"), Controls()

    def quit_at_last(index: int) -> None:
        if index == 29:
            wait_until(lambda: keepers[1].written > 0 and mosaic.written > 0)
            controls.quit()

    cameras = [
        Camera("camera0", DrawnCamera(0, fails="camera 0: not there"), [SinkThread(keepers[0])]),
        Camera("camera1", DrawnCamera(30, gate=quit_at_last, lasting=True), [SinkThread(keepers[1], capacity=50)]),
    ]
    told = live(*cameras, controls=controls, shared=[SinkThread(mosaic, capacity=50)]).run()
    assert keepers[0].written == 0
    assert keepers[1].written == told["items"][1]["frames"]["segmented"] > 0
    assert all(item.rendered.width == keepers[1].items[0].rendered.width for item in keepers[1].items)
    assert mosaic.items[0].rendered.width > keepers[1].items[0].rendered.width
    assert [item["disconnects"]["connected"] for item in told["items"]] == [False, True]
    assert told["frames"]["read"] == sum(item["frames"]["read"] for item in told["items"])
    assert adds_up(told)


def test_two_cameras_are_served_alike() -> None:
    """One gives frames without end; the other's next frame comes when the one before was written."""
    keepers, controls = [Keeper("one"), Keeper("two")], Controls()

    def patient(index: int) -> None:
        wait_until(lambda: keepers[1].written == index or controls.quitting)
        if index == 20:
            controls.quit()

    cameras = [
        Camera("fast", DrawnCamera(10**9), [SinkThread(keepers[0])]),
        Camera("slow", DrawnCamera(21, gate=patient), [SinkThread(keepers[1], capacity=50)]),
    ]
    live(*cameras, controls=controls).run()
    assert keepers[1].written >= 20, "the fast camera left the slow one nothing"
    assert keepers[0].written > 0


def test_controls_act_on_the_next_frame_and_pausing_holds_the_screen_alone() -> None:
    controls, screen, file = Controls(), Keeper("web"), Keeper("file")

    def steer(index: int) -> None:
        wait_until(lambda: file.written == index)  # all frames before were shown
        if index == 10:
            controls.set(view="side-by-side")
        if index == 20:
            controls.set(view="mask", paused=True)

    camera = Camera("camera0", DrawnCamera(40, gate=steer), [SinkThread(file, capacity=100)])
    live(camera, controls=controls, shared=[SinkThread(screen, capacity=100)]).run()
    widths = [item.rendered.width for item in file.items]
    assert set(widths) == {64, 128}
    assert file.items[-1].frame.index == 39
    assert screen.items[-1].frame.index < 25
    assert screen.items[-1].rendered.width == 128


def test_a_failing_model_ends_the_run_with_its_error_and_closed_files() -> None:
    keeper = Keeper()

    def fails(picture: Frame, aspect: float) -> ClassMap:
        if picture.index >= 3:
            raise BackendError("the device was lost")
        return by_brightness(picture, aspect)

    camera = Camera("camera0", DrawnCamera(50, gate=lambda _: time.sleep(0.005)), [SinkThread(keeper, capacity=60)])
    with pytest.raises(BackendError, match="lost"):
        live(camera, segment=fails).run()
    assert keeper.ended == "closed"


def test_numbers_come_each_second() -> None:
    numbers, controls = LiveNumbers(), Controls()

    def gate(index: int) -> None:
        time.sleep(0.02)
        if numbers.latest and numbers.latest["now"]["shown_fps"] > 0:
            controls.quit()

    def slow(frame: Frame, pixel_aspect: float) -> ClassMap:
        time.sleep(0.005)
        return by_brightness(frame, pixel_aspect)

    camera = Camera("camera0", DrawnCamera(5000, gate=gate), [])
    told = live(camera, segment=slow, controls=controls, numbers=numbers).run()
    now = numbers.latest["now"]
    assert 0 < now["capture_fps"] < 60
    assert set(now) == {
        *("capture_fps", "shown_fps", "dropped", "age_ms", "bottleneck", "engine_ms", "work_ms", "late", "classes")
    }
    assert sum(now["classes"].values()) == pytest.approx(1.0, abs=0.01)
    assert now["engine_ms"] >= 5
    assert now["age_ms"]["max"] > 0
    assert set(told["stages"]) == {"decode", "infer", "overlay", "encode"}


def test_what_is_kept_of_a_camera_is_that_camera_s_alone() -> None:
    """With two cameras each frame goes through its own camera's way, one after the other."""
    seen: dict[str, list[int]] = {"one": [], "two": []}
    cameras = []
    for name in seen:

        def own(picture: Frame, aspect: float, name: str = name) -> ClassMap:
            seen[name].append(picture.index)
            return by_brightness(picture, aspect)

        cameras.append(Camera(name, DrawnCamera(20, gate=lambda _: time.sleep(0.002)), [], own))
    told = live(*cameras).run()
    for item, indices in zip(told["items"], seen.values(), strict=True):
        assert len(indices) == item["frames"]["segmented"] > 0
        assert indices == sorted(set(indices))


def test_a_recording_gets_the_time_that_a_busy_machine_needs_to_complete_it() -> None:
    """Closing takes longer than the end of a run waits for a page or a pipe."""

    class Slow(Keeper):
        def close(self) -> None:
            time.sleep(STOP_SECONDS + 0.5)
            super().close()

    controls, slow = Controls(), Slow("out.mp4")

    def quit_at_last(index: int) -> None:
        if index == 4:
            controls.quit()

    sinks = [SinkThread(slow, capacity=50, closing_seconds=30)]
    live(Camera("camera0", DrawnCamera(5, gate=quit_at_last, lasting=True), sinks), controls=controls).run()
    assert slow.ended == "closed"
    assert failures(sinks) == []
