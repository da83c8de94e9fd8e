"""State of a training run, which can be saved and resumed."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rtseg.core.errors import ModelError, OptionError
from rtseg.core.model_info import ModelInfo
from rtseg.models.training.optimizer import make_optimizers
from rtseg.nn.checkpoint import load_checkpoint
from rtseg.nn.unet import UNet

EMA_DECAY = 0.998
"""Decay of the averaged weights, which cover about the last 500 steps."""


@dataclass
class TrainingState:
    """Network, averaged network, optimizers and counters."""

    model: UNet
    ema: UNet
    """Network with the exponential moving average of the weights, which is validated and saved."""

    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    elapsed: float = 0.0
    """Duration of the run in seconds, including earlier parts of a resumed run."""

    best: float = -1.0
    """Best value of the selected metric."""

    loss_sum: float = 0.0
    """Sum of the losses since the last evaluation."""

    loss_count: int = 0
    """Number of steps since the last evaluation."""

    log: list[dict[str, float]] = field(default_factory=list)
    """One row per evaluation."""

    @classmethod
    def start(cls, model: UNet, lr: float, weight_decay: float, device: torch.device) -> TrainingState:
        """Return the state of a new run with the weights of `model`."""
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(model, copy.deepcopy(model).eval(), make_optimizers(model, lr, weight_decay))

    @torch.no_grad()
    def update_ema(self) -> None:
        """Update the averaged weights and BatchNorm statistics. The decay is smaller in the first steps."""
        weight = 1.0 - min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), weight)
        for average, current in zip(self.ema.buffers(), self.model.buffers(), strict=True):
            if average.is_floating_point():
                average.lerp_(current, weight)
            else:
                average.copy_(current)

    def snapshot(self, description: ModelInfo, epochs: float | None, minutes: float | None) -> dict[str, Any]:
        """Return the dict that `checkpoint.save_checkpoint` writes and `resume` reads."""
        return {
            "description": description.to_json(),
            "schedule": {"epochs": epochs, "minutes": minutes},
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            **{name: getattr(self, name) for name in COUNTERS},
        }

    def resume(self, path: Path, description: ModelInfo) -> tuple[float | None, float | None]:
        """Load a snapshot into this state and return its `epochs` and `minutes`.

        Raises:
            ModelError: the checkpoint is missing or damaged.
            OptionError: the checkpoint has other classes, another network or another size than the description.
        """
        checkpoint = load_checkpoint(path)
        saved = ModelInfo.from_json(checkpoint["description"], str(path))
        for name in ("network", "classes", "input_size"):
            if getattr(saved, name) != getattr(description, name):
                raise OptionError(
                    f"{path}: its {name} is {getattr(saved, name)}, not {getattr(description, name)}; resume with the same options"
                )
        try:
            self.model.load_state_dict(checkpoint["model"])
            self.ema.load_state_dict(checkpoint["ema"])
            for optimizer, state in zip(self.optimizers, checkpoint["optimizers"], strict=True):
                peak_rates = [group["peak_lr"] for group in optimizer.param_groups]
                optimizer.load_state_dict(state)
                for group, peak_lr in zip(optimizer.param_groups, peak_rates, strict=True):
                    group["peak_lr"] = peak_lr  # a resumed run may have another --lr
            for name in COUNTERS:
                setattr(self, name, checkpoint[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"{path}: the checkpoint does not fit this version of rtseg ({error!r})") from error
        return checkpoint["schedule"]["epochs"], checkpoint["schedule"]["minutes"]


COUNTERS = ("step", "elapsed", "best", "loss_sum", "loss_count", "log")
"""Fields of `TrainingState` that are plain values, with the names of the checkpoint's keys."""
