"""Load shedding (`--adaptive`): less work on an overloaded machine, more again with spare capacity, and a log of both."""

from __future__ import annotations

import itertools
import time

import numpy as np
from live_doubles import CollectingSink, FakeCamera, Live, adds_up, camera, interval, slow, wait_until

from rtseg.inference.segmenter import Segmenter
from rtseg.live.controls import Controls
from rtseg.live.load_shedding import FASTER_SECONDS, SLOWER_SECONDS, LoadShedder
from rtseg.live.run import smaller_model
from rtseg.live.sink_thread import SinkThread


class Machine:
    """Simulates a machine: updates a load shedder with the cost of each model in milliseconds per frame."""

    def __init__(self, *cost_ms: float) -> None:
        self.cost_ms = cost_ms
        self.messages: list[str] = []
        self.load_shedder = LoadShedder(["small", "nano"][: len(cost_ms)], self.messages.append)

    def run(self, seconds: int, *, stale: int = 0, fps: float = 30.0) -> tuple[int, int]:
        for _ in range(seconds):
            self.load_shedder.update(interval(fps, self.cost_ms[self.load_shedder.level.model], stale))
        return self.load_shedder.level.model, self.load_shedder.level.frame_interval


def test_machine_that_keeps_up_processes_every_frame() -> None:
    machine = Machine(30.0, 10.0)
    assert machine.run(120) == (0, 1)
    assert machine.messages == []


def test_smaller_model_is_used_before_frames_are_dropped() -> None:
    machine = Machine(90.0, 50.0)
    assert machine.run(SLOWER_SECONDS - 1) == (0, 1)
    assert machine.run(1) == (1, 1)
    assert machine.run(SLOWER_SECONDS) == (1, 2)
    assert machine.run(60) == (1, 2)  # 50 ms for every second frame is enough, and too much for all frames
    assert machine.messages == [
        "can't keep up (90 ms per frame, a frame every 33 ms): now every frame on the model nano",
        "can't keep up (50 ms per frame, a frame every 33 ms): now one frame in 2 on the model nano",
    ]
    assert machine.load_shedder.report().to_dict() == {"model": "nano", "every": 2, "changes": 2}


def test_without_smaller_model_drops_down_to_one_frame_in_four() -> None:
    machine = Machine(500.0)
    assert machine.run(60) == (0, 4)
    assert machine.messages[0] == "can't keep up (500 ms per frame, a frame every 33 ms): now one frame in 2"
    assert len(machine.messages) == 3


def test_returns_to_larger_model_with_spare_capacity() -> None:
    machine = Machine(60.0, 20.0)
    assert machine.run(SLOWER_SECONDS) == (1, 1)
    assert machine.run(60) == (1, 1)  # spare capacity with nano, but not enough for small
    machine.cost_ms = (24.0, 8.0)  # the machine is fast again
    assert machine.run(FASTER_SECONDS - 1) == (1, 1)
    assert machine.run(1) == (0, 1)
    assert (
        machine.messages[-1]
        == "spare capacity again (8 ms per frame, a frame every 33 ms): now every frame on the model small"
    )
    assert machine.run(60) == (0, 1)


def test_failed_increase_of_work_doubles_the_wait() -> None:
    machine = Machine(40.0)
    changes = []
    for second in range(600):
        before = machine.load_shedder.level
        # Every second frame is cheap, all frames are expensive: like a board that throttles under load.
        machine.cost_ms = (40.0 if machine.load_shedder.level.frame_interval == 1 else 20.0,)
        machine.run(1)
        if machine.load_shedder.level.frame_interval == 1 and before.frame_interval == 2:
            changes.append(second)
    gaps = np.diff(changes)
    assert len(changes) >= 4
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(gaps))


def test_stale_frames_count_as_overload() -> None:
    machine = Machine(20.0)
    assert machine.run(SLOWER_SECONDS, stale=2) == (0, 2)
    assert "2 frames too old" in machine.messages[0]


def test_single_overloaded_second_or_disconnect_changes_nothing() -> None:
    machine = Machine(30.0)
    for _ in range(20):
        machine.run(5)
        machine.cost_ms = (200.0,)
        machine.run(1)
        machine.cost_ms = (30.0,)
    machine.load_shedder.update(interval(0.0, 0.0))
    assert machine.messages == []


def test_slow_model_processes_fewer_frames() -> None:
    """A live loop with 30 ms per frame at up to 50 FPS runs until the load shedder drops frames."""
    load_shedder, sink, controls = LoadShedder(["slow"]), CollectingSink(), Controls()

    def gate(index: int) -> None:
        time.sleep(0.02)
        if load_shedder.level.frame_interval >= 2:
            controls.quit()

    source = camera("camera0", FakeCamera(5000, gate=gate), [SinkThread(sink, capacity=8)])
    report = Live(source, segment=slow(0.03), load_shedder=load_shedder, controls=controls).run()
    assert report["adaptive"]["every"] >= 2
    assert adds_up(report)
    assert any(item.frame.index % 2 for item in sink.items)  # all frames at first


def test_load_shedder_processes_every_nth_frame() -> None:
    """The camera yields each frame after all previous frames to process have been written."""
    load_shedder, sink = LoadShedder(["slow"]), CollectingSink()
    load_shedder.update = lambda now: None  # type: ignore[method-assign]
    while load_shedder.level.frame_interval != 3:
        LoadShedder.update(load_shedder, interval(30.0, 500.0))

    def gate(index: int) -> None:
        wait_until(lambda: sink.written == -(-index // 3))

    report = Live(
        camera("camera0", FakeCamera(31, gate=gate), [SinkThread(sink, capacity=8)]), load_shedder=load_shedder
    ).run()
    assert [item.frame.index for item in sink.items] == list(range(0, 31, 3))
    assert adds_up(report)


def test_smaller_model_has_the_same_classes() -> None:
    with Segmenter("small", size=(96, 64)) as small, Segmenter("nano", size=(96, 64)) as nano:
        assert smaller_model(small) == "nano"
        assert (nano.description.name, nano.classes) == ("camvid-nano", small.classes)
        assert smaller_model(nano) is None
        small.classes = ("road", "car")
        assert smaller_model(small) is None
