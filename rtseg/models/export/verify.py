"""Proof of a build: how much of it is FP16 or INT8, whether it says what the original says, and how fast it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from rtseg.core.errors import ModelError
from rtseg.gpu.devices import find_gpus
from rtseg.inference.engine_metadata import EngineFacts, Sidecar
from rtseg.models.export.agreement import LOST_SHARE, SAMPLES, Agreement, Run, compare, samples
from rtseg.models.export.onnx_file import fix_input
from rtseg.models.export.precision import MIN_SHARE, Share, engine_layers
from rtseg.models.export.source_model import SourceModel, onnx_class_map_function

MIN_AGREEMENT = {"fp32": 0.995, "fp16": 0.995, "int8": 0.98}
"""Share of pixels that must have the original's class, by precision. INT8 moves borders: it is judged by the labels too."""

MAX_MIOU_LOSS = 0.01
"""How much mean IoU against true labels an INT8 file may lose …"""

MAX_IOU_LOSS = 0.03
"""… and how much any one class, where true labels are known."""

INT8_FRAMES = 128
"""Frames that an INT8 file is compared on: a change of 0.01 in mean IoU does not show on `agreement.SAMPLES`."""


def check_share(share: Share, precision: str, target: str) -> dict[str, Any]:
    """What the count says, for the sidecar; an "fp16" file that is FP32, or an "int8" file that is not, is an error."""
    if not share.macs and precision != "fp32":
        raise ModelError(
            f"the model has no convolution or matrix product with stored weights, so that nothing shows whether it is {precision}; "
            "--precision fp32 takes it as it is"
        )
    if precision == "fp16" and not share.half >= MIN_SHARE:
        raise ModelError(
            f"this would be called fp16, but {share.half:.1%} of its multiplications are (at least {MIN_SHARE:.0%} are needed): "
            "the model keeps FP32 inside: --precision fp32 takes it as it is, or export it anew in half precision"
        )
    if precision == "int8" and not share.int8 >= MIN_SHARE:
        raise ModelError(
            f"this would be called int8, but {share.int8:.1%} of its multiplications are (at least {MIN_SHARE:.0%} are needed): "
            "the network has operators that can't be INT8, or this processor none for them; build it as fp16"
        )
    where = "the parsed, strongly typed network" if target.startswith("tensorrt") else "the ONNX graph"
    if (target, precision) == ("openvino", "int8"):
        where = "the layers that OpenVINO executes here"
    return {
        "counted_on": where,
        **({"int8_share": round(share.int8, 4), "int8_layers": share.int8_layers} if precision == "int8" else {}),
        "fp16_share": round(share.half, 4) if share.macs else 0.0,
        share.of: share.macs,
        "fp16_layers": share.half_layers,
        "fp32_layers": share.float_layers,
    }


def format_share(counted: dict[str, Any], precision: str) -> str:
    """How much is FP16 or INT8, for people."""
    if not counted.get("weights", counted.get("multiplications")):
        return (
            f"{precision}: no convolutions or matrix products with stored weights, counted on {counted['counted_on']}"
        )
    if "weights" in counted:
        all_of_it = f"{counted['weights'] / 1e6:.2f} million weights"
    else:
        count = counted["multiplications"]
        told = f"{count / 1e9:.2f} billion" if count >= 1e8 else f"{count / 1e6:.2f} million"
        all_of_it = f"{told} multiplications"
    if precision == "int8":
        return (
            f"int8: {counted['int8_share']:.1%} of {all_of_it} are INT8 "
            f"({counted['int8_layers']} layers), counted on {counted['counted_on']}"
        )
    return (
        f"{precision}: {counted['fp16_share']:.1%} of {all_of_it} are FP16, "
        f"{counted['fp16_layers']} layers FP16 and {counted['fp32_layers']} FP32, counted on {counted['counted_on']}"
    )


