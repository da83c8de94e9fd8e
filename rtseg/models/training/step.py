"""One training step, the learning rate schedule, the choice of precision, and validation in torch."""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor

from rtseg.core import metrics
from rtseg.core.palette import NO_CLASS
from rtseg.models.training.data import Samples
from rtseg.models.training.loss import total_loss
from rtseg.models.training.options import TrainOptions
from rtseg.models.training.state import TrainingState
from rtseg.nn.image_to_scores import ImageToScores
from rtseg.nn.unet import UNet

WARMUP_STEPS = 200
GRADIENT_NORM = 5.0


def schedule(done: float, step: int) -> float:
    """Return the learning rate as a share of its peak: a short warm-up, then polynomial decay to zero with power 0.9 (DeepLab)."""
    warm = min(1.0, max((step + 1) / WARMUP_STEPS, done / 0.05))
    return float(warm * (1.0 - done) ** 0.9)


def train_step(
    state: TrainingState, batch: tuple[Tensor, Tensor], weight: Tensor, factor: float, options: TrainOptions, bf16: bool
) -> float:
    """Run one training step and return the loss of the main head.

    Args:
        state: the training state, updated in place.
        batch: normalized images, float32 `[N, 3, h, w]`, and labels, int64 `[N, h / 2, w / 2]`.
        weight: weight of each class.
        factor: learning rate as a share of its peak.
        options: label smoothing and `ohem`.
        bf16: True for mixed precision, False for FP32.
    """
    x, y = batch
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
    state.model.train()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        scores, aux = state.model.forward_with_aux(x)
    total, main = total_loss(scores, aux, y, weight, options.label_smoothing, options.ohem)
    state.model.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), GRADIENT_NORM)
    for optimizer in state.optimizers:
        optimizer.step()
    state.update_ema()
    state.step += 1
    return float(main.detach())


def use_bf16(options: TrainOptions, state: TrainingState, weight: Tensor, batch: tuple[Tensor, Tensor]) -> bool:
    """Return True to train in mixed precision.

    With `auto` on a CPU both precisions are measured: bf16 is twice as fast with AMX, and can be slower without it.
    """
    device = batch[0].device
    if options.precision != "auto" or device.type == "cuda":
        return options.precision != "fp32"
    seconds = {}
    for bf16 in (False, True):
        for _ in range(2):  # the first is warm-up
            copied = TrainingState.start(copy.deepcopy(state.model), 0.0, 0.0, device)
            start = time.perf_counter()
            train_step(copied, batch, weight, 0.0, options, bf16)
            seconds[bf16] = time.perf_counter() - start
    return seconds[True] < seconds[False]


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
