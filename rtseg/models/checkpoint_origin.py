"""A checkpoint as the start of a build: exported to ONNX, and run by torch for comparison."""

from __future__ import annotations

import logging
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import onnx
import torch

from rtseg.models.agreement import Run
from rtseg.models.export import OPSET, export_onnx
from rtseg.models.importers import Imported
from rtseg.models.network import open_network
from rtseg.models.onnx_file import describe
from rtseg.models.onnx_source import to_contract
from rtseg.models.preparation import Preparation


class CheckpointOrigin:
    """A checkpoint as the start of a build; see `rtseg.models.origin.Origin`."""

    def __init__(self, path: Path, preparation: Preparation, size: tuple[int, int] | None) -> None:
        self._path, self._network = path, open_network(path, size, preparation)
        self.description, self.notes = self._network.description, self._network.notes

    def graph(self, size: tuple[int, int], batch: int, precision: str) -> onnx.ModelProto:
        """The network exported; with free sizes if it is one of rtseg's, else at this size."""
        precision = "fp32" if precision == "int8" else precision
        logging.getLogger("torch.onnx").setLevel(
            logging.ERROR
        )  # it warns that torchvision, which is not needed, is missing
        with tempfile.TemporaryDirectory(prefix="rtseg-build-") as folder:
            path = Path(folder) / "model.onnx"
            if self._network.own is not None:
                export_onnx(self._network.own, replace(self.description, input_size=size), path, precision=precision)
                return onnx.load(path)
            assert self._network.imported is not None
            return self._wrapped(self._network.imported, path, size, batch, precision)

    def original(self, size: tuple[int, int]) -> Run:
        """The network by torch, in FP32, on the processor."""
        module = self._network.module

        def run(picture):  # type: ignore[no-untyped-def]
            with torch.inference_mode():
                return module(torch.from_numpy(picture)[None])[0].numpy()

        return run

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
        said = Preparation(self.description.classes, imported.mean, imported.std, "nchw")
        model, wrapped = to_contract(program.model_proto, self._path, size, batch, precision, said)
        describe(model, replace(self.description, precision=wrapped.precision, input_size=size))
        return model
