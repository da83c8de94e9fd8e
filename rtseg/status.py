"""What a live run says as it goes: one line that is rewritten on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time

from rtseg.errors import printable

PLAIN_SECONDS = 10.0
"""How often the numbers are printed where there is no terminal."""


class Status:
    """Lines for people, on stderr. May be called from any thread."""

    def __init__(self, *, quiet: bool = False) -> None:
        """With `quiet` only `say` is heard."""
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._printed = 0.0
        self._showing = False

    def say(self, line: str) -> None:
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
                self.say(line)
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
