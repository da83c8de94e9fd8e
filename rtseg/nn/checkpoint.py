"""Weights on disk: safetensors with the model's description, and training checkpoints that a run can resume from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from rtseg.core.errors import ModelError
from rtseg.core.files import utf8_path, whole_file
from rtseg.core.model_info import FORMAT_VERSION, METADATA_KEY, ModelInfo
from rtseg.nn.unet import HEAD_STRIDE, VARIANTS, UNet

CHECKPOINT_FORMAT = 1
"""Format version of training checkpoints. Increase it when a field changes its meaning."""


def save_weights(model: UNet, description: ModelInfo, path: Path | str) -> None:
    """Write the weights and the description as safetensors. The file at `path` is replaced only when the new one is complete."""
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with whole_file(Path(path), sync=True) as partial:
        # Not `save_file`: it creates a file that other users can't read.
        partial.write_bytes(safetensors.torch.save(tensors, metadata={METADATA_KEY: description.to_json()}))


def load_weights(path: Path | str) -> tuple[UNet, ModelInfo]:
    """Load a network and its description from a safetensors file or a training checkpoint (the averaged weights).

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        ModelError: the file is missing, damaged, or was not written by rtseg.
    """
    path = Path(path)
    if path.suffix == ".pt":
        checkpoint = load_checkpoint(path)
        text, tensors = checkpoint["description"], checkpoint["ema"]
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
        raise ModelError(f"{path}: contains weights, but no description of the model; it was not written by rtseg")
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
    # What a graph of the network outputs; files of format 1 describe class maps.
    description = replace(description, output="scores", head_stride=HEAD_STRIDE, format_version=FORMAT_VERSION)
    return model.eval(), description


def save_checkpoint(path: Path | str, state: dict[str, Any]) -> None:
    """Write the state of a training run. If the process is killed, the old or the new file is left complete."""
    with whole_file(Path(path), sync=True) as partial:
        torch.save({"rtseg_checkpoint": CHECKPOINT_FORMAT, **state}, partial)


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Load a file of `save_checkpoint` to the CPU. No code in the file is executed (`weights_only`).

    Raises:
        ModelError: the file is missing, damaged, or not a checkpoint of this version.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint; start without --resume")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises the errors of pickle, zipfile and its own reader
        raise ModelError(f"{path}: is not a training checkpoint, or is damaged ({type(error).__name__})") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("rtseg_checkpoint") != CHECKPOINT_FORMAT:
        raise ModelError(f"{path}: is not a training checkpoint of this version of rtseg")
    return checkpoint
