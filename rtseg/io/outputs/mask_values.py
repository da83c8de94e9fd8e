"""Pixel values of class masks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.frame import ClassMap, ProcessedFrame
from rtseg.core.letterbox import resize_classes
from rtseg.core.palette import NO_CLASS


def filter_table(only: Sequence[int] | None) -> npt.NDArray[np.uint8] | None:
    """Return a lookup table, uint8 `[256]`, that maps all classes except `only` to 255; None if all are kept."""
    if only is None:
        return None
    table = np.full(256, NO_CLASS, dtype=np.uint8)
    table[list(only)] = list(only)
    return table


def class_mask(item: ProcessedFrame, table: npt.NDArray[np.uint8] | None) -> ClassMap:
    """Return the mask of a frame at the size of the frame."""
    classes = item.classes if table is None else cv2.LUT(item.classes, table)
    return resize_classes(classes, item.frame.width, item.frame.height)
