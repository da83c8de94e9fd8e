"""Samples in memory: every picture and label map of a split as two tensors, ready for augmentation by whole batches."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import cv2
import numpy as np
import torch
from torch import Tensor

from rtseg.core.errors import DataError
from rtseg.core.palette import NO_CLASS
from rtseg.models.evaluation.datasets import DataSet, Pair, raise_problems, read_image_and_label
from rtseg.models.evaluation.label_report import LabelCounts
from rtseg.models.training.augment import augment
from rtseg.nn.unet import HEAD_STRIDE, STRIDE
from rtseg.synthetic import SyntheticDrive

GRAY = 112
"""What surrounds a picture that does not fill its sample: nearly the network's zero."""

SCALE = (0.65, 2.1)
"""The smallest and largest enlargement of a picture in a full-size crop."""

DEFAULT_AREA = 480 * 360
"""Pixels of a model's input where no size is asked for: the size that live video on a CPU can afford."""


@dataclass(frozen=True)
class Samples:
    """Pictures and labels of one size."""

    images: Tensor
    """uint8 `[n, H, W, 3]`, RGB."""

    labels: Tensor
    """uint8 `[n, H, W]`, class indices, `NO_CLASS` for Void."""

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> Samples:
        """The same samples on a device."""
        return Samples(self.images.to(device), self.labels.to(device))


def default_size(pair: Pair) -> tuple[int, int]:
    """A picture's own (width, height), scaled down to `DEFAULT_AREA` if it is larger, in steps of 8 pixels."""
    data = np.fromfile(pair.image, np.uint8)  # OpenCV itself crashes on names that are not UTF-8
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise DataError(f"{pair.image}: is not a picture, or is damaged")
    height, width = picture.shape[:2]
    scale = min(1.0, sqrt(DEFAULT_AREA / (width * height)))
    return max(32, round(width * scale / 8) * 8), max(32, round(height * scale / 8) * 8)


def load(dataset: DataSet, split: str, size: tuple[int, int], counts: LabelCounts | None = None) -> Samples:
    """Reads a split and fits its pictures into one size, aspect kept, the rest gray and Void.

    All of it lies in memory afterwards, width * height * 4 bytes a picture: 0.25 GB for CamVid, 2 GB for Cityscapes at 480x360.

    Args:
        dataset: what `layouts.open_dataset` found.
        split: its name.
        size: (width, height), pixels.
        counts: the labels are counted here, at their own size.

    Raises:
        DataError: anything is wrong with any file; the message counts all that is and names the first few.
    """
    width, height = size
    pairs = dataset.pairs(split)
    images = torch.full((len(pairs), height, width, 3), GRAY, dtype=torch.uint8)
    labels = torch.full((len(pairs), height, width), NO_CLASS, dtype=torch.uint8)
    problems = list(dataset.missing.get(split, []))
    for i, pair in enumerate(pairs):
        try:
            rgb, label = read_image_and_label(pair, dataset.table)
            if counts is not None:
                counts.add(label, pair.label)
        except DataError as error:
            problems.append(str(error))
            continue
        classes = label.classes
        scale = min(width / rgb.shape[1], height / rgb.shape[0])
        w, h = min(width, max(1, round(rgb.shape[1] * scale))), min(height, max(1, round(rgb.shape[0] * scale)))
        if (h, w) != classes.shape:
            rgb = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            classes = cv2.resize(classes, (w, h), interpolation=cv2.INTER_NEAREST_EXACT)
        images[i, :h, :w] = torch.from_numpy(rgb)
        labels[i, :h, :w] = torch.from_numpy(classes)
    raise_problems(dataset, problems)
    return Samples(images, labels)


def synthetic_samples(count: int, size: tuple[int, int], seed: int = 1000, per_drive: int = 8) -> Samples:
    """Frames of synthetic drives, with CamVid's classes; every other drive is 16:9, squashed, for its view and finer detail.

    Args:
        count: how many frames.
        size: (width, height), pixels.
        seed: of the first drive; each drive is another street.
        per_drive: frames taken from one drive, evenly spread over ten seconds.
    """
    width, height = size
    images = torch.empty((count, height, width, 3), dtype=torch.uint8)
    labels = torch.empty((count, height, width), dtype=torch.uint8)
    for i in range(count):
        number, position = divmod(i, per_drive)
        if position == 0:
            drawn = size if number % 2 else (height * 16 // 9 // 2 * 2, height)
            drive = SyntheticDrive(drawn[0], drawn[1], frames=300, seed=seed + number)
        rgb, classes = drive.frame(position * 300 // per_drive)
        images[i] = torch.from_numpy(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
        labels[i] = torch.from_numpy(cv2.resize(classes, size, interpolation=cv2.INTER_NEAREST_EXACT))
    return Samples(images, labels)


def make_batch(
    samples: Samples,
    extra: Samples | None,
    share: float,
    step: int,
    batch: int,
    crop: tuple[int, int],
    full_crop: tuple[int, int],
    seed: int,
) -> tuple[Tensor, Tensor]:
    """The augmented batch of a step: a function of the step's number and the seed alone.

    Every sample comes once an epoch, in random order; each gives way to a synthetic one with probability `share`.
    """
    steps_an_epoch = max(1, len(samples) // batch)
    epoch, position = divmod(step, steps_an_epoch)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed + epoch))
    index = order[position * batch : (position + 1) * batch].to(samples.images.device)
    images, labels = samples.images[index], samples.labels[index]  # copies
    generator = torch.Generator().manual_seed(seed + 1_000_003 * (step + 1))
    if extra is not None:
        swapped = torch.rand(len(index), generator=generator) < share
        chosen = torch.randint(len(extra), (len(index),), generator=generator)[swapped].to(index.device)
        images[swapped.to(index.device)] = extra.images[chosen]
        labels[swapped.to(index.device)] = extra.labels[chosen]
    smaller = (crop[0] / full_crop[0]) ** 0.5  # a smaller crop sees a little more of the picture than its size
    return augment(images, labels, crop, HEAD_STRIDE, generator, (SCALE[0] * smaller, SCALE[1] * smaller))


def crop_at(done: float, crop: tuple[int, int]) -> tuple[int, int]:
    """Small crops first, the full one for the last fifth of the run: more steps in the same time."""
    share = 0.6 if done < 0.5 else 0.8 if done < 0.8 else 1.0
    height, width = (max(STRIDE, int(side * share + STRIDE / 2) // STRIDE * STRIDE) for side in crop)
    return height, width
