"""Exit of `rtseg live` by signals, and past blocked threads."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from types import FrameType
from typing import Any

import typer

_SAME_SIGNAL_SECONDS = 0.3
"""Maximum interval of two SIGINT that count as one: `timeout -s INT` sends it to the process and to its group."""


_SHOW_CURSOR = b"\x1b[?25h"


def quit_on_signal(controls: Any) -> None:
    """Quit normally at SIGINT and SIGTERM. A second SIGINT exits at once with code 130."""
    times: list[float] = []

    def quit_live(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if controls.quitting and number == signal.SIGINT and (not times or now - times[0] > _SAME_SIGNAL_SECONDS):
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), _SHOW_CURSOR)  # which the status line hides
            os._exit(130)
        times.append(now)
        controls.quit()

    signal.signal(signal.SIGINT, quit_live)
    signal.signal(signal.SIGTERM, quit_live)
    # Python removes its handlers at exit. An interrupt at that time, when all files are complete, must not look like a failure.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def exit_process(code: int) -> None:
    """Exit with a code, without waiting for threads that are blocked by a disk or a socket."""
    from rtseg.live.loop import has_running_threads

    if has_running_threads():
        sys.stderr.flush()
        os._exit(code)
    if code:
        raise typer.Exit(code)
