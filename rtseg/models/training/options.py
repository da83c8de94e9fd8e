"""Options of a training run: limits of values, and the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from rtseg.core.errors import BackendError, OptionError

METRICS = ("miou", "pixel_accuracy")
"""Metrics that can select the best weights."""


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training run."""

    variant: str | None = None
    """A name in `unet.VARIANTS`; None: that of `from_`, else `small`."""

    from_: Path | str | None = None
    """Weights to start from, `.safetensors` or `.pt`. If the classes differ, the heads are initialized randomly."""

    size: tuple[int, int] | None = None
    """(width, height) of the scaled images and of the model's input; None: the size of the first image, reduced to the number of
    pixels of 480x360 if it is larger."""

    name: str | None = None
    """Name of the model; None: the names of the data folder and the variant."""

    license: str = ""
    """Permitted use of the weights, as text; stored in the model's description."""

    layout: str = "auto"
    """A name in `layouts.LAYOUTS`, or `auto`."""

    synthetic: float = 0.0
    """Share of training images from synthetic scenes, 0 to 1; only for CamVid's classes."""

    epochs: float | None = None
    """Length of the run in passes over the training images."""

    minutes: float | None = None
    """Length of the run in minutes, including reading, the last evaluation and the export. Excludes `epochs`. With neither, the
    length is that of the resumed run, else 200 epochs."""

    evaluations: int = 20
    """Number of evaluations on `val`, evenly over the run."""

    metric: str = "miou"
    """One of `METRICS`, on `val`; selects the weights to save."""

    batch: int = 8
    """Number of images per step."""

    lr: float = 1e-2
    """Peak learning rate of Muon; that of AdamW is a quarter."""

    weight_decay: float = 0.02
    """Weight decay of convolutions."""

    class_weighting: float = 0.7
    """Exponent of the class weights, which increase the weight of rare classes; 0 for equal weights."""

    label_smoothing: float = 0.0
    """Label smoothing, 0 to 1."""

    ohem: float = 1.0
    """Share of the pixels that counts, those with the largest loss; 1 for all."""

    seed: int = 0
    """Seed of weights, batches and augmentation."""

    device: str = "auto"
    """`cpu`, `cuda`, or `auto`."""

    precision: str = "auto"
    """`fp32`, `bf16`, or `auto`: bf16 on a GPU, and the faster of the two on a CPU."""

    def check(self) -> None:
        """Raise OptionError if a value is out of range, the metric is unknown, or `epochs` and `minutes` are both given."""
        if self.epochs is not None and self.minutes is not None:
            raise OptionError("give either --epochs or --minutes, not both")
        for name, low, high in (
            ("batch", 2, 4096), ("lr", 1e-7, 1.0), ("class_weighting", 0.0, 5.0), ("label_smoothing", 0.0, 0.9),
            ("ohem", 0.001, 1.0), ("synthetic", 0.0, 1.0), ("evaluations", 1, 100_000), ("epochs", 0.001, 1e6),
            ("minutes", 0.01, 1e6),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise OptionError(f"--{name.replace('_', '-')} is {value}; {low:g} to {high:g} makes sense")
        if self.metric not in METRICS:
            raise OptionError(f"no metric '{self.metric}'; there are {', '.join(METRICS)}")


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
