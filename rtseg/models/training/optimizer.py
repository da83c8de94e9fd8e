"""The optimizer: Muon for the convolutions inside the network, AdamW for the rest.

At equal steps Muon learned about twice as fast here as AdamW: 360 steps of `nano` took the training loss to 1.02, AdamW's
best to 1.19 (mean IoU on CamVid `val` 0.29 against 0.18).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rtseg.nn.unet import UNet


def make_optimizers(model: UNet, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon at `lr` with weight decay for every convolution between stem and head; AdamW at `lr / 4` without for all else.

    Each parameter group keeps its learning rate as `peak_lr`, for the schedule to scale.
    """
    inside = {
        name: p
        for name, p in model.named_parameters()
        if p.ndim == 4 and "head" not in name and not name.startswith("encoder.0.")
    }
    rest = [p for name, p in model.named_parameters() if name not in inside]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(inside.values(), lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(rest, lr=lr / 4, weight_decay=0.0, fused=True),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def orthogonalized(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Roughly the nearest semi-orthogonal matrix: singular values between 0.7 and 1.2.

    Newton-Schulz iteration with the coefficients of Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        a = x @ x.T
        x = torch.addmm(x, torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalized, each convolution a matrix `[out, in * height * width]`.

    The update's size is matched to AdamW's (Liu et al. 2025, arXiv 2502.16982), so that one learning rate suits all shapes.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                momentum: Tensor = state["momentum"]
                momentum.lerp_(p.grad, 1.0 - group["momentum"])
                update = p.grad.lerp(momentum, group["momentum"]).reshape(len(p), -1)  # Nesterov's
                size = 0.2 * max(update.shape) ** 0.5
                p.mul_(1.0 - group["lr"] * group["weight_decay"])
                p.add_(orthogonalized(update).view(p.shape), alpha=-group["lr"] * size)
