"""INT8 quantization: the ranges of a network's values are measured on real images and written into the graph as Q/DQ nodes.

TensorRT and OpenVINO need different graphs. TensorRT needs symmetric int8 before convolutions and matrix products, as
QuantizeLinear and DequantizeLinear nodes in the ONNX graph (ONNX Runtime's static quantization). OpenVINO is most accurate
with unsigned int8 after a ReLU and with corrected biases; NNCF writes these, in OpenVINO's file format.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from rtseg.core.errors import ModelError, OptionError
from rtseg.inference.openvino import import_openvino
from rtseg.models.export.agreement import RgbImage, samples
from rtseg.models.export.onnx_file import error_summary, tensors
from rtseg.models.export.onnx_rewrite import opset, preprocessing_nodes, to_half
from rtseg.models.export.requirements import require

CALIBRATION_FRAMES = 128
"""Maximum number of calibration images: more of them changed no figure of the verification."""

OPSET = 19
"""First operator set in which QuantizeLinear and DequantizeLinear accept FP16."""

QUANTIZED = ["Conv", "ConvTranspose", "MatMul"]
"""Operators whose inputs become INT8; all other operators stay FP16."""


def calibration_images(source: Path, size: tuple[int, int]) -> list[RgbImage]:
    """Load calibration images from a data set's `train` split, a folder of images, or a video, evenly spaced.

    Args:
        source: the data set, folder or video.
        size: (width, height) of the network's input.

    Returns:
        At most `CALIBRATION_FRAMES` images, uint8 `[H, W, 3]`.

    Raises:
        OptionError: the source does not exist or contains no image.
        DataError: a data set or an image can't be read.
        SourceError: a video can't be read.
    """
    if not source.exists():
        raise OptionError(f"--calibrate '{source}' does not exist; give a labeled data folder or a video")
    images = [image for image, _ in samples(size, (), source, CALIBRATION_FRAMES, split="train")]
    if not images:
        raise OptionError(f"--calibrate '{source}' contains no image")
    return images


def fingerprint(source: Path) -> str:
    """Return a fingerprint of a set of calibration images: a hash of the names and sizes of its files, 12 hex digits."""
    digest = hashlib.sha256()
    for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if file.is_file():
            digest.update(
                f"{file.relative_to(source.parent)}\0{file.stat().st_size}\0".encode("utf-8", "surrogateescape")
            )
    return digest.hexdigest()[:12]


def quantize_onnx(model: onnx.ModelProto, images: Sequence[RgbImage], origin: str) -> onnx.ModelProto:
    """Quantize an FP32 model of the contract to symmetric int8 with Q/DQ nodes; all other operators become FP16.

    Weights have one scale for each output channel and activations one for each tensor. All zero points are 0, as TensorRT
    requires. The model is not changed, and the shape of its input may be free. `images` are those of `calibration_images`.

    Raises:
        ModelError: the network can't be quantized; the message begins with `origin`.
    """
    require("onnxruntime")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped base
        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"image": np.repeat(image[None], batch, axis=0)}

    with tempfile.TemporaryDirectory(prefix="rtseg-build-") as folder:
        source, result = Path(folder) / "source.onnx", Path(folder) / "result.onnx"
        try:
            upgraded = model if opset(model) >= OPSET else onnx.version_converter.convert_version(model, OPSET)
            # Without this entry ONNX Runtime warns that shapes were not inferred.
            upgraded.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
            onnx.save(onnx.shape_inference.infer_shapes(upgraded), source)
            quantize_static(
                str(source),
                str(result),
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
                    "OpTypesToExcludeOutputQuantization": QUANTIZED,  # so that a ReLU can be fused with its convolution
                },
            )
        except Exception as error:  # onnx's and onnxruntime's exceptions share no public base
            raise ModelError(f"{origin} can't be quantized by ONNX Runtime: {error_summary(error)}") from error
        quantized = onnx.load(result)
    return to_half(quantized, fp32_nodes=preprocessing_nodes(quantized))


def quantize_openvino(model: onnx.ModelProto, images: Sequence[RgbImage], path: Path, origin: str) -> None:
    """Quantize an FP32 model of the contract to INT8 with NNCF and write OpenVINO's `.xml`, at `path`, and `.bin`.

    The shape of the model's input may be free. `images` are those of `calibration_images`.

    Raises:
        BackendError: NNCF is not installed.
        ModelError: the network can't be quantized; the message begins with `origin`.
    """
    require("nncf")
    openvino = import_openvino()  # first: it disables the telemetry package, through which NNCF reports its use too
    import nncf

    nncf.set_log_level(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # hides NNCF's progress bars
            network = openvino.Core().read_model(model.SerializeToString())
            dataset = nncf.Dataset(list(images), lambda image: {"image": image[None]})
            quantized = nncf.quantize(network, dataset, subset_size=len(images))
        openvino.save_model(quantized, path, compress_to_fp16=True)
    except RuntimeError as error:
        raise ModelError(f"{origin} can't be quantized by NNCF: {error_summary(error)}") from error


def to_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of an FP16 model that computes in FP32 with the same weights, to measure ranges without rounding."""
    converted = copy.deepcopy(model)
    for name, tensor in tensors(converted.graph):
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), name))
    for output in converted.graph.output:
        if output.type.tensor_type.elem_type == TensorProto.FLOAT16:
            output.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in converted.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    del converted.graph.value_info[:]
    return converted
