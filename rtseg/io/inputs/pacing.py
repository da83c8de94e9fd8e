"""Real-time pacing for the frames of a file."""

from __future__ import annotations

import threading
import time
from fractions import Fraction

LARGEST_DELAY_SECONDS = 1.0
"""If a file is read and decoded so slowly that it is later than this, the timeline is shifted to the current frame."""


class Pacer:
    """Timer that delays each frame after the first until it is due."""

    def __init__(self, closing: threading.Event) -> None:
        """Create a pacer that starts at the first frame. The event `closing` ends the waiting."""
        self.shift_count = 0
        """Number of shifts of the timeline because frames arrived more slowly than they play."""
        self._closing = closing
        self._begin: float | None = None

    def wait(self, seconds: Fraction) -> int | None:
        """Wait until a frame is due.

        Args:
            seconds: presentation time of the frame in the file.

        Returns:
            Time at which it was due, by `time.monotonic_ns()`; None: closed.
        """
        now = time.monotonic()
        if self._begin is None:
            self._begin = now - float(seconds)
        due = self._begin + float(seconds)
        if now - due > LARGEST_DELAY_SECONDS:
            self._begin, due = self._begin + now - due, now
            self.shift_count += 1
        return None if self._closing.wait(max(0.0, due - now)) else round(due * 1e9)
