"""What training minimizes: cross-entropy, weighted by class if wanted, of all pixels or the hardest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.models.training.augment import IGNORE

AUX_WEIGHT = 0.3
"""Weight of each auxiliary head's loss beside the main head's."""


def class_weights(labels: Tensor, classes: int, strength: float) -> Tensor:
    """A weight for each class, float32 `[classes]`: (1 / ln(1.10 + share))^strength, scaled so that the mean pixel weighs 1.

    ENet's formula (Paszke et al. 2016) made milder; `strength` 0 weighs every pixel alike.
    """
    counts = torch.bincount(labels.flatten().int(), minlength=256)[:classes].double()
    share = counts / counts.sum().clamp(min=1)
    weight = torch.log(1.10 + share) ** -strength
    return (weight / (weight * share).sum().clamp(min=1e-9)).float()


def pixel_loss(scores: Tensor, labels: Tensor, weight: Tensor, smoothing: float = 0.0, ohem: float = 1.0) -> Tensor:
    """Mean cross-entropy.

    Args:
        scores: `[N, classes, h, w]`.
        labels: int64 `[N, h, w]`, `IGNORE` where nothing is known.
        weight: `[classes]`.
        smoothing: label smoothing, 0 to 1.
        ohem: share of the pixels that counts, those with the largest loss (online hard example mining); 1 for all.
    """
    scores = scores.float()
    if not bool((labels != IGNORE).any()):
        return scores.sum() * 0.0  # nothing but Void: the mean of no pixels is not a number
    if ohem >= 1.0:
        return F.cross_entropy(scores, labels, weight, ignore_index=IGNORE, label_smoothing=smoothing)
    each = F.cross_entropy(scores, labels, weight, ignore_index=IGNORE, label_smoothing=smoothing, reduction="none")
    each = each[labels != IGNORE]
    return each.topk(max(1, int(ohem * each.numel()))).values.mean()


def total_loss(
    scores: Tensor, aux: list[Tensor], labels: Tensor, weight: Tensor, smoothing: float, ohem: float
) -> tuple[Tensor, Tensor]:
    """The loss to minimize, auxiliary heads included, and the main head's alone; labels at the main head's size."""
    main = pixel_loss(scores, labels, weight, smoothing, ohem)
    total = main
    for other in aux:
        step = labels.shape[1] // other.shape[2]
        total = total + AUX_WEIGHT * pixel_loss(other, labels[:, step // 2 :: step, step // 2 :: step], weight)
    return total, main
