"""Options of a training run: limits of values, and the device."""

from __future__ import annotations

import torch

from rtseg.core.errors import BackendError, OptionError

METRICS = ("miou", "pixel_accuracy")
"""Metrics that can select the best weights."""


def check_options(
    batch: int, lr: float, class_weighting: float, label_smoothing: float, ohem: float, synthetic: float, metric: str,
    evaluations: int, epochs: float | None, minutes: float | None,
) -> None:  # fmt: skip
    """Raise OptionError if a value is out of range, the metric is unknown, or `epochs` and `minutes` are both given."""
    if epochs is not None and minutes is not None:
        raise OptionError("give either --epochs or --minutes, not both")
    for name, value, low, high in (
        ("--batch", batch, 2, 4096), ("--lr", lr, 1e-7, 1.0), ("--class-weighting", class_weighting, 0.0, 5.0),
        ("--label-smoothing", label_smoothing, 0.0, 0.9), ("--ohem", ohem, 0.001, 1.0), ("--synthetic", synthetic, 0.0, 1.0),
        ("--evaluations", evaluations, 1, 100_000), ("--epochs", epochs, 0.001, 1e6), ("--minutes", minutes, 0.01, 1e6),
    ):  # fmt: skip
        if value is not None and not low <= value <= high:
            raise OptionError(f"{name} is {value}; {low:g} to {high:g} makes sense")
    if metric not in METRICS:
        raise OptionError(f"no metric '{metric}'; there are {', '.join(METRICS)}")


def select_device(name: str) -> torch.device:
    """Return the device of a name: `cpu`, `cuda`, or `auto` for a GPU if there is one.

    Raises:
        OptionError: the name is unknown.
        BackendError: torch finds no CUDA device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise OptionError(f"no device '{name}' to train on; there are auto, cpu and cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise BackendError("torch finds no CUDA device; leave --device out, or install torch for CUDA")
    return torch.device(name)
