"""Frames that are missing between others, by their times: all that tells of a part of an HLS playlist that broke off."""

from __future__ import annotations

import statistics
from collections import deque

_STEPS = 9
_LEAST_STEPS = 3
"""So many distances tell what is usual, where they are alike."""

_ALIKE = 1.2
_LONGER = 1.5
_OTHER_PACE = 5
"""So many long distances in a row are another frame rate, not holes."""


class MissingFrames:
    """Counts what is missing where frames follow each other at one pace; of pictures without one nothing can be told."""

    def __init__(self) -> None:
        self.places = 0
        """Where frames are missing."""
        self.frames = 0
        """How many, by the time that is empty."""
        self._last: int | None = None
        self._steps: deque[int] = deque(maxlen=_STEPS)
        self._long: list[int] = []

    def put(self, stamp: int) -> None:
        """Take the time of the next frame, in any unit."""
        last, self._last = self._last, stamp
        if last is None:
            return
        step, steps = stamp - last, self._steps
        smoothing = len(steps) >= _LEAST_STEPS and max(steps) <= _ALIKE * min(steps)
        usual = statistics.median(steps) if smoothing else 0.0
        if usual and step > _LONGER * usual:
            self._long.append(step)
            if len(self._long) >= _OTHER_PACE:
                self._long.clear()
                steps.clear()
            return
        if self._long and usual:
            self.places += 1
            self.frames += sum(round(step / usual) - 1 for step in self._long)
        self._long.clear()
        steps.append(step)
