"""Waiting until a file's frames are due."""

from __future__ import annotations

import threading
import time
from fractions import Fraction

LARGEST_DELAY_SECONDS = 1.0
"""A file that can't be read and decoded as fast as it plays goes on from where it is, once it is later than this."""


class Pacer:
    """Holds frames back until they are due, the first one not at all."""

    def __init__(self, closing: threading.Event) -> None:
        """Start with the first frame; `closing` ends the waiting."""
        self.late = 0
        """How many times it went on later, because frames came more slowly than they play."""
        self._closing = closing
        self._begin: float | None = None

    def wait(self, seconds: Fraction) -> int | None:
        """Wait until a frame is due.

        Args:
            seconds: when it is shown, by the file's time.

        Returns:
            When it was due, by `time.monotonic_ns()`; None: closed.
        """
        now = time.monotonic()
        if self._begin is None:
            self._begin = now - float(seconds)
        due = self._begin + float(seconds)
        if now - due > LARGEST_DELAY_SECONDS:
            self._begin, due = self._begin + now - due, now
            self.late += 1
        return None if self._closing.wait(max(0.0, due - now)) else round(due * 1e9)
