"""What a confusion matrix says: pixel accuracy without Void, and intersection over union."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rtseg.palette import NO_CLASS

Confusion = npt.NDArray[np.int64]
"""int64 `[classes, classes + 1]`: pixels by true class (row) and predicted class; the last column is no class at all."""


def confusion(truth: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8], classes: int) -> Confusion:
    """Counts the pixels of one picture whose true class is known.

    Args:
        truth: uint8 `[H, W]`, class indices, `NO_CLASS` for Void, which is not counted.
        predicted: uint8 `[H, W]`; values from `classes` on count as no class.
        classes: number of classes.
    """
    seen = truth != NO_CLASS
    cell = truth[seen].astype(np.int64) * (classes + 1) + np.minimum(predicted[seen], classes)
    return np.bincount(cell, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def pixel_accuracy(counts: Confusion) -> float:
    """Share of the pixels with a true class that have it predicted; 0 where there are none."""
    return float(np.trace(counts) / max(1, counts.sum()))


def iou(counts: Confusion) -> npt.NDArray[np.float64]:
    """Intersection over union of each class, float64 `[classes]`; NaN for classes that are in no truth.

    Where such a class is predicted, that is an error of the class whose pixels these are.
    """
    classes = len(counts)
    hit = np.diagonal(counts).astype(np.float64)
    union = counts.sum(axis=1) + counts[:, :classes].sum(axis=0) - hit
    result = np.full(classes, np.nan)
    np.divide(hit, union, out=result, where=counts.sum(axis=1) > 0)
    return result


def miou(counts: Confusion) -> float:
    """Mean of `iou` over the classes that occur in the truth; 0 where none does."""
    values = iou(counts)
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
