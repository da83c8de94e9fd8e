"""One training step, the learning rate schedule, and the choice of precision."""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor

from rtseg.models.training.loss import total_loss
from rtseg.models.training.state import TrainingState

WARMUP_STEPS = 200
GRADIENT_NORM = 5.0


def schedule(done: float, step: int) -> float:
    """Return the learning rate as a share of its peak: a short warm-up, then polynomial decay to zero with power 0.9 (DeepLab)."""
    warm = min(1.0, max((step + 1) / WARMUP_STEPS, done / 0.05))
    return float(warm * (1.0 - done) ** 0.9)


def train_step(
    state: TrainingState, x: Tensor, y: Tensor, weight: Tensor, factor: float, smoothing: float, ohem: float, bf16: bool
) -> float:
    """Run one training step and return the loss of the main head.

    Args:
        state: the training state, updated in place.
        x: normalized images, float32 `[N, 3, h, w]`.
        y: labels, int64 `[N, h / 2, w / 2]`.
        weight: weight of each class.
        factor: learning rate as a share of its peak.
        smoothing: label smoothing, 0 to 1.
        ohem: share of the pixels that counts, those with the largest loss.
        bf16: True for mixed precision, False for FP32.
    """
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
    state.model.train()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        scores, aux = state.model.forward_with_aux(x)
    total, main = total_loss(scores, aux, y, weight, smoothing, ohem)
    state.model.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), GRADIENT_NORM)
    for optimizer in state.optimizers:
        optimizer.step()
    state.update_ema()
    state.step += 1
    return float(main.detach())


def use_bf16(precision: str, state: TrainingState, weight: Tensor, batch: tuple[Tensor, Tensor]) -> bool:
    """Return True to train in mixed precision.

    With `auto` on a CPU both precisions are measured: bf16 is twice as fast with AMX, and can be slower without it.
    """
    x, y = batch
    if precision != "auto" or x.device.type == "cuda":
        return precision != "fp32"
    seconds = {}
    for bf16 in (False, True):
        for _ in range(2):  # the first is warm-up
            copied = TrainingState.start(copy.deepcopy(state.model), 0.0, 0.0, x.device)
            start = time.perf_counter()
            train_step(copied, x, y, weight, 0.0, 0.0, 1.0, bf16)
            seconds[bf16] = time.perf_counter() - start
    return seconds[True] < seconds[False]
