"""Samples in memory: all images and labels of a split as two tensors, ready for augmentation in batches."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import cv2
import torch
from torch import Tensor

from rtseg.core.errors import DataError
from rtseg.core.palette import NO_CLASS
from rtseg.models.evaluation.datasets import DataSet, raise_problems, read_image, read_pair
from rtseg.models.evaluation.label_report import LabelCounts
from rtseg.models.training.augment import augment
from rtseg.models.training.options import TrainOptions
from rtseg.nn.unet import HEAD_STRIDE, STRIDE
from rtseg.synthetic import SyntheticDrive

_FRAMES_PER_SCENE = 8
"""Number of frames of one synthetic scene, evenly spread over ten seconds."""

GRAY = 112
"""Gray level of the padding of an image that does not fill its sample; 0 after normalization."""

SCALE = (0.65, 2.1)
"""Minimum and maximum zoom of an image in a full-size crop."""

DEFAULT_AREA = 480 * 360
"""Maximum number of pixels of the default input size, which is fast enough for live video on a CPU."""


@dataclass(frozen=True)
class Samples:
    """Images and labels of one size."""

    images: Tensor
    """uint8 `[n, H, W, 3]`, RGB."""

    labels: Tensor
    """uint8 `[n, H, W]`, class indices, `NO_CLASS` for Void."""

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> Samples:
        """Return the samples on a device."""
        return Samples(self.images.to(device), self.labels.to(device))


def default_size(image: Path) -> tuple[int, int]:
    """Return the (width, height) of an image, reduced to `DEFAULT_AREA` if it is larger, in steps of 8 pixels.

    Raises:
        DataError: the file is not an image.
    """
    height, width = read_image(image).shape[:2]
    scale = min(1.0, sqrt(DEFAULT_AREA / (width * height)))
    return max(32, round(width * scale / 8) * 8), max(32, round(height * scale / 8) * 8)


def load(dataset: DataSet, split: str, size: tuple[int, int], counts: LabelCounts | None = None) -> Samples:
    """Read a split into memory and fit its images into one size. The aspect ratio is kept, the rest is gray and Void.

    Memory use is width * height * 4 bytes per image: 0.25 GB for CamVid, 2 GB for Cityscapes at 480x360. The labels are added
    to `counts` at their original size.

    Raises:
        DataError: there is a problem with a file. The message contains the number of problems and the first of them.
    """
    width, height = size
    pairs = dataset.pairs(split)
    images = torch.full((len(pairs), height, width, 3), GRAY, dtype=torch.uint8)
    labels = torch.full((len(pairs), height, width), NO_CLASS, dtype=torch.uint8)
    problems = list(dataset.missing.get(split, []))
    for i, pair in enumerate(pairs):
        try:
            rgb, label = read_pair(pair, dataset.table)
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


def synthetic_samples(count: int, size: tuple[int, int]) -> Samples:
    """Render `count` frames of synthetic scenes with CamVid's classes.

    Every other scene is rendered at 16:9 and resized, which has a wider view and finer detail.
    """
    width, height = size
    images = torch.empty((count, height, width, 3), dtype=torch.uint8)
    labels = torch.empty((count, height, width), dtype=torch.uint8)
    for i in range(count):
        number, position = divmod(i, _FRAMES_PER_SCENE)
        if position == 0:
            rendered_size = size if number % 2 else (height * 16 // 9 // 2 * 2, height)
            scene = SyntheticDrive(*rendered_size, frames=300, seed=1000 + number)
        rgb, classes = scene.frame(position * 300 // _FRAMES_PER_SCENE)
        images[i] = torch.from_numpy(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
        labels[i] = torch.from_numpy(cv2.resize(classes, size, interpolation=cv2.INTER_NEAREST_EXACT))
    return Samples(images, labels)


def make_batch(
    samples: Samples,
    extra: Samples | None,
    options: TrainOptions,
    step: int,
    crop: tuple[int, int],
    full_crop: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Return the augmented batch of a step, which depends only on the number of the step and the seed.

    Each sample is used once per epoch, in random order, and replaced by an `extra` one with probability `options.synthetic`.
    """
    batch, seed = options.batch, options.seed
    epoch, position = divmod(step, max(1, len(samples) // batch))
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed + epoch))
    index = order[position * batch : (position + 1) * batch].to(samples.images.device)
    images, labels = samples.images[index], samples.labels[index]  # copies
    generator = torch.Generator().manual_seed(seed + 1_000_003 * (step + 1))
    if extra is not None:
        replaced = torch.rand(len(index), generator=generator) < options.synthetic
        chosen = torch.randint(len(extra), (len(index),), generator=generator)[replaced].to(index.device)
        images[replaced.to(index.device)] = extra.images[chosen]
        labels[replaced.to(index.device)] = extra.labels[chosen]
    zoom = (crop[0] / full_crop[0]) ** 0.5  # a smaller crop is zoomed out, so that it shows more of the image
    return augment(images, labels, crop, HEAD_STRIDE, generator, (SCALE[0] * zoom, SCALE[1] * zoom))


def crop_size(done: float, crop: tuple[int, int]) -> tuple[int, int]:
    """Return the crop size, (height, width), after a share of the run, 0 to 1: the full size only in the last fifth.

    Small crops allow more steps in the same time.
    """
    share = 0.6 if done < 0.5 else 0.8 if done < 0.8 else 1.0
    height, width = (max(STRIDE, int(side * share + STRIDE / 2) // STRIDE * STRIDE) for side in crop)
    return height, width
