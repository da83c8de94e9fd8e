"""Progress display of commands: a bar with rate and remaining time on a terminal, otherwise a plain line every ten seconds."""

from __future__ import annotations

import sys
import threading
import time

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from rtseg.cli.errors import print_line
from rtseg.core.errors import printable_name

PLAIN_SECONDS = 10.0
"""Interval of the plain lines that are printed without a terminal."""


class ProgressDisplay:
    """Display of one or more concurrent tasks: one bar per task on a terminal, otherwise one plain line for all tasks.

    Args:
        unit: name of what the tasks count; `%` for tasks that count to 100.
        quiet: display nothing.
    """

    def __init__(self, unit: str = "frames", *, quiet: bool = False) -> None:
        self._unit = unit
        self._plain = not quiet and not sys.stderr.isatty()
        self._printed = time.monotonic()
        self._lock = threading.Lock()
        self._bars = RichProgress(
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

    def add(self, title: str, total: int | None) -> TaskID:
        """Begin to display a task."""
        with self._lock:
            task = self._bars.add_task(printable_name(title), total=total, unit=self._unit)
            self._bars.start()
        return task

    def advance(self, task: TaskID) -> None:
        """Count one completed unit of a task."""
        self._bars.advance(task)
        if self._plain and time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed = time.monotonic()
            print_line("; ".join(f"{task.description}: {_count(task)}" for task in self._bars.tasks))

    def remove(self, task: TaskID) -> None:
        """End the display of a task."""
        with self._lock:
            self._bars.remove_task(task)
            if not self._bars.tasks and not self._bars.disable:
                self._bars.stop()


class TaskProgress:
    """Progress of one task on a display. Implements `rtseg.core.progress.Progress`."""

    def __init__(self, display: ProgressDisplay) -> None:
        self._display = display

    def start(self, title: str, total: int | None) -> None:
        """Begin to display the task."""
        self._task = self._display.add(title, total)

    def advance(self) -> None:
        """Count one completed unit."""
        self._display.advance(self._task)

    def stop(self) -> None:
        """End the display of the task."""
        self._display.remove(self._task)


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
