"""Progress of long work: a bar with rate and time left on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any

from rtseg.core.errors import printable, printable_name

PLAIN_SECONDS = 10.0
"""How often a plain line is printed where there is no terminal."""

_BAR_SECONDS = 0.25


class Board:
    """Where the progress of work that goes on at the same time is shown: bars below each other, or one plain line for all."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty() and not quiet
        self._lock = threading.Lock()
        self._shown = time.monotonic()
        self._going: dict[Progress, Any] = {}
        self._bars: Any = None

    def __enter__(self) -> Board:
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
        """Work begins."""
        with self._lock:
            self._going[progress] = (
                self._bars.add_task(progress.title, total=progress.total, rate="") if self._bars is not None else None
            )

    def remove(self, progress: Progress) -> None:
        """Work has ended, well or not."""
        with self._lock:
            task = self._going.pop(progress, None)
            if self._bars is not None and task is not None:
                self._bars.remove_task(task)

    def show(self) -> None:
        """Brings what is shown up to date. Costs next to nothing between two updates of the picture."""
        now = time.monotonic()
        if self._quiet or now - self._shown < (_BAR_SECONDS if self._terminal else PLAIN_SECONDS):
            return
        with self._lock:
            self._shown = now
            if self._bars is None:
                print("; ".join(progress.line() for progress in self._going), file=sys.stderr, flush=True)
                return
            for progress, task in self._going.items():
                total = progress.total if progress.total is None else max(progress.total, progress.count)
                self._bars.update(task, completed=progress.count, total=total, rate=progress.rate())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()


class Progress:
    """Counts frames (or any unit) towards a total that may not be known. Use it in a `with`."""

    def __init__(
        self,
        title: str,
        total: int | None,
        *,
        unit: str = "frames",
        quiet: bool = False,
        board: Board | None = None,
    ) -> None:
        """Begins at zero.

        Args:
            title: of the work, such as a file's name.
            total: how many it will be; None: not known.
            unit: what is counted.
            quiet: nothing is shown.
            board: where it is shown beside others; None: on a board of its own.
        """
        self.title, self.total = printable_name(title), total
        self.count = 0
        self._unit = unit
        self._begin = time.monotonic()
        self._own = board is None
        self._board = Board(quiet=quiet) if board is None else board

    def __enter__(self) -> Progress:
        if self._own:
            self._board.__enter__()
        self._board.add(self)
        return self

    def advance(self, count: int = 1) -> None:
        """`count` more are done. Costs next to nothing between two updates of the picture."""
        self.count += count
        self._board.show()

    def rate(self) -> str:
        """How fast it goes, for people."""
        return f"{self.count / max(time.monotonic() - self._begin, 1e-9):.1f} {self._unit}/s"

    def line(self) -> str:
        """How far it is, for people, without a terminal."""
        of = f" of {self.total}" if self.total else ""
        return f"{self.title}: {self.count}{of} {self._unit}, {self.rate()}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.remove(self)
        if self._own:
            self._board.__exit__(kind, error, trace)


class Status:
    """Lines for people, on stderr. May be called from any thread."""

    def __init__(self, *, quiet: bool = False) -> None:
        """With `quiet` only `say` is heard."""
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._printed = 0.0
        self._showing = False

    def log(self, line: str) -> None:
        """Something happened: a line that stays, with the time of day where it may go into a log."""
        with self._lock:
            self._clear()
            stamp = "" if self._terminal else time.strftime("%H:%M:%S ")
            print(stamp + printable(line), file=sys.stderr, flush=True)

    def numbers(self, line: str) -> None:
        """The numbers of this second."""
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
            self._showing = True

    def end(self) -> None:
        """The line on the terminal is left behind."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        if self._showing:
            print("\r\033[K", end="", file=sys.stderr)
            self._showing = False
