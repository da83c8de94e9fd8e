"""Comparison of the class maps of a built file with those of the model it was built from.

Agreement is counted for each pixel and each class, because a mean of 99.9 % can hide the loss of a class of thin poles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import DataError, ModelError
from rtseg.core.files import IMAGE_SUFFIXES
from rtseg.core.frame import ClassMap, Frame, rgb_frame
from rtseg.core.letterbox import Letterbox, resize_classes
from rtseg.core.metrics import confusion, per_class_iou, pixel_accuracy
from rtseg.core.palette import NO_CLASS
from rtseg.io.inputs import open_source
from rtseg.models.evaluation.datasets import read_image, read_pair
from rtseg.models.evaluation.layouts import describe_layouts, detect_layout, open_dataset
from rtseg.synthetic import MIN_SIDE, SyntheticDrive

RgbImage = npt.NDArray[np.uint8]
ClassMapFunction = Callable[[RgbImage], ClassMap]
"""Function from an image, uint8 `[H, W, 3]` of the network's input size, to its class map, uint8 `[H, W]`."""

SAMPLES = 16
"""Default number of compared frames."""

LOST_OVERLAP = 0.8
"""A class is lost if the IoU of its areas in both class maps is below this value …"""

LOST_SHARE = 0.001
"""… and its share of the original's pixels is at least this value."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of the original and the built file on the same frames."""

    frames: int
    """Number of frames."""

    pixels: float
    """Share of pixels with the same class, 0 to 1."""

    overlap: dict[str, float]
    """Intersection over union of both class maps, for each class that occurs in either."""

    share: dict[str, float]
    """Share of each class in the original's pixels."""

    iou_change: dict[str, float]
    """IoU of the built file with the true labels minus that of the original, for each class; empty without true labels."""

    def lost(self) -> tuple[str, ...]:
        """Return the classes that the built file no longer detects like the original."""
        return tuple(
            name
            for name, value in self.overlap.items()
            if value < LOST_OVERLAP and self.share.get(name, 0) >= LOST_SHARE
        )

    @property
    def constant(self) -> str | None:
        """The only class in the original's class maps of all frames; None if there are several."""
        present = [name for name, share in self.share.items() if share > 0]
        return present[0] if len(present) == 1 else None

    @property
    def miou_change(self) -> float | None:
        """Mean of `iou_change`; None without true labels."""
        return float(np.mean(list(self.iou_change.values()))) if self.iou_change else None

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for the sidecar."""
        return {
            "frames": self.frames,
            "pixels": round(self.pixels, 6),
            "constant": self.constant,
            "overlap": {name: round(value, 4) for name, value in self.overlap.items()},
            "iou_change": {name: round(value, 4) for name, value in self.iou_change.items()},
        }

    def lines(self) -> list[str]:
        """Return human-readable lines, one for each class."""
        lines = []
        for name, value in self.overlap.items():
            change = f", IoU against the true labels {self.iou_change[name]:+.4f}" if name in self.iou_change else ""
            lines.append(f"  {name:<14} {self.share.get(name, 0):6.2%} of the pixels, overlap {value:.4f}{change}")
        if self.miou_change is not None:
            lines.append(f"  mean IoU against the true labels {self.miou_change:+.4f}")
        return lines


def compare(
    original: ClassMapFunction,
    built: ClassMapFunction,
    samples: Iterable[tuple[RgbImage, ClassMap | None]],
    classes: Sequence[str],
) -> Agreement:
    """Compare the class maps of two models on the same frames.

    Args:
        original: the user's model.
        built: the file built from it.
        samples: images of the network's input size, each with true labels, uint8 `[H, W]`, or None.
        classes: class names in index order.

    Raises:
        ModelError: there are no samples, or a class map contains an index without a class.
    """
    count = len(classes)
    agreement, original_truth, built_truth = (np.zeros((count, count + 1), np.int64) for _ in range(3))
    frames = 0
    for image, labels in samples:
        frames += 1
        original_map, built_map = original(image), built(image)
        highest = int(max(original_map.max(), built_map.max()))
        if highest == 255:  # there are 255 classes at most, 0 to 254
            raise ModelError(
                "the model outputs 255 (no class) for some pixels, and rtseg needs a class for each pixel; export it without "
                "the step that does so"
            )
        if highest >= count:
            raise ModelError(
                f"the model outputs class {highest}, but has names of only {count} classes; give all their names with --classes"
            )
        agreement += confusion(original_map, built_map, count)
        if labels is not None:
            original_truth += confusion(labels, original_map, count)
            built_truth += confusion(labels, built_map, count)
    if not frames:
        raise ModelError("there are no frames to verify the build on; give images or a video to --verify-on")
    overlap, share = per_class_iou(agreement, predicted_too=True), agreement.sum(axis=1) / agreement.sum()
    change = per_class_iou(built_truth, predicted_too=True) - per_class_iou(original_truth, predicted_too=True)

    def by_name(values: npt.NDArray[np.float64]) -> dict[str, float]:
        return {name: float(v) for name, v in zip(classes, values, strict=True) if not np.isnan(v)}

    return Agreement(frames, pixel_accuracy(agreement), by_name(overlap), by_name(share), by_name(change))


def samples(
    size: tuple[int, int], classes: Sequence[str], source: Path | None = None, count: int = SAMPLES, split: str = "val"
) -> Iterator[tuple[RgbImage, ClassMap | None]]:
    """Yield frames for the comparison, each with its true labels or None.

    Args:
        size: (width, height) of the network's input.
        classes: the model's class names; true labels are yielded only if the source has the same class names.
        source: a data set, a folder of images or a video; None: synthetic scenes, with colored noise as every fourth frame.
        count: maximum number of frames, evenly spaced.
        split: split of a data set; its first split if it has none of this name. In a video, the frames of `train` are between
            those of other splits.

    Raises:
        DataError: a data set or an image can't be read.
        SourceError: a video can't be read.
    """
    if source is None:
        yield from _synthetic(size, classes, count)
    elif source.is_dir():
        yield from _images(size, classes, source, count, split)
    else:
        yield from _video(size, source, count, split)


def _synthetic(size: tuple[int, int], classes: Sequence[str], count: int) -> Iterator[tuple[RgbImage, ClassMap | None]]:
    rng = np.random.default_rng(5)
    width, height = size
    scenes = [SyntheticDrive(*size, frames=300, seed=seed) for seed in (1, 2)] if min(size) >= MIN_SIDE else []
    known = tuple(classes) == tuple(SyntheticDrive.classes)
    for number in range(count):
        if number % 4 == 3 or not scenes:
            yield _colored_noise(rng, width, height), None
        else:
            image, labels = scenes[number % 2].frame(number * 300 // count)
            yield image, labels if known else None


def _colored_noise(rng: np.random.Generator, width: int, height: int) -> RgbImage:
    """Return large and small patches of all colors, so that a network that depends only on color outputs all its classes."""
    image: npt.NDArray[Any] = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((3, 0.6), (12, 0.4)):
        patches = rng.integers(0, 256, (cells, cells, 3)).astype(np.float32)
        image += weight * cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip((image - 127.5) * 1.6 + 127.5, 0, 255), np.uint8)


def _images(
    size: tuple[int, int], classes: Sequence[str], folder: Path, count: int, split: str
) -> Iterator[tuple[RgbImage, ClassMap | None]]:
    """Yield the images of a folder, or those of a data set's split, with labels if its classes are those of the model."""
    plain_images = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]
    if plain_images:
        for path in _evenly_spaced(plain_images, count):
            yield _letterboxed(rgb_frame(cv2.cvtColor(read_image(path), cv2.COLOR_BGR2RGB)), size)[0], None
        return
    if detect_layout(folder) is None:
        raise DataError(
            f"{folder} contains neither images ({', '.join(sorted(IMAGE_SUFFIXES))}) nor a known data set ({describe_layouts()})"
        )
    data = open_dataset(folder)
    split = split if split in data.splits else next(iter(data.splits))
    known = tuple(data.classes) == tuple(classes)
    for pair in _evenly_spaced(data.splits[split], count):
        rgb, label = read_pair(pair, data.table)
        image, box = _letterboxed(rgb_frame(rgb), size)
        yield image, _letterboxed_labels(label.classes, box) if known else None


def _video(size: tuple[int, int], path: Path, count: int, split: str) -> Iterator[tuple[RgbImage, ClassMap | None]]:
    with closing(open_source(path)) as source:
        interval = max(1, (source.info.frame_count or count) // count)
        first = interval // 2 if split == "train" else 0
        taken = 0
        for item in source:
            if isinstance(item, Frame) and item.index % interval == first:
                yield _letterboxed(item, size)[0], None
                taken += 1
            if taken == count:
                return


def _evenly_spaced(items: Sequence[Any], count: int) -> list[Any]:
    return [items[i * len(items) // min(count, len(items))] for i in range(min(count, len(items)))]


def _letterboxed(frame: Frame, size: tuple[int, int]) -> tuple[RgbImage, Letterbox]:
    box = Letterbox((frame.width, frame.height), size)
    return box.network_input(frame), box


def _letterboxed_labels(labels: ClassMap, box: Letterbox) -> ClassMap:
    left, top, width, height = box.inner
    letterboxed = np.full((box.input_size[1], box.input_size[0]), NO_CLASS, np.uint8)
    letterboxed[top : top + height, left : left + width] = resize_classes(labels, width, height)
    return letterboxed
