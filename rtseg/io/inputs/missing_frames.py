"""Number of frames that are missing between others, estimated from their times.

This is the only sign of a part of an HLS playlist that broke off.
"""

from __future__ import annotations

import statistics
from collections import deque

_STEPS = 9
_MIN_STEPS = 3
"""Number of similar steps that define the usual step."""

_SIMILAR = 1.2
_LONGER = 1.5
_NEW_RATE_STEPS = 5
"""This number of long steps in a row is a new frame rate, not missing frames."""


class MissingFrames:
    """Counter of missing frames in a stream with a constant frame rate. Variable rates are not counted."""

    def __init__(self) -> None:
        self.places = 0
        """Number of places where frames are missing."""
        self.frames = 0
        """Number of missing frames, by the length of the gaps."""
        self._last: int | None = None
        self._steps: deque[int] = deque(maxlen=_STEPS)
        self._long: list[int] = []

    def put(self, stamp: int) -> None:
        """Take the time of the next frame, in any unit."""
        last, self._last = self._last, stamp
        if last is None:
            return
        step, steps = stamp - last, self._steps
        is_constant = len(steps) >= _MIN_STEPS and max(steps) <= _SIMILAR * min(steps)
        usual = statistics.median(steps) if is_constant else 0.0
        if usual and step > _LONGER * usual:
            self._long.append(step)
            if len(self._long) >= _NEW_RATE_STEPS:
                self._long.clear()
                steps.clear()
            return
        if self._long and usual:
            self.places += 1
            self.frames += sum(round(step / usual) - 1 for step in self._long)
        self._long.clear()
        steps.append(step)
