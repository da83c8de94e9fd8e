"""Optimizers: Muon for the inner convolutions of the network, AdamW for all other parameters.

Per step, Muon learned about twice as fast as AdamW: after 360 steps of `nano` the training loss was 1.02 with Muon and 1.19
with the best AdamW (mean IoU on CamVid `val` 0.29 and 0.18).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rtseg.nn.unet import UNet


def make_optimizers(model: UNet, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Return Muon at `lr` with weight decay for the inner convolutions, and AdamW at `lr / 4` without it for the rest.

    Inner convolutions are those between stem and head. Each parameter group stores its learning rate as `peak_lr`, which the
    schedule scales.
    """
    inner = {
        name: p
        for name, p in model.named_parameters()
        if p.ndim == 4 and "head" not in name and not name.startswith("encoder.0.")
    }
    rest = [p for name, p in model.named_parameters() if name not in inner]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(inner.values(), lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(rest, lr=lr / 4, weight_decay=0.0, fused=True),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return approximately the nearest semi-orthogonal matrix, with singular values between 0.7 and 1.2.

    Five steps of the Newton-Schulz iteration with the coefficients of Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = torch.addmm(x, torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum optimizer with orthogonalized updates. Convolutions are matrices `[out, in * height * width]`.

    The update has the RMS of AdamW (Liu et al. 2025, arXiv 2502.16982), so that one learning rate fits all shapes.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.95, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                momentum: Tensor = state["momentum"]
                momentum.lerp_(p.grad, 1.0 - group["momentum"])
                update = p.grad.lerp(momentum, group["momentum"]).reshape(len(p), -1)  # Nesterov momentum
                size = 0.2 * max(update.shape) ** 0.5
                p.mul_(1.0 - group["lr"] * group["weight_decay"])
                p.add_(orthogonalize(update).view(p.shape), alpha=-group["lr"] * size)
