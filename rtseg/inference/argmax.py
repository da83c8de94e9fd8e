"""Conversion of class scores to class maps, for all backends: upsampling and argmax with OpenCV, one class at a time.

OpenVINO interleaves the classes for its bilinear upsampling and has to deinterleave them for its argmax: 2.5 to 3 ms for eleven
classes at 480x288 on one core of an AMD EPYC. One class at a time, in blocks that stay in the cache, takes 0.8 ms, and computes
in FP32 where OpenVINO uses BF16. `benchmarks/argmax.py` measures both.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.buffer_pool import BufferPool
from rtseg.core.frame import ClassMap
from rtseg.inference import Backend, Scores


class ScoresToClasses:
    """Upsampling and argmax. Thread-safe."""

    def __init__(self, head_stride: int) -> None:
        """Set how scores are upsampled; see `ModelInfo.head_stride`."""
        self._head_stride = head_stride
        self._memory = BufferPool()

    def __call__(self, scores: Scores, size: tuple[int, int]) -> ClassMap:
        """Return the class map of an image, uint8 `[height, width]`: the index of the largest score, the lowest index on ties.

        Args:
            scores: float16 or float32 `[classes, h, w]`, at most 256 classes.
            size: (width, height) of the image.
        """
        rows, columns = scores.shape[1:]
        upsampled = (columns * self._head_stride, rows * self._head_stride) if self._head_stride else size
        planes = scores.astype(np.float32, copy=False)  # OpenCV does not resize float16
        width, height = upsampled
        best, candidate = (self._memory.empty(height, 4 * width).view(np.float32) for _ in range(2))
        mask = self._memory.empty(height, width)
        cv2.resize(planes[0], upsampled, best, interpolation=cv2.INTER_LINEAR)
        classes = np.zeros(size[::-1], dtype=np.uint8)
        for index in range(1, len(planes)):
            cv2.resize(planes[index], upsampled, candidate, interpolation=cv2.INTER_LINEAR)
            cv2.compare(candidate, best, cv2.CMP_GT, mask)
            np.maximum(best, candidate, out=best)
            # 255 where the candidate is larger -> its index, which exceeds all earlier ones
            np.bitwise_and(mask, index, out=mask)
            np.maximum(classes, mask[: size[1], : size[0]], out=classes)
        return classes


def class_maps(backend: Backend, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the class maps, uint8 `[N, H, W]`, of images of a backend's input size, uint8 `[N, H, W, 3]` RGB.

    There is no letterbox and no temporal smoothing.
    """
    output, to_classes = backend.infer(images), ScoresToClasses(backend.description.head_stride)
    if backend.description.output == "classes":
        return output
    return np.stack([to_classes(scores, (images.shape[2], images.shape[1])) for scores in output])
