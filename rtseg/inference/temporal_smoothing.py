"""Steadier class maps: what a stream's frames before said, kept in part, and forgotten where it no longer holds."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import OptionError
from rtseg.core.frame import Frame

LARGEST_SMOOTH = 0.9
"""Of ten parts nine from before: what a frame says is half gone after seven."""

CUT_LEVELS = 20.0
"""A larger `change` from one frame to the next is a cut. Of the street videos at hand the largest without a cut is 8 (11 where
every second frame is left out), the smallest between two drives 29: `benchmarks/cuts.py`."""

GAP_SECONDS = 1.0
"""What was said longer ago than this no longer holds."""

_SMALL = (32, 18)


class TemporalSmoothing:
    """What is kept of one stream, a camera or a file, from frame to frame. Its frames must come one after the other."""

    def __init__(self, smooth: float) -> None:
        """Keeps nothing yet.

        Args:
            smooth: share of the class scores that comes from the frames before, 0 to `LARGEST_SMOOTH`.

        Raises:
            OptionError: it is not within these.
        """
        if not 0.0 <= smooth <= LARGEST_SMOOTH:
            raise OptionError(f"--smooth is {smooth:g}; give 0 (off) to {LARGEST_SMOOTH:g}")
        self.smooth = smooth
        self.cuts = 0
        """Times that the scene was another one, or that there were no frames for a while."""
        self.scores: npt.NDArray[np.floating[Any]] | None = None
        """Class scores as of the last frame; None: there is nothing to keep."""
        self._small: npt.NDArray[np.uint8] | None = None
        self._place: tuple[int, int] | None = None
        self._seconds = 0.0

    def look(self, frame: Frame, picture: npt.NDArray[np.uint8]) -> float:
        """The share to keep for the next frame; forgets what was before at a cut, a gap, and another size.

        Args:
            frame: for its size and time.
            picture: the frame as the network is given it, without bars, uint8 `[h, w, 3]`.
        """
        small = shrink(picture)
        place = frame.width, frame.height
        before, self._small = self._small, small
        passed, self._seconds = frame.pts_seconds - self._seconds, frame.pts_seconds
        same, self._place = place == self._place, place
        if before is not None and (not same or not 0.0 <= passed <= GAP_SECONDS or change(small, before) > CUT_LEVELS):
            self.cuts += 1
            self.scores = None
        return 0.0 if self.scores is None else self.smooth


def shrink(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A picture so small that motion changes it little: uint8 `[h, w, 3]` to uint8 `[18, 32, 3]`."""
    return np.asarray(cv2.resize(picture, _SMALL, interpolation=cv2.INTER_AREA))


def change(small: npt.NDArray[np.uint8], before: npt.NDArray[np.uint8]) -> float:
    """How much a shrunk picture differs from the one before: the mean over its samples, 0 to 255."""
    return float(cv2.absdiff(small, before).mean())
