"""Frame counts of a run: `read = segmented + dropped + corrupt` at every moment and after every kind of end."""

from __future__ import annotations

import threading
from typing import Any
from unittest.mock import Mock

import pytest
from live_doubles import CollectingSink, FakeCamera, Live, adds_up, camera, classes_by_brightness
from pipeline_doubles import CollectingSink as FileSink
from pipeline_doubles import NoiseSource, processor

from rtseg.core.errors import BackendError, SinkError
from rtseg.core.frame import ClassMap, Frame
from rtseg.core.frame_counter import FrameCounter
from rtseg.core.live_report import LiveReport
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.core.stats import Stats
from rtseg.live.controls import Controls
from rtseg.live.sink_thread import SinkThread
from rtseg.live.sinks.prometheus import exposition
from rtseg.pipeline.pipeline import run
from rtseg.render.style import Style


class BlockingModel:
    """Model that segments the first `segmented` frames, then ends the run and blocks until `go` is set."""

    def __init__(self, controls: Controls, segmented: int, *, blocked: int = 1) -> None:
        self.go, self.returned = threading.Event(), threading.Event()
        self.seen: list[int] = []
        self._controls, self._segmented = controls, segmented
        self._all_blocked = threading.Barrier(blocked)
        self._lock = threading.Lock()

    def __call__(self, frame: Frame) -> ClassMap:
        with self._lock:
            self.seen.append(frame.index)
            blocks = len(self.seen) > self._segmented
        if blocks:
            self._all_blocked.wait(20)
            self._controls.quit()
            assert self.go.wait(30)
            self.returned.set()
        return classes_by_brightness(frame)


def items_add_up(report: dict[str, Any]) -> bool:
    return adds_up(report) and all(adds_up(item) for item in report.get("items", []))


def test_frame_in_progress_at_end_of_run_counts_as_dropped() -> None:
    controls, sink = Controls(), CollectingSink()
    model = BlockingModel(controls, segmented=3)
    source = camera("camera0", FakeCamera(50, endless=True), [SinkThread(sink, capacity=60)])
    stopped = Live(source, segment=model, controls=controls, every_frame=True)
    report = stopped.run()
    assert not model.go.is_set(), "the frame must be in progress until the end"
    assert report["frames"]["segmented"] == 3
    assert report["frames"]["dropped"] >= 1
    assert adds_up(report)
    model.go.set()
    assert model.returned.wait(30)
    for thread in stopped.loop._processing_threads:
        thread.join(30)
    assert stopped.report()["frames"] == report["frames"], "a frame was counted twice"
    assert sink.written == 3


def test_frames_in_progress_of_several_cameras_count_as_dropped() -> None:
    controls = Controls()
    model = BlockingModel(controls, segmented=0, blocked=2)
    cameras = [camera(f"camera{number}", FakeCamera(20, endless=True), []) for number in range(2)]
    report = Live(*cameras, segment=model, controls=controls, streams=2).run()
    model.go.set()
    assert [item["frames"]["segmented"] for item in report["items"]] == [0, 0]
    assert all(item["frames"]["dropped"] >= 1 for item in report["items"])
    assert items_add_up(report)


def test_camera_end_does_not_drop_frame_in_progress() -> None:
    ended, controls = threading.Event(), Controls()

    class Ending(FakeCamera):
        def __iter__(self) -> Any:
            yield from super().__iter__()
            ended.set()

    def segment(frame: Frame) -> ClassMap:
        assert ended.wait(30)
        return classes_by_brightness(frame)

    report = Live(camera("camera0", Ending(5), []), segment=segment, controls=controls).run()
    assert report["frames"]["read"] == 5 + 2
    assert 1 <= report["frames"]["segmented"] <= 2
    assert adds_up(report)


def test_frame_with_segmentation_error_counts_as_dropped_and_files_are_closed() -> None:
    sink = CollectingSink()

    def fails(frame: Frame) -> ClassMap:
        if frame.index == 3:
            raise BackendError("the device was lost")
        return classes_by_brightness(frame)

    source = camera("camera0", FakeCamera(10), [SinkThread(sink, capacity=10, closing_seconds=60)])
    failed = Live(source, segment=fails, every_frame=True)
    with pytest.raises(BackendError, match="lost"):
        failed.run()
    assert (sink.written, sink.ended) == (3, "closed")
    frames = failed.report()["frames"]
    assert frames["segmented"] == 3
    assert frames["dropped"] >= 1
    assert adds_up(failed.report())


def test_frame_with_overlay_error_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Style, "overlay", Mock(side_effect=BackendError("no such view")))
    failed = Live(camera("camera0", FakeCamera(1), []))
    with pytest.raises(BackendError):
        failed.run()
    assert failed.report()["frames"] == {
        "read": 3,
        "segmented": 0,
        "written": 0,
        "dropped": 1,
        "corrupt": 2,
        "stale": 0,
    }


def test_failed_sink_does_not_change_frame_counts() -> None:
    sink = SinkThread(CollectingSink(fail_at=2), capacity=30)
    report = Live(camera("camera0", FakeCamera(10), [sink]), every_frame=True).run()
    assert report["frames"]["segmented"] == 10
    assert report["frames"]["written"] == 2
    assert adds_up(report)


