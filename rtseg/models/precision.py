"""How much of a network computes in half precision: counted, because a flag that asks for it may be ignored.

Three places tell: the ONNX graph, the network that TensorRT parsed (strongly typed: what it says is what is computed), and the
layers of the finished engine, where there is a GPU to load it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Share:
    """How much of a network computes in half precision."""

    half_macs: int
    """Multiplications of convolutions and matrix products in FP16."""

    macs: int
    """All of them, whatever their precision."""

    half_layers: int
    """Layers that give FP16."""

    float_layers: int
    """Layers that give FP32: casts, normalisation and what was kept on purpose."""

    @property
    def half(self) -> float:
        """Share of the multiplications in FP16, 0 to 1."""
        return self.half_macs / self.macs if self.macs else float("nan")


def count_share(trt: Any, network: Any) -> Share:
    """Counts layers and multiplications by the precision of a parsed, strongly typed network: what it says is what is computed."""
    half_macs = macs = half_layers = float_layers = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.num_outputs == 0 or layer.type == trt.LayerType.CONSTANT:
            continue
        output = layer.get_output(0)
        half_layers += output.dtype == trt.DataType.HALF
        float_layers += output.dtype == trt.DataType.FLOAT
        work = _multiplications(trt, layer)
        macs += work
        if output.dtype == trt.DataType.HALF and layer.get_input(0).dtype == trt.DataType.HALF:
            half_macs += work
    return Share(half_macs, macs, half_layers, float_layers)


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


def engine_layers(inspected: str) -> tuple[int, int]:
    """Layers of a finished engine that give FP16, and that give FP32, from the engine inspector's JSON.

    TensorRT up to 8 writes `Channel major FP16 format ...`, later versions `Half` and `Float`. A layer that gives neither, such
    as one on shapes, is not counted. Engines built without detailed verbosity list bare names; they count as (0, 0).
    """
    half = single = 0
    for layer in json.loads(inspected).get("Layers", []):
        formats = (
            [str(output.get("Format/Datatype", "")) for output in layer.get("Outputs", [])]
            if isinstance(layer, dict)
            else []
        )
        half += any("Half" in text or "FP16" in text for text in formats)
        single += any("Float" in text or "FP32" in text for text in formats)
    return half, single


def graph_share(model: Any) -> Share:
    """The same count on an ONNX graph, by the type of the weights. Where shapes are free, each weight counts once."""
    from onnx import TensorProto

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.value_info, *model.graph.output)
    }
    counted = {TensorProto.FLOAT16: [0, 0], TensorProto.FLOAT: [0, 0]}
    for node in model.graph.node:
        tensor = next((weights[name] for name in node.input if name in weights), None)
        if (
            node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm")
            or tensor is None
            or tensor.data_type not in counted
        ):
            continue
        positions = math.prod(shapes.get(node.output[0], [])[2:]) or 1
        counted[tensor.data_type][0] += positions * math.prod(tensor.dims)
        counted[tensor.data_type][1] += 1
    (half, half_layers), (single, float_layers) = counted[TensorProto.FLOAT16], counted[TensorProto.FLOAT]
    return Share(half, half + single, half_layers, float_layers)
