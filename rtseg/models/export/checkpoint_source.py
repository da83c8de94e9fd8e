"""Checkpoints as source models: exported to ONNX for the build, and run by torch for the comparison."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from rtseg.models.export.onnx_adapter import to_contract
from rtseg.models.export.onnx_file import write_description
from rtseg.models.export.reference_model import ReferenceModel, scores_reference, upsample
from rtseg.models.export.to_onnx import export_module, export_unet
from rtseg.nn.load_network import open_network
from rtseg.nn.preprocessing import Preprocessing
from rtseg.nn.unet import HEAD_STRIDE, STRIDE, UNet


class CheckpointModel:
    """A checkpoint; implements `rtseg.models.export.source_model.SourceModel`."""

    def __init__(self, path: Path, preprocessing: Preprocessing, size: tuple[int, int] | None) -> None:
        self._path, self._network = path, open_network(path, size, preprocessing)
        self.description, self.notes = self._network.description, self._network.notes

    def graph(self, size: tuple[int, int], batch: int, precision: str) -> onnx.ModelProto:
        """Export the network. The sizes of an rtseg U-Net are free; those of an imported network are fixed."""
        precision = "fp32" if precision == "int8" else precision
        original = self._network.original
        if isinstance(original, UNet):
            return export_unet(original, replace(self.description, input_size=size), precision)
        exported = export_module(original.module, torch.zeros(batch, 3, size[1], size[0]))
        preprocessing = Preprocessing(self.description.classes, original.mean, original.std, "nchw")
        model, info, _ = to_contract(exported, self._path, size, batch, precision, preprocessing)
        write_description(model, replace(self.description, precision=info.precision, input_size=size))
        return model

    def reference_model(self, size: tuple[int, int]) -> ReferenceModel:
        """Return the network, run by torch in FP32 on the CPU, without the modules that the export adds."""
        runner = f"run in FP32 by torch {torch.__version__}"
        original = self._network.original
        if isinstance(original, UNet):
            label = f"{self._path.name}, {runner}"
            run = partial(_run_unet, original)
            return scores_reference(run, (112.0,) * 3, (64.0,) * 3, label, uses_255_scale=True)
        # The comparison does not verify the import itself, so the label names it.
        label = f"rtseg's reading of the weights in {self._path.name}"
        return scores_reference(partial(_run, original.module), original.mean, original.std, f"{label}, {runner}")


def _run(network: torch.nn.Module, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    with torch.inference_mode():
        scores: npt.NDArray[Any] = network(torch.from_numpy(image)).numpy()
    return scores


def _run_unet(network: UNet, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Run a U-Net with BatchNorm not folded, and with padding and upsampling outside torch."""
    height, width = image.shape[2:]
    padded = np.pad(image, ((0, 0), (0, 0), (0, -height % STRIDE), (0, -width % STRIDE)))
    rows, columns = -(-height // HEAD_STRIDE), -(-width // HEAD_STRIDE)
    scores = _run(network, padded)[0, :, :rows, :columns]
    return upsample(scores, (HEAD_STRIDE * rows, HEAD_STRIDE * columns))[None, :, :height, :width]
