"""Import of U-Nets of other libraries from their checkpoints, without those libraries.

load.py        tensors of a file; never runs code in it
pickled.py     static analysis of a pickle: names of its objects, detection of code
recognize.py   recognition of the network by the names of its tensors
fastai.py  classic.py  smp.py    networks in the sizes of the tensors
resnet.py      encoder of fastai.py and smp.py
weights.py     layers from tensors
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rtseg.core.errors import ModelError
from rtseg.core.model_info import ModelInfo
from rtseg.nn.importers.classic import ClassicUNet, rename_legacy_keys
from rtseg.nn.importers.fastai import DynamicUnet
from rtseg.nn.importers.load import Stored, load, one_line
from rtseg.nn.importers.recognize import EXPORT_HINT, Family, recognize
from rtseg.nn.importers.smp import SmpUnet
from rtseg.nn.importers.weights import BATCH_NORM_EPS, Weights
from rtseg.nn.preprocessing import Preprocessing

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
"""Mean of ImageNet's RGB, range 0 to 1: the normalization of pretrained encoders in fastai and segmentation_models.pytorch."""

IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
"""Standard deviation of ImageNet's RGB."""

_SHAPE_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, ZeroDivisionError)
"""Errors of torch for weights whose shapes do not fit together."""


@dataclass(frozen=True)
class Imported:
    """Network of another library, ready for export."""

    module: nn.Module
    """float32 `[N, 3, H, W]` RGB, normalized by `mean` and `std` -> scores float32 `[N, classes, H, W]`. In evaluation mode;
    height and width are free, at least 32."""

    description: ModelInfo
    """Classes, input size and network. The name is that of the file."""

    mean: Triple
    """Subtracted from RGB of range 0 to 1."""

    std: Triple
    """Divisor of the difference."""

    assumptions: tuple[str, ...]
    """Assumptions about properties that the file does not record, one sentence each, to be shown to the user."""


def import_checkpoint(path: Path, size: tuple[int, int] | None, preprocessing: Preprocessing | None = None) -> Imported:
    """Build the U-Net whose weights a file contains.

    Args:
        path: a file of `torch.save` or safetensors, or a `save_pretrained` folder, of fastai's DynamicUnet, the classic U-Net,
            or segmentation_models.pytorch's Unet with a ResNet encoder.
        size: the network's default input size, (width, height) in pixels. Required, because checkpoints do not record it.
        preprocessing: class names, normalization and `blur`; None: `class-0`, `class-1` … and the defaults of the family.

    Raises:
        ModelError: the file is damaged, of another architecture, or contains code or weights that are not finite; or an
            argument does not fit the network. The message is one line that starts with the file's name.
        OptionError: mean or standard deviation is invalid.
    """
    given = preprocessing or Preprocessing()
    given.check()
    stored = load(path)
    family, tensors = recognize(stored.tensors, str(path))
    if given.blur and family is not Family.FASTAI:
        raise ModelError(f"{path}: `blur` is an option of fastai's DynamicUnet; this is a {family.value}")
    if size is None:
        raise ModelError(f"{path} does not record the size it was trained at; give it (--size WIDTHxHEIGHT)")
    module: nn.Module
    module, network, scores = _build(family, tensors, stored, path, given.blur)
    classes = given.classes
    if scores == 1:  # one score per pixel, of the foreground: sigmoid(score) > 0.5 is equivalent to score > 0
        module, scores = Binary(module), 2
        classes = classes or ("background", "foreground")
    names = tuple(name.lower() for name in classes) if classes else tuple(f"class-{i}" for i in range(scores))
    if len(names) != scores:
        raise ModelError(f"{path} has {scores} classes, but {len(names)} names were given: {', '.join(names)}")
    default = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) if family is Family.CLASSIC else (IMAGENET_MEAN, IMAGENET_STD)
    mean, std = given.mean or default[0], given.std or default[1]
    if given.uses_255_scale:
        mean, std = _by_255(mean), _by_255(std)
    description = ModelInfo(
        name=_name(path), classes=names, input_size=size, network=network, precision="fp32", license="unknown"
    )
    assumptions = _assumptions(family, tensors, stored, given)
    if classes is None:
        assumptions.append("the classes have no names (--classes)")
    return Imported(module, description, mean, std, tuple(assumptions))


