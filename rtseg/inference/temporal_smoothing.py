"""Temporal smoothing of class maps: an exponential moving average of the class scores, reset at cuts and gaps."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import OptionError
from rtseg.core.frame import Frame
from rtseg.core.report import TemporalSmoothingReport
from rtseg.inference import Scores

MAX_MOMENTUM = 0.9
"""Largest share of the previous scores: a frame's own contribution halves within seven frames."""

CUT_LEVELS = 20.0
"""Smallest `change` between consecutive frames that counts as a cut. In the measured street videos the largest without a cut is 8
(11 with every second frame left out), the smallest between two videos 29: `benchmarks/cuts.py`."""

GAP_SECONDS = 1.0
"""Longest time between frames over which scores are kept."""

_THUMBNAIL_SIZE = (32, 18)


class TemporalSmoothing:
    """Smoothing state of one stream, a camera or a file. Its frames must be passed in order."""

    def __init__(self, momentum: float) -> None:
        """Start without scores.

        Args:
            momentum: share of the class scores that is kept from the previous frames, 0 to `MAX_MOMENTUM`.

        Raises:
            OptionError: `momentum` is out of range.
        """
        if not 0.0 <= momentum <= MAX_MOMENTUM:
            raise OptionError(f"--smooth is {momentum:g}; give 0 (off) to {MAX_MOMENTUM:g}")
        self.momentum = momentum
        self.cuts = 0
        """Number of resets: cuts, gaps and size changes."""
        self._scores: npt.NDArray[np.float32] | None = None
        """Moving average up to the last frame; None after a reset."""
        self._thumbnail: npt.NDArray[np.uint8] | None = None
        self._size: tuple[int, int] | None = None
        self._pts_seconds = 0.0

    def report(self) -> TemporalSmoothingReport:
        """Return the momentum and the number of cuts, for the report of a run."""
        return TemporalSmoothingReport(momentum=self.momentum, cuts=self.cuts)

    def smooth(self, frame: Frame, image: npt.NDArray[np.uint8], scores: Scores) -> npt.NDArray[np.float32]:
        """Return the moving average of the class scores: momentum * previous average + (1 - momentum) * scores.

        The average of logits is the geometric mean of the class probabilities. It starts again at a cut, a gap, or a size change.

        Args:
            frame: the next frame, for its size and time stamp.
            image: the network's input without letterbox bars, uint8 `[h, w, 3]`.
            scores: the frame's scores, float16 or float32 `[classes, h, w]`.

        Returns:
            float32 `[classes, h, w]`; changed in place by the next call.
        """
        if self._is_cut(frame, image):
            self.cuts += 1
            self._scores = None
        if self._scores is None or self._scores.shape != scores.shape:
            self._scores = scores.astype(np.float32)
        else:
            average, new = (a.reshape(len(scores), -1) for a in (self._scores, scores.astype(np.float32, copy=False)))
            cv2.accumulateWeighted(new, average, 1.0 - self.momentum)
        return self._scores

    def _is_cut(self, frame: Frame, image: npt.NDArray[np.uint8]) -> bool:
        """Return True if the frame does not continue the frame of the previous call."""
        thumbnail, size = shrink(image), (frame.width, frame.height)
        previous, self._thumbnail = self._thumbnail, thumbnail
        elapsed, self._pts_seconds = frame.pts_seconds - self._pts_seconds, frame.pts_seconds
        same_size, self._size = size == self._size, size
        return previous is not None and (
            not same_size or not 0.0 <= elapsed <= GAP_SECONDS or change(thumbnail, previous) > CUT_LEVELS
        )


def shrink(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Shrink an image so far that motion changes it little: uint8 `[h, w, 3]` to uint8 `[18, 32, 3]`."""
    return np.asarray(cv2.resize(image, _THUMBNAIL_SIZE, interpolation=cv2.INTER_AREA))


def change(thumbnail: npt.NDArray[np.uint8], previous: npt.NDArray[np.uint8]) -> float:
    """Return the mean absolute difference of two shrunk images, 0 to 255."""
    return float(cv2.absdiff(thumbnail, previous).mean())
