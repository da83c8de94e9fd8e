"""`--adaptive`: less is done where the machine can't keep up, more again where there is room, and both are told."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from command import rtseg, told_in_one_line
from test_live_loop import (
    Camera,
    CollectingSink,
    Controls,
    DrawnCamera,
    adds_up,
    classes_by_brightness,
    live,
    wait_until,
)

from rtseg.core.frame import ClassMap, Frame
from rtseg.inference.segmenter import Segmenter
from rtseg.live.load_shedding import FASTER_SECONDS, SLOWER_SECONDS, LoadShedder
from rtseg.live.run import open_smaller
from rtseg.live.sink_thread import SinkThread

pytestmark = pytest.mark.timeout(180)


class Machine:
    """Gives a pace the numbers of a machine whose models cost so many milliseconds a frame, at 30 frames a second."""

    def __init__(self, *cost_ms: float) -> None:
        self.cost_ms = cost_ms
        self.said: list[str] = []
        self.pace = LoadShedder(["small", "nano"][: len(cost_ms)], self.said.append)

    def run(self, seconds: int, *, late: int = 0, fps: float = 30.0) -> tuple[int, int]:
        for _ in range(seconds):
            self.pace.second({"capture_fps": fps, "work_ms": self.cost_ms[self.pace.step.model], "stale": late})
        return self.pace.step.model, self.pace.step.every


def test_a_machine_that_keeps_up_is_left_alone() -> None:
    machine = Machine(30.0, 10.0)
    assert machine.run(120) == (0, 1)
    assert machine.said == []


def test_the_smaller_model_comes_first_then_fewer_frames() -> None:
    machine = Machine(90.0, 50.0)
    assert machine.run(SLOWER_SECONDS - 1) == (0, 1)
    assert machine.run(1) == (1, 1)
    assert machine.run(SLOWER_SECONDS) == (1, 2)
    assert machine.run(60) == (1, 2)  # 50 ms for every second frame: enough, and no room for all of them
    assert machine.said == [
        "can't keep up (90 ms for a frame, 33 ms between two): now every frame on the model nano",
        "can't keep up (50 ms for a frame, 33 ms between two): now one frame in 2 on the model nano",
    ]
    assert machine.pace.to_dict() == {"model": "nano", "every": 2, "changes": 2}


def test_without_a_smaller_model_frames_are_left_out_down_to_one_in_four() -> None:
    machine = Machine(500.0)
    assert machine.run(60) == (0, 4)
    assert machine.said[0] == "can't keep up (500 ms for a frame, 33 ms between two): now one frame in 2"
    assert len(machine.said) == 3


def test_it_comes_back_when_there_is_room_for_the_larger_model() -> None:
    machine = Machine(60.0, 20.0)
    assert machine.run(SLOWER_SECONDS) == (1, 1)
    assert machine.run(60) == (1, 1)  # nano has room, small would not
    machine.cost_ms = (24.0, 8.0)  # what made the machine slow has ended
    assert machine.run(FASTER_SECONDS - 1) == (1, 1)
    assert machine.run(1) == (0, 1)
    assert (
        machine.said[-1]
        == "there is room again (8 ms for a frame, 33 ms between two): now every frame on the model small"
    )
    assert machine.run(60) == (0, 1)


def test_a_way_back_that_was_too_much_is_tried_more_and_more_rarely() -> None:
    machine = Machine(40.0)
    changes = []
    for second in range(600):
        before = machine.pace.step
        # One in two looks cheap; all of them turn out dear, as with a board that throttles under load.
        machine.cost_ms = (40.0 if machine.pace.step.every == 1 else 20.0,)
        machine.run(1)
        if machine.pace.step.every == 1 and before.every == 2:
            changes.append(second)
    gaps = np.diff(changes)
    assert len(changes) >= 4
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(gaps))


def test_frames_that_are_too_old_count_as_too_much() -> None:
    machine = Machine(20.0)
    assert machine.run(SLOWER_SECONDS, late=2) == (0, 2)
    assert "2 frames too old" in machine.said[0]


def test_one_bad_second_and_a_lost_camera_change_nothing() -> None:
    machine = Machine(30.0)
    for _ in range(20):
        machine.run(5)
        machine.cost_ms = (200.0,)
        machine.run(1)
        machine.cost_ms = (30.0,)
    machine.pace.second({"capture_fps": 0.0, "work_ms": 0.0, "stale": 0})
    assert machine.said == []


def test_a_slow_model_gets_fewer_frames() -> None:
    """The whole loop: 30 ms a frame at up to 50 frames a second, until the pace says that this is too much."""
    pace, keeper, controls = LoadShedder(["slow"]), CollectingSink(), Controls()

    def gate(index: int) -> None:
        time.sleep(0.02)
        if pace.step.every >= 2:
            controls.quit()

    def slow(frame: Frame, aspect: float) -> ClassMap:
        time.sleep(0.03)
        return classes_by_brightness(frame, aspect)

    camera = Camera("camera0", DrawnCamera(5000, gate=gate), [SinkThread(keeper, capacity=8)])
    told = live(camera, segment=slow, pace=pace, controls=controls, more=lambda: {"adaptive": pace.to_dict()}).run()
    assert told["adaptive"]["every"] >= 2
    assert adds_up(told)
    assert any(item.frame.index % 2 for item in keeper.items)  # at first it tried all


def test_the_frames_that_are_left_are_every_nth() -> None:
    """The camera gives each frame once all that come before it and are wanted have been written."""
    pace, keeper = LoadShedder(["slow"]), CollectingSink()
    pace.second = lambda now: None  # type: ignore[method-assign]
    while pace.step.every != 3:
        LoadShedder.second(pace, {"capture_fps": 30.0, "work_ms": 500.0, "stale": 0})

    def gate(index: int) -> None:
        wait_until(lambda: keeper.written == -(-index // 3))

    told = live(Camera("camera0", DrawnCamera(31, gate=gate), [SinkThread(keeper, capacity=8)]), pace=pace).run()
    assert [item.frame.index for item in keeper.items] == list(range(0, 31, 3))
    assert adds_up(told)


def test_every_frame_and_adaptive_exclude_each_other() -> None:
    result = rtseg("live", "--camera", "0", "--adaptive", "--every-frame")
    assert result.returncode == 1
    told_in_one_line(result, "--adaptive drops frames")


def test_which_model_stands_in() -> None:
    with Segmenter("small", size=(96, 64)) as small:
        smaller = open_smaller(small, device=None, size=(96, 64), fit="letterbox")
        assert smaller is not None
        with smaller:
            assert smaller.description.name == "camvid-nano"
            assert smaller.classes == small.classes
            assert open_smaller(smaller, device=None, size=(96, 64), fit="letterbox") is None
    with Segmenter(Path(__file__).parents[1] / "data" / "nearest-color.onnx") as other:
        kept = open_smaller(other, device=None, size=(96, 64), fit="letterbox")
        assert (kept is None) == (other.classes != small.classes)
        if kept:
            kept.close()
