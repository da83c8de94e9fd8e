"""Training loss: cross-entropy with optional class weights, over all pixels or those with the largest loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.models.training.augment import IGNORE

AUX_WEIGHT = 0.3
"""Weight of the loss of each auxiliary head, relative to the main head."""


def class_weights(labels: Tensor, classes: int, strength: float) -> Tensor:
    """Return class weights, float32 `[classes]`: (1 / ln(1.10 + share))^strength, scaled to a mean of 1 per pixel.

    A milder form of the weights of ENet (Paszke et al. 2016). With `strength` 0 all weights are 1.
    """
    counts = torch.bincount(labels.flatten().int(), minlength=256)[:classes].double()
    share = counts / counts.sum().clamp(min=1)
    weight = torch.log(1.10 + share) ** -strength
    return (weight / (weight * share).sum().clamp(min=1e-9)).float()


def pixel_loss(scores: Tensor, labels: Tensor, weight: Tensor, smoothing: float = 0.0, ohem: float = 1.0) -> Tensor:
    """Compute the mean cross-entropy.

    Args:
        scores: `[N, classes, h, w]`.
        labels: int64 `[N, h, w]`, `IGNORE` for pixels without a label.
        weight: `[classes]`.
        smoothing: label smoothing, 0 to 1.
        ohem: share of the pixels that counts, those with the largest loss (online hard example mining); 1 for all.
    """
    scores = scores.float()
    if not bool((labels != IGNORE).any()):
        return scores.sum() * 0.0  # only Void: the mean of no pixels would be NaN
    if ohem >= 1.0:
        return F.cross_entropy(scores, labels, weight, ignore_index=IGNORE, label_smoothing=smoothing)
    losses = F.cross_entropy(scores, labels, weight, ignore_index=IGNORE, label_smoothing=smoothing, reduction="none")
    losses = losses[labels != IGNORE]
    return losses.topk(max(1, int(ohem * losses.numel()))).values.mean()


def total_loss(
    scores: Tensor, aux: list[Tensor], labels: Tensor, weight: Tensor, smoothing: float, ohem: float
) -> tuple[Tensor, Tensor]:
    """Return the loss with auxiliary heads, and that of the main head. Labels have the resolution of the main head."""
    main = pixel_loss(scores, labels, weight, smoothing, ohem)
    total = main
    for other in aux:
        step = labels.shape[1] // other.shape[2]
        total = total + AUX_WEIGHT * pixel_loss(other, labels[:, step // 2 :: step, step // 2 :: step], weight)
    return total, main
