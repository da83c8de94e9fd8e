"""Validation during training, in torch on the device of the samples."""

from __future__ import annotations

import time

import torch

from rtseg.core import metrics
from rtseg.core.palette import NO_CLASS
from rtseg.models.training.data import Samples
from rtseg.nn.image_to_scores import ImageToScores
from rtseg.nn.unet import UNet


@torch.inference_mode()
def validate(model: UNet, samples: Samples) -> dict[str, float]:
    """Return pixel accuracy, without Void, and mean IoU at the size of the samples."""
    module = ImageToScores(model).eval()
    classes = model.classes
    counts = torch.zeros(classes * (classes + 1), dtype=torch.long, device=samples.labels.device)
    for i in range(0, len(samples), 4):
        predicted, truth = module.classes(samples.images[i : i + 4]).flatten(), samples.labels[i : i + 4].flatten()
        cell = truth[truth != NO_CLASS].long() * (classes + 1) + predicted[truth != NO_CLASS]
        counts += torch.bincount(cell, minlength=len(counts))
    table = counts.view(classes, classes + 1).cpu().numpy()
    return {"pixel_accuracy": metrics.pixel_accuracy(table), "miou": metrics.mean_iou(table)}


def estimate_validation_seconds(model: UNet, samples: Samples) -> float:
    """Estimate the duration of `validate` from its duration on four samples."""
    few = Samples(samples.images[:4], samples.labels[:4])
    validate(model, few)  # warm-up
    start = time.perf_counter()
    validate(model, few)
    return (time.perf_counter() - start) * len(samples) / len(few)