class Binary(nn.Module):
    """Wrapper of a network with one score that adds a background score of 0."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Map `[N, 3, H, W]` to `[N, 2, H, W]`."""
        score = self.network(image)
        return torch.cat([torch.zeros_like(score), score], dim=1)


def _build(
    family: Family, tensors: dict[str, Tensor], stored: Stored, path: Path, blur: bool
) -> tuple[nn.Module, str, int]:
    """Return the network in evaluation mode, its name, and its number of scores per pixel, counted on a black image."""
    weights = Weights(rename_legacy_keys(tensors) if family is Family.CLASSIC else tensors)
    network: DynamicUnet | ClassicUNet | SmpUnet
    try:
        match family:
            case Family.FASTAI:
                network = DynamicUnet(weights, blur=blur)
            case Family.CLASSIC:
                network = ClassicUNet(weights)
            case Family.SMP:
                model_class = stored.config.get("_model_class", "Unet")
                if model_class != "Unet":
                    raise ModelError(f"config.json names {model_class}, but rtseg builds only Unet; {EXPORT_HINT}")
                network = SmpUnet(weights, interpolation=stored.config.get("decoder_interpolation", "nearest"))
        if unused := weights.unused():
            raise ModelError(
                f"contains {len(unused)} weights that this network does not have ('{unused[0]}'); {EXPORT_HINT}"
            )
        network.eval().requires_grad_(False)
        with torch.inference_mode():
            scores: Tensor = network(torch.zeros(1, 3, 64, 96))
    except ModelError as error:
        raise ModelError(f"{path} looks like a {family.value}, but {error}") from error
    except _SHAPE_ERRORS as error:
        raise ModelError(
            f"{path}: its weights do not fit together ({one_line(error)}); it is damaged or of another architecture"
        ) from error
    if scores.shape[2:] != (64, 96):
        raise ModelError(
            f"{path}: an image of 96x64 gives scores of {scores.shape[3]}x{scores.shape[2]}: another architecture"
        )
    if not bool(torch.isfinite(scores).all()):
        raise ModelError(f"{path}: a black image gives scores that are NaN or infinite; its weights are wrong")
    return network, network.name, scores.shape[1]


def _by_255(values: Triple) -> Triple:
    red, green, blue = values
    return red / 255, green / 255, blue / 255


def _assumptions(family: Family, names: Collection[str], stored: Stored, given: Preprocessing) -> list[str]:
    """Return sentences about the properties of a network that neither its weights show nor the user gave."""
    has_norms = any(name.endswith(".running_mean") for name in names)
    properties = ["ReLU", "max pooling", f"BatchNorm's eps of {BATCH_NORM_EPS:g}" if has_norms else "no BatchNorm"]
    if family is Family.CLASSIC:
        properties.append("the encoder's features first in each concatenation")
        if "up1.up.weight" not in names:
            properties.append("bilinear upsampling with align_corners")
    assumptions = [stored.choice] if stored.choice else []
    assumptions.append(
        f"a checkpoint contains only weights: a {family.value} with {', '.join(properties[:-1])} and {properties[-1]} is assumed; "
        f"if yours differs, {EXPORT_HINT}"
    )
    if given.mean is None and given.std is None:
        usual = "only to the range 0 to 1" if family is Family.CLASSIC else "ImageNet's mean and standard deviation"
        assumptions.append(f"normalization: {usual}, the default of {family.value} (--mean, --std)")
    if family is Family.FASTAI and not given.blur:
        assumptions.append("trained without blur=True (--blur)")
    if family is Family.SMP and not stored.config:
        assumptions.append("decoder_interpolation is the default, nearest; only a save_pretrained folder records it")
    return assumptions


def _name(path: Path) -> str:
    """Return a model name, with lower case letters, digits and dashes, from the name of its file."""
    stem = path.name if path.is_dir() else path.stem
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "model"
