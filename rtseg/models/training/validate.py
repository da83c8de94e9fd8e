"""Validation while training: torch all the way, on the device where the samples are."""

from __future__ import annotations

import time

import torch

from rtseg.core import metrics
from rtseg.core.palette import NO_CLASS
from rtseg.models.training.data import Samples
from rtseg.nn.image_to_classes import ImageToClasses
from rtseg.nn.unet import UNet


@torch.inference_mode()
def validate(model: UNet, samples: Samples, batch: int = 4) -> dict[str, float]:
    """Pixel accuracy without Void and mean IoU, at the samples' size."""
    module = ImageToClasses(model).eval()
    classes = model.classes
    counts = torch.zeros(classes * (classes + 1), dtype=torch.long, device=samples.labels.device)
    for i in range(0, len(samples), batch):
        predicted = module(samples.images[i : i + batch]).flatten()
        truth = samples.labels[i : i + batch].flatten()
        cell = truth[truth != NO_CLASS].long() * (classes + 1) + predicted[truth != NO_CLASS]
        counts += torch.bincount(cell, minlength=len(counts))
    table = counts.view(classes, classes + 1).cpu().numpy()
    return {"pixel_accuracy": metrics.pixel_accuracy(table), "miou": metrics.mean_iou(table)}


def seconds_to_validate(model: UNet, samples: Samples) -> float:
    """About how long `validate` takes."""
    few = Samples(samples.images[:4], samples.labels[:4])
    validate(model, few)
    begun = time.perf_counter()
    validate(model, few)
    return (time.perf_counter() - begun) * len(samples) / len(few)
