"""Progress display: bars with rate and remaining time on a terminal, otherwise a plain line every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any

from rtseg.core.errors import printable, printable_name

PLAIN_SECONDS = 10.0
"""Interval of the plain lines that are printed without a terminal."""

_BAR_SECONDS = 0.25


class ProgressDisplay:
    """Display of one or more concurrent tasks: one bar per task on a terminal, otherwise one plain line for all tasks."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty() and not quiet
        self._lock = threading.Lock()
        self._updated = time.monotonic()
        self._tasks: dict[Progress, Any] = {}
        self._bars: Any = None

    def __enter__(self) -> ProgressDisplay:
        if self._terminal:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bars = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                refresh_per_second=4,
                transient=True,
            )
            self._bars.start()
        return self

    def add(self, progress: Progress) -> None:
        """Add a task to the display."""
        with self._lock:
            self._tasks[progress] = (
                self._bars.add_task(progress.title, total=progress.total, rate="") if self._bars is not None else None
            )

    def remove(self, progress: Progress) -> None:
        """Remove a task that is complete or has failed."""
        with self._lock:
            task = self._tasks.pop(progress, None)
            if self._bars is not None and task is not None:
                self._bars.remove_task(task)

    def show(self) -> None:
        """Update the display if its update interval has passed; otherwise the cost is negligible."""
        now = time.monotonic()
        if self._quiet or now - self._updated < (_BAR_SECONDS if self._terminal else PLAIN_SECONDS):
            return
        with self._lock:
            self._updated = now
            if self._bars is None:
                print("; ".join(progress.line() for progress in self._tasks), file=sys.stderr, flush=True)
                return
            for progress, task in self._tasks.items():
                total = progress.total if progress.total is None else max(progress.total, progress.count)
                self._bars.update(task, completed=progress.count, total=total, rate=progress.rate())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()


class Progress:
    """Counter of completed frames (or other units) with a display. Use it as a context manager."""

    def __init__(
        self,
        title: str,
        total: int | None,
        *,
        unit: str = "frames",
        quiet: bool = False,
        display: ProgressDisplay | None = None,
    ) -> None:
        """Create a counter at zero.

        Args:
            title: title of the task, such as a file name.
            total: expected number of units; None if unknown.
            unit: name of the unit.
            quiet: display nothing.
            display: display that is shared with other tasks; None creates a new one.
        """
        self.title, self.total = printable_name(title), total
        self.count = 0
        self._unit = unit
        self._begin = time.monotonic()
        self._owns_display = display is None
        self._display = ProgressDisplay(quiet=quiet) if display is None else display

    def __enter__(self) -> Progress:
        if self._owns_display:
            self._display.__enter__()
        self._display.add(self)
        return self

    def advance(self, count: int = 1) -> None:
        """Add completed units and update the display."""
        self.count += count
        self._display.show()

    def rate(self) -> str:
        """Return the average rate as text, such as `25.0 frames/s`."""
        return f"{self.count / max(time.monotonic() - self._begin, 1e-9):.1f} {self._unit}/s"

    def line(self) -> str:
        """Return the progress as one plain line."""
        of = f" of {self.total}" if self.total else ""
        return f"{self.title}: {self.count}{of} {self._unit}, {self.rate()}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.remove(self)
        if self._owns_display:
            self._display.__exit__(kind, error, trace)


class Status:
    """Status and log lines on stderr. Thread-safe."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Create a status line; `quiet` disables `numbers`."""
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._printed = 0.0
        self._line_visible = False

    def log(self, line: str) -> None:
        """Print a permanent line, with the time of day if stderr is not a terminal."""
        with self._lock:
            self._clear()
            stamp = "" if self._terminal else time.strftime("%H:%M:%S ")
            print(stamp + printable(line), file=sys.stderr, flush=True)

    def numbers(self, line: str) -> None:
        """Replace the status line. Without a terminal, print it every `PLAIN_SECONDS`."""
        if self._quiet:
            return
        if not self._terminal:
            if time.monotonic() - self._printed >= PLAIN_SECONDS:
                self._printed = time.monotonic()
                self.log(line)
            return
        with self._lock:
            self._clear()
            print(printable(line), end="", file=sys.stderr, flush=True)
            self._line_visible = True

    def end(self) -> None:
        """Clear the status line."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        if self._line_visible:
            print("\r\033[K", end="", file=sys.stderr)
            self._line_visible = False
