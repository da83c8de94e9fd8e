"""Progress of long work: a bar with rate and time left on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

PLAIN_SECONDS = 10.0
"""How often a plain line is printed where there is no terminal."""


class Progress:
    """Counts frames (or any unit) towards a total that may not be known. Use it in a `with`."""

    def __init__(self, title: str, total: int | None, *, unit: str = "frames", quiet: bool = False) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._quiet = quiet
        self._terminal = sys.stderr.isatty() and not quiet
        self._count = 0
        self._begin = self._shown = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self._terminal:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                refresh_per_second=4,
                transient=True,
            )
            self._task = self._bar.add_task(self._title, total=self._total, rate="")
            self._bar.start()
        return self

    def advance(self, count: int = 1) -> None:
        """`count` more are done. Costs next to nothing between two updates of the picture."""
        self._count += count
        now = time.monotonic()
        if self._quiet or now - self._shown < (0.25 if self._terminal else PLAIN_SECONDS):
            return
        self._shown = now
        rate = f"{self._count / max(now - self._begin, 1e-9):.1f} {self._unit}/s"
        if self._bar is not None:
            total = self._total if self._total is None else max(self._total, self._count)
            self._bar.update(self._task, completed=self._count, total=total, rate=rate)
        else:
            of = f" of {self._total}" if self._total else ""
            print(f"{self._title}: {self._count}{of} {self._unit}, {rate}", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
