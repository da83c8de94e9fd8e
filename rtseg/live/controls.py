"""Controls and metrics of a live run: the two objects that a window or web page shares with the live loop."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any, get_args

from rtseg.core.choices import View
from rtseg.core.errors import OptionError
from rtseg.core.live_report import LiveReport

VIEWS = get_args(View)
"""Views, in the order in which a key or button selects them."""

ALPHA_STEP = 0.1
"""Change of the opacity per press of + or -."""


@dataclass(frozen=True)
class DisplaySettings:
    """Settings of the display at one moment."""

    view: str = "overlay"
    """One of `VIEWS`."""

    alpha: float = 0.5
    """Opacity of the colors, 0 to 1."""

    legend: bool = False
    """Draw the class names and their colors."""

    paused: bool = False
    """Freeze the window and the page; capture, recordings and metrics continue."""


class Controls:
    """Display settings and requests that any thread may set and that the live loop reads for each frame.

    Read `settings` once per frame: the view and alpha of one read belong together.
    """

    def __init__(self, *, view: str = "overlay", alpha: float = 0.5, legend: bool = False) -> None:
        """Set the initial display settings.

        Raises:
            OptionError: the view does not exist, or alpha is not between 0 and 1.
        """
        self._lock = threading.Lock()
        self._settings = DisplaySettings()
        self._snapshots = 0
        self._quit = threading.Event()
        self.set(view=view, alpha=alpha, legend=legend)

    @property
    def settings(self) -> DisplaySettings:
        """Current display settings."""
        return self._settings

    def set(
        self,
        *,
        view: str | None = None,
        alpha: float | None = None,
        legend: bool | None = None,
        paused: bool | None = None,
    ) -> DisplaySettings:
        """Change the given settings and keep the others.

        Returns:
            The new settings.

        Raises:
            OptionError: the view does not exist, or alpha is not between 0 and 1. No setting is changed.
        """
        if view is not None and view not in VIEWS:
            raise OptionError(f"no view '{view}'; there are {', '.join(VIEWS)}")
        if alpha is not None and not 0.0 <= alpha <= 1.0:
            raise OptionError(f"alpha is {alpha:g}; give a number from 0 (frame only) to 1 (colors only)")
        with self._lock:
            given = {"view": view, "alpha": alpha, "legend": legend, "paused": paused}
            changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
            self._settings = replace(self._settings, **changes)
            return self._settings

    def next_view(self) -> None:
        """Select the next view (key m)."""
        with self._lock:
            view = VIEWS[(VIEWS.index(self._settings.view) + 1) % len(VIEWS)]
            self._settings = replace(self._settings, view=view)

    def add_alpha(self, steps: int) -> None:
        """Change the opacity by a number of steps (keys + and -), within 0 and 1."""
        with self._lock:
            alpha = round(min(1.0, max(0.0, self._settings.alpha + steps * ALPHA_STEP)), 3)
            self._settings = replace(self._settings, alpha=alpha)

    def toggle_legend(self) -> None:
        """Show or hide the legend (key l)."""
        with self._lock:
            self._settings = replace(self._settings, legend=not self._settings.legend)

    def toggle_paused(self) -> None:
        """Pause or resume the display (space key)."""
        with self._lock:
            self._settings = replace(self._settings, paused=not self._settings.paused)

    def request_snapshot(self) -> None:
        """Request a PNG of the next displayed frame (key s)."""
        with self._lock:
            self._snapshots += 1

    def take_snapshot_request(self) -> bool:
        """Return True once for each requested snapshot. For the live loop."""
        with self._lock:
            requested = self._snapshots > 0
            if requested:
                self._snapshots -= 1
            return requested

    def quit(self) -> None:
        """End the run (key q, a signal, the end of the last input)."""
        self._quit.set()

    @property
    def quitting(self) -> bool:
        """True once `quit` was called."""
        return self._quit.is_set()

    def wait_quit(self, timeout_seconds: float) -> bool:
        """Block until `quit` is called, at most `timeout_seconds`; return True if it was called."""
        return self._quit.wait(timeout_seconds)


class LiveMetrics:
    """Latest report of a run, replaced once per second by the live loop and read by the web page."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._latest: LiveReport | None = None

    def publish(self, report: LiveReport) -> None:
        """Replace the report."""
        with self._changed:
            self._latest = report
            self._changed.notify_all()

    @property
    def latest(self) -> LiveReport | None:
        """Latest report; None until the first second is over."""
        return self._latest

    def wait_newer(self, previous: LiveReport | None, timeout_seconds: float) -> LiveReport | None:
        """Block until there is another report than `previous`, at most `timeout_seconds`, and return the latest."""
        with self._changed:
            self._changed.wait_for(lambda: self._latest is not previous, timeout_seconds)
            return self._latest