def test_frame_too_old_for_network_is_dropped_once_and_not_displayed() -> None:
    sink = CollectingSink()
    source = camera("camera0", FakeCamera(4, age_seconds=60.0), [SinkThread(sink)])
    report = Live(source, max_age_ms=30_000, every_frame=True).run()
    assert sink.items == []
    assert report["frames"] == {"read": 6, "segmented": 0, "written": 0, "dropped": 4, "corrupt": 2, "stale": 0}


def test_counts_add_up_at_every_stage_of_a_run() -> None:
    """The report is read from inside each stage."""
    seen: list[dict[str, Any]] = []
    running: list[Live] = []

    def record_report() -> None:
        report = running[0].report() if running else {}
        if report:
            seen.append(report)

    def segment(frame: Frame) -> ClassMap:
        record_report()
        return classes_by_brightness(frame)

    class RecordingReports(CollectingSink):
        def write(self, item: Any) -> None:
            record_report()
            super().write(item)

    cameras = [
        camera(
            f"camera{number}",
            FakeCamera(30, gate=lambda _: record_report()),
            [SinkThread(RecordingReports(), capacity=2)],
        )
        for number in range(2)
    ]
    running.append(Live(*cameras, segment=segment, streams=2))
    report = running[0].run()
    assert len(seen) > 60
    assert all(items_add_up(each) for each in [*seen, report])
    assert report["frames"]["read"] == 60 + 4


def test_published_report_and_prometheus_counts_add_up() -> None:
    controls, reports = Controls(), list[LiveReport]()

    def on_report(latest: LiveReport) -> None:
        reports.append(latest)
        controls.quit()

    source = camera("camera0", FakeCamera(1 << 40), [])
    Live(source, controls=controls, on_report=on_report).run()
    assert adds_up(reports[0].to_dict())
    assert reports[0].totals.pipeline.frames.dropped > 0
    values = dict(line.rsplit(" ", 1) for line in exposition(reports[0]).splitlines() if not line.startswith("#"))
    counted = {name: float(value) for name, value in values.items() if "frames" in name}
    total = {key: next(v for name, v in counted.items() if key in name) for key in ("read", "segmented", "dropped")}
    corrupt = next(value for name, value in counted.items() if "corrupt" in name)
    assert total["read"] == total["segmented"] + total["dropped"] + corrupt


def test_frame_that_is_finished_after_the_end_stays_dropped() -> None:
    total = FrameCounter()
    counter = FrameCounter(total)
    for _ in range(3):
        counter.add()
    counter.begin()
    counter.begin()
    assert counter.finish()
    counter.end()
    total.end()
    assert not counter.finish()
    counter.drop()
    counter.add()
    for each in (counter, total):
        assert (each.segmented, each.dropped, each.decoded) == (1, 3, 4)


# `rtseg video`


def interrupt_at_5(frame: Frame) -> ClassMap:
    if frame.index == 5:
        raise KeyboardInterrupt
    return classes_by_brightness(frame)


@pytest.mark.parametrize(
    ("end", "segmented", "error"), [("model", 5, KeyboardInterrupt), ("sink", 4, OSError), ("source", 9, RuntimeError)]
)
def test_video_counts_add_up_after_an_error(end: str, segmented: int, error: type[BaseException]) -> None:
    stats = Stats(CAMVID_CLASSES)
    source = NoiseSource(50, fail_at=9 if end == "source" else None)
    sink = FileSink(fail_at=3 if end == "sink" else None)
    with pytest.raises(error):
        run(source, processor(interrupt_at_5 if end == "model" else classes_by_brightness), [sink], stats)
    report = stats.report().to_dict()
    assert report["frames"]["segmented"] == segmented
    assert report["frames"]["dropped"] >= (end == "model")
    assert report["frames"]["read"] == stats.frames.decoded
    assert adds_up(report)


def test_video_frame_segmented_after_end_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.pipeline.pipeline.JOIN_SECONDS", 0.1)
    stats, blocked, go = Stats(CAMVID_CLASSES), threading.Event(), threading.Event()

    def segment(frame: Frame) -> ClassMap:
        if frame.index == 2:
            blocked.set()
            assert go.wait(30)
        return classes_by_brightness(frame)

    class Failing(FileSink):
        def write(self, item: Any) -> None:
            assert blocked.wait(30)
            raise SinkError("no space left on device")

    with pytest.raises(SinkError):
        run(NoiseSource(9), processor(segment), [Failing()], stats)
    before = stats.report().to_dict()
    go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("rtseg-"):
            thread.join(30)
    assert stats.report().to_dict()["frames"] == before["frames"]
    assert adds_up(before)


def test_video_counts_add_up_during_run() -> None:
    stats, seen = Stats(CAMVID_CLASSES), []

    class RecordingReports(FileSink):
        def write(self, item: Any) -> None:
            seen.append(stats.report().to_dict())

    run(NoiseSource(20), processor(), [RecordingReports()], stats)
    assert len(seen) == 20
    assert all(map(adds_up, seen))
    segmented = [report["frames"]["segmented"] for report in seen]
    assert segmented == sorted(segmented)
    assert stats.report().to_dict()["frames"]["read"] == 20
