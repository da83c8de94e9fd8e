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
    """Settings of the display at one moment. Raises OptionError if the view does not exist, or alpha is not 0 to 1."""

    view: str = "overlay"
    """One of `VIEWS`."""

    alpha: float = 0.5
    """Opacity of the colors, 0 to 1."""

    legend: bool = False
    """Draw the class names and their colors."""

    paused: bool = False
    """Freeze the window and the page; capture, recordings and metrics continue."""

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise OptionError(f"no view '{self.view}'; there are {', '.join(VIEWS)}")
        if not 0.0 <= self.alpha <= 1.0:
            raise OptionError(f"alpha is {self.alpha:g}; give a number from 0 (frame only) to 1 (colors only)")


DEFAULT_SETTINGS = DisplaySettings()


class Controls:
    """Display settings and requests that any thread may set and that the live loop reads for each frame."""

    def __init__(self, settings: DisplaySettings = DEFAULT_SETTINGS) -> None:
        """Set the initial display settings."""
        self.settings = settings
        """Current display settings. Read them once per frame: the view and alpha of one read belong together."""
        self._lock = threading.Lock()
        self._snapshots = threading.Semaphore(0)
        self._quit = threading.Event()

    def set(self, **changes: Any) -> None:
        """Change some of the settings. Raises OptionError if one is invalid; then no setting is changed."""
        with self._lock:
            self.settings = replace(self.settings, **changes)

    def press(self, key: str) -> None:
        """Change a setting by its key in the window; a key without a meaning is ignored."""
        settings = self.settings
        match key:
            case "q" | "\x1b":
                self.quit()
            case " ":
                self.set(paused=not settings.paused)
            case "m":
                self.set(view=VIEWS[(VIEWS.index(settings.view) + 1) % len(VIEWS)])
            case "l":
                self.set(legend=not settings.legend)
            case "+" | "=":
                self.set(alpha=min(1.0, round(settings.alpha + ALPHA_STEP, 3)))
            case "-":
                self.set(alpha=max(0.0, round(settings.alpha - ALPHA_STEP, 3)))
            case "s":
                self.request_snapshot()

    def request_snapshot(self) -> None:
        """Request a PNG of the next displayed frame."""
        self._snapshots.release()

    def take_snapshot_request(self) -> bool:
        """Return True once for each requested snapshot. For the live loop."""
        return self._snapshots.acquire(blocking=False)

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
        self.latest: LiveReport | None = None
        """Latest report; None until the first second is over."""

    def publish(self, report: LiveReport) -> None:
        """Replace the report."""
        with self._changed:
            self.latest = report
            self._changed.notify_all()

    def wait_newer(self, previous: LiveReport | None, timeout_seconds: float) -> LiveReport | None:
        """Block until there is another report than `previous`, at most `timeout_seconds`, and return the latest."""
        with self._changed:
            self._changed.wait_for(lambda: self.latest is not previous, timeout_seconds)
            return self.latest
