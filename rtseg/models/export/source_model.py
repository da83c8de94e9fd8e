"""Source models of a build: ONNX files and checkpoints, as a graph of the model contract and as a reference to compare with."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx

from rtseg.core.errors import ModelError, OptionError
from rtseg.core.frame import ClassMap
from rtseg.core.model_info import FORMAT_VERSION, METADATA_KEY, ModelInfo
from rtseg.inference.argmax import ScoresToClasses
from rtseg.models.export.agreement import ClassMapFunction, RgbImage
from rtseg.models.export.onnx_adapter import to_contract
from rtseg.models.export.onnx_file import contract_description, read_onnx, write_description
from rtseg.models.export.onnx_input import fixed_batch
from rtseg.models.export.onnx_output import Output
from rtseg.models.export.onnx_rewrite import preprocessing_nodes, to_half
from rtseg.models.export.onnx_session import create_session, onnxruntime_name
from rtseg.models.export.quantize import to_float32
from rtseg.models.export.reference_model import ReferenceModel, onnx_reference
from rtseg.models.export.requirements import require
from rtseg.nn.preprocessing import Preprocessing

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Suffixes of checkpoint files. A folder is the output of `save_pretrained`."""


class SourceModel(Protocol):
    """The user's model file."""

    @property
    def description(self) -> ModelInfo:
        """Metadata of the file, completed by the user's options."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Assumptions about metadata that the file does not contain, one sentence each."""

    def graph(self, size: tuple[int, int], batch: int, precision: str) -> onnx.ModelProto:
        """Return an ONNX graph of the contract with the description in its metadata. Its sizes may be free.

        For `int8` it computes in FP32, because the ranges of its values are measured before it is quantized.
        """

    def reference_model(self, size: tuple[int, int]) -> ReferenceModel:
        """Return the unchanged model, run on the CPU in FP32, or in FP16 if its file is FP16."""


def open_source_model(path: Path, preprocessing: Preprocessing, size: tuple[int, int] | None) -> SourceModel:
    """Open an ONNX file, a checkpoint of rtseg, or one that `rtseg.nn.importers` supports.

    `preprocessing` is metadata that the file may not contain; `size` is the requested (width, height), or None for the model's own.

    Raises:
        ModelError: the file is missing, damaged or of an unknown kind.
        OptionError: required metadata is neither in the file nor in `preprocessing`.
    """
    if path.suffix == ".onnx":
        model = read_onnx(path)
        description = contract_description(model, str(path))
        if description is not None:
            return _ContractOnnx(model, replace(description, format_version=FORMAT_VERSION), path)
        return _ForeignOnnx(model, path, preprocessing, size)
    if path.is_dir() or path.suffix in CHECKPOINTS:
        require("torch", "onnxscript", "safetensors")
        from rtseg.models.export.checkpoint_source import CheckpointModel  # imports torch

        return CheckpointModel(path, preprocessing, size)
    if path.suffix in (".engine", ".xml"):
        raise ModelError(f"{path} is a built file; build from the model that it was made from; its .json has the name")
    raise ModelError(
        f"{path}: rtseg builds from .onnx, {', '.join(CHECKPOINTS)} and save_pretrained folders; "
        "export the model of another program to ONNX"
    )


def onnx_class_map_function(model: onnx.ModelProto | Path, origin: str, batch: int = 1) -> ClassMapFunction:
    """Return a function that runs an ONNX graph of the contract on the CPU.

    With a batch above 1 the image is the last of the batch, after shifted copies of it.

    Raises:
        ModelError: ONNX Runtime can't load it; the message contains ONNX Runtime's message.
    """
    session = create_session(model if isinstance(model, Path) else model.SerializeToString(), origin)
    description = ModelInfo.from_json(session.get_modelmeta().custom_metadata_map[METADATA_KEY], origin)
    to_classes = ScoresToClasses(description.head_stride)

    def run(image: RgbImage) -> ClassMap:
        images = np.stack([np.roll(image, 7 * i, axis=1) for i in reversed(range(batch))])
        output = session.run([description.output], {"image": images})[0][-1]
        if description.output == "classes":
            return np.asarray(output, np.uint8)
        return to_classes(output, (image.shape[1], image.shape[0]))

    return run


class _ContractOnnx:
    """An ONNX file of the contract, used without changes to its structure."""

    notes: tuple[str, ...] = ()

    def __init__(self, model: onnx.ModelProto, description: ModelInfo, path: Path) -> None:
        self._model, self.description, self._path = model, description, path

    def graph(self, size: tuple[int, int], batch: int, precision: str) -> onnx.ModelProto:
        """Return the file's graph, converted from FP32 to FP16 if requested."""
        file_precision = self.description.precision
        if precision == "fp32" and file_precision != "fp32":
            raise OptionError(
                f"{self._path} is {file_precision} already; build fp32 from its checkpoint, or leave --precision out"
            )
        model = copy.deepcopy(self._model)
        if file_precision == "int8" and precision != "int8":
            raise OptionError(
                f"{self._path} is int8 already: use --precision int8, or build {precision} from its source model"
            )
        if precision == "fp16" and file_precision == "fp32":
            model = to_half(model, fp32_nodes=preprocessing_nodes(model))
        if precision == "int8" and file_precision == "fp16":
            model = to_float32(model)
        write_description(model, replace(self.description, precision=precision, input_size=size))
        return model

    def reference_model(self, size: tuple[int, int]) -> ReferenceModel:
        """Return the file, run by ONNX Runtime."""
        path = self._path
        label = f"{path.name}, run as it is by {onnxruntime_name()}"
        return ReferenceModel(onnx_class_map_function(path, str(path)), label)


class _ForeignOnnx:
    """An ONNX file of another program, adapted to the contract."""

    def __init__(
        self, model: onnx.ModelProto, path: Path, preprocessing: Preprocessing, size: tuple[int, int] | None
    ) -> None:
        self._model, self._path, self._preprocessing = model, path, preprocessing
        self._batch = fixed_batch(model)
        _, self.description, output = self._to_contract(size, self._batch or 1, "fp32")
        names = () if preprocessing.classes else ("the classes have no names (--classes)",)
        self.notes = (*names, *((output.note,) if output.note else ()))

    def _to_contract(
        self, size: tuple[int, int] | None, batch: int, precision: str
    ) -> tuple[onnx.ModelProto, ModelInfo, Output]:
        return to_contract(copy.deepcopy(self._model), self._path, size, batch, precision, self._preprocessing)

    def graph(self, size: tuple[int, int], batch: int, precision: str) -> onnx.ModelProto:
        """Return the adapted network with fixed sizes."""
        model, description, _ = self._to_contract(size, batch, precision)
        if precision == "int8":
            model = to_float32(model)
        elif description.precision != precision:
            raise OptionError(f"{self._path} is {description.precision} already; leave --precision out")
        return model

    def reference_model(self, size: tuple[int, int]) -> ReferenceModel:
        """Return the unchanged file, run by ONNX Runtime."""
        output = self._to_contract(size, self._batch or 1, "fp32")[2]
        return onnx_reference(self._path, self._preprocessing, output, self._batch or 1)
