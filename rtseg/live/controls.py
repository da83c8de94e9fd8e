"""What the person at a window or a page wants of a live run, and what the run tells them: the two things that cross threads."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, get_args

from rtseg.core.choices import View
from rtseg.core.errors import OptionError

VIEWS = get_args(View)
"""Views, in the order in which a key or button selects them."""

ALPHA_STEP = 0.1
"""How much one press of + or - changes the opacity."""


@dataclass(frozen=True)
class Wanted:
    """How the picture is to be shown, as of one moment."""

    view: str = "overlay"
    """One of `VIEWS`."""

    alpha: float = 0.5
    """Opacity of the colors, 0 to 1."""

    legend: bool = False
    """Draw the class names and their colors."""

    paused: bool = False
    """The window and the page hold the picture they have; capture, recordings and numbers go on."""


class Controls:
    """Switches that any thread may set and that the live loop reads for every frame.

    A reader takes `wanted` once per frame and works with that: view and alpha then belong together.
    """

    def __init__(self, *, view: str = "overlay", alpha: float = 0.5, legend: bool = False) -> None:
        """Starts with what the command line said. Raises OptionError as `set` does."""
        self._lock = threading.Lock()
        self._wanted = Wanted()
        self._snapshots = 0
        self._quit = threading.Event()
        self.set(view=view, alpha=alpha, legend=legend)

    @property
    def wanted(self) -> Wanted:
        """How the picture is to be shown now."""
        return self._wanted

    def set(
        self,
        *,
        view: str | None = None,
        alpha: float | None = None,
        legend: bool | None = None,
        paused: bool | None = None,
    ) -> Wanted:
        """Changes what is given and leaves the rest.

        Returns:
            What is wanted now.

        Raises:
            OptionError: no such view, or alpha is not between 0 and 1; nothing is changed then.
        """
        if view is not None and view not in VIEWS:
            raise OptionError(f"no view '{view}'; there are {', '.join(VIEWS)}")
        if alpha is not None and not 0.0 <= alpha <= 1.0:
            raise OptionError(f"alpha is {alpha:g}; give a number from 0 (picture alone) to 1 (colors alone)")
        with self._lock:
            before = self._wanted
            self._wanted = Wanted(
                before.view if view is None else view,
                before.alpha if alpha is None else alpha,
                before.legend if legend is None else legend,
                before.paused if paused is None else paused,
            )
            return self._wanted

    def next_view(self) -> None:
        """Steps to the next view mode (key m)."""
        with self._lock:
            following = VIEWS[(VIEWS.index(self._wanted.view) + 1) % len(VIEWS)]
            self._wanted = replace(self._wanted, view=following)

    def add_alpha(self, steps: int) -> None:
        """More or less opaque by so many steps (keys + and -), within 0 and 1."""
        with self._lock:
            alpha = round(min(1.0, max(0.0, self._wanted.alpha + steps * ALPHA_STEP)), 3)
            self._wanted = replace(self._wanted, alpha=alpha)

    def toggle_legend(self) -> None:
        """Shows or hides the legend (key l)."""
        with self._lock:
            self._wanted = replace(self._wanted, legend=not self._wanted.legend)

    def toggle_paused(self) -> None:
        """Holds the picture or lets it go on (key space)."""
        with self._lock:
            self._wanted = replace(self._wanted, paused=not self._wanted.paused)

    def ask_snapshot(self) -> None:
        """The next shown picture is to be saved as a PNG (key s)."""
        with self._lock:
            self._snapshots += 1

    def take_snapshot_request(self) -> bool:
        """Whether a picture is to be saved now: true once for each request. For the live loop."""
        with self._lock:
            if not self._snapshots:
                return False
            self._snapshots -= 1
            return True

    def quit(self) -> None:
        """The run is to end (key q, a signal, the end of the last input)."""
        self._quit.set()

    @property
    def quitting(self) -> bool:
        """Whether the run is to end."""
        return self._quit.is_set()

    def wait_quit(self, timeout_seconds: float) -> bool:
        """Waits until the run is to end, at most so long; whether it is to end."""
        return self._quit.wait(timeout_seconds)


class LiveNumbers:
    """The run's numbers, replaced once a second by the live loop and read by status line, page and metrics.

    `latest` is the object that `--stats` writes (see the design's statistics: `frames`, `latency_ms`, `stages`,
    `bottleneck`, `classes` since the start, `sinks.NAME.{written,dropped,error}`, `items` with one such object for each of
    several cameras), and beside it:

        "now": {                        the last second alone
            "capture_fps": 30.0,        frames decoded
            "shown_fps": 16.4,          frames that left the last sink
            "dropped": 14,              frames dropped before the network, in this second
            "age_ms": {"p50": 71.0, "p99": 93.0, "max": 95.0},     capture to the last sink's output
            "bottleneck": "infer",      stage that worked the largest share of the second
            "engine_ms": 60.2,          mean time of one inference
            "work_ms": 62.9,            the same with the coloring: what one frame costs the loop
            "late": 0,                  frames too old to be shown, in this second
            "classes": {"road": 0.31}   shares in the newest frame
        },
        "disconnects": {"count": 1, "seconds": 4.2, "connected": true}     all cameras together; in `items` each its own

    Before the first second is over it is empty.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._serial = 0
        self._latest: Mapping[str, Any] = MappingProxyType({})

    def publish(self, numbers: Mapping[str, Any]) -> None:
        """Replaces the numbers. The mapping must not be changed afterwards."""
        with self._changed:
            self._serial += 1
            self._latest = MappingProxyType(dict(numbers))
            self._changed.notify_all()

    @property
    def latest(self) -> Mapping[str, Any]:
        """The newest numbers, read-only."""
        return self._latest

    def wake(self) -> None:
        """Whoever waits for newer numbers is answered at once, as if the time had run out."""
        with self._changed:
            self._changed.notify_all()

    def wait_newer(self, serial: int, timeout_seconds: float) -> tuple[int, Mapping[str, Any]]:
        """Waits for numbers newer than those of `serial` (0: any), at most so long.

        Returns:
            The serial number to wait with next, and the newest numbers; the same serial where the time ran out.
        """
        with self._changed:
            if self._serial <= serial:
                self._changed.wait(timeout_seconds)
            return self._serial, self._latest
