"""A checkpoint, rtseg's own or another library's, as one torch module of the model contract."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rtseg.core.errors import ModelError
from rtseg.core.files import utf8_path
from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.nn.checkpoint import load_weights
from rtseg.nn.image_to_classes import ImageToClasses, folded
from rtseg.nn.importers import Imported, import_checkpoint
from rtseg.nn.preprocessing import Preprocessing
from rtseg.nn.unet import UNet


class ImportedToClasses(nn.Module):
    """Image, uint8 `[N, H, W, 3]` RGB -> classes, uint8 `[N, H, W]`, of a network that `importers` built.

    Args:
        network: float `[N, 3, H, W]`, normalized -> scores `[N, classes, H, W]`. Its type decides the arithmetic's.
        mean: subtracted from RGB of 0 to 1, in FP32.
        std: what that is divided by.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self._mean, self._std = tuple(mean), tuple(std)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 in, uint8 out."""
        mean, std = (torch.tensor(v, device=image.device).reshape(1, 3, 1, 1) for v in (self._mean, self._std))
        x = (image.float().permute(0, 3, 1, 2) / 255.0 - mean) / std
        scores: Tensor = self.network(x.to(next(self.network.parameters()).dtype))
        return scores.argmax(dim=1).to(torch.uint8)


@dataclass(frozen=True)
class Network:
    """What a checkpoint holds."""

    module: nn.Module
    """uint8 `[N, H, W, 3]` RGB -> uint8 `[N, H, W]`; FP32, on the CPU, in evaluation mode."""

    description: ModelInfo
    """What the model says of itself."""

    notes: tuple[str, ...]
    """What was assumed, one sentence each."""

    own: UNet | None
    """The network, if it is one of rtseg's."""

    imported: Imported | None
    """The network, if it is another library's."""


def open_network(path: Path, size: tuple[int, int] | None = None, preparation: Preprocessing | None = None) -> Network:
    """Reads a checkpoint. Nothing in the file is executed.

    Args:
        path: a file that `rtseg train` wrote, or one that `rtseg.nn.importers` knows.
        size: (width, height) of the input; None: the model's own, which other libraries' files do not record.
        preparation: what the file does not say.

    Raises:
        ModelError: missing, damaged, unknown, or with weights that are not finite.
    """
    said = preparation or Preprocessing()
    if path.is_file() and is_own(path):
        model, description = load_weights(path)
        broken = next(
            (name for name, tensor in model.state_dict().items() if not bool(torch.isfinite(tensor).all())), None
        )
        if broken is not None:
            raise ModelError(
                f"{path}: the weights '{broken}' are not finite; the training diverged, use an earlier checkpoint"
            )
        description = replace(description, classes=said.classes or description.classes)
        if len(description.classes) != model.classes:
            raise ModelError(f"{path} has {model.classes} classes, but --classes names {len(description.classes)}")
        return Network(ImageToClasses(folded(model)).eval(), description, (), model, None)
    imported = import_checkpoint(path, classes=said.classes, mean=said.mean, std=said.std, size=size, blur=said.blur)
    module = ImportedToClasses(imported.module, imported.mean, imported.std).eval()
    return Network(module, imported.description, imported.assumptions, None, imported)


def is_own(path: Path) -> bool:
    """Whether `rtseg train` wrote a file: told by its header, without reading weights."""
    if path.suffix == ".safetensors":
        try:
            with utf8_path(path) as readable, safe_open(readable, framework="pt") as file:
                return METADATA_KEY in (file.metadata() or {})
        except (SafetensorError, OSError):
            return False  # damaged: the importers say so
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            return pickled is not None and b"rtseg_checkpoint" in archive.read(pickled)
    except (OSError, zipfile.BadZipFile):
        return False
