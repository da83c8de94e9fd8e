"""How much of a network computes in half precision or INT8: counted, because a flag that asks for it may be ignored.

Four places tell: the ONNX graph, the network that TensorRT parsed (strongly typed: what it says is what is computed), the
layers of the finished engine, where there is a GPU to load it, and those that OpenVINO executes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

MIN_SHARE = 0.9
"""Share of the multiplications that must be FP16 in a file that is called fp16, and INT8 in one that is called int8."""


@dataclass(frozen=True)
class Share:
    """How much of a network computes in which precision."""

    half_macs: int
    """Multiplications of convolutions and matrix products in FP16."""

    macs: int
    """All of them, whatever their precision."""

    half_layers: int
    """Layers that give FP16."""

    float_layers: int
    """Layers that give FP32: casts, normalization and what was kept on purpose."""

    int8_macs: int = 0
    """Multiplications in INT8: both factors come from INT8."""

    int8_layers: int = 0
    """Layers with such multiplications."""

    of: str = "multiplications"
    """What was counted: `multiplications`, or `weights` where shapes inside the graph show only when it runs."""

    wide_macs: int = 0
    """Multiplications of quantized numbers that are not INT8, such as activations of 16 bits."""

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


def count_share(trt: Any, network: Any) -> Share:
    """Counts layers and multiplications by the precision of a parsed, strongly typed network: what it says is what is computed."""
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
        # A weight that TensorRT holds as a constant is no input, and `get_input` gives None for it.
        factors = [layer.get_input(index) for index in range(min(2, layer.num_inputs))]
        if work and len(factors) == 2 and all(f is not None and f.name in from_int8 for f in factors):
            int8_macs += work  # TensorRT computes what stands between dequantized factors and their sum in INT8
            int8_layers += 1
        elif work and output.dtype == trt.DataType.HALF and layer.get_input(0).dtype == trt.DataType.HALF:
            half_macs += work
    return Share(half_macs, macs, half_layers, float_layers, int8_macs, int8_layers)


def _multiplications(trt: Any, layer: Any) -> int:
    """Multiplications in a convolution, transposed convolution or matrix product; 0 for every other layer."""
    kinds = trt.LayerType
    if layer.type not in (kinds.CONVOLUTION, kinds.DECONVOLUTION, kinds.MATRIX_MULTIPLY):
        return 0
    source, result = layer.get_input(0), layer.get_output(0)
    if layer.type == kinds.MATRIX_MULTIPLY:
        return abs(int(math.prod(result.shape) * source.shape[-1]))
    forward = layer.type == kinds.CONVOLUTION
    layer.__class__ = (
        trt.IConvolutionLayer if forward else trt.IDeconvolutionLayer
    )  # how Python gets at a layer's own kind
    per_position = math.prod(layer.kernel_size_nd) * source.shape[1] * result.shape[1] // layer.num_groups
    return abs(int(math.prod((result if forward else source).shape[2:]) * result.shape[0] * per_position))


def engine_layers(inspected: str) -> tuple[int, int, int]:
    """Layers of a finished engine that give FP16, that give FP32 and that take INT8, from the engine inspector's JSON.

    TensorRT up to 10 has one field `Format/Datatype`, 11 has `Format` and a data type apart. Up to 8 it says `Channel major FP16
    format ...`, later `Half` and `Float`. A layer that gives neither, such as one on shapes, is not counted. Engines built
    without detailed verbosity list bare names; they count as (0, 0, 0).
    """
    half = single = int8 = 0
    for layer in json.loads(inspected).get("Layers", []):
        formats, taken = (
            [_type_of(entry) for entry in layer.get(side, [])] if isinstance(layer, dict) else []
            for side in ("Outputs", "Inputs")
        )
        half += any("Half" in text or "FP16" in text for text in formats)
        single += any("Float" in text or "FP32" in text for text in formats)
        int8 += any("Int8" in text or "INT8" in text for text in taken)
    return half, single, int8


def _type_of(tensor: Any) -> str:
    """What the inspector says of a tensor's type, whatever the version calls the field."""
    fields = {key.lower(): str(value) for key, value in tensor.items()}
    return next((fields[name] for name in ("datatype", "format/datatype", "format") if name in fields), "")


def graph_share(model: Any) -> Share:
    """The same count on an ONNX graph, by the type of the weights. Where a shape is not known, each weight counts once."""
    from onnx import TensorProto

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.value_info, *model.graph.output)
    }
    kinds = (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT16)
    found: list[tuple[int, int, int]] = []  # kind, weights, positions in the picture
    quantized = {  # by what a DequantizeLinear gives: INT8, or INT16 for every other width
        node.output[0]: TensorProto.INT8 if _quantized_type(node, weights) in _BYTES else TensorProto.INT16
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }
    weights |= {  # a dequantized weight counts as INT8 where the value it meets is dequantized too
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
            factors = {quantized.get(given) for given in node.input[:2]}
            wide = TensorProto.INT16 if TensorProto.INT16 in factors else TensorProto.INT8
            kind = TensorProto.FLOAT16 if None in factors else wide
        if kind not in kinds:
            continue
        positions = math.prod(shapes.get(node.output[0], [0, 0, 0])[2:])
        found.append((kind, math.prod(weights[name].dims), positions))
    known = all(positions for _, _, positions in found)
    half, single, int8, wide = (sum(w * (p if known else 1) for kind, w, p in found if kind == k) for k in kinds)
    half_layers, float_layers, int8_layers = (sum(kind == k for kind, _, _ in found) for k in kinds[:3])
    of = "multiplications" if known else "weights"
    return Share(half, half + single + int8 + wide, half_layers, float_layers, int8, int8_layers, of, wide)


_BYTES = (2, 3)
"""ONNX's numbers for uint8 and int8."""


def _quantized_type(node: Any, weights: dict[str, Any]) -> int:
    """ONNX's number for the type that a DequantizeLinear takes: that of its zero, or of the weights that it takes; else uint8."""
    names = (name for name in (*node.input[2:3], node.input[0]) if name in weights)
    return next((int(weights[name].data_type) for name in names), 2)


def executed_share(executed: Any) -> Share:
    """The same count on the graph that OpenVINO executes (`CompiledModel.get_runtime_model`), by what each layer's kernel is."""
    totals = {"int8": [0, 0], "half": [0, 0], "single": [0, 0]}
    for layer in executed.get_ordered_ops():
        about = layer.get_rt_info()
        kind, kernel = (str(about[key].astype(str)) if key in about else "" for key in ("layerType", "primitiveType"))
        if kind not in ("Convolution", "Deconvolution", "FullyConnected", "MatMul"):
            continue
        which = next((name for end, name in _KERNELS.items() if kernel.lower().endswith(end)), "single")
        source, weight = layer.input(0).get_shape(), layer.input(1).get_shape()
        positions = (
            math.prod(source[:-1])
            if kind in ("FullyConnected", "MatMul")
            else math.prod((source if kind == "Deconvolution" else layer.output(0).get_shape())[2:])
        )
        totals[which][0] += positions * math.prod(weight)
        totals[which][1] += 1
    macs = sum(work for work, _ in totals.values())
    (int8, int8_layers), (half, half_layers), (_, float_layers) = totals.values()
    return Share(half, macs, half_layers, float_layers, int8, int8_layers)


_KERNELS = {"_i8": "int8", "_u8": "int8", "_f16": "half", "_bf16": "half"}
"""Endings of OpenVINO's kernel names."""
