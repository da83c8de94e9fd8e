"""A checkpoint as the start of a build: exported to ONNX, and run by torch for comparison."""

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
from rtseg.models.export.onnx_file import describe
from rtseg.models.export.reference_model import Reference, enlarged
from rtseg.models.export.source_model import Original
from rtseg.models.export.to_onnx import OPSET, export_onnx
from rtseg.nn.importers import Imported
from rtseg.nn.load_network import open_network
from rtseg.nn.preprocessing import Preprocessing
from rtseg.nn.unet import HEAD_STRIDE, STRIDE, UNet


class CheckpointModel:
    """A checkpoint as the start of a build; see `rtseg.models.export.source_model.SourceModel`."""

    def __init__(self, path: Path, preprocessing: Preprocessing, size: tuple[int, int] | None) -> None:
        self._path, self._network = path, open_network(path, size, preprocessing)
        self.description, self.notes = self._network.description, self._network.notes

    def graph(self, size: tuple[int, int], batch: int, precision: str) -> onnx.ModelProto:
        """The network exported; with free sizes if it is one of rtseg's, else at this size."""
        precision = "fp32" if precision == "int8" else precision
        logging.getLogger("torch.onnx").setLevel(
            logging.ERROR
        )  # it warns that torchvision, which is not needed, is missing
        with tempfile.TemporaryDirectory(prefix="rtseg-build-") as folder:
            path = Path(folder) / "model.onnx"
            if self._network.unet is not None:
                export_onnx(self._network.unet, replace(self.description, input_size=size), path, precision=precision)
                return onnx.load(path)
            assert self._network.imported is not None
            return self._wrapped(self._network.imported, path, size, batch, precision)

    def original(self, size: tuple[int, int]) -> Original:
        """The network by torch, in FP32, on the CPU, without the modules that are exported around it."""
        by = f"run in FP32 by torch {torch.__version__}"
        own, imported = self._network.unet, self._network.imported
        if own is not None:
            return Reference(_scores_of_own(own), (112.0,) * 3, (64.0,) * 3, f"{self._path.name}, {by}", uses_255_scale=True)
        assert imported is not None
        module = imported.module

        def run(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
            with torch.inference_mode():
                scores: npt.NDArray[Any] = module(torch.from_numpy(image)).numpy()
            return scores

        what = f"rtseg's reading of the weights in {self._path.name}"  # which does not show that the reading is right
        return Reference(run, imported.mean, imported.std, f"{what}, {by}")

    def _wrapped(
        self, imported: Imported, path: Path, size: tuple[int, int], batch: int, precision: str
    ) -> onnx.ModelProto:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            program = torch.onnx.export(
                imported.module, (torch.zeros(batch, 3, size[1], size[0]),), dynamo=True, opset_version=OPSET,
                input_names=["picture"], output_names=["scores"], verbose=False,
            )  # fmt: skip
        assert program is not None
        said = Preprocessing(self.description.classes, imported.mean, imported.std, "nchw")
        model, wrapped, _ = to_contract(program.model_proto, self._path, size, batch, precision, said)
        describe(model, replace(self.description, precision=wrapped.precision, input_size=size))
        return model


def _scores_of_own(network: UNet) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    """rtseg's own network as it was trained: its BatchNorm is not folded, and padding and upsampling are NumPy's."""
    network = network.eval()

    def run(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        height, width = image.shape[2:]
        padded = np.pad(image, ((0, 0), (0, 0), (0, -height % STRIDE), (0, -width % STRIDE)))
        with torch.inference_mode():
            scores = network(torch.from_numpy(padded)).numpy()[0]
        rows, columns = -(-height // HEAD_STRIDE), -(-width // HEAD_STRIDE)
        whole = enlarged(scores[:, :rows, :columns], (HEAD_STRIDE * rows, HEAD_STRIDE * columns))
        return whole[None, :, :height, :width]

    return run
