"""How good a segmentation is: the confusion matrix and what follows from it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rtseg.frame import ClassMap

Confusion = npt.NDArray[np.int64]
"""Pixels by true class (row) and predicted class (column), `[classes, classes]`."""


def confusion(truth: ClassMap, predicted: ClassMap, classes: int) -> Confusion:
    """Counts the pixels of one picture. Pixels whose true label is no class (Void, 255) are left out.

    Args:
        truth: uint8 `[H, W]`; labels from `classes` up belong to no class.
        predicted: uint8 `[H, W]`, class indices below `classes`.
        classes: how many there are.

    Raises:
        ValueError: the shapes differ, or a predicted index is no class.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth is {truth.shape}, prediction {predicted.shape}; compare at the same size")
    counted = truth < classes
    seen = predicted[counted]
    if seen.size and int(seen.max()) >= classes:
        raise ValueError(f"the prediction holds class {int(seen.max())}, but there are {classes} classes")
    pairs = truth[counted].astype(np.int64) * classes + seen
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def pixel_accuracy(matrix: Confusion) -> float:
    """Share of labelled pixels that have the right class, 0 to 1; nan without any."""
    total = int(matrix.sum())
    return float(np.trace(matrix)) / total if total else float("nan")


def per_class_iou(matrix: Confusion) -> npt.NDArray[np.float64]:
    """Intersection over union by class, float64 `[classes]`; nan for a class that neither occurs nor was predicted."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix)
    iou: npt.NDArray[np.float64] = np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)
    return iou


def mean_iou(matrix: Confusion) -> float:
    """Mean of `per_class_iou` over the classes that occur in the truth or the prediction."""
    return float(np.nanmean(per_class_iou(matrix)))
