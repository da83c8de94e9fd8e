"""Report on the labels of a data set: a table, errors and warnings, before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import DataError
from rtseg.core.palette import NO_CLASS, Rgb
from rtseg.models.evaluation.class_list import compare_class_lists, format_rgb
from rtseg.models.evaluation.datasets import DataSet
from rtseg.models.evaluation.labels import Label

ASSUMED_VOID = 0.05
"""Share of 255 above which a class that never occurs is an error, because 255 is likely that class."""

ASSUMED_VOID_ONE_CLASS = 0.01
"""Limit instead of `ASSUMED_VOID` if at most one class occurs."""

LARGE_VOID = 0.5
"""Share of Void above which there is a warning."""

MAX_INTERPOLATED = 0.08
"""Share of the borders between two classes with a value between theirs, above which there is a warning. Labels that were
resized with interpolation, rendered with smooth borders or saved as JPEG have 0.13 to 0.43; CamVid has 0.003, and 0.02 when
reduced to a fifth without interpolation."""

BORDER_IMAGES = 24
"""Number of images whose borders are checked. A check takes about as long as reading the image."""


@dataclass
class LabelCounts:
    """Pixel counts of the labels of one split."""

    classes: int
    images: int = 0
    pixels: npt.NDArray[np.int64] = field(init=False)
    """Number of pixels of each class, int64 `[classes]`."""

    void: int = 0
    assumed_void: int = 0
    """Number of Void pixels of value 255, if neither layout nor class list defines 255 as Void."""

    read_as: set[str] = field(default_factory=set)
    borders: int = 0
    interpolated: int = 0
    """Number of borders with a value between those of their two classes."""

    palette: dict[int, tuple[Rgb, Path]] = field(default_factory=dict)
    """Color of each palette index, and the first file that uses it."""

    def __post_init__(self) -> None:
        self.pixels = np.zeros(self.classes, np.int64)

    def add(self, label: Label, path: Path) -> None:
        """Count one label file.

        Raises:
            DataError: a palette index has another color than in an earlier file.
        """
        for index, color in label.palette.items():
            first, file = self.palette.setdefault(index, (color, path))
            if first != color:
                raise DataError(
                    f"{path}: palette index {index} is {format_rgb(color)}, in {file.name} it is {format_rgb(first)}; give the "
                    "color of each class in the class list ('road 128 64 128'), or save the indices as gray PNG"
                )
        counts = np.bincount(label.classes.ravel(), minlength=256)
        self.images += 1
        self.pixels += counts[: self.classes]
        self.void += int(counts[NO_CLASS])
        self.assumed_void += label.assumed_void
        self.read_as.add(label.read_as)
        if self.images <= BORDER_IMAGES and label.read_as != "colors":
            self._count_borders(label.classes)
            self._count_borders(label.classes.T)

    def _count_borders(self, classes: npt.NDArray[np.uint8]) -> None:
        before, middle, after = classes[:, :-2], classes[:, 1:-1], classes[:, 2:]
        border = (before != after) & (before != NO_CLASS) & (after != NO_CLASS)
        between = (np.minimum(before, after) < middle) & (middle < np.maximum(before, after))
        self.borders += int(np.count_nonzero(border))
        self.interpolated += int(np.count_nonzero(between & border))

    @property
    def total(self) -> int:
        """Number of pixels, Void included."""
        return int(self.pixels.sum()) + self.void

    @property
    def void_share(self) -> float:
        """Share of all pixels that are Void, 0 to 1."""
        return self.void / max(1, self.total)

    def absent(self, names: Sequence[str]) -> list[str]:
        """Return the names of the classes that occur in no label."""
        return [name for name, pixels in zip(names, self.pixels, strict=True) if not pixels]


def check_counts(dataset: DataSet, counts: Mapping[str, LabelCounts], training: bool) -> list[str]:
    """Return warnings about the labels of each split.

    Args:
        dataset: the data set.
        counts: pixel counts of its labels, by split.
        training: True if `train` is used for training, not only for evaluation.

    Raises:
        DataError: 255 is likely a class; for training also: `train` has fewer than two classes.
    """
    source = dataset.table.source
    colors = compare_class_lists(dataset.root / source) if source else None
    warnings = [colors] if colors else []
    for split, count in counts.items():
        is_training = training and split == "train"
        absent = count.absent(dataset.classes)
        occurring = [name for name in dataset.classes if name not in absent]
        assumed = count.assumed_void / max(1, count.total)
        one_class = len(occurring) < 2
        likely = assumed >= (ASSUMED_VOID_ONE_CLASS if one_class else ASSUMED_VOID)
        hint = is_training and one_class and assumed > 0  # an error in any case, and 255 may be the reason
        if hint or (likely and (one_class or (absent and is_training))):
            raise DataError(f"{dataset.root}: {_ask_if_255_is_a_class(dataset, split, occurring, absent, assumed)}")
        if is_training and one_class:
            only = f"only '{occurring[0]}' occurs" if occurring else "all is Void"
            raise DataError(f"{dataset.root}: in the labels of train {only}; at least two classes are needed")
        if absent:
            effect = "they can't be learned" if is_training else "they don't count in the mean IoU"
            doubt = f"; {percent(assumed)} of the pixels are 255, which is Void: is it a class?" if assumed else ""
            warnings.append(f"{split}: no label has {_quoted(absent)}; {effect}{doubt}")
        if count.void_share > LARGE_VOID:
            warnings.append(f"{split}: {percent(count.void_share)} of the pixels are Void and not counted")
        if count.interpolated > MAX_INTERPOLATED * count.borders and count.borders >= 100:
            warnings.append(
                f"{split}: {count.interpolated / count.borders:.0%} of the borders between two classes have a third class's value "
                "between them: the labels were resized with interpolation or saved with loss; resize them with nearest neighbor"
            )
    return warnings


def _ask_if_255_is_a_class(
    dataset: DataSet, split: str, occurring: list[str], absent: list[str], assumed: float
) -> str:
    present = f"only {_quoted(occurring)}" if occurring else "no class"
    occurs = f"{present} occurs" if len(occurring) < 2 else f"no label has {_quoted(absent)}"
    text = f"in the labels of {split} {occurs}, and {percent(assumed)} of the pixels are 255, which is Void"
    source = dataset.table.source
    if not source:
        return f"{text}; is 255 a class? Save labels as class indices 0, 1, 2 …"
    guess = absent[0] if absent else "NAME"
    return (
        f"{text}; if 255 is a class, give each line of {source} its label value ('255 {guess}'), or save labels as 0, 1, 2 …; "
        "if it is Void, add the line '255 void'"
    )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def percent(share: float) -> str:
    """Format a share in percent. Only a share of exactly 0 is formatted as 0.0%."""
    return f"{share:.1%}" if share >= 0.0005 or not share else "<0.1%"


def label_table(dataset: DataSet, counts: Mapping[str, LabelCounts]) -> str:
    """Return a table of the images, and the share of each class and of Void in the pixels, of each split."""
    read_as = " and ".join(sorted(set().union(*(count.read_as for count in counts.values()))))
    width = max(10, *(len(name) for name in dataset.classes)) + 2
    rows = [("images", [str(count.images) for count in counts.values()])]
    for index, name in enumerate(dataset.classes):
        shares = [int(count.pixels[index]) / max(1, count.total) for count in counts.values()]
        rows.append((name, [percent(share) if share else "none" for share in shares]))
    rows.append(("Void", [percent(count.void_share) for count in counts.values()]))
    lines = [f"labels, read as {read_as}:", "  " + " " * width + "".join(f"{split:>9}" for split in counts)]
    lines += [f"  {name:<{width}}" + "".join(f"{cell:>9}" for cell in cells) for name, cells in rows]
    return "\n".join(lines)
