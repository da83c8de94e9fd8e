"""Where a build starts: a model file of any kind, as a graph of the model contract and as the original to compare with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx

from rtseg.core.errors import ModelError, OptionError
from rtseg.core.files import utf8_path
from rtseg.core.frame import ClassMap
from rtseg.core.model_info import ModelInfo
from rtseg.models.export.agreement import Picture, Run
from rtseg.models.export.onnx_adapter import fixed_batch, to_contract
from rtseg.models.export.onnx_file import contract_description, describe, external_files, error_summary, read_onnx
from rtseg.models.export.onnx_output import Output
from rtseg.models.export.onnx_rewrite import preprocessing_nodes, to_half
from rtseg.models.export.quantize import to_float32
from rtseg.models.export.requirements import require
from rtseg.nn.preprocessing import Preprocessing

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Endings of files that hold weights; a folder is what `save_pretrained` writes."""


class Original(Protocol):
    """The user's own model, run outside the model contract."""

    what: str
    """The model and what runs it, for people."""

    def __call__(self, picture: Picture) -> ClassMap:
        """The class map, uint8 `[H, W]`, of an image, uint8 `[H, W, 3]` RGB."""

    def check(self) -> None:
        """Raises ModelError where the values that were seen contradict how the model was read."""


class SourceModel(Protocol):
    """A model as it came."""

    @property
    def description(self) -> ModelInfo:
        """What it says of itself, with what the user said filled in."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed because the file does not say it, one sentence each."""

    def graph(self, size: tuple[int, int], batch: int, precision: str) -> onnx.ModelProto:
        """The model as an ONNX graph of the contract, its description inside. Its sizes may still be free.

        For `int8` its arithmetic is FP32: ranges are measured on it before it is quantized.
        """

    def original(self, size: tuple[int, int]) -> Original:
        """The model as it came, in FP32 where it is not half precision itself, on the CPU, without rtseg's graph around it."""


def open_source_model(path: Path, preprocessing: Preprocessing, size: tuple[int, int] | None) -> SourceModel:
    """Reads a model file.

    Args:
        path: ONNX, a checkpoint of rtseg, or one of the checkpoints that `rtseg.nn.importers` knows.
        preprocessing: what the file may not say.
        size: (width, height) of the input that is asked for; None: the model's own.

    Raises:
        ModelError: it is missing, damaged or of an unknown kind.
        OptionError: something has to be said that the file does not say.
    """
    if path.suffix == ".onnx":
        model = read_onnx(path)
        description = contract_description(model, str(path))
        if description is not None:
            return _ContractOnnx(model, description, path)
        return _ForeignOnnx(model, path, preprocessing, size)
    if path.is_dir() or path.suffix in CHECKPOINTS:
        require("torch", "onnxscript", "safetensors")
        from rtseg.models.export.checkpoint_source import CheckpointModel

        return CheckpointModel(path, preprocessing, size)
    if path.suffix in (".engine", ".xml"):
        raise ModelError(f"{path} is a built file; build from the model that it was made from, which its .json names")
    raise ModelError(
        f"{path}: rtseg builds from .onnx, {', '.join(CHECKPOINTS)} and save_pretrained folders; "
        "a model of another program can be exported to ONNX there"
    )


