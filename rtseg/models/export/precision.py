"""Count of the multiplications of a network that use FP16 or INT8. A compiler may ignore a precision flag.

They are counted on the ONNX graph, on the strongly typed network that TensorRT parsed, on the layers of the finished engine
(if a GPU can load it), and on the layers that OpenVINO executes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

MIN_SHARE = 0.9
"""Minimum share of multiplications in FP16 for an fp16 file, and in INT8 for an int8 file."""


@dataclass(frozen=True)
class PrecisionShare:
    """Number of multiplications and layers of a network in each precision."""

    half_macs: int
    """Multiplications of convolutions and matrix products in FP16."""

    macs: int
    """Multiplications in all precisions."""

    half_layers: int
    """Layers with FP16 output."""

    float_layers: int
    """Layers with FP32 output: casts, normalization and layers that are kept in FP32 for accuracy."""

    int8_macs: int = 0
    """Multiplications of two factors that are both dequantized from INT8."""

    int8_layers: int = 0
    """Layers with such multiplications."""

    of: str = "multiplications"
    """Counted quantity: `multiplications`, or `weights` if shapes in the graph are not known before it runs."""

    wide_macs: int = 0
    """Multiplications of quantized numbers that are not INT8, such as 16-bit activations."""

    @property
    def half(self) -> float:
        """Share of the multiplications in FP16, 0 to 1."""
        return self.half_macs / self.macs if self.macs else float("nan")

    @property
    def int8(self) -> float:
        """Share of the multiplications in INT8, 0 to 1."""
        return self.int8_macs / self.macs if self.macs else float("nan")

    @property
    def wide(self) -> float:
        """Share of the multiplications of quantized numbers that are not INT8, 0 to 1."""
        return self.wide_macs / self.macs if self.macs else float("nan")


def count_share(trt: Any, network: Any) -> PrecisionShare:
    """Count layers and multiplications of a network that TensorRT parsed, by precision.

    A strongly typed network computes in the precision of its tensors.
    """
    half_macs = macs = half_layers = float_layers = int8_macs = int8_layers = 0
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    from_int8 = {layer.get_output(0).name for layer in layers if layer.type == trt.LayerType.DEQUANTIZE}
    for layer in layers:
        if layer.num_outputs == 0 or layer.type == trt.LayerType.CONSTANT:
            continue
        output = layer.get_output(0)
        half_layers += output.dtype == trt.DataType.HALF
        float_layers += output.dtype == trt.DataType.FLOAT
        work = _multiplications(trt, layer)
        macs += work
        # `get_input` returns None for a weight that TensorRT stores as a constant.
        factors = [layer.get_input(index) for index in range(min(2, layer.num_inputs))]
        if work and len(factors) == 2 and all(f is not None and f.name in from_int8 for f in factors):
            int8_macs += work  # TensorRT computes products of dequantized factors in INT8
            int8_layers += 1
        elif work and output.dtype == trt.DataType.HALF and layer.get_input(0).dtype == trt.DataType.HALF:
            half_macs += work
    return PrecisionShare(half_macs, macs, half_layers, float_layers, int8_macs, int8_layers)


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
    kinds = (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT16)
    layers: list[tuple[int, int, int]] = []  # type, number of weights, number of output positions
    quantized = {  # output of each DequantizeLinear: INT8, or INT16 for all other widths
        node.output[0]: TensorProto.INT8 if _quantized_type(node, weights) in _BYTES else TensorProto.INT16
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }
    weights |= {  # a dequantized weight counts as INT8 if the other factor is dequantized too
        node.output[0]: weights[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    }
    for node in model.graph.node:
        name = next((name for name in node.input if name in weights), None)
        if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm") or name is None:
            continue
        kind = int(weights[name].data_type)
        if name in quantized:
            factors = {quantized.get(name) for name in node.input[:2]}
            wide = TensorProto.INT16 if TensorProto.INT16 in factors else TensorProto.INT8
            kind = TensorProto.FLOAT16 if None in factors else wide
        if kind not in kinds:
            continue
        positions = math.prod(shapes.get(node.output[0], [0, 0, 0])[2:])
        layers.append((kind, math.prod(weights[name].dims), positions))
    known = all(positions for _, _, positions in layers)
    half, single, int8, wide = (sum(w * (p if known else 1) for kind, w, p in layers if kind == k) for k in kinds)
    half_layers, float_layers, int8_layers = (sum(kind == k for kind, _, _ in layers) for k in kinds[:3])
    of = "multiplications" if known else "weights"
    return PrecisionShare(half, half + single + int8 + wide, half_layers, float_layers, int8, int8_layers, of, wide)


_BYTES = (2, 3)
"""ONNX's type numbers of uint8 and int8."""


def _quantized_type(node: Any, weights: dict[str, Any]) -> int:
    """Return ONNX's type number of a DequantizeLinear's input: the type of its zero point or of its weights, else uint8."""
    names = (name for name in (*node.input[2:3], node.input[0]) if name in weights)
    return next((int(weights[name].data_type) for name in names), 2)


def executed_share(executed: Any) -> PrecisionShare:
    """Count the multiplications of a graph that OpenVINO executes (`CompiledModel.get_runtime_model`), by kernel type."""
    totals = {"int8": [0, 0], "half": [0, 0], "single": [0, 0]}
    for layer in executed.get_ordered_ops():
        info = layer.get_rt_info()
        kind, kernel = (str(info[key].astype(str)) if key in info else "" for key in ("layerType", "primitiveType"))
        if kind not in ("Convolution", "Deconvolution", "FullyConnected", "MatMul"):
            continue
        precision = next((name for end, name in _KERNELS.items() if kernel.lower().endswith(end)), "single")
        source, weight = layer.input(0).get_shape(), layer.input(1).get_shape()
        positions = (
            math.prod(source[:-1])
            if kind in ("FullyConnected", "MatMul")
            else math.prod((source if kind == "Deconvolution" else layer.output(0).get_shape())[2:])
        )
        totals[precision][0] += positions * math.prod(weight)
        totals[precision][1] += 1
    macs = sum(work for work, _ in totals.values())
    (int8, int8_layers), (half, half_layers), (_, float_layers) = totals.values()
    return PrecisionShare(half, macs, half_layers, float_layers, int8, int8_layers)


_KERNELS = {"_i8": "int8", "_u8": "int8", "_f16": "half", "_bf16": "half"}
"""Precisions by the suffix of OpenVINO's kernel names."""
