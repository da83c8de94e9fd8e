"""U-Nets that other libraries trained, built from their checkpoints alone, without those libraries.

load.py        reads the tensors of a file, never its code
pickled.py     what else a file names, and whether it would run code
recognize.py   recognizes the network by the names of its tensors
fastai.py  classic.py  smp.py    the networks, in the sizes that the tensors have
resnet.py      the encoder of two of them
weights.py     layers from tensors
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rtseg.core.errors import ModelError
from rtseg.core.model_info import ModelInfo
from rtseg.nn.importers.classic import ClassicUNet, new_names
from rtseg.nn.importers.fastai import DynamicUnet
from rtseg.nn.importers.load import Stored, load
from rtseg.nn.importers.recognize import Family, how_to_export, recognize
from rtseg.nn.importers.smp import SmpUnet
from rtseg.nn.importers.weights import BATCH_NORM_EPS, Weights

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Imported", "import_checkpoint"]

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
"""Mean of ImageNet's RGB, 0 to 1: fastai's and segmentation_models.pytorch's pretrained encoders are normalized by it."""

IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
"""Its standard deviation."""


SHAPE_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, ZeroDivisionError)
"""What torch raises when the shapes that a file holds do not make a network."""


@dataclass(frozen=True)
class Imported:
    """A network from elsewhere, ready to be exported."""

    module: nn.Module
    """float32 `[N, 3, H, W]` RGB, normalized by `mean` and `std` -> scores float32 `[N, classes, H, W]`. In evaluation mode;
    any height and width from 32 up."""

    description: ModelInfo
    """Its classes, input size, network; named after the file."""

    mean: Triple
    """Subtracted from RGB of 0 to 1, …"""

    std: Triple
    """… which is then divided by this."""

    family: Family
    """The library that it comes from."""

    assumptions: tuple[str, ...]
    """What the file does not tell and was therefore assumed, one sentence each, to be shown to the user."""


def import_checkpoint(
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: tuple[int, int] | None = None,
    blur: bool = False,
) -> Imported:
    """Builds the U-Net whose weights a file holds.

    Args:
        path: a checkpoint of `torch.save` or safetensors, or a `save_pretrained` folder, of fastai's DynamicUnet, the
            classic U-Net, or segmentation_models.pytorch's Unet with a ResNet encoder.
        classes: class names in index order; `class-0`, `class-1`, … where they are not given.
        mean: subtracted from RGB of 0 to 1 (of 0 to 255 where a value of `mean` or `std` is above 1); each family's own default
            where it is not given.
        std: what that is divided by.
        size: the network's default input size, (width, height) in pixels, which no checkpoint records.
        blur: a fastai network was trained with `unet_learner(…, blur=True)`, which leaves no trace in the file.

    Raises:
        ModelError: the file is damaged, of another architecture, or holds code or weights that are not finite; or an
            argument does not fit the network. One line, starting with the file's name.
    """
    path = Path(path)
    stored = load(path)
    family, tensors = recognize(stored.tensors, str(path))
    if blur and family is not Family.FASTAI:
        raise ModelError(f"{path}: `blur` is an option of fastai's DynamicUnet; this is a {family.value}")
    if size is None:
        raise ModelError(f"{path} does not say at what size it was trained; give it (--size WIDTHxHEIGHT)")
    module, network = _build(family, tensors, stored, path, blur)
    scores = _try_out(module, path)
    if scores == 1:  # one score a pixel, the foreground's: sigmoid(score) > 0.5 is score > 0
        module, scores = Binary(module), 2
        classes = classes or ("background", "foreground")
    names = tuple(name.lower() for name in classes) if classes else tuple(f"class-{i}" for i in range(scores))
    if len(names) != scores:
        raise ModelError(f"{path} has {scores} classes, but {len(names)} names were given: {', '.join(names)}")
    default_mean, default_std = ((0.0,) * 3, (1.0,) * 3) if family is Family.CLASSIC else (IMAGENET_MEAN, IMAGENET_STD)
    default = mean is None and std is None
    mean, std = _triple(mean, default_mean, "mean", path), _triple(std, default_std, "std", path)
    if max(*mean, *std) > 1:  # both are on the scale of 0 to 255
        mean, std = _by_255(mean), _by_255(std)
    return Imported(
        module=module,
        description=ModelInfo(
            name=_name(path), classes=names, input_size=size, network=network, precision="fp32", license="unknown"
        ),
        mean=mean,
        std=std,
        family=family,
        assumptions=(
            *([stored.choice] if stored.choice else []),
            _network_assumption(family, tensors),
            *_assumptions(family, stored, default, classes is None, blur),
        ),
    )


