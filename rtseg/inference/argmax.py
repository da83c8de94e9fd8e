"""From class scores on the network's coarser grid to the class map: enlarged and compared by OpenCV, one class after the other.

OpenVINO interleaves the classes for its bilinear enlargement, and has to sort them apart again before it can compare them:
2.5 to 3 ms for eleven classes at 480x288 on a core of an AMD EPYC. Class by class, in blocks that stay in the cache, it is
0.8 ms, and in FP32 where OpenVINO's would be in BF16. `benchmarks/argmax.py` measures both.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


class ScoresToClasses:
    """Enlarges and compares scores of one size. Keeps its working memory: one thread at a time."""

    def __init__(self, enlarged: tuple[int, int], size: tuple[int, int]) -> None:
        """Sets the sizes.

        Args:
            enlarged: (width, height) that the scores are enlarged to, bilinearly by pixel centers.
            size: (width, height) of the class map: the upper left part of that.
        """
        self._enlarged = enlarged
        self._width, self._height = size
        self._best = np.empty(enlarged[::-1], dtype=np.float32)
        self._next = np.empty_like(self._best)
        self._wins = np.empty(enlarged[::-1], dtype=np.uint8)

    def __call__(self, scores: npt.NDArray[np.float32], classes: npt.NDArray[np.uint8]) -> None:
        """Fills a class map.

        Args:
            scores: float32 `[classes, h, w]`, at most 256 classes.
            classes: uint8 `[height, width]`, filled with the index of the largest; of equal ones with the first.
        """
        best, challenger, wins = self._best, self._next, self._wins
        cv2.resize(scores[0], self._enlarged, best, interpolation=cv2.INTER_LINEAR)
        classes[:] = 0
        for index in range(1, len(scores)):
            cv2.resize(scores[index], self._enlarged, challenger, interpolation=cv2.INTER_LINEAR)
            cv2.compare(challenger, best, cv2.CMP_GT, wins)
            np.maximum(best, challenger, out=best)
            np.bitwise_and(wins, index, out=wins)  # 255 where it wins: now its index, larger than all before
            np.maximum(classes, wins[: self._height, : self._width], out=classes)
