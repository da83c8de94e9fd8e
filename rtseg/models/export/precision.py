"""Count of the multiplications of a network that use FP16 or INT8. A compiler may ignore a precision flag.

They are counted on the ONNX graph, on the strongly typed network that TensorRT parsed, on the layers of the finished engine
(if a GPU can load it), and on the layers that OpenVINO executes.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

MIN_SHARE = 0.9
"""Minimum share of multiplications in FP16 for an fp16 file, and in INT8 for an int8 file."""


@dataclass(frozen=True)
class PrecisionShare:
    """Number of multiplications and layers of a network by precision.

    The precisions are `fp16`, `fp32`, `int8` (both factors are dequantized from INT8) and `wide` (quantized numbers that are not
    INT8, such as 16-bit activations).
    """

    macs: Counter[str]
    """Multiplications of convolutions and matrix products."""

    layers: Counter[str]
    """Layers: `int8` of these multiplications, `fp16` and `fp32` also of others such as casts and the normalization."""

    of: str = "multiplications"
    """Counted quantity: `multiplications`, or `weights` if shapes in the graph are not known before it runs."""

    def share(self, precision: str) -> float:
        """Return the share of the multiplications in a precision, 0 to 1; NaN if there are none."""
        return self.macs[precision] / self.macs.total() if self.macs.total() else math.nan


def count_share(trt: Any, network: Any) -> PrecisionShare:
    """Count layers and multiplications of a network that TensorRT parsed, by precision.

    A strongly typed network computes in the precision of its tensors.
    """
    macs, counts = Counter[str](), Counter[str]()
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    from_int8 = {layer.get_output(0).name for layer in layers if layer.type == trt.LayerType.DEQUANTIZE}
    for layer in layers:
        if layer.num_outputs == 0 or layer.type == trt.LayerType.CONSTANT:
            continue
        output = layer.get_output(0)
        counts["fp16"] += output.dtype == trt.DataType.HALF
        counts["fp32"] += output.dtype == trt.DataType.FLOAT
        if not (work := _multiplications(trt, layer)):
            continue
        # `get_input` returns None for a weight that TensorRT stores as a constant.
        factors = [layer.get_input(index) for index in range(min(2, layer.num_inputs))]
        if len(factors) == 2 and all(f is not None and f.name in from_int8 for f in factors):
            macs["int8"] += work  # TensorRT computes products of dequantized factors in INT8
            counts["int8"] += 1
        else:
            half = output.dtype == layer.get_input(0).dtype == trt.DataType.HALF
            macs["fp16" if half else "fp32"] += work
    return PrecisionShare(macs, counts)


def _multiplications(trt: Any, layer: Any) -> int:
    """Return the number of multiplications of a convolution, transposed convolution or matrix product; 0 for other layers."""
    kinds = trt.LayerType
    if layer.type not in (kinds.CONVOLUTION, kinds.DECONVOLUTION, kinds.MATRIX_MULTIPLY):
        return 0
    source, result = layer.get_input(0), layer.get_output(0)
    if layer.type == kinds.MATRIX_MULTIPLY:
        return abs(int(math.prod(result.shape) * source.shape[-1]))
    forward = layer.type == kinds.CONVOLUTION
    # TensorRT's Python API requires this cast to reach the attributes of the subclass.
    layer.__class__ = trt.IConvolutionLayer if forward else trt.IDeconvolutionLayer
    per_position = math.prod(layer.kernel_size_nd) * source.shape[1] * result.shape[1] // layer.num_groups
    return abs(int(math.prod((result if forward else source).shape[2:]) * result.shape[0] * per_position))


def engine_layers(inspected: str) -> tuple[int, int, int]:
    """Count the layers of a finished engine by data type, from the JSON of TensorRT's engine inspector.

    TensorRT up to 10 has one field `Format/Datatype`; 11 has `Format` and a separate data type. Versions up to 8 write `Channel
    major FP16 format ...`, later ones `Half` and `Float`. Layers with other outputs, such as shapes, are not counted. Engines
    that were built without detailed verbosity list only layer names; their counts are 0.

    Returns:
        The number of layers with FP16 output, with FP32 output, and with INT8 input.
    """
    half = single = int8 = 0
    for layer in json.loads(inspected).get("Layers", []):
        outputs, inputs = (
            [_type_of(entry) for entry in layer.get(side, [])] if isinstance(layer, dict) else []
            for side in ("Outputs", "Inputs")
        )
        half += any("Half" in text or "FP16" in text for text in outputs)
        single += any("Float" in text or "FP32" in text for text in outputs)
        int8 += any("Int8" in text or "INT8" in text for text in inputs)
    return half, single, int8


def _type_of(tensor: Any) -> str:
    """Return a tensor's type in the inspector's JSON. The name of the field depends on the version of TensorRT."""
    fields = {key.lower(): str(value) for key, value in tensor.items()}
    return next((fields[name] for name in ("datatype", "format/datatype", "format") if name in fields), "")


def graph_share(model: Any) -> PrecisionShare:
    """Count the multiplications of an ONNX graph by the type of their weights. If a shape is unknown, count the weights."""
    from onnx import TensorProto

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.value_info, *model.graph.output)
    }
    bytes_types = (TensorProto.UINT8, TensorProto.INT8)
    precisions = {TensorProto.FLOAT16: "fp16", TensorProto.FLOAT: "fp32"}
    layers: list[tuple[str, int, int]] = []  # precision, number of weights, number of output positions
    quantized: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            # The type is that of the zero point or of the weights, else uint8.
            types = [weights[name].data_type for name in (*node.input[2:3], node.input[0]) if name in weights]
            quantized[node.output[0]] = "wide" if types and types[0] not in bytes_types else "int8"
            if node.input[0] in weights:
                weights[node.output[0]] = weights[node.input[0]]
        name = next((name for name in node.input if name in weights), None)
        if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm") or name is None:
            continue
        precision = precisions.get(weights[name].data_type)
        if name in quantized:
            factors = {quantized.get(name) for name in node.input[:2]}
            precision = "fp16" if None in factors else "wide" if "wide" in factors else "int8"
        if precision is not None:
            positions = math.prod(shapes.get(node.output[0], [0, 0, 0])[2:])
            layers.append((precision, math.prod(weights[name].dims), positions))
    known = all(positions for _, _, positions in layers)
    macs = Counter[str]()
    for precision, weight_count, positions in layers:
        macs[precision] += weight_count * (positions if known else 1)
    return PrecisionShare(macs, Counter(layer[0] for layer in layers), "multiplications" if known else "weights")


def executed_share(executed: Any) -> PrecisionShare:
    """Count the multiplications of a graph that OpenVINO executes (`CompiledModel.get_runtime_model`), by kernel type."""
    macs, counts = Counter[str](), Counter[str]()
    for layer in executed.get_ordered_ops():
        info = layer.get_rt_info()
        kind, kernel = (str(info[key].astype(str)) if key in info else "" for key in ("layerType", "primitiveType"))
        if kind not in ("Convolution", "Deconvolution", "FullyConnected", "MatMul"):
            continue
        precision = next((name for end, name in _KERNELS.items() if kernel.lower().endswith(end)), "fp32")
        source, weight = layer.input(0).get_shape(), layer.input(1).get_shape()
        positions = (
            math.prod(source[:-1])
            if kind in ("FullyConnected", "MatMul")
            else math.prod((source if kind == "Deconvolution" else layer.output(0).get_shape())[2:])
        )
        macs[precision] += positions * math.prod(weight)
        counts[precision] += 1
    return PrecisionShare(macs, counts)


_KERNELS = {"_i8": "int8", "_u8": "int8", "_f16": "fp16", "_bf16": "fp16"}
"""Precisions by the suffix of OpenVINO's kernel names."""
