"""Whether a built file says the same as the model it was built from.

Agreement is counted pixel by pixel and class by class: a mean of 99.9 % hides a class of thin poles that is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import ModelError
from rtseg.core.files import IMAGE_SUFFIXES
from rtseg.core.frame import ClassMap, Frame
from rtseg.core.letterbox import Letterbox, resize_classes
from rtseg.core.metrics import confusion, per_class_iou, pixel_accuracy
from rtseg.core.palette import NO_CLASS

Picture = npt.NDArray[np.uint8]
Run = Callable[[Picture], ClassMap]
"""Class map, uint8 `[H, W]`, of a picture, uint8 `[H, W, 3]`, of the network's size."""

SAMPLES = 16
"""Frames that are compared."""

LOST_OVERLAP = 0.8
"""A class counts as lost if what the built file sees of it overlaps less than this (IoU) with what the original sees …"""

LOST_SHARE = 0.001
"""… and the original gives it at least this share of the pixels."""


@dataclass(frozen=True)
class Agreement:
    """The original and the built file on the same frames."""

    frames: int
    """How many."""

    pixels: float
    """Share of pixels with the same class, 0 to 1."""

    overlap: dict[str, float]
    """By class that either sees: intersection over union of the two."""

    share: dict[str, float]
    """By class: its share of the original's pixels."""

    iou_change: dict[str, float]
    """By class: IoU of the built file with the true labels, minus the original's; empty where no true labels are known."""

    def lost(self) -> tuple[str, ...]:
        """Classes that the built file no longer sees as the original does."""
        return tuple(
            name
            for name, value in self.overlap.items()
            if value < LOST_OVERLAP and self.share.get(name, 0) >= LOST_SHARE
        )

    @property
    def constant(self) -> str | None:
        """The class that the original gives to every pixel of every frame; None: it gives more than one."""
        seen = [name for name, share in self.share.items() if share > 0]
        return seen[0] if len(seen) == 1 else None

    @property
    def miou_change(self) -> float | None:
        """Mean of `iou_change`; None where no true labels are known."""
        return float(np.mean(list(self.iou_change.values()))) if self.iou_change else None

    def to_dict(self) -> dict[str, Any]:
        """For the sidecar."""
        return {
            "frames": self.frames,
            "pixels": round(self.pixels, 6),
            "constant": self.constant,
            "overlap": {name: round(value, 4) for name, value in self.overlap.items()},
            "iou_change": {name: round(value, 4) for name, value in self.iou_change.items()},
        }

    def lines(self) -> list[str]:
        """For people: each class."""
        lines = []
        for name, value in self.overlap.items():
            change = f", IoU against the true labels {self.iou_change[name]:+.4f}" if name in self.iou_change else ""
            lines.append(f"  {name:<14} {self.share.get(name, 0):6.2%} of the picture, overlap {value:.4f}{change}")
        if self.miou_change is not None:
            lines.append(f"  mean IoU against the true labels {self.miou_change:+.4f}")
        return lines


def compare(
    original: Run, built: Run, samples: Iterable[tuple[Picture, ClassMap | None]], classes: Sequence[str]
) -> Agreement:
    """Runs both on the same frames.

    Args:
        original: the model as it came.
        built: what was made of it.
        samples: pictures of the network's size, with true labels, uint8 `[H, W]`, where they are known.
        classes: class names in index order.

    Raises:
        ModelError: there are no samples, or a class index is no class.
    """
    count = len(classes)
    both, first, second = (np.zeros((count, count + 1), np.int64) for _ in range(3))
    frames = 0
    for picture, labels in samples:
        frames += 1
        was, now = original(picture), built(picture)
        highest = int(max(was.max(), now.max()))
        if highest == 255:  # there are 255 classes at most, 0 to 254
            raise ModelError(
                "the model gives 255, which is no class, on some pixels, and rtseg gives each pixel a class; export it without "
                "the step that does so"
            )
        if highest >= count:
            raise ModelError(
                f"the model gives class {highest}, but names only {count} classes; give all their names with --classes"
            )
        both += confusion(was, now, count)
        if labels is not None:
            first += confusion(labels, was, count)
            second += confusion(labels, now, count)
    if not frames:
        raise ModelError("there are no frames to verify the build on; give pictures or a video to --verify-on")
    overlap, share = per_class_iou(both, predicted_too=True), both.sum(axis=1) / both.sum()
    change = per_class_iou(second, predicted_too=True) - per_class_iou(first, predicted_too=True)

    def named(values: npt.NDArray[np.float64]) -> dict[str, float]:
        return {name: float(v) for name, v in zip(classes, values, strict=True) if not np.isnan(v)}

    return Agreement(frames, pixel_accuracy(both), named(overlap), named(share), named(change))


