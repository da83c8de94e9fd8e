"""INT8: how far a network's values reach on real pictures, measured, and written into the graph as explicit nodes.

Two roads, because the run-times want different things. TensorRT takes symmetric int8 before convolutions and matrix products,
as quantize and dequantize nodes in the ONNX graph (ONNX Runtime's static quantization). OpenVINO does best with unsigned int8
after a ReLU and corrected biases, which NNCF gives; its file is OpenVINO's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from rtseg.core.errors import ModelError, OptionError
from rtseg.models.export.agreement import Picture, samples
from rtseg.models.export.onnx_file import error_summary
from rtseg.models.export.onnx_rewrite import preprocessing_nodes, to_half, opset
from rtseg.models.export.requirements import require

CALIBRATION_FRAMES = 128
"""Pictures whose ranges are measured: with more, no figure of the proof changed."""

OPSET = 19
"""The first in which quantization takes half precision."""

QUANTIZED = ["Conv", "ConvTranspose", "MatMul"]
"""Operators whose inputs become INT8; what lies between them stays FP16."""


def calibration_images(source: Path, size: tuple[int, int]) -> list[Picture]:
    """Real pictures to measure on: a data set's `train`, a folder of pictures, or frames of a video, spread evenly.

    Args:
        source: the data set, folder or video.
        size: (width, height) of the network's input.

    Returns:
        uint8 `[H, W, 3]` each, at most `CALIBRATION_FRAMES`.

    Raises:
        OptionError: there is no such file or folder.
        DataError, SourceError: it can't be read.
    """
    if not source.exists():
        raise OptionError(f"--calibrate '{source}' is not there; give a labeled data folder or a video")
    pictures = [picture for picture, _ in samples(size, (), source, CALIBRATION_FRAMES, split="train")]
    if not pictures:
        raise OptionError(f"--calibrate '{source}' holds no picture")
    return pictures


def fingerprint(source: Path) -> str:
    """Tells one set of calibration pictures from another by the names and sizes of its files; 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if file.is_file():
            digest.update(
                f"{file.relative_to(source.parent)}\0{file.stat().st_size}\0".encode("utf-8", "surrogateescape")
            )
    return digest.hexdigest()[:12]


def quantized(model: onnx.ModelProto, pictures: Sequence[Picture], origin: str) -> onnx.ModelProto:
    """A model of the contract in symmetric int8 with quantize and dequantize nodes; what is not int8 is FP16.

    Weights have a scale for each output channel, values one for the tensor, and every zero is at 0, as TensorRT wants it.

    Args:
        model: FP32; its input may be free. Not changed.
        pictures: as `calibration_images` gives them.
        origin: its name, for messages.

    Raises:
        ModelError: the network can't be quantized.
    """
    require("onnxruntime")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped base
        def __init__(self) -> None:
            self._left = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self._left, None)
            return None if picture is None else {"image": np.repeat(picture[None], batch, axis=0)}

    with tempfile.TemporaryDirectory(prefix="rtseg-build-") as folder:
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        try:
            newer = model if opset(model) >= OPSET else onnx.version_converter.convert_version(model, OPSET)
            newer.metadata_props.add(
                key="onnx.quant.pre_process", value="onnxruntime.quant"
            )  # else it warns; done here
            onnx.save(onnx.shape_inference.infer_shapes(newer), given)
            quantize_static(
                str(given),
                str(made),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=QUANTIZED,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,  # TensorRT adds biases before it rounds
                    "OpTypesToExcludeOutputQuantization": QUANTIZED,  # so that a ReLU stays one with its convolution
                },
            )
        except Exception as error:  # onnx's and onnxruntime's exceptions share no public base
            raise ModelError(f"{origin} can't be quantized by ONNX Runtime: {error_summary(error)}") from error
        answer = onnx.load(made)
    return to_half(answer, keep=preprocessing_nodes(answer))


def quantize_openvino(model: onnx.ModelProto, pictures: Sequence[Picture], path: Path, origin: str) -> None:
    """Writes a model of the contract as OpenVINO's `.xml` and `.bin` in INT8, by NNCF.

    Args:
        model: FP32; its input may be free.
        pictures: as `calibration_images` gives them.
        path: the `.xml`.
        origin: its name, for messages.

    Raises:
        BackendError: NNCF is not installed.
        ModelError: the network can't be quantized.
    """
    require("nncf")
    from rtseg.inference.openvino import disable_telemetry

    disable_telemetry()  # NNCF asks the same package of OpenVINO's to tell of its use
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its own progress bars
            network = openvino.Core().read_model(model.SerializeToString())
            pictures_in = nncf.Dataset(list(pictures), lambda picture: {"image": picture[None]})
            answer = nncf.quantize(network, pictures_in, subset_size=len(pictures))
        openvino.save_model(answer, path, compress_to_fp16=True)
    except RuntimeError as error:
        raise ModelError(f"{origin} can't be quantized by NNCF: {error_summary(error)}") from error


def to_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A half precision model in FP32, from which ranges are measured: the same weights, without rounding between layers."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for tensor in _tensors(wide.graph):
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in wide.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    del wide.graph.value_info[:]
    return wide


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))
