"""Export of a trained network to an ONNX file for all backends: FP16, free sizes, with the description in its metadata."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch

from rtseg.core.errors import ModelError
from rtseg.core.files import whole_file
from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.nn.image_to_scores import ImageToScores, fold_batch_norm
from rtseg.nn.unet import HEAD_STRIDE, UNet

OPSET = 18
"""ONNX operator set: TensorRT 10.3 supports it, and it contains all operators that are used."""


def export_onnx(model: UNet, description: ModelInfo, path: Path) -> None:
    """Export a model to an FP16 file; see `export_unet`. An existing file is replaced when the new one is complete."""
    exported = export_unet(model, description, "fp16")
    with whole_file(path) as partial:
        onnx.save(exported, partial)


def export_unet(model: UNet, description: ModelInfo, precision: str) -> onnx.ModelProto:
    """Export a model to ONNX with the model contract (`rtseg.nn.image_to_scores`) and the description in its metadata.

    Args:
        model: the network, not changed.
        description: metadata; `precision` and `head_stride` are filled in.
        precision: `fp16` (weights and arithmetic except the normalization) or `fp32`. It also sets the precision of TensorRT
            engines.

    Raises:
        ModelError: the description and the network have different numbers of classes.
    """
    if len(description.classes) != model.classes:
        raise ModelError(f"the description has {len(description.classes)} classes, the network has {model.classes}")
    module = ImageToScores(fold_batch_norm(model).cpu().to(torch.float16 if precision == "fp16" else torch.float32))
    exported = export_module(module.eval(), torch.zeros((2, 64, 96, 3), dtype=torch.uint8), free_axes=(0, 1, 2))
    description = dataclasses.replace(description, precision=precision, output="scores", head_stride=HEAD_STRIDE)
    onnx.helper.set_model_props(exported, {METADATA_KEY: description.to_json()})
    return exported


def export_module(module: torch.nn.Module, image: torch.Tensor, free_axes: Sequence[int] = ()) -> onnx.ModelProto:
    """Export a module from `image` to `scores`. The lengths of the axes of `image` that are not `free_axes` are fixed."""
    # torch warns that torchvision, which is not needed, is missing, and of deprecations inside its exporter.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    shapes = (dict.fromkeys(free_axes, torch.export.Dim.DYNAMIC),) if free_axes else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, (image,), dynamo=True, opset_version=OPSET, dynamic_shapes=shapes,
            input_names=["image"], output_names=["scores"], verbose=False,
        )  # fmt: skip
    assert program is not None
    return program.model_proto
