"""Progress and status on stderr: bars and a status line on a terminal, plain lines otherwise, nothing with `quiet`."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest

from rtseg.cli.live_status import LiveStatus
from rtseg.cli.progress import ProgressDisplay
from rtseg.core.progress import track, track_percent

LOG = logging.getLogger("rtseg.live")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return screen


def lines_of(screen: io.StringIO) -> list[str]:
    """Return the lines as they were printed, without colors and movements of the cursor."""
    return [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).strip() for line in re.split(r"[\r\n]+", screen.getvalue())]


def assert_cleared(screen: Terminal) -> None:
    """Check that the last line was erased and that the cursor is visible."""
    assert "\x1b[2K" in screen.getvalue()[-20:]
    assert "\x1b[?25h" in screen.getvalue()[-20:]


def test_terminal_shows_a_bar_with_rate_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with track(ProgressDisplay().task(), "drive[1].mp4", 4) as advance:
        advance()
        print("rtseg: a warning", file=sys.stderr)
        advance()
    lines = lines_of(terminal)
    assert re.match(r"drive\[1\]\.mp4 ━+ 0 of 4 frames, 0\.0/s -:--:--", lines[0])
    assert "rtseg: a warning" in lines
    assert_cleared(terminal)


def test_tasks_after_each_other_and_at_the_same_time_share_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    display = ProgressDisplay("images")
    with track(display.task(), "first", 1):
        pass
    with track(display.task(), "second", None), track(display.task(), "third", 3):
        pass
    assert {line.split()[0] for line in lines_of(terminal) if "images" in line} == {"first", "second", "third"}
    assert terminal.getvalue().count("\x1b[?25l") == 2, "displayed only while there is a task"


@pytest.mark.parametrize(("unit", "line"), [("frames", r"a: 1 of 2 frames, [\d.]+/s"), ("%", "a: 1 %")])
def test_log_file_has_plain_lines(
    unit: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    display = ProgressDisplay(unit)
    with track(display.task(), "a", 2) as advance:
        monkeypatch.setattr("rtseg.cli.progress.PLAIN_SECONDS", 0.0)
        advance()
        monkeypatch.undo()  # ten seconds have not passed
        advance()
    assert re.fullmatch(line + "\n", capsys.readouterr().err)


def test_quiet_display_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with track(ProgressDisplay(quiet=True).task(), "a", 2) as advance:
        advance()
    assert terminal.getvalue() == ""


def test_percent_advances_to_the_completed_share() -> None:
    display = ProgressDisplay("%")
    with track_percent(display.task(), "training") as update:
        for share in (0.1, 0.105, 0.5):
            update(share)
        assert display.bars.tasks[0].completed == 50


def test_terminal_shows_one_status_line_below_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with LiveStatus() as status:
        status.show("first second")
        status.show("second second, " + 11 * "longer " + "than the terminal")
        LOG.warning("camera 0: disconnected")
        status.show("third second")
    lines = [line for line in lines_of(terminal) if line]
    second = ["second", "longer"]  # wrapped
    assert [line.split()[0] for line in lines] == ["first", *second, "camera", *second, "third", "third"]
    assert "\x1b[2K\x1b[1A\x1b[2Kthird" in terminal.getvalue(), "both lines are erased"
    assert_cleared(terminal)


def test_log_file_has_few_plain_lines_with_time_of_day(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveStatus() as status:
        for _ in range(5):
            status.show("capture 30 fps")
        LOG.warning("camera 0: disconnected")
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines] == ["capture 30 fps", "camera 0: disconnected"]


def test_quiet_status_shows_only_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveStatus(quiet=True) as status:
        status.show("capture 30 fps")
        LOG.info("page: http://127.0.0.1:8080/")
        LOG.warning("camera 0: disconnected")
    assert capsys.readouterr().err.endswith("camera 0: disconnected\n")
    assert LOG.propagate
