"""Weights on disk: safetensors with the model's description for use, and training checkpoints to go on from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from rtseg.core.errors import ModelError
from rtseg.core.files import create_partial, utf8_path
from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.nn.unet import VARIANTS, UNet

CHECKPOINT_FORMAT = 1
"""Raised when a training checkpoint's fields change their meaning."""


def save_weights(model: UNet, description: ModelInfo, path: Path | str) -> None:
    """Writes the weights, as they are, and the description as safetensors; replaces the file when the new one is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = create_partial(path)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    # Through bytes: `save_file` makes a file that nobody else may read.
    partial.write_bytes(safetensors.torch.save(tensors, metadata={METADATA_KEY: description.to_json()}))
    _rename(partial, path)


def load_weights(path: Path | str) -> tuple[UNet, ModelInfo]:
    """The network and its description from a safetensors file or a training checkpoint (of that, the averaged weights).

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        ModelError: the file is missing, damaged, or not of rtseg.
    """
    path = Path(path)
    if path.suffix == ".pt":
        saved = load_checkpoint(path)
        text, tensors = saved["description"], saved["ema"]
    else:
        if not path.is_file():
            raise ModelError(f"{path}: no such file; give a model.safetensors or last.pt that `rtseg train` wrote")
        try:
            with utf8_path(path) as readable, safe_open(readable, framework="pt") as file:
                text = (file.metadata() or {}).get(METADATA_KEY)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: is not a safetensors file, or is damaged ({error})") from error
    if text is None:
        raise ModelError(f"{path}: holds weights, but no description of the model; it was not written by rtseg")
    description = ModelInfo.from_json(text, str(path))
    variant = description.network.removeprefix("unet-")
    if variant not in VARIANTS:
        raise ModelError(
            f"{path}: is a '{description.network}', not one of {', '.join(f'unet-{name}' for name in VARIANTS)}"
        )
    model = UNet(len(description.classes), variant)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(
            f"{path}: the weights do not fit a {description.network} of {len(description.classes)} classes"
        ) from error
    return model.eval(), description


def save_checkpoint(path: Path | str, state: dict[str, Any]) -> None:
    """Writes what a training run needs to go on. A kill at any moment leaves the old file or the new one, whole."""
    path = Path(path)
    partial = path.with_name(f"{path.stem}.partial.pt")
    torch.save({"rtseg_checkpoint": CHECKPOINT_FORMAT, **state}, partial)
    _rename(partial, path)


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU. Nothing in the file is executed (`weights_only`).

    Raises:
        ModelError: the file is missing, damaged, or no checkpoint of this version.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint; start without --resume")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what pickle, zip and its own reader raise
        raise ModelError(f"{path}: is not a training checkpoint, or is damaged ({type(error).__name__})") from error
    if not isinstance(saved, dict) or saved.get("rtseg_checkpoint") != CHECKPOINT_FORMAT:
        raise ModelError(f"{path}: is not a training checkpoint of this version of rtseg")
    return saved


def _rename(partial: Path, path: Path) -> None:
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)
