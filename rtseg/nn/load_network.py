"""Load a checkpoint, of rtseg or of another library, as one torch module that fulfills the model contract."""

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
from rtseg.nn.image_to_scores import ImageToScores, fold_batch_norm
from rtseg.nn.importers import Imported, import_checkpoint
from rtseg.nn.preprocessing import Preprocessing
from rtseg.nn.unet import UNet


class ImportedToScores(nn.Module):
    """Class scores of each image, from a network that `importers` built.

    Args:
        network: normalized float `[N, 3, H, W]` -> scores `[N, classes, H, W]`. The data type of its weights is the data type of
            the computation.
        mean: subtracted from RGB of range 0 to 1, in FP32.
        std: divisor of the difference.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self._mean, self._std = tuple(mean), tuple(std)

    def forward(self, image: Tensor) -> Tensor:
        """Map images, uint8 `[N, H, W, 3]` RGB, to scores `[N, classes, H, W]`."""
        mean, std = (torch.tensor(v, device=image.device).reshape(1, 3, 1, 1) for v in (self._mean, self._std))
        x = (image.float().permute(0, 3, 1, 2) / 255.0 - mean) / std
        scores: Tensor = self.network(x.to(next(self.network.parameters()).dtype))
        return scores


@dataclass(frozen=True)
class Network:
    """Network of a checkpoint, with its description."""

    module: nn.Module
    """uint8 `[N, H, W, 3]` RGB -> scores `[N, classes, h, w]`; FP32, on the CPU, in evaluation mode."""

    description: ModelInfo
    """Classes, input size and other metadata of the model."""

    notes: tuple[str, ...]
    """Assumptions that were made, one sentence each."""

    original: UNet | Imported
    """The network itself: trained by rtseg, or by another library."""


def open_network(
    path: Path, size: tuple[int, int] | None = None, preprocessing: Preprocessing | None = None
) -> Network:
    """Load a checkpoint. No code in the file is executed.

    Args:
        path: a file that `rtseg train` wrote, or one that `rtseg.nn.importers` supports.
        size: (width, height) of the input; None: the model's own size, which files of other libraries do not record.
        preprocessing: metadata that the file does not contain.

    Raises:
        ModelError: the file is missing, damaged or of an unknown network, or it contains weights that are not finite.
    """
    preprocessing = preprocessing or Preprocessing()
    if path.is_file() and is_rtseg_checkpoint(path):
        model, description = load_weights(path)
        for name, tensor in model.state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                raise ModelError(
                    f"{path}: the weights '{name}' are not finite; the training diverged, use an earlier checkpoint"
                )
        description = replace(description, classes=preprocessing.classes or description.classes)
        if len(description.classes) != model.classes:
            raise ModelError(f"{path} has {model.classes} classes, but --classes names {len(description.classes)}")
        return Network(ImageToScores(fold_batch_norm(model)).eval(), description, (), model)
    imported = import_checkpoint(path, size, preprocessing)
    module = ImportedToScores(imported.module, imported.mean, imported.std).eval()
    return Network(module, imported.description, imported.assumptions, imported)


def is_rtseg_checkpoint(path: Path) -> bool:
    """Return True if `rtseg train` wrote the file. Reads the header, not the weights."""
    if path.suffix == ".safetensors":
        try:
            with utf8_path(path) as readable, safe_open(readable, framework="pt") as file:
                return METADATA_KEY in (file.metadata() or {})
        except (SafetensorError, OSError):
            return False  # damaged: the importers report it
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            return pickled is not None and b"rtseg_checkpoint" in archive.read(pickled)
    except (OSError, zipfile.BadZipFile):
        return False
