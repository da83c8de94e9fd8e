"""Evaluation of a model on a labeled data set, and of its flicker on video.

Needs neither torch nor a backend: the model is a function, so all backends are measured by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core import metrics
from rtseg.core.errors import DataError
from rtseg.core.frame import ClassMap
from rtseg.core.palette import NO_CLASS
from rtseg.core.progress import Progress, track
from rtseg.core.report import Report
from rtseg.models.evaluation.class_names import ClassMatch, match_classes
from rtseg.models.evaluation.datasets import DataSet, Pair, raise_problems, read_pair
from rtseg.models.evaluation.label_report import LabelCounts, check_counts

Image = npt.NDArray[np.uint8]
"""uint8 `[H, W, 3]`, RGB."""

Predict = Callable[[Image], ClassMap]
"""Function from an image to its class map, at the size of the image."""

STILL_LEVELS = 4
"""Maximum change, of 255, of each blurred channel of a pixel that counts as still."""


@dataclass(frozen=True)
class Evaluation(Report):
    """Result of a model on one split."""

    split: str
    classes: tuple[str, ...]
    """The data set's classes."""

    confusion: metrics.Confusion
    """Pixels by true class (row) and predicted class (column), over all images; last column: no class of the data set."""

    accuracies: tuple[tuple[Pair, float], ...]
    """Pixel accuracy of each image."""

    match: ClassMatch
    """Pairs of classes of the model and the data set. Pixels of classes without a counterpart are not scored."""

    labels: LabelCounts
    """Pixel counts of the labels, including pixels that are not scored."""

    warnings: tuple[str, ...]
    """Warnings about the labels."""

    @property
    def pixel_accuracy(self) -> float:
        """Share of correctly classified pixels, without Void and `not_scored`."""
        return metrics.pixel_accuracy(self.confusion)

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that the model has and that occur in the labels, over all images together."""
        return metrics.mean_iou(self.confusion)

    @property
    def miou_all_classes(self) -> float:
        """Mean IoU with classes that the model does not have counted as 0."""
        unknown = sum(name not in self.labels.absent(self.classes) for name in self.match.data_only)
        return sum(self.iou.values()) / max(1, len(self.iou) + unknown)

    @property
    def not_scored(self) -> dict[str, str]:
        """Classes of the data set that are not scored, with the reason."""
        unknown = dict.fromkeys(self.match.data_only, "the model has no such class")
        return unknown | dict.fromkeys(self.labels.absent(self.classes), "occurs in no label")

    @property
    def not_scored_share(self) -> float:
        """Share of the pixels with a true class that are not scored, 0 to 1."""
        known = int(self.labels.pixels.sum())
        return (known - int(self.confusion.sum())) / max(1, known)

    @property
    def iou(self) -> dict[str, float]:
        """Intersection over union of each class that the model has and that occurs in the labels, 0 to 1."""
        values = metrics.per_class_iou(self.confusion)
        return {name: float(value) for name, value in zip(self.classes, values, strict=True) if np.isfinite(value)}

    def worst(self, count: int) -> list[Pair]:
        """Return the images with the lowest pixel accuracy, the lowest first."""
        return [pair for pair, _ in sorted(self.accuracies, key=lambda item: item[1])[:count]]

    def to_dict(self) -> dict[str, Any]:
        """Return the report of `--json`: `pixel_accuracy`, `miou`, `iou` by class, the confusion matrix, classes not scored."""
        return {
            "split": self.split,
            "images": len(self.accuracies),
            "pixel_accuracy": round(self.pixel_accuracy, 5),
            "miou": round(self.miou, 5),
            "miou_all_classes": round(self.miou_all_classes, 5),
            "iou": {name: round(value, 5) for name, value in self.iou.items()},
            "void_share": round(self.labels.void_share, 5),
            "not_scored": self.not_scored,
            "not_scored_share": round(self.not_scored_share, 5),
            "class_matches": [{"model": mine, "data": theirs, "how": kind} for mine, theirs, kind in self.match.pairs],
            "model_only": list(self.match.model_only),
            "ambiguous": list(self.match.ambiguous),
            "warnings": list(self.warnings),
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
    progress: Progress | None = None,
) -> Evaluation:
    """Compare a model with the labels of a data set, at the resolution of the labels.

    Args:
        predict: the model.
        dataset: the data set.
        split: the split to evaluate on.
        classes: the model's class names; `class_names.match_classes` matches them. None: they are the data set's.
        limit: maximum number of images, evenly spread; None for all.
        progress: receives the progress, after each image.

    Raises:
        DataError: there is a problem with a file (one message for all), no class has a counterpart, or 255 is likely a class
            and not Void.
    """
    pairs = dataset.pairs(split)
    if limit is not None and limit < len(pairs):
        pairs = [pairs[i * len(pairs) // limit] for i in range(limit)]
    match = match_classes(classes or dataset.classes, dataset.classes)
    index = class_table(classes or dataset.classes, dataset.classes)
    count = len(dataset.classes)
    scored = np.full(256, NO_CLASS, np.uint8)
    for _, name, _ in match.pairs:
        scored[dataset.classes.index(name)] = dataset.classes.index(name)
    total = np.zeros((count, count + 1), np.int64)
    labels = LabelCounts(count)
    accuracies: list[tuple[Pair, float]] = []
    problems = list(dataset.missing.get(split, []))
    with track(progress, "evaluating", len(pairs)) as advance:
        for pair in pairs:
            try:
                rgb, label = read_pair(pair, dataset.table)
                labels.add(label, pair.label)
            except DataError as error:
                problems.append(str(error))
                continue
            if not problems:
                predicted = predict(rgb)
                if predicted.shape != label.classes.shape:
                    raise DataError(
                        f"{pair.image}: the model's class map is {predicted.shape[::-1]}, "
                        f"the labels are {label.classes.shape[::-1]}"
                    )
                counts = metrics.confusion(scored[label.classes], index[predicted], count)
                total += counts
                accuracies.append((pair, metrics.pixel_accuracy(counts) if counts.any() else 1.0))
            advance()
    raise_problems(dataset, problems)
    warnings = check_counts(dataset, {split: labels}, training=False)
    return Evaluation(split, dataset.classes, total, tuple(accuracies), match, labels, tuple(warnings))


def class_table(model: Sequence[str], dataset: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return a table from the model's class index to the matching one of the data set, uint8 `[256]`.

    Classes without a counterpart map to `len(dataset)`.

    Raises:
        DataError: no class has a counterpart.
    """
    match = match_classes(model, dataset)
    if not match.pairs:
        hint = f" ({'; '.join(match.ambiguous)})" if match.ambiguous else ""
        raise DataError(
            f"the model's classes ({', '.join(model)}) and the data set's ({', '.join(dataset)}) have no name in common{hint}"
        )
    table = np.full(256, len(dataset), np.uint8)
    for mine, theirs, _ in match.pairs:
        table[list(model).index(mine)] = list(dataset).index(theirs)
    return table