def samples(
    size: tuple[int, int],
    classes: Sequence[str],
    source: Path | None = None,
    count: int = SAMPLES,
    split: str = "val",
) -> Iterator[tuple[Picture, ClassMap | None]]:
    """Frames to compare on.

    Args:
        size: (width, height) of the network's input.
        classes: the model's class names; true labels are given where they are those of the source.
        source: a data set, a folder of pictures or a video; None: synthetic drives, and colored noise as every fourth frame.
        count: how many frames at most, spread evenly.
        split: of a data set; its first where it has no such one. Frames of a video lie between those of another split.

    Raises:
        DataError, SourceError: the source can't be read.
    """
    if source is None:
        yield from _synthetic(size, classes, count)
    elif source.is_dir():
        yield from _pictures(size, classes, source, count, split)
    else:
        yield from _video(size, source, count, split)


def _synthetic(size: tuple[int, int], classes: Sequence[str], count: int) -> Iterator[tuple[Picture, ClassMap | None]]:
    from rtseg.synthetic import MIN_SIDE, SyntheticDrive

    rng = np.random.default_rng(5)
    width, height = size
    if min(size) < MIN_SIDE:
        for _ in range(count):
            yield _colored_noise(rng, width, height), None
        return
    drives = [SyntheticDrive(*size, frames=300, seed=seed) for seed in (1, 2)]
    known = tuple(classes) == tuple(SyntheticDrive.classes)
    for number in range(count):
        if number % 4 == 3:
            yield _colored_noise(rng, width, height), None
        else:
            picture, labels = drives[number % 2].frame(number * 300 // count)
            yield picture, labels if known else None


def _colored_noise(rng: np.random.Generator, width: int, height: int) -> Picture:
    """Large and small patches of all colors, so that a network that looks at color alone gives all its classes."""
    import cv2

    picture: npt.NDArray[Any] = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((3, 0.6), (12, 0.4)):
        patches = rng.integers(0, 256, (cells, cells, 3)).astype(np.float32)
        picture += weight * cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip((picture - 127.5) * 1.6 + 127.5, 0, 255), np.uint8)


def _pictures(
    size: tuple[int, int], classes: Sequence[str], folder: Path, count: int, split: str
) -> Iterator[tuple[Picture, ClassMap | None]]:
    """A data set's split, with labels where its classes are the model's; or else a folder's pictures."""
    import cv2

    from rtseg.core.errors import DataError
    from rtseg.core.frame import rgb_frame
    from rtseg.models.evaluation.datasets import layout_of, marks, open_dataset, read_pair

    plain = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]
    if plain:
        for path in _spread(plain, count):
            encoded = np.fromfile(path, np.uint8)  # OpenCV itself crashes on names that are not UTF-8
            bgr = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
            if bgr is None:
                raise DataError(f"{path} can't be read as a picture")
            yield _fitted(rgb_frame(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)), size)[0], None
        return
    if layout_of(folder) is None:
        raise DataError(
            f"{folder} holds neither pictures ({', '.join(sorted(IMAGE_SUFFIXES))}) nor a data set that is known ({marks()})"
        )
    data = open_dataset(folder)
    split = split if split in data.splits else next(iter(data.splits))
    known = tuple(data.classes) == tuple(classes)
    for pair in _spread(data.splits[split], count):
        rgb, labels = read_pair(pair, data.table)
        picture, box = _fitted(rgb_frame(rgb), size)
        yield picture, _fitted_labels(labels, box) if known else None


def _video(size: tuple[int, int], path: Path, count: int, split: str) -> Iterator[tuple[Picture, ClassMap | None]]:
    from rtseg.io.inputs import open_source

    source = open_source(path)
    try:
        every = max(1, (source.info.frame_count or count) // count)
        first = every // 2 if split == "train" else 0
        taken = 0
        for item in source:
            if isinstance(item, Frame) and item.index % every == first:
                yield _fitted(item, size)[0], None
                taken += 1
            if taken == count:
                return
    finally:
        source.close()


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    return [items[i * len(items) // min(count, len(items))] for i in range(min(count, len(items)))]


def _fitted(frame: Frame, size: tuple[int, int]) -> tuple[Picture, Letterbox]:
    box = Letterbox((frame.width, frame.height), size)
    return box.network_input(frame), box


def _fitted_labels(labels: ClassMap, box: Letterbox) -> ClassMap:
    left, top, width, height = box.inner
    fitted = np.full((box.input_size[1], box.input_size[0]), NO_CLASS, np.uint8)
    fitted[top : top + height, left : left + width] = resize_classes(labels, width, height)
    return fitted
