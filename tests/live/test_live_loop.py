"""Live loop: frame counts, maximum age, several cameras, settings, end of the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from live_doubles import CollectingSink, FakeCamera, Live, adds_up, camera, classes_by_brightness, slow, wait_until

from rtseg.core.errors import SourceError
from rtseg.core.frame import ClassMap, Frame
from rtseg.core.live_report import LiveReport
from rtseg.live.controls import Controls
from rtseg.live.loop import STOP_SECONDS
from rtseg.live.sink_thread import SinkThread


def test_frames_received_while_model_loads_count_as_dropped() -> None:
    sent = threading.Event()
    sink = CollectingSink()

    def prepare() -> None:
        assert sent.wait(60)
        wait_until(lambda: run.reporter.total.frames.decoded == 5)

    source = FakeCamera(5, gate=lambda index: sent.set() if index == 4 else None)
    run = Live(camera("door", source, [SinkThread(sink)]), prepare=prepare)
    report = run.run()
    assert report["frames"]["read"] == 5 + source.corrupt
    assert (report["frames"]["segmented"], report["frames"]["dropped"]) == (1, 4)
    assert [item.frame.index for item in sink.items] == [4]


def test_model_runs_cameras_concurrently_and_each_camera_in_order() -> None:
    together = threading.Barrier(2)
    seen: dict[int, list[int]] = {0: [], 1: []}
    in_progress: set[int] = set()

    def segment_of(number: int) -> Callable[[Frame], ClassMap]:
        def segment(frame: Frame) -> ClassMap:
            assert number not in in_progress, "two frames of one camera at the same time"
            in_progress.add(number)
            if not seen[number]:
                together.wait(60)  # fails unless the other camera's frame is in the model too
            seen[number].append(frame.index)
            in_progress.discard(number)
            return classes_by_brightness(frame)

        return segment

    sinks = [CollectingSink("first"), CollectingSink("second")]
    cameras = [
        camera(f"camera{number}", FakeCamera(40), [SinkThread(sink, capacity=100)], segment_of(number))
        for number, sink in enumerate(sinks)
    ]
    report = Live(*cameras, streams=2, every_frame=True).run()
    assert seen == {0: list(range(40)), 1: list(range(40))}
    assert [[item.frame.index for item in sink.items] for sink in sinks] == [list(range(40))] * 2
    assert all(item["frames"]["segmented"] == 40 for item in report["items"])
    assert report["seconds"] >= max(item["seconds"] for item in report["items"]) > 0


def test_each_frame_is_segmented_dropped_or_corrupt() -> None:
    sink, later_frame_captured = CollectingSink(), threading.Event()

    def gate(index: int) -> None:
        if index == 100:
            later_frame_captured.set()

    def slow(frame: Frame) -> ClassMap:
        assert later_frame_captured.wait(60)
        return classes_by_brightness(frame)

    source = camera("camera0", FakeCamera(200, gate=gate), [SinkThread(sink, capacity=300)])
    report = Live(source, segment=slow).run()
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
    source = camera("camera0", FakeCamera(100), [SinkThread(sink, capacity=2, block_when_full=True)])
    report = Live(source, segment=slow(0.002), every_frame=True).run()
    assert [item.frame.index for item in sink.items] == list(range(100))
    assert report["frames"] == {"read": 102, "segmented": 100, "written": 100, "dropped": 0, "corrupt": 2, "stale": 0}


def test_frame_that_becomes_stale_in_network_is_not_displayed() -> None:
    sink = CollectingSink()
    source = camera("camera0", FakeCamera(1), [SinkThread(sink)])
    report = Live(source, segment=slow(0.3), max_age_ms=250).run()
    assert sink.items == []
    assert adds_up(report)
    assert report["frames"]["stale"] + report["frames"]["dropped"] == 1


def test_blocked_sink_does_not_delay_other_sinks_or_the_end() -> None:
    controls = Controls()
    blocked, working = CollectingSink("blocked", blocks=True), CollectingSink("working")

    def quit_at_last(index: int) -> None:
        if index == 99:
            wait_until(lambda: working.written > 0)
            controls.quit()

    sinks = [SinkThread(working, capacity=200, closing_seconds=60), SinkThread(blocked)]
    report = Live(camera("camera0", FakeCamera(100, gate=quit_at_last, endless=True), sinks), controls=controls).run()
    assert working.written == report["frames"]["segmented"] > 0
    assert working.ended == "closed"
    assert report["sinks"]["blocked"]["written"] == 0
    assert blocked.ended == ""
    blocked.go.set()


def test_quit_closes_endless_camera_and_ends_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.live.loop.STOP_SECONDS", 60)
    controls = Controls()
    threading.Timer(0.3, controls.quit).start()
    source = FakeCamera(3, endless=True)
    run = Live(camera("camera0", source, []), controls=controls)
    report = run.run()
    assert source.closed.is_set(), "the run must close its sources"
    assert not any(thread.is_alive() for thread in run.loop._capture_threads + run.loop._processing_threads)
    assert adds_up(report)


def test_no_camera_raises_source_error_with_reasons() -> None:
    cameras = [camera(f"camera{i}", FakeCamera(0, fails=f"camera {i}: not found"), []) for i in range(2)]
    with pytest.raises(SourceError, match="camera 0: not found; camera 1: not found"):
        Live(*cameras).run()


def test_failed_camera_does_not_stop_other_camera() -> None:
    sinks = [CollectingSink("one"), CollectingSink("two")]
    mosaic, controls = CollectingSink("web"), Controls()

    def quit_at_last(index: int) -> None:
        if index == 29:
            wait_until(lambda: sinks[1].written > 0 and mosaic.written > 0)
            controls.quit()

    sink_thread = SinkThread(sinks[1], capacity=50, closing_seconds=60)
    cameras = [
        camera("camera0", FakeCamera(0, fails="camera 0: not found"), [SinkThread(sinks[0])]),
        camera("camera1", FakeCamera(30, gate=quit_at_last, endless=True), [sink_thread]),
    ]
    report = Live(*cameras, controls=controls, shared_sinks=[SinkThread(mosaic, capacity=50)]).run()
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
        camera("fast", FakeCamera(10**9), [SinkThread(sinks[0])]),
        camera("slow", FakeCamera(21, gate=wait_for_previous), [SinkThread(sinks[1], capacity=50)]),
    ]
    Live(*cameras, controls=controls).run()
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

    source = camera("camera0", FakeCamera(40, gate=change_settings), [SinkThread(file, capacity=100)])
    Live(source, controls=controls, shared_sinks=[SinkThread(screen, capacity=100)]).run()
    widths = [item.rendered.width for item in file.items]
    assert set(widths) == {64, 128}
    assert file.items[-1].frame.index == 39
    assert screen.items[-1].frame.index < 25
    assert screen.items[-1].rendered.width == 128


def test_report_contains_the_last_second() -> None:
    controls, reports = Controls(), list[LiveReport]()

    def gate(index: int) -> None:
        time.sleep(0.02)
        if reports and reports[-1].totals.now and reports[-1].totals.now.shown_fps > 0:
            controls.quit()

    source = camera("camera0", FakeCamera(5000, gate=gate), [], slow(0.005))
    report = Live(source, controls=controls, on_report=reports.append).run()
    now = reports[-1].totals.now
    assert now is not None
    assert 0 < now.capture_fps < 60
    assert sum(now.classes.values()) == pytest.approx(1.0, abs=0.01)
    assert now.engine_ms >= 5
    assert now.age_ms.max
    assert "now" not in report
    assert set(report["stages"]) == {"decode", "infer", "overlay", "encode"}


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

    sink = SinkThread(slow, capacity=50, closing_seconds=30)
    Live(camera("camera0", FakeCamera(5, gate=quit_at_last, endless=True), [sink]), controls=controls).run()
    assert slow.ended == "closed"
    assert sink.failure is None
