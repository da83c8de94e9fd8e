"""Segmentation metrics: confusion matrix, pixel accuracy and intersection over union."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Confusion = npt.NDArray[np.int64]
"""int64 `[classes, classes + 1]`: number of pixels by true class (row) and predicted class (column). The last column counts
predictions of no class."""


def confusion(truth: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8], classes: int) -> Confusion:
    """Return the confusion matrix of one image.

    Args:
        truth: uint8 `[H, W]`, class indices; pixels with a value of `classes` or more (Void is 255) are not counted.
        predicted: uint8 `[H, W]`, class indices; values of `classes` or more count as no class.
        classes: number of classes.

    Raises:
        ValueError: the shapes differ.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth is {truth.shape}, prediction {predicted.shape}; compare at the same size")
    counted = truth < classes
    cell = truth[counted].astype(np.int64) * (classes + 1) + np.minimum(predicted[counted], classes)
    return np.bincount(cell, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def pixel_accuracy(matrix: Confusion) -> float:
    """Return the share of the counted pixels with a correct prediction, 0 to 1; 0 for an empty matrix."""
    return float(np.trace(matrix) / max(1, matrix.sum()))


def per_class_iou(matrix: Confusion, *, predicted_too: bool = False) -> npt.NDArray[np.float64]:
    """Return the intersection over union of each class, float64 `[classes]`.

    A class without pixels in the ground truth has NaN: its false predictions count against the true classes. With
    `predicted_too`, it has 0 if it is predicted.
    """
    hits = np.diagonal(matrix).astype(np.float64)
    in_truth, predicted = matrix.sum(axis=1), matrix[:, : len(matrix)].sum(axis=0)
    counted = in_truth + predicted if predicted_too else in_truth
    iou: npt.NDArray[np.float64] = np.full(len(hits), np.nan)
    np.divide(hits, in_truth + predicted - hits, out=iou, where=counted > 0)
    return iou


def mean_iou(matrix: Confusion) -> float:
    """Return the mean of `per_class_iou` over the classes that occur in the ground truth; 0 if none does."""
    iou = per_class_iou(matrix)
    return float(np.nanmean(iou)) if np.isfinite(iou).any() else 0.0