def create_session(model: Path | bytes, origin: str, optimize: bool = True) -> Any:
    """An ONNX Runtime session on the CPU, of a file as it is or of a graph in memory.

    Raises:
        ModelError: ONNX Runtime can't load it; the message has its words.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL

    def load(given: str | bytes) -> Any:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])

    try:
        if isinstance(model, bytes):
            return load(model)
        with utf8_path(model, lambda: external_files(model)) as path:
            return load(str(path))
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise ModelError(f"{origin}: ONNX Runtime can't run it ({error_summary(error)})") from error


def onnxruntime_name() -> str:
    """`ONNX Runtime 1.32.0`."""
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"


def onnx_class_map_function(model: onnx.ModelProto | Path, origin: str, batch: int = 1) -> Run:
    """Runs an ONNX graph of the contract on the CPU.

    With a batch above 1 the image is the last one, and others, made from it, go before it.

    Raises:
        ModelError: ONNX Runtime can't load it; the message names what it misses.
    """
    session = create_session(model if isinstance(model, Path) else model.SerializeToString(), origin)

    def run(picture: Picture) -> ClassMap:
        images = np.stack([np.roll(picture, 7 * i, axis=1) for i in reversed(range(batch))])
        class_map: ClassMap = session.run(["classes"], {"image": images})[0][-1]
        return class_map

    return run


class ContractReference:
    """An ONNX file that follows the contract, by ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        self._run = onnx_class_map_function(path, str(path))
        self.what = f"{path.name}, run as it is by {onnxruntime_name()}"

    def __call__(self, picture: Picture) -> ClassMap:
        """The class map, uint8 `[H, W]`, of an image, uint8 `[H, W, 3]` RGB."""
        return self._run(picture)

    def check(self) -> None:
        """Nothing was read from its graph."""


class _ContractOnnx:
    """An ONNX file that follows the contract: used as it is."""

    notes: tuple[str, ...] = ()

    def __init__(self, model: onnx.ModelProto, description: ModelInfo, path: Path) -> None:
        self._model, self.description, self._path = model, description, path

    def graph(self, size: tuple[int, int], batch: int, precision: str) -> onnx.ModelProto:
        """The file's own graph; to_half if FP16 is wanted and it is FP32."""
        has = self.description.precision
        if precision == "fp32" and has != "fp32":
            raise OptionError(
                f"{self._path} is {has} already; build fp32 from its checkpoint, or leave --precision out"
            )
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        if has == "int8" and precision != "int8":
            raise OptionError(
                f"{self._path} is int8 already: --precision int8; {precision} is built from what it was made from"
            )
        if precision == "fp16" and has == "fp32":
            model = to_half(model, keep=preprocessing_nodes(model))
        if precision == "int8" and has == "fp16":
            model = to_float32(model)
        describe(model, replace(self.description, precision=precision, input_size=size))
        return model

    def original(self, size: tuple[int, int]) -> Original:
        """The file, by ONNX Runtime."""
        return ContractReference(self._path)


class _ForeignOnnx:
    """An ONNX file from elsewhere: wrapped."""

    def __init__(
        self, model: onnx.ModelProto, path: Path, preprocessing: Preprocessing, size: tuple[int, int] | None
    ) -> None:
        self._model, self._path, self._preprocessing = model, path, preprocessing
        self._batch = fixed_batch(model)
        _, self.description, output = self._wrapped(size, self._batch or 1, "fp32")
        names = () if preprocessing.classes else ("the classes have no names (--classes)",)
        self.notes = (*names, *((output.note,) if output.note else ()))

    def _wrapped(
        self, size: tuple[int, int] | None, batch: int, precision: str
    ) -> tuple[onnx.ModelProto, ModelInfo, Output]:
        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        return to_contract(copy, self._path, size, batch, precision, self._preprocessing)

    def graph(self, size: tuple[int, int], batch: int, precision: str) -> onnx.ModelProto:
        """The wrapped network; its sizes are fixed."""
        model, description, _ = self._wrapped(size, batch, precision)
        if precision == "int8":
            model = to_float32(model)
        elif description.precision != precision:
            raise OptionError(f"{self._path} is {description.precision} already; leave --precision out")
        return model

    def original(self, size: tuple[int, int]) -> Original:
        """The file, by ONNX Runtime, with none of rtseg's nodes."""
        from rtseg.models.export.reference_model import OnnxReference

        output = self._wrapped(size, self._batch or 1, "fp32")[2]
        return OnnxReference(self._path, self._preprocessing, output, self._batch or 1)