@dataclass(frozen=True)
class Flicker(Report):
    """Flicker of class maps in still parts of a video."""

    flicker: float
    """Share of the still pixels whose class changes from one frame to the next, 0 to 1."""

    still: float
    """Share of all pixels that were still."""

    frames: int


def flicker(frames: Iterable[tuple[Image, ClassMap]]) -> Flicker:
    """Measure flicker over consecutive frames of one video.

    A pixel is still between two frames if the frame, averaged over 5x5 pixels against noise, changes by at most `STILL_LEVELS`
    in every channel. Flicker is the share of still pixels whose class changes. Moving edges are therefore left out; class
    changes on an evenly colored surface in motion (road, sky) are counted.

    Args:
        frames: frames with their class maps, in order.

    Raises:
        DataError: fewer than two frames.
    """
    changed = still = pixels = count = 0
    previous: tuple[npt.NDArray[np.uint8], ClassMap] | None = None
    for frame, classes in frames:
        blurred = np.asarray(cv2.blur(frame, (5, 5)))
        if previous is not None:
            is_still = (cv2.absdiff(blurred, previous[0]) <= STILL_LEVELS).all(axis=2)
            changed += int(np.count_nonzero((classes != previous[1]) & is_still))
            still += int(np.count_nonzero(is_still))
            pixels += is_still.size
        previous = blurred, classes.copy()
        count += 1
    if count < 2:
        raise DataError(f"flicker needs at least two frames, there was {count}")
    return Flicker(changed / max(1, still), still / pixels, count)
