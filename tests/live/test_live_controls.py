"""The switches of a live run: set from any thread, never half."""

from __future__ import annotations

import threading
from typing import get_args

import pytest

from rtseg.core.choices import View
from rtseg.core.errors import OptionError
from rtseg.live.controls import VIEWS, Controls, LiveNumbers

pytestmark = pytest.mark.timeout(180)


def test_views_are_those_of_the_overlay() -> None:
    assert get_args(View) == VIEWS


def test_a_wrong_value_changes_nothing() -> None:
    controls = Controls(alpha=0.3)
    with pytest.raises(OptionError, match=r"1\.5"):
        controls.set(view="mask", alpha=1.5)
    with pytest.raises(OptionError, match="x-ray"):
        controls.set(view="x-ray", alpha=0.1)
    assert (controls.wanted.view, controls.wanted.alpha) == ("overlay", 0.3)


def test_keys_step_and_stay_in_range() -> None:
    controls = Controls(alpha=0.95)
    controls.add_alpha(1)
    assert controls.wanted.alpha == 1.0
    controls.add_alpha(-20)
    assert controls.wanted.alpha == 0.0
    seen = []
    for _ in VIEWS:
        seen.append(controls.wanted.view)
        controls.next_view()
    assert tuple(seen) == VIEWS
    assert controls.wanted.view == VIEWS[0]
    controls.toggle_legend()
    controls.toggle_paused()
    assert controls.wanted.legend
    assert controls.wanted.paused


def test_each_snapshot_request_is_taken_once() -> None:
    controls = Controls()
    askers = [threading.Thread(target=controls.ask_snapshot) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert sum(controls.take_snapshot_request() for _ in range(20)) == 8


def test_quit_wakes_whoever_waits() -> None:
    controls = Controls()
    assert not controls.wait_quit(0.0)
    threading.Timer(0.05, controls.quit).start()
    assert controls.wait_quit(60)
    assert controls.quitting


def test_numbers_are_waited_for_and_read_only() -> None:
    numbers = LiveNumbers()
    assert numbers.wait_newer(0, 0.01) == (0, {})
    threading.Timer(0.05, numbers.publish, ({"fps": 3.0},)).start()
    serial, latest = numbers.wait_newer(0, 60)
    assert (serial, latest["fps"]) == (1, 3.0)
    with pytest.raises(TypeError):
        latest["fps"] = 4  # type: ignore[index]


def test_whoever_waits_for_numbers_can_be_woken_without_any() -> None:
    numbers = LiveNumbers()
    answers: list[object] = []
    waiting = threading.Thread(target=lambda: answers.append(numbers.wait_newer(0, 3600)))
    waiting.start()
    while waiting.is_alive():  # once would do, were it known that the thread waits already
        numbers.wake()
        waiting.join(0.01)
    assert answers == [(0, {})]
