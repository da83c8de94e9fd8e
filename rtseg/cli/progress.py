"""Progress display of commands: a bar with rate and remaining time on a terminal, otherwise a plain line every ten seconds."""

from __future__ import annotations

import sys
import threading
import time

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from rtseg.cli.errors import print_line
from rtseg.core.errors import printable_name
from rtseg.core.progress import Progress

PLAIN_SECONDS = 10.0
"""Interval of the plain lines that are printed without a terminal."""


class ProgressDisplay:
    """Display of one or more concurrent tasks: one bar per task on a terminal, otherwise one plain line for all tasks.

    Args:
        unit: name of what the tasks count; `%` for tasks that count to 100.
        quiet: display nothing.
    """

    def __init__(self, unit: str = "frames", *, quiet: bool = False) -> None:
        self.unit = unit
        self._plain = not quiet and not sys.stderr.isatty()
        self._printed = time.monotonic()
        self.lock = threading.Lock()
        self.bars = RichProgress(
            # Less than 80 columns in total: at the full width, the terminal's echo of Ctrl-C would begin a new line.
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=22)),
            BarColumn(14),
            _CountColumn(Column(no_wrap=True)),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            disable=quiet or self._plain,
        )

    def task(self) -> TaskProgress:
        """Return the progress of one task."""
        return TaskProgress(self)

    def print_plain_line(self) -> None:
        """Print the line of all tasks if it is due."""
        if self._plain and time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed = time.monotonic()
            print_line("; ".join(f"{task.description}: {_count(task)}" for task in self.bars.tasks))


class TaskProgress(Progress):
    """Progress of one task on a display."""

    def __init__(self, display: ProgressDisplay) -> None:
        self._display, self._bars = display, display.bars

    def start(self, title: str, total: int | None) -> None:
        """Begin to display the task."""
        with self._display.lock:
            self._task = self._bars.add_task(printable_name(title), total=total, unit=self._display.unit)
            self._bars.start()

    def advance(self) -> None:
        """Count one completed unit."""
        self._bars.advance(self._task)
        self._display.print_plain_line()

    def stop(self) -> None:
        """End the display of the task."""
        with self._display.lock:
            self._bars.remove_task(self._task)
            if not self._bars.tasks and not self._bars.disable:
                self._bars.stop()


class _CountColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(_count(task))


def _count(task: Task) -> str:
    """Return count, total and average rate, such as `75 of 150 frames, 25.0/s`, or `50 %`."""
    unit: str = task.fields["unit"]
    if unit == "%":
        return f"{task.completed:.0f} %"
    total = f" of {task.total:.0f}" if task.total else ""
    return f"{task.completed:.0f}{total} {unit}, {task.completed / max(task.elapsed or 0.0, 1e-9):.1f}/s"
