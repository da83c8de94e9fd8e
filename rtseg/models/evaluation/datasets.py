"""Data sets of images and labels: the pairs of files, and reading them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import DataError
from rtseg.models.evaluation.labels import Label, LabelTable, read_label

_MOST_PROBLEMS = 8
"""Maximum number of problems that a message lists."""


@dataclass(frozen=True)
class Pair:
    """Image file and its label file."""

    image: Path
    label: Path


@dataclass(frozen=True)
class DataSet:
    """Data set in a folder: its splits, classes and label values."""

    layout: str
    """Name of the layout, a key of `layouts.LAYOUTS`."""

    root: Path
    """Folder of the data set."""

    classes: tuple[str, ...]
    """Class names in index order, lower case, without Void."""

    table: LabelTable
    """Class of each label value and color."""

    splits: dict[str, list[Pair]]
    """Pairs of `train`, `val` and `test`, if present, sorted by name."""

    missing: dict[str, list[str]] = field(default_factory=dict)
    """Messages about files without a partner, by split."""

    def pairs(self, split: str) -> list[Pair]:
        """Return the pairs of a split.

        Raises:
            DataError: there is no such split.
        """
        if not self.splits.get(split):
            present = ", ".join(f"{name} ({len(pairs)})" for name, pairs in self.splits.items() if pairs) or "none"
            missing = self.missing.get(split, [])
            reason = f"; {summarize_problems(missing)}" if missing else ""
            raise DataError(f"{self.root} ({self.layout}) has no split '{split}'; there are: {present}{reason}")
        return self.splits[split]


def read_pair(pair: Pair, table: LabelTable) -> tuple[npt.NDArray[np.uint8], Label]:
    """Read an image, uint8 `[H, W, 3]` RGB, and its labels.

    Raises:
        DataError: a file can't be read, the sizes differ, or a label value belongs to no class. The message names the file.
    """
    bgr = read_image(pair.image)
    label = read_label(pair.label, table)
    height, width = label.classes.shape
    if (height, width) != bgr.shape[:2]:
        raise DataError(
            f"{pair.label}: is {width}x{height}, but its image {pair.image.name} is {bgr.shape[1]}x{bgr.shape[0]}"
        )
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), label


def raise_problems(dataset: DataSet, problems: Sequence[str]) -> None:
    """Raise DataError if there are any problems."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DataError(f"{dataset.root} ({dataset.layout}) has {count}: {summarize_problems(problems)}")


def summarize_problems(problems: Sequence[str]) -> str:
    """Join the first problems, of the form `FILE: PROBLEM`, into one line. Files with the same problem are listed together."""
    more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
    files: dict[str, list[str]] = {}  # names of files by problem
    for problem in problems[:_MOST_PROBLEMS]:
        file, _, text = problem.partition(": ")
        files.setdefault(text, []).append(file)
    same = {text: f" (the same: {', '.join(names[1:])})" if names[1:] else "" for text, names in files.items()}
    return "; ".join(f"{names[0]}: {text}{same[text]}" for text, names in files.items()) + more


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image file, uint8 `[H, W, 3]`, BGR.

    Raises:
        DataError: the file can't be read.
    """
    # From bytes: imread does not distinguish missing files, folders and damaged images, and can't open some names on Windows.
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except (OSError, cv2.error) as error:
        raise DataError(f"{path}: can't be read ({error})") from error
    if image is None:
        raise DataError(f"{path}: is not an image, or is damaged")
    return np.asarray(image)
