"""Checkpoints as source models: exported to ONNX for the build, and run by torch for the comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
        if self._network.unet is not None:
            return export_unet(self._network.unet, replace(self.description, input_size=size), precision)
        imported = self._network.imported
        assert imported is not None
        exported = export_module(imported.module, torch.zeros(batch, 3, size[1], size[0]))
        preprocessing = Preprocessing(self.description.classes, imported.mean, imported.std, "nchw")
        model, info, _ = to_contract(exported, self._path, size, batch, precision, preprocessing)
        write_description(model, replace(self.description, precision=info.precision, input_size=size))
        return model

    def reference_model(self, size: tuple[int, int]) -> ReferenceModel:
        """Return the network, run by torch in FP32 on the CPU, without the modules that the export adds."""
        runner = f"run in FP32 by torch {torch.__version__}"
        unet, imported = self._network.unet, self._network.imported
        if unet is not None:
            label = f"{self._path.name}, {runner}"
            return scores_reference(_unet_scores(unet), (112.0,) * 3, (64.0,) * 3, label, uses_255_scale=True)
        assert imported is not None
        module = imported.module

        def run(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
            with torch.inference_mode():
                scores: npt.NDArray[Any] = module(torch.from_numpy(image)).numpy()
            return scores

        # The comparison does not verify the import itself, so the label names it.
        label = f"rtseg's reading of the weights in {self._path.name}"
        return scores_reference(run, imported.mean, imported.std, f"{label}, {runner}")


def _unet_scores(network: UNet) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    """Return a function that runs a U-Net with BatchNorm not folded, and with padding and upsampling outside torch."""
    network = network.eval()

    def run(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        height, width = image.shape[2:]
        padded = np.pad(image, ((0, 0), (0, 0), (0, -height % STRIDE), (0, -width % STRIDE)))
        with torch.inference_mode():
            scores = network(torch.from_numpy(padded)).numpy()[0]
        rows, columns = -(-height // HEAD_STRIDE), -(-width // HEAD_STRIDE)
        upsampled = upsample(scores[:, :rows, :columns], (HEAD_STRIDE * rows, HEAD_STRIDE * columns))
        return upsampled[None, :, :height, :width]

    return run
