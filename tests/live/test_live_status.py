"""Status of a live run: one line that is rewritten on a terminal, plain lines in a log file."""

from __future__ import annotations

import io
import re

import pytest

from rtseg.core.palette import CAMVID_CLASSES
from rtseg.core.progress import Status
from rtseg.live.stats import LiveStats, status_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_one_status_line_with_events_above(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    status = Status()
    for line in ("first second", "second second"):
        status.numbers(line)
    status.log("camera 0: disconnected")
    status.numbers("third second")
    status.end()
    rendered = [re.sub(r"^.*\r\x1b\[K", "", line) for line in screen.getvalue().split("\n")]
    assert rendered == ["camera 0: disconnected", ""], "each status line is cleared before the next output"
    assert screen.getvalue().count("\r\x1b[K") == 3


def test_log_file_has_few_plain_lines_with_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    status = Status()
    for _ in range(5):
        status.numbers("capture 30 fps")
    status.log("camera 0: disconnected")
    lines = log.getvalue().splitlines()
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines] == ["capture 30 fps", "camera 0: disconnected"]
    assert "\x1b" not in log.getvalue()


def test_quiet_logs_only_events(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    status = Status(quiet=True)
    status.numbers("capture 30 fps")
    status.log("camera 0: disconnected")
    assert log.getvalue().endswith("camera 0: disconnected\n")
    assert "capture" not in log.getvalue()


def test_interval_report_contains_only_changes_since_last_call() -> None:
    stats = LiveStats(CAMVID_CLASSES)
    stats.add_stage_time("infer", 0.5)
    stats.interval_report(read=100, dropped=40)
    stats.add_stage_time("decode", 0.2)
    now = stats.interval_report(read=130, dropped=47)
    assert now["dropped"] == 7
    assert now["bottleneck"] == "decode"
    assert now["age_ms"] == {"p50": 0.0, "p99": 0.0, "max": 0.0}
    assert "dropped 7" in status_line(now)
    assert "limited by decode" in status_line(now)
