"""What a training run is at any moment: written to disk, it can be gone on from."""

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
"""Averaged weights are those of about the last 500 steps."""


@dataclass
class State:
    """Network, averaged network, optimizers and counters."""

    model: UNet
    ema: UNet
    """Exponential moving average of the weights: what is validated and kept."""

    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    elapsed: float = 0.0
    """Seconds that the run has taken, in all its parts."""

    best: float = -1.0
    """Best value of the chosen metric so far."""

    loss_sum: float = 0.0
    loss_count: int = 0
    """Steps since the last evaluation, whose losses `loss_sum` adds up."""

    log: list[dict[str, float]] = field(default_factory=list)
    """One row an evaluation."""

    @classmethod
    def start(cls, model: UNet, lr: float, weight_decay: float, device: torch.device) -> State:
        """A new run with these weights."""
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(model, copy.deepcopy(model).eval(), make_optimizers(model, lr, weight_decay))

    @torch.no_grad()
    def update_ema(self) -> None:
        """Moves averaged weights and BatchNorm statistics towards the network's, faster at first."""
        weight = 1.0 - min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), weight)
        for mine, theirs in zip(self.ema.buffers(), self.model.buffers(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, weight)
            else:
                mine.copy_(theirs)

    def snapshot(self, description: ModelInfo, epochs: float | None, minutes: float | None) -> dict[str, Any]:
        """What `checkpoint.save_checkpoint` writes and `resume` reads."""
        return {
            "description": description.to_json(),
            "schedule": {"epochs": epochs, "minutes": minutes},
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            **{name: getattr(self, name) for name in COUNTERS},
        }

    def resume(
        self, path: Path, description: ModelInfo, epochs: float | None, minutes: float | None
    ) -> tuple[float | None, float | None]:
        """Becomes what a snapshot on disk was.

        Args:
            path: the checkpoint.
            description: of the model to go on with; classes, network and size must be the checkpoint's.
            epochs: as the user gave it.
            minutes: likewise.

        Returns:
            The schedule to follow, (epochs, minutes): the one given, else the checkpoint's.

        Raises:
            ModelError: the checkpoint is missing or damaged.
            OptionError: it is of another model.
        """
        saved = load_checkpoint(path)
        of = ModelInfo.from_json(saved["description"], str(path))
        for name in ("network", "classes", "input_size"):
            if getattr(of, name) != getattr(description, name):
                raise OptionError(
                    f"{path}: its {name} is {getattr(of, name)}, not {getattr(description, name)}; resume with the same options"
                )
        try:
            self.model.load_state_dict(saved["model"])
            self.ema.load_state_dict(saved["ema"])
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                peaks = [group["peak_lr"] for group in optimizer.param_groups]
                optimizer.load_state_dict(state)
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["peak_lr"] = peak  # --lr may be changed on the way
            for name in COUNTERS:
                setattr(self, name, saved[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"{path}: the checkpoint does not fit this version of rtseg ({error!r})") from error
        if epochs is None and minutes is None:
            return saved["schedule"]["epochs"], saved["schedule"]["minutes"]
        return epochs, minutes


COUNTERS = ("step", "elapsed", "best", "loss_sum", "loss_count", "log")
"""Fields of `State` that are plain values."""
