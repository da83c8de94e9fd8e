"""Real-time pacing for the frames of a file."""

from __future__ import annotations

import threading
import time
from fractions import Fraction

LARGEST_DELAY_SECONDS = 1.0
"""Largest delay from slow reading or decoding. At a larger one, the timeline is shifted to the current frame."""


class Pacer:
    """Timer that delays each frame until it is due."""

    def __init__(self, closing: threading.Event, largest_delay_seconds: float = LARGEST_DELAY_SECONDS) -> None:
        """Create a pacer that starts at the first frame. The event `closing` ends a wait."""
        self.shift_count = 0
        """Number of shifts of the timeline, which follow from frames later than `largest_delay_seconds`."""
        self._closing, self._largest_delay = closing, largest_delay_seconds
        self._begin: float | None = None

    def wait(self, seconds: Fraction) -> int | None:
        """Block until a frame is due.

        Args:
            seconds: presentation time of the frame in the file.

        Returns:
            Time at which the frame is due, as `time.monotonic_ns()` measures it; None: `closing` is set.
        """
        now = time.monotonic()
        if self._begin is None:
            self._begin = now - float(seconds)
        due = self._begin + float(seconds)
        if now - due > self._largest_delay:
            self._begin, due = self._begin + now - due, now
            self.shift_count += 1
        return None if self._closing.wait(max(0.0, due - now)) else round(due * 1e9)
