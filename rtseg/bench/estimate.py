"""Theoretical upper bound of the frame rate on a board, from its published peak rates. Nothing is measured.

    time per frame  >=  max(operations / peak rate of the tensor cores,
                            bytes of weights, input and class map / memory bandwidth)

The bound assumes that all activations stay in caches. `by_layer` assumes instead that each layer reads its input from memory and
writes its output to memory once, and takes the longer of its two times. Both count convolutions and matrix products in FP16, and
leave out the rest of the network, kernel launches, decoding, rendering and encoding. No layer reaches a peak rate: real boards are
slower, often several times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtseg.core.errors import BackendError, ModelError, OptionError
from rtseg.inference.openvino import read_description

_HALF_BYTES = 2
_OUTPUT_AXES = {"Convolution": 1, "GroupConvolution": 2, "MatMul": None}
"""Counted layer types by OpenVINO's names, with the number of output axes of the weights."""


@dataclass(frozen=True)
class Board:
    """Published peak rates of a device."""

    title: str
    """Display name."""

    half_flops: float
    """FP16 operations per second of the tensor cores, without sparsity; a multiply-add counts as two."""

    half_flops_source: str
    """Calculation of `half_flops` from published figures."""

    bytes_per_second: float
    """Memory bandwidth in bytes per second."""


# NVIDIA publishes INT8 with sparsity; FP16 without sparsity is a quarter of it.
# 512 operations per tensor core and cycle (Ampere): 64 x 512 x 1.3 GHz = 42.6 T = 170 T / 4, as published for AGX Orin's GPU.
BOARDS = {
    "orin-nano": Board("Jetson Orin Nano 8GB, MAXN SUPER", 67e12 / 4, "67 TOPS INT8 sparse / 4", 102e9),
    "orin-nx": Board(
        "Jetson Orin NX 16GB, MAXN SUPER, GPU only", 32 * 512 * 1.173e9, "32 tensor cores x 512 x 1.173 GHz", 102.4e9
    ),
    "agx-orin": Board("Jetson AGX Orin 64GB, MAXN, GPU only", 170e12 / 4, "170 TOPS INT8 sparse / 4", 204.8e9),
    "thor": Board("Jetson T5000 (AGX Thor), MAXN", 2070e12 / 8, "2070 TFLOPS FP4 sparse / 8", 273e9),
}
"""Published at https://www.nvidia.com/en-us/autonomous-machines/embedded-systems/ (jetson-orin, jetson-thor)."""


@dataclass(frozen=True)
class Layer:
    """Cost of one convolution or matrix product per frame."""

    macs: int
    """Number of multiply-adds."""

    weight_bytes: int
    """Size of the weights in FP16."""

    map_bytes: int
    """Size of input and output in FP16."""


def layers_of(model: Path, size: tuple[int, int] | None = None) -> tuple[list[Layer], tuple[int, int]]:
    """Return the convolutions and matrix products of a network.

    Args:
        model: `.onnx` or `.xml`, following the model contract.
        size: (width, height) of the input; None: the model's own.

    Returns:
        The layers and the (width, height) of the input.

    Raises:
        BackendError: OpenVINO, which reads the file, is not installed.
        ModelError: the file is missing or damaged, or has layers of dynamic size or none to count.
    """
    try:
        import openvino
    except ImportError as error:
        raise BackendError("the estimate needs OpenVINO: `pip install openvino`, on a PC") from error
    width, height = size or read_description(model).input_size
    network = openvino.Core().read_model(model)
    network.reshape({"image": [1, height, width, 3]})
    layers = []
    for node in network.get_ordered_ops():
        if node.get_type_name() not in _OUTPUT_AXES:
            continue
        input_shape, weights, output = (_shape(port, model) for port in (node.input(0), node.input(1), node.output(0)))
        output_axes = _OUTPUT_AXES[node.get_type_name()]
        inner = input_shape[-1] if output_axes is None else math.prod(weights[output_axes:])
        map_bytes = (math.prod(input_shape) + math.prod(output)) * _HALF_BYTES
        layers.append(Layer(math.prod(output) * inner, math.prod(weights) * _HALF_BYTES, map_bytes))
    if not layers:
        raise ModelError(f"{model}: no convolution in it, nothing to estimate")
    return layers, (width, height)


def estimate(model: Path, board: str, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return the upper bound of the frame rate with all figures of its calculation, as a JSON object.

    Args:
        model: `.onnx` or `.xml`, following the model contract.
        board: a key of `BOARDS`.
        size: (width, height) of the input; None: the model's own.

    Raises:
        OptionError: the board is unknown.
        BackendError: OpenVINO, which reads the file, is not installed.
        ModelError: the file is missing or damaged, or has layers of dynamic size or none to count.
    """
    if board not in BOARDS:
        raise OptionError(f"unknown board '{board}'; known boards are {', '.join(BOARDS)}")
    device = BOARDS[board]
    layers, (width, height) = layers_of(model, size)
    macs, weights = sum(layer.macs for layer in layers), sum(layer.weight_bytes for layer in layers)
    min_bytes = weights + (3 + 1) * width * height  # RGB input and class map
    compute_seconds = 2 * macs / device.half_flops
    memory_seconds = min_bytes / device.bytes_per_second
    by_layer_seconds = sum(
        max(2 * layer.macs / device.half_flops, (layer.weight_bytes + layer.map_bytes) / device.bytes_per_second)
        for layer in layers
    )
    return {
        "estimate": True,
        "measured": False,
        "board": device.title,
        "model": model.stem,
        "input_size": [width, height],
        "gmacs": round(macs / 1e9, 3),
        "least_megabytes": round(min_bytes / 1e6, 2),
        "map_megabytes": round(sum(layer.map_bytes for layer in layers) / 1e6, 2),
        "peak_tflops": round(device.half_flops / 1e12, 2),
        "peak_gigabytes_per_second": round(device.bytes_per_second / 1e9, 1),
        "peak_working": device.half_flops_source,
        "compute_ms": round(compute_seconds * 1e3, 4),
        "memory_ms": round(memory_seconds * 1e3, 4),
        "by_layer_ms": round(by_layer_seconds * 1e3, 4),
        "limited_by": "compute" if compute_seconds >= memory_seconds else "memory",
        "at_most_fps": round(1 / max(compute_seconds, memory_seconds)),
        "by_layer_fps": round(1 / by_layer_seconds),
    }


def format_estimate(result: dict[str, Any]) -> str:
    """Return an estimate as human-readable lines."""
    width, height = result["input_size"]
    return "\n".join(
        (
            f"ESTIMATE, nothing was measured: {result['model']} at {width}x{height} on {result['board']}",
            f"  operations  2 x {result['gmacs']:.3f} G / {result['peak_tflops']:.2f} T/s ({result['peak_working']})"
            f" = {result['compute_ms']:.3f} ms",
            f"  memory      {result['least_megabytes']:.2f} MB / {result['peak_gigabytes_per_second']:.1f} GB/s"
            f" = {result['memory_ms']:.3f} ms",
            f"  at most {result['at_most_fps']} frames per second through the network, limited by {result['limited_by']}",
            f"  by layer, with {result['map_megabytes']:.2f} MB more for activations: {result['by_layer_ms']:.3f} ms,"
            f" {result['by_layer_fps']} frames per second",
            "  a real board is slower, often several times; decoding, rendering and encoding take additional time",
        )
    )


def _shape(port: Any, model: Path) -> tuple[int, ...]:
    shape = port.get_partial_shape()
    if shape.is_dynamic:
        raise ModelError(f"{model}: a layer has a dynamic size; export the model with a fixed size")
    return tuple(shape.to_shape())
