"""On paper: how many pictures a second a board could compute at most, by its published peak rates. Nothing is measured here.

    time per picture  >=  the larger of   operations / peak rate of the tensor cores
                                          weights, picture and classes, in bytes / memory bandwidth

That is the upper bound: everything between the layers stays in caches. `by_layer` is what it would be if each layer read its
input and wrote its output in memory once, and took the longer of its two times. Both count convolutions and matrix products in
FP16, and leave out the rest of the network, launches of kernels, decoding, coloring and encoding. No layer reaches a peak
rate: real boards are slower, often several times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtseg.core.errors import BackendError, ModelError, OptionError
from rtseg.inference.openvino import read_description

_HALF_BYTES = 2
_OUTER_AXES = {"Convolution": 1, "GroupConvolution": 2, "MatMul": None}
"""Layers that multiply, by OpenVINO's names, and how many axes of the weights say where a result goes, not what it is made of."""


@dataclass(frozen=True)
class Board:
    """A device, as NVIDIA publishes it."""

    title: str
    """For people."""

    half_flops: float
    """FP16 operations a second of its tensor cores, without sparsity; a multiplication with its addition counts as two."""

    working: str
    """Where that comes from."""

    bytes_per_second: float
    """Memory bandwidth."""


# NVIDIA publishes INT8 with sparsity; FP16 without is a quarter of it: half for the sparsity, half for the wider numbers.
# 512 operations a tensor core and cycle (Ampere): 64 x 512 x 1.3 GHz = 42.6 T = 170 T / 4, as published for AGX Orin's GPU.
BOARDS = {
    "orin-nano": Board("Jetson Orin Nano 8GB, MAXN SUPER", 67e12 / 4, "67 TOPS INT8 sparse / 4", 102e9),
    "orin-nx": Board(
        "Jetson Orin NX 16GB, MAXN SUPER, GPU alone", 32 * 512 * 1.173e9, "32 tensor cores x 512 x 1.173 GHz", 102.4e9
    ),
    "agx-orin": Board("Jetson AGX Orin 64GB, MAXN, GPU alone", 170e12 / 4, "170 TOPS INT8 sparse / 4", 204.8e9),
    "thor": Board("Jetson T5000 (AGX Thor), MAXN", 2070e12 / 8, "2070 TFLOPS FP4 sparse / 8", 273e9),
}
"""Published at https://www.nvidia.com/en-us/autonomous-machines/embedded-systems/ (jetson-orin, jetson-thor)."""


@dataclass(frozen=True)
class Layer:
    """What one convolution or matrix product costs a picture."""

    macs: int
    """Multiplications with their additions."""

    weight_bytes: int
    """Of its weights in FP16."""

    map_bytes: int
    """Of its input and its output in FP16."""


def layers_of(model: Path, size: tuple[int, int] | None = None) -> tuple[list[Layer], tuple[int, int]]:
    """A network's layers that multiply.

    Args:
        model: `.onnx` or `.xml`, following the model contract.
        size: (width, height) of the input; None: the model's own.

    Returns:
        The layers, and the size that they are for.

    Raises:
        BackendError: OpenVINO, which reads the file, is missing: then estimate on a PC.
        ModelError: the file is missing, damaged, or its layers' sizes are not known.
    """
    try:
        import openvino
    except ImportError as error:
        raise BackendError("OpenVINO reads the model, and is not installed: `pip install openvino`, on a PC") from error
    width, height = size or read_description(model).input_size
    network = openvino.Core().read_model(model)
    network.reshape({"image": [1, height, width, 3]})
    found = []
    for node in network.get_ordered_ops():
        if node.get_type_name() not in _OUTER_AXES:
            continue
        given, factor, out = (_shape(port, model) for port in (node.input(0), node.input(1), node.output(0)))
        outer = _OUTER_AXES[node.get_type_name()]
        inner = given[-1] if outer is None else math.prod(factor[outer:])
        maps = (math.prod(given) + math.prod(out)) * _HALF_BYTES
        found.append(Layer(math.prod(out) * inner, math.prod(factor) * _HALF_BYTES, maps))
    if not found:
        raise ModelError(f"{model}: no convolution in it, nothing to estimate")
    return found, (width, height)


def estimate(model: Path, board: str, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """The upper bound, with its working; marked as an estimate.

    Args:
        model: as `layers_of` takes it.
        board: a key of `BOARDS`.
        size: (width, height) of the input; None: the model's own.

    Raises:
        OptionError: no such board.
        BackendError, ModelError: as `layers_of`.
    """
    if board not in BOARDS:
        raise OptionError(f"no published rates of '{board}' here; there are {', '.join(BOARDS)}")
    device = BOARDS[board]
    layers, (width, height) = layers_of(model, size)
    macs, weights = sum(layer.macs for layer in layers), sum(layer.weight_bytes for layer in layers)
    least_bytes = weights + (3 + 1) * width * height  # the picture in, its classes out
    compute_seconds = 2 * macs / device.half_flops
    memory_seconds = least_bytes / device.bytes_per_second
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
        "least_megabytes": round(least_bytes / 1e6, 2),
        "map_megabytes": round(sum(layer.map_bytes for layer in layers) / 1e6, 2),
        "peak_tflops": round(device.half_flops / 1e12, 2),
        "peak_gigabytes_per_second": round(device.bytes_per_second / 1e9, 1),
        "peak_working": device.working,
        "compute_ms": round(compute_seconds * 1e3, 4),
        "memory_ms": round(memory_seconds * 1e3, 4),
        "by_layer_ms": round(by_layer_seconds * 1e3, 4),
        "limited_by": "compute" if compute_seconds >= memory_seconds else "memory",
        "at_most_fps": round(1 / max(compute_seconds, memory_seconds)),
        "by_layer_fps": round(1 / by_layer_seconds),
    }


def working(told: dict[str, Any]) -> str:
    """An estimate in lines for people."""
    width, height = told["input_size"]
    return "\n".join(
        (
            f"ESTIMATE, nothing was measured: {told['model']} at {width}x{height} on {told['board']}",
            f"  operations  2 x {told['gmacs']:.3f} G / {told['peak_tflops']:.2f} T a second ({told['peak_working']})"
            f" = {told['compute_ms']:.3f} ms",
            f"  memory      {told['least_megabytes']:.2f} MB / {told['peak_gigabytes_per_second']:.1f} GB a second"
            f" = {told['memory_ms']:.3f} ms",
            f"  at most {told['at_most_fps']} pictures a second through the network, limited by {told['limited_by']}",
            f"  by layer, with {told['map_megabytes']:.2f} MB more for what passes between them: {told['by_layer_ms']:.3f} ms,"
            f" {told['by_layer_fps']} pictures a second",
            "  a real board is slower, often several times; decoding, coloring and encoding come on top",
        )
    )


def _shape(port: Any, model: Path) -> tuple[int, ...]:
    shape = port.get_partial_shape()
    if shape.is_dynamic:
        raise ModelError(f"{model}: a layer's size is not known before it runs; export it with a fixed size")
    return tuple(shape.to_shape())
