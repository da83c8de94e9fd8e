"""Controls and metrics of a live run: atomic changes from any thread, and the measurements of each second."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from web_client import REPORT, TOTALS

from rtseg.core.errors import OptionError
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.core.stats import Stats
from rtseg.live.controls import VIEWS, Controls, DisplaySettings, LiveMetrics
from rtseg.live.run import status_line


def test_invalid_value_changes_no_setting() -> None:
    controls = Controls(DisplaySettings(alpha=0.3))
    with pytest.raises(OptionError, match=r"1\.5"):
        controls.set(view="mask", alpha=1.5)
    with pytest.raises(OptionError, match="x-ray"):
        controls.set(view="x-ray", alpha=0.1)
    assert (controls.settings.view, controls.settings.alpha) == ("overlay", 0.3)


def test_keys_change_settings_within_range() -> None:
    controls = Controls(DisplaySettings(alpha=0.95))
    alphas, views = [], []
    for key in ("+", *"-" * 11):
        controls.press(key)
        alphas.append(controls.settings.alpha)
    assert alphas == [1.0, *(round(0.1 * step, 1) for step in range(9, -1, -1)), 0.0]
    for _ in VIEWS:
        views.append(controls.settings.view)
        controls.press("m")
    assert (*views, controls.settings.view) == (*VIEWS, VIEWS[0])
    for key in "l ?s":
        controls.press(key)
    assert controls.settings == DisplaySettings(alpha=0.0, legend=True, paused=True)
    assert controls.take_snapshot_request()
    assert not controls.quitting
    controls.press("q")


def test_each_snapshot_request_is_taken_once() -> None:
    controls = Controls()
    threads = [threading.Thread(target=controls.request_snapshot) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(controls.take_snapshot_request() for _ in range(20)) == 8


def test_quit_unblocks_wait_quit() -> None:
    controls = Controls()
    assert not controls.wait_quit(0.0)
    threading.Timer(0.05, controls.quit).start()
    assert controls.wait_quit(60)
    assert controls.quitting


def test_wait_newer_returns_the_next_report() -> None:
    metrics = LiveMetrics()
    assert metrics.wait_newer(None, 0.01) is None
    threading.Timer(0.05, metrics.publish, (REPORT,)).start()
    assert metrics.wait_newer(None, 60) is metrics.latest is REPORT
    assert metrics.wait_newer(REPORT, 0.01) is REPORT


def test_interval_has_only_the_changes_since_the_last_call() -> None:
    stats = Stats(CAMVID_CLASSES)
    intervals = []
    for stage, dropped in (("infer", 4), ("decode", 7)):
        stats.add_stage(stage, 0.1)
        for _ in range(dropped):
            stats.frames.add()
            stats.frames.drop()
        intervals.append(stats.interval())
    assert [(each.bottleneck, each.dropped) for each in intervals] == [("infer", 4), ("decode", 7)]
    line = status_line(replace(REPORT, totals=replace(TOTALS, now=intervals[1])))
    assert "dropped 7, age p50 0 ms p99 0 ms" in line
    assert line.endswith("limited by decode")