class Binary(nn.Module):
    """Two classes from a network with one score: that of the background is always 0."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """`[N, 3, H, W]` -> `[N, 2, H, W]`."""
        score = self.network(image)
        return torch.cat([torch.zeros_like(score), score], dim=1)


def _build(family: Family, tensors: dict[str, Tensor], stored: Stored, path: Path, blur: bool) -> tuple[nn.Module, str]:
    """The network in eval mode, and its name."""
    weights = Weights(new_names(tensors) if family is Family.CLASSIC else tensors)
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
                    raise ModelError(f"config.json says {model_class}, and rtseg builds Unet alone; {how_to_export()}")
                network = SmpUnet(weights, interpolation=stored.config.get("decoder_interpolation", "nearest"))
    except ModelError as error:
        raise ModelError(f"{path} looks like a {family.value}, but {error}") from error
    except SHAPE_ERRORS as error:
        raise _does_not_fit(path, error) from error
    unused = weights.unused()
    if unused:
        raise ModelError(
            f"{path} looks like a {family.value}, but holds {len(unused)} weights that have no place in one "
            f"('{unused[0]}'); {how_to_export()}"
        )
    return network.eval().requires_grad_(False), network.name


def _try_out(module: nn.Module, path: Path) -> int:
    """The number of scores a pixel, from a small black image: weights of the wrong shape come to light here."""
    try:
        with torch.inference_mode():
            scores: Tensor = module(torch.zeros(1, 3, 64, 96))
    except SHAPE_ERRORS as error:
        raise _does_not_fit(path, error) from error
    if scores.shape[2:] != (64, 96):
        raise ModelError(
            f"{path}: an image of 96x64 gives scores of {scores.shape[3]}x{scores.shape[2]}: another architecture"
        )
    if not bool(torch.isfinite(scores).all()):
        raise ModelError(f"{path}: a black image gives scores that are NaN or infinite; its weights can't be right")
    return scores.shape[1]


def _does_not_fit(path: Path, error: Exception) -> ModelError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return ModelError(f"{path}: its weights do not fit together ({line}); it is damaged or of another architecture")


def _triple(given: Sequence[float] | None, default: Sequence[float], what: str, path: Path) -> Triple:
    values = tuple(default if given is None else given)
    if len(values) != 3 or not all(math.isfinite(v) for v in values) or (what == "std" and min(values) <= 0):
        wanted = "three numbers for red, green and blue of 0 to 1" + (", above 0" if what == "std" else "")
        raise ModelError(f"{path}: {what} must be {wanted}, not {', '.join(map(str, values))}")
    return values


def _by_255(values: Triple) -> Triple:
    red, green, blue = values
    return red / 255, green / 255, blue / 255


def _network_assumption(family: Family, names: Collection[str]) -> str:
    """What no weight shows of a network, as one sentence."""
    has_norms = any(name.endswith(".running_mean") for name in names)
    said = ["ReLU", "max pooling", f"BatchNorm's eps of {BATCH_NORM_EPS:g}" if has_norms else "no BatchNorm"]
    if family is Family.CLASSIC:
        said.append("the encoder's features first in each concatenation")
        if "up1.up.weight" not in names:
            said.append("bilinear enlargement with align_corners")
    return (
        f"a checkpoint holds weights only: a {family.value} with {', '.join(said[:-1])} and {said[-1]} is assumed; "
        f"if yours differs, {how_to_export()}"
    )


def _assumptions(family: Family, stored: Stored, normalization: bool, names: bool, blur: bool) -> list[str]:
    said = []
    if normalization:
        how = "none beyond 0 to 1" if family is Family.CLASSIC else "ImageNet's mean and standard deviation"
        said.append(f"normalization: {how}, the default of {family.value} (--mean, --std)")
    if family is Family.FASTAI and not blur:
        said.append("trained without blur=True (--blur)")
    if family is Family.SMP and not stored.config:
        said.append("decoder_interpolation is the default, nearest; the folder of save_pretrained would say")
    if names:
        said.append("the classes have no names (--classes)")
    return said


def _name(path: Path) -> str:
    """A model's name from its file's: lower case letters, digits and dashes."""
    stem = path.name if path.is_dir() else path.stem
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "model"
