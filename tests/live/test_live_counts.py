"""Frame counts of a run: `read = segmented + dropped + corrupt` whenever somebody looks, however the run ends."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pipeline_doubles import DrawnSource, overlay
from pipeline_doubles import Keeper as FileKeeper
from test_live_loop import INFO, DrawnCamera, Keeper, adds_up, by_brightness, frame, live

from rtseg.core.errors import BackendError, SinkError
from rtseg.core.frame import ClassMap, Frame
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.core.stats import Stats
from rtseg.live.camera import Camera
from rtseg.live.controls import Controls, LiveMetrics
from rtseg.live.loop import LiveLoop
from rtseg.live.sink_thread import SinkThread
from rtseg.live.sinks.prometheus import exposition
from rtseg.pipeline.frame_queue import CapturedFrame, LatestFrameQueue
from rtseg.pipeline.pipeline import run

pytestmark = pytest.mark.timeout(60)


class Blocking:
    """A model that answers for the first `answers` frames, then asks for the end of the run and blocks until `go`."""

    def __init__(self, controls: Controls, answers: int, *, blocked: int = 1) -> None:
        self.go, self.left = threading.Event(), threading.Event()
        self.seen: list[int] = []
        self._controls, self._answers = controls, answers
        self._all_blocked = threading.Barrier(blocked)
        self._lock = threading.Lock()

    def __call__(self, picture: Frame, aspect: float) -> ClassMap:
        with self._lock:
            self.seen.append(picture.index)
            blocks = len(self.seen) > self._answers
        if blocks:
            self._all_blocked.wait(20)
            self._controls.quit()
            assert self.go.wait(30)
            self.left.set()
        return by_brightness(picture, aspect)


def report(run: LiveLoop) -> dict[str, Any]:
    return run._report.to_dict()


def items_add_up(told: dict[str, Any]) -> bool:
    return adds_up(told) and all(adds_up(item) for item in told.get("items", []))


def test_frame_in_work_when_the_run_stops_ends_as_dropped() -> None:
    controls, keeper = Controls(), Keeper()
    model = Blocking(controls, answers=3)
    camera = Camera("camera0", DrawnCamera(50, lasting=True), [SinkThread(keeper, capacity=60)])
    stopped = live(camera, segment=model, controls=controls, every_frame=True)
    told = stopped.run()
    assert not model.go.is_set(), "the frame was in work until the end"
    assert told["frames"]["segmented"] == 3
    assert told["frames"]["dropped"] >= 1
    assert adds_up(told)
    model.go.set()
    assert model.left.wait(30)
    for frame_path in stopped._paths:
        frame_path.join(30)
    assert report(stopped)["frames"] == told["frames"], "a frame was counted twice"
    assert keeper.written == 3


def test_frames_in_work_of_several_cameras_end_as_dropped() -> None:
    controls = Controls()
    model = Blocking(controls, answers=0, blocked=2)
    cameras = [Camera(f"camera{number}", DrawnCamera(20, lasting=True), []) for number in range(2)]
    told = live(*cameras, segment=model, controls=controls, streams=2).run()
    model.go.set()
    assert [item["frames"]["segmented"] for item in told["items"]] == [0, 0]
    assert all(item["frames"]["dropped"] >= 1 for item in told["items"])
    assert items_add_up(told)


def test_camera_that_ends_while_its_frame_is_in_work_loses_none() -> None:
    ended, controls = threading.Event(), Controls()

    class Ending(DrawnCamera):
        def __iter__(self) -> Any:
            yield from super().__iter__()
            ended.set()

    def segment(picture: Frame, aspect: float) -> ClassMap:
        assert ended.wait(30)
        return by_brightness(picture, aspect)

    told = live(Camera("camera0", Ending(5), []), segment=segment, controls=controls).run()
    assert told["frames"]["read"] == 5 + 2
    assert 1 <= told["frames"]["segmented"] <= 2
    assert adds_up(told)


def test_frame_whose_segmentation_fails_ends_as_dropped() -> None:
    def fails(picture: Frame, aspect: float) -> ClassMap:
        if picture.index == 3:
            raise BackendError("the device was lost")
        return by_brightness(picture, aspect)

    failed = live(Camera("camera0", DrawnCamera(10), []), segment=fails, every_frame=True)
    with pytest.raises(BackendError):
        failed.run()
    frames = report(failed)["frames"]
    assert frames["segmented"] == 3
    assert frames["dropped"] >= 1
    assert adds_up(report(failed))


def test_frame_whose_overlay_fails_counts_once() -> None:
    def broken(_: object) -> Any:
        raise BackendError("no such view")

    failed = live(Camera("camera0", DrawnCamera(1), []))
    failed._look = broken
    with pytest.raises(BackendError):
        failed.run()
    assert report(failed)["frames"] == {"read": 3, "segmented": 1, "written": 0, "dropped": 0, "corrupt": 2, "stale": 0}


def test_sink_that_raises_changes_no_count() -> None:
    sink = SinkThread(Keeper(fail_at=2), capacity=30)
    told = live(Camera("camera0", DrawnCamera(10), [sink]), every_frame=True).run()
    assert told["frames"]["segmented"] == 10
    assert told["frames"]["written"] == 2
    assert adds_up(told)


def test_frame_too_old_for_the_network_is_dropped_once() -> None:
    told = live(Camera("camera0", DrawnCamera(4, age_seconds=60.0), []), max_age_ms=1000, every_frame=True).run()
    assert told["frames"] == {"read": 6, "segmented": 0, "written": 0, "dropped": 4, "corrupt": 2, "stale": 0}


def test_numbers_add_up_while_frames_wait_and_are_in_work() -> None:
    """Look at every stage of a frame's way, from inside the stages."""
    seen: list[dict[str, Any]] = []
    running: list[LiveLoop] = []

    def look_at_numbers() -> None:
        told = report(running[0]) if running else {}
        if told:
            seen.append(told)

    def segment(picture: Frame, aspect: float) -> ClassMap:
        look_at_numbers()
        return by_brightness(picture, aspect)

    class Looking(Keeper):
        def write(self, item: Any) -> None:
            look_at_numbers()
            super().write(item)

    cameras = [
        Camera(
            f"camera{number}", DrawnCamera(30, gate=lambda _: look_at_numbers()), [SinkThread(Looking(), capacity=2)]
        )
        for number in range(2)
    ]
    running.append(live(*cameras, segment=segment, streams=2))
    told = running[0].run()
    assert len(seen) > 60
    assert all(items_add_up(numbers) for numbers in [*seen, told])
    assert told["frames"]["read"] == 60 + 4


