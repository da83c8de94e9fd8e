"""Upsampling of class scores and argmax with OpenCV, one class at a time.

OpenVINO interleaves the classes for its bilinear upsampling and has to deinterleave them for its argmax: 2.5 to 3 ms for eleven
classes at 480x288 on one core of an AMD EPYC. One class at a time, in blocks that stay in the cache, takes 0.8 ms, and computes
in FP32 where OpenVINO uses BF16. `benchmarks/argmax.py` measures both.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


class ScoresToClasses:
    """Upsampling and argmax for scores of one size. Reuses its working memory: for one thread at a time."""

    def __init__(self, upsampled_size: tuple[int, int], size: tuple[int, int]) -> None:
        """Allocate the working memory.

        Args:
            upsampled_size: (width, height) of the upsampled scores; bilinear, pixel centers.
            size: (width, height) of the class map: the upper left part of the upsampled scores.
        """
        self._upsampled_size = upsampled_size
        self._width, self._height = size
        self._best = np.empty(upsampled_size[::-1], dtype=np.float32)
        self._candidate = np.empty_like(self._best)
        self._mask = np.empty(upsampled_size[::-1], dtype=np.uint8)

    def __call__(self, scores: npt.NDArray[np.float32], classes: npt.NDArray[np.uint8]) -> None:
        """Write the class map of `scores` into `classes`.

        Args:
            scores: float32 `[classes, h, w]`, at most 256 classes.
            classes: output, uint8 `[height, width]`: the index of the largest score; the lowest index on ties.
        """
        best, candidate, mask = self._best, self._candidate, self._mask
        cv2.resize(scores[0], self._upsampled_size, best, interpolation=cv2.INTER_LINEAR)
        classes[:] = 0
        for index in range(1, len(scores)):
            cv2.resize(scores[index], self._upsampled_size, candidate, interpolation=cv2.INTER_LINEAR)
            cv2.compare(candidate, best, cv2.CMP_GT, mask)
            np.maximum(best, candidate, out=best)
            np.bitwise_and(
                mask, index, out=mask
            )  # 255 where the candidate is larger -> its index, which exceeds all earlier ones
            np.maximum(classes, mask[: self._height, : self._width], out=classes)
