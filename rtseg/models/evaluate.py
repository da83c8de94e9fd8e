"""Evaluation of anything that turns a picture into a class map: on a labelled data set, and how it flickers on video.

Needs neither torch nor a backend: what is evaluated comes as a function, so every backend is measured by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.errors import DataError
from rtseg.models import metrics
from rtseg.models.layouts import DataSet, Pair, raise_problems, read_pair

Picture = npt.NDArray[np.uint8]
"""uint8 `[H, W, 3]`, RGB."""

ClassMap = npt.NDArray[np.uint8]
"""uint8 `[H, W]`, class indices."""

Predict = Callable[[Picture], ClassMap]
"""A picture's class map, at the picture's size."""

STILL_LEVELS = 4
"""A pixel is still where none of its blurred channels changes by more than this, of 255."""


@dataclass(frozen=True)
class Evaluation:
    """What a model got right and wrong on one split."""

    split: str
    classes: tuple[str, ...]
    """The data set's classes."""

    confusion: metrics.Confusion
    """Pixels by true class (row) and predicted class (column), over all pictures; last column: no class of the data set."""

    accuracies: tuple[tuple[Pair, float], ...]
    """Pixel accuracy of each picture."""

    @property
    def pixel_accuracy(self) -> float:
        """Share of the pixels with a true class, Void left out, that were given it."""
        return metrics.pixel_accuracy(self.confusion)

    @property
    def miou(self) -> float:
        """Mean of the classes' intersection over union, over all pictures taken together."""
        return metrics.miou(self.confusion)

    @property
    def iou(self) -> dict[str, float]:
        """Intersection over union of each class that occurs, 0 to 1."""
        values = metrics.iou(self.confusion)
        return {name: float(value) for name, value in zip(self.classes, values, strict=True) if np.isfinite(value)}

    def worst(self, count: int) -> list[Pair]:
        """The pictures with the lowest pixel accuracy, the worst first."""
        return [pair for pair, _ in sorted(self.accuracies, key=lambda item: item[1])[:count]]

    def to_json(self) -> dict[str, Any]:
        """For `--json`: `pixel_accuracy`, `miou`, `iou` by class, and the confusion matrix."""
        return {
            "split": self.split,
            "images": len(self.accuracies),
            "pixel_accuracy": round(self.pixel_accuracy, 5),
            "miou": round(self.miou, 5),
            "iou": {name: round(value, 5) for name, value in self.iou.items()},
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
        }


def evaluate(
    predict: Predict,
    dataset: DataSet,
    split: str = "val",
    *,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Compares a model with a data set's labels, at the labels' resolution.

    Args:
        predict: the model.
        dataset: what `layouts.open_dataset` found.
        split: the split to evaluate on.
        classes: the model's class names; they are matched with the data set's by name. None: they are the data set's.
        limit: only so many pictures, evenly spread; None for all.
        progress: called with how many pictures are done, and of how many.

    Raises:
        DataError: anything is wrong with any file (all that is, in one message), or the classes have no name in common.
    """
    pairs = dataset.pairs(split)
    if limit is not None and limit < len(pairs):
        pairs = [pairs[i * len(pairs) // limit] for i in range(limit)]
    index = class_table(classes or dataset.classes, dataset.classes)
    count = len(dataset.classes)
    total = np.zeros((count, count + 1), np.int64)
    accuracies: list[tuple[Pair, float]] = []
    problems = list(dataset.missing.get(split, []))
    for done, pair in enumerate(pairs, 1):
        try:
            rgb, truth = read_pair(pair, dataset.table)
        except DataError as error:
            problems.append(str(error))
            continue
        if not problems:
            predicted = predict(rgb)
            if predicted.shape != truth.shape:
                raise DataError(
                    f"{pair.image}: the model's class map is {predicted.shape[::-1]}, the labels are {truth.shape[::-1]}"
                )
            counts = metrics.confusion(truth, index[predicted], count)
            total += counts
            accuracies.append((pair, metrics.pixel_accuracy(counts) if counts.any() else 1.0))
        if progress is not None:
            progress(done, len(pairs))
    raise_problems(dataset, problems)
    return Evaluation(split, dataset.classes, total, tuple(accuracies))


def class_table(model: Sequence[str], dataset: Sequence[str]) -> npt.NDArray[np.uint8]:
    """uint8 `[256]`: the model's class index to the data set's of the same name; what has none becomes `len(dataset)`.

    Raises:
        DataError: no name is in both.
    """
    names = [name.lower() for name in dataset]
    table = np.full(256, len(names), np.uint8)
    for index, name in enumerate(model):
        if name.lower() in names:
            table[index] = names.index(name.lower())
    if (table == len(names)).all():
        raise DataError(
            f"the model's classes ({', '.join(model)}) and the data set's ({', '.join(dataset)}) have no name in common"
        )
    return table


@dataclass(frozen=True)
class Flicker:
    """How restless class maps are where the picture is not."""

    share: float
    """Share of the still pixels whose class changes from one frame to the next, 0 to 1."""

    still: float
    """Share of all pixels that were still."""

    frames: int


def flicker(frames: Iterable[tuple[Picture, ClassMap]]) -> Flicker:
    """Measures flicker over consecutive frames of one video.

    A pixel is still between two frames where the picture, averaged over 5x5 pixels against noise, changes by at most
    `STILL_LEVELS` in every channel. Flicker is the share of these pixels whose class changes. Moving edges are left out that
    way; a class that changes on an evenly coloured surface in motion (road, sky) is counted.

    Args:
        frames: pictures with their class maps, in order.

    Raises:
        DataError: fewer than two frames.
    """
    changed = still = pixels = count = 0
    before: tuple[npt.NDArray[np.uint8], ClassMap] | None = None
    for picture, classes in frames:
        blurred = np.asarray(cv2.blur(picture, (5, 5)))
        if before is not None:
            same = (cv2.absdiff(blurred, before[0]) <= STILL_LEVELS).all(axis=2)
            changed += int(np.count_nonzero((classes != before[1]) & same))
            still += int(np.count_nonzero(same))
            pixels += same.size
        before = blurred, classes.copy()
        count += 1
    if count < 2:
        raise DataError(f"flicker needs two frames at least, there was {count}")
    return Flicker(changed / max(1, still), still / pixels, count)
