"""Progress of long work. The library reports it to a `Progress`; `rtseg.cli.progress` displays it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Receiver of the progress of one task after another."""

    def start(self, title: str, total: int | None) -> None:
        """Begin a task. `total` is the expected number of units, such as frames; None if unknown."""
        return

    def advance(self) -> None:
        """Count one completed unit. An exception ends the task."""
        return

    def stop(self) -> None:
        """End the task, complete or not."""
        return


class NoProgress(Progress):
    """Progress that is not displayed."""


@contextmanager
def track(progress: Progress | None, title: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Report a task while the context is open. Yields the function to call after each completed unit."""
    progress = progress or NoProgress()
    progress.start(title, total)
    try:
        yield progress.advance
    finally:
        progress.stop()


@contextmanager
def track_percent(progress: Progress | None, title: str) -> Iterator[Callable[[float], None]]:
    """Report a task in percent while the context is open. Yields the function that sets the completed share, 0 to 1."""
    percent = 0
    with track(progress, title, 100) as advance:

        def update(share: float) -> None:
            nonlocal percent
            while percent < int(100 * share):
                percent += 1
                advance()

        yield update