def verify_build(
    origin: SourceModel,
    graph: onnx.ModelProto,
    staged: Path,
    sidecar: Sidecar,
    verify_on: Path | None,
    min_agreement: float | None,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Runs the built file, or where this machine can't, the graph it was made from, beside the original.

    Raises:
        ModelError: it does not say what the original says; the message has the figures.
    """
    facts = sidecar.facts
    proof: dict[str, Any] = {}
    ran, backend, run = _what_runs(staged, facts, graph)
    try:
        if backend is not None and facts.target.startswith("tensorrt"):
            half, single, int8 = engine_layers(backend.layers())
            proof["engine_layers"] = {"fp16": half, "fp32": single, "int8": int8}
            log(f"layers of the engine by its inspector: {half} give FP16, {single} FP32; {int8} take INT8")
            if facts.precision == "fp16" and single and not half:
                raise ModelError("this would be called fp16, but its inspector shows FP32 layers alone")
            if facts.precision == "int8" and (single or half) and not int8:
                raise ModelError("this would be called int8, but its inspector shows no layer that takes INT8")
        original = origin.original(facts.input_size)
        agreement = _compare(original, run, sidecar, verify_on)
        original.check()
        frames = verify_on.name if verify_on else "synthetic drives and noise"
        proof["agreement"] = {"ran": ran, "original": original.what, "on": frames, **agreement.to_dict()}
        same = f"the class map of {ran} equals that of {original.what}, on {_share(agreement.pixels)} of the pixels of "
        log(f"compared: {same}{agreement.frames} frames ({frames}); by class:")
        for line in agreement.lines():
            log(line)
        try:
            _judge(agreement, facts.precision, min_agreement)
        except ModelError as error:
            if _varies(original, sidecar, verify_on):
                raise ModelError(
                    f"{sidecar.source} gives another class map each time it is run on one image, and can't be verified: it has "
                    "Dropout in training mode, or noise; export it for inference (in PyTorch: model.eval())"
                ) from error
            raise
        if agreement.constant is None:
            log(f"verified: {_share(agreement.pixels)} of the pixels have the original's class")
        else:
            log(
                f"weak verification: the original gives every pixel of all {agreement.frames} frames the class "
                f"'{agreement.constant}', which any wrong reading may give too; give frames that show other classes: --verify-on"
            )
        if backend is not None:
            if facts.target == "openvino":  # timed as it will run, in the processor's own precision
                from rtseg.inference.openvino import OpenVinoBackend

                backend.close()
                backend = OpenVinoBackend(staged)
            proof["latency_ms"] = {"precision": backend.precision, **measure(backend)}
            total, rate = proof["latency_ms"]["total"], proof["latency_ms"]["per_second"]
            log(
                f"one run in {backend.precision}: p50 {total['p50']:.2f} ms, p99 {total['p99']:.2f} ms, {rate:.0f} a second"
            )
    finally:
        if backend is not None:
            backend.close()
    return proof


def _varies(original: Run, sidecar: Sidecar, verify_on: Path | None) -> bool:
    """Whether the original, run twice on one image, gives two class maps, of any of the frames."""
    frames = samples(sidecar.facts.input_size, sidecar.description.classes, verify_on, SAMPLES)
    return any(bool((original(picture) != original(picture)).any()) for picture, _ in frames)


def _judge(agreement: Agreement, precision: str, min_agreement: float | None) -> None:
    """Raises ModelError where the built file is not good enough to keep."""
    least = MIN_AGREEMENT[precision] if min_agreement is None else min_agreement
    keeps_more = {"int8": "--precision fp16 keeps more, ", "fp16": "--precision fp32 keeps more, ", "fp32": ""}[
        precision
    ]
    if agreement.pixels < least or agreement.lost():
        lost = f", and of {', '.join(agreement.lost())} little is left" if agreement.lost() else ""
        raise ModelError(
            f"the built file agrees with the original on {agreement.pixels:.3%} of the pixels, and {least:.1%} are "
            f"asked{lost}; it was removed. {keeps_more}--min-agreement accepts less"
        )
    if precision != "int8" or agreement.miou_change is None:
        return
    seen = [name for name in agreement.iou_change if agreement.share.get(name, 0) >= LOST_SHARE]
    worst = min(seen, key=lambda name: agreement.iou_change[name])
    if agreement.miou_change < -MAX_MIOU_LOSS or agreement.iou_change[worst] < -MAX_IOU_LOSS:
        raise ModelError(
            f"against the true labels int8 changes the mean IoU by {agreement.miou_change:+.4f} and that of {worst} by "
            f"{agreement.iou_change[worst]:+.4f}; {-MAX_MIOU_LOSS} and {-MAX_IOU_LOSS} are the limits, and it was removed. "
            "Calibrate on pictures that are more like those of use, or build fp16"
        )


def _what_runs(staged: Path, facts: EngineFacts, graph: onnx.ModelProto) -> tuple[str, Any, Run]:
    """What can run here: in words, the backend if it is one, and the function."""
    backend: Any = None
    if facts.target in ("tensorrt", "tensorrt-rtx") and find_gpus():
        from rtseg.inference.tensorrt import TensorRtBackend

        backend = TensorRtBackend(staged, target=facts.target)
    elif facts.target == "openvino":
        from rtseg.inference.openvino import OpenVinoBackend

        backend = OpenVinoBackend(staged, precision="fp32")  # the file is judged, not what a processor may round to
    if backend is not None:
        return (
            f"the built file by {facts.target} on {backend.device} in {backend.precision}",
            backend,
            lambda picture: backend.infer(picture[None])[0],
        )
    if facts.target == "onnx":
        return "the built file by ONNX Runtime", None, onnx_class_map_function(staged, staged.name, facts.batch)
    fixed = fix_input(graph, facts.input_size, facts.batch)
    what = "the ONNX graph that went into the engine (no GPU here to run it)"
    return what, None, onnx_class_map_function(fixed, staged.name, facts.batch)


def _share(value: float) -> str:
    """A share in percent; 100 % only where it is the whole."""
    return f"{min(value, 0.99999) if value < 1 else value:.4%}"


def _compare(original: Run, run: Run, sidecar: Sidecar, verify_on: Path | None) -> Agreement:
    size, classes = sidecar.facts.input_size, sidecar.description.classes
    count = INT8_FRAMES if sidecar.facts.precision == "int8" and verify_on else SAMPLES
    return compare(original, run, samples(size, classes, verify_on, count), classes)


def percentiles(times_ms: Sequence[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile, greatest and mean of times in milliseconds, rounded to microseconds."""
    values = np.asarray(times_ms, np.float64)
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {
        "p50": round(float(p50), 3),
        "p95": round(float(p95), 3),
        "p99": round(float(p99), 3),
        "max": round(float(values.max()), 3),
        "mean": round(float(values.mean()), 3),
    }


MEASURE_SECONDS, WARMUP_SECONDS = 2.0, 0.5
"""How long a build measures the latency of what it has built."""


def measure(backend: Any, seconds: float | None = None, warmup_seconds: float | None = None) -> dict[str, Any]:
    """Latency of a loaded backend alone, by percentiles in milliseconds, and its throughput.

    On a GPU `h2d`, `compute` and `d2h` stand apart, by CUDA events; `total` is one run as the caller sees it.
    """
    seconds = MEASURE_SECONDS if seconds is None else seconds
    warmup_seconds = WARMUP_SECONDS if warmup_seconds is None else warmup_seconds
    width, height = backend.input_size
    times: dict[str, list[float]]
    if hasattr(backend, "measure"):
        times = backend.measure(seconds, warmup_seconds)
    else:
        picture = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
        times = {"total": []}
        begin = time.perf_counter()
        while (now := time.perf_counter()) - begin < warmup_seconds + seconds:
            backend.infer(picture)
            if now - begin >= warmup_seconds:
                times["total"].append((time.perf_counter() - now) * 1e3)
    answer: dict[str, Any] = {key: percentiles(values) for key, values in times.items()}
    return {**answer, "runs": len(times["total"]), "per_second": round(1e3 / answer["total"]["mean"], 1)}