def test_published_numbers_and_metrics_add_up() -> None:
    numbers, controls = LiveMetrics(), Controls()
    told: list[Mapping[str, Any]] = []

    def on_report(latest: Mapping[str, Any]) -> None:
        told.append(latest)
        controls.quit()

    camera = Camera("camera0", DrawnCamera(1 << 40, gate=lambda _: None), [])
    live(camera, controls=controls, numbers=numbers, on_report=on_report).run()
    assert adds_up(dict(told[0]))
    assert told[0]["frames"]["dropped"] > 0
    values = dict(line.rsplit(" ", 1) for line in exposition(numbers.latest).splitlines() if not line.startswith("#"))
    counted = {name: float(value) for name, value in values.items() if "frames" in name}
    total = {key: next(v for name, v in counted.items() if key in name) for key in ("read", "segmented", "dropped")}
    corrupt = next(value for name, value in counted.items() if "corrupt" in name)
    assert total["read"] == total["segmented"] + total["dropped"] + corrupt


def test_abandoned_frame_can_not_become_segmented() -> None:
    newest = LatestFrameQueue(1)
    newest.put(CapturedFrame(0, frame(0), INFO))
    item = newest.take()
    assert item is not None
    newest.abandon()
    assert newest.counts(0) == (0, 1)
    assert not newest.segmented(item)
    newest.done(item)
    assert newest.counts(0) == (0, 1)


def test_segmented_frame_is_not_dropped_as_well() -> None:
    newest = LatestFrameQueue(1)
    newest.put(CapturedFrame(0, frame(0), INFO))
    item = newest.take()
    assert item is not None
    assert newest.segmented(item)
    newest.abandon()
    newest.done(item)
    assert newest.counts(0) == (1, 0)


# `rtseg video`


def interrupt_at(index: int) -> Callable[[Frame], ClassMap]:
    def segment(picture: Frame) -> ClassMap:
        if picture.index == index:
            raise KeyboardInterrupt
        return by_brightness(picture, 1.0)

    return segment


@pytest.mark.parametrize("threads", [True, False])
def test_video_counts_frames_in_work_at_an_interrupt_as_dropped(threads: bool) -> None:
    stats = Stats(CAMVID_CLASSES)
    with pytest.raises(KeyboardInterrupt):
        run(DrawnSource(50), interrupt_at(5), overlay(), [FileKeeper()], stats, threads=threads)
    frames = stats.to_dict()["frames"]
    assert frames["segmented"] == 5
    assert frames["dropped"] >= 1
    assert frames["read"] == stats.frames["read"] == frames["segmented"] + frames["dropped"] + frames["corrupt"]


@pytest.mark.parametrize("threads", [True, False])
def test_video_counts_add_up_where_a_sink_or_the_source_fails(threads: bool) -> None:
    for source, sink, error in (
        (DrawnSource(50), FileKeeper(fail_at=3), OSError),
        (DrawnSource(50, fail_at=9), FileKeeper(), RuntimeError),
    ):
        stats = Stats(CAMVID_CLASSES)
        with pytest.raises(error):
            run(source, lambda picture: by_brightness(picture, 1.0), overlay(), [sink], stats, threads=threads)
        frames = stats.to_dict()["frames"]
        assert frames["read"] == stats.frames["read"] == frames["segmented"] + frames["dropped"] + frames["corrupt"]


def test_video_frame_that_comes_out_of_the_model_after_the_end_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.pipeline.pipeline.JOIN_SECONDS", 0.1)
    stats, blocked, go = Stats(CAMVID_CLASSES), threading.Event(), threading.Event()

    def segment(picture: Frame) -> ClassMap:
        if picture.index == 2:
            blocked.set()
            assert go.wait(30)
        return by_brightness(picture, 1.0)

    class Failing(FileKeeper):
        def write(self, item: Any) -> None:
            assert blocked.wait(30)
            raise SinkError("no space left on device")

    with pytest.raises(SinkError):
        run(DrawnSource(9), segment, overlay(), [Failing()], stats)
    before = stats.to_dict()["frames"]
    go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("rtseg-"):
            thread.join(30)
    assert stats.to_dict()["frames"] == before
    assert before["read"] == before["segmented"] + before["dropped"]


def test_video_numbers_add_up_while_it_runs() -> None:
    stats, seen = Stats(CAMVID_CLASSES), []

    class Looking(FileKeeper):
        def write(self, item: Any) -> None:
            seen.append(stats.to_dict()["frames"])

    run(DrawnSource(20), lambda picture: by_brightness(picture, 1.0), overlay(), [Looking()], stats)
    assert len(seen) == 20
    assert all(frames["read"] == frames["segmented"] + frames["dropped"] + frames["corrupt"] for frames in seen)
    assert all(one["segmented"] <= other["segmented"] for one, other in itertools.pairwise(seen))
    assert stats.to_dict()["frames"]["read"] == 20
