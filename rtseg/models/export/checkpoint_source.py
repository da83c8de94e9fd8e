"""Checkpoints as source models: exported to ONNX for the build, and run by torch for the comparison."""

from __future__ import annotations

import logging
import tempfile
import warnings
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
from rtseg.models.export.protocols import ReferenceModel
from rtseg.models.export.reference_model import scores_reference, upsample
from rtseg.models.export.to_onnx import OPSET, export_onnx
from rtseg.nn.importers import Imported
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
        # torch.onnx warns that torchvision, which is not needed, is missing.
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory(prefix="rtseg-build-") as folder:
            path = Path(folder) / "model.onnx"
            if self._network.unet is not None:
                export_onnx(self._network.unet, replace(self.description, input_size=size), path, precision=precision)
                return onnx.load(path)
            assert self._network.imported is not None
            return self._to_contract(self._network.imported, path, size, batch, precision)

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

    def _to_contract(
        self, imported: Imported, path: Path, size: tuple[int, int], batch: int, precision: str
    ) -> onnx.ModelProto:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the exporter
            program = torch.onnx.export(
                imported.module, (torch.zeros(batch, 3, size[1], size[0]),), dynamo=True, opset_version=OPSET,
                input_names=["image"], output_names=["scores"], verbose=False,
            )  # fmt: skip
        assert program is not None
        preprocessing = Preprocessing(self.description.classes, imported.mean, imported.std, "nchw")
        model, info, _ = to_contract(program.model_proto, self._path, size, batch, precision, preprocessing)
        write_description(model, replace(self.description, precision=info.precision, input_size=size))
        return model


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
