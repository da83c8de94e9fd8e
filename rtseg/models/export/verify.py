"""Verification of a build: its precision, its agreement with the original model, and its latency."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from rtseg.core.errors import ModelError
from rtseg.gpu.devices import find_gpus
from rtseg.inference import Backend
from rtseg.inference.argmax import class_maps
from rtseg.inference.engine_metadata import EngineFacts, Sidecar
from rtseg.inference.tensorrt import TensorRtBackend
from rtseg.models.export.agreement import LOST_SHARE, SAMPLES, Agreement, ClassMapFunction, compare, samples
from rtseg.models.export.onnx_file import fix_input
from rtseg.models.export.precision import MIN_SHARE, PrecisionShare, engine_layers
from rtseg.models.export.source_model import SourceModel, onnx_class_map_function

MIN_AGREEMENT = {"fp32": 0.995, "fp16": 0.995, "int8": 0.98}
"""Minimum share of pixels with the original's class, by precision. INT8 shifts class borders, so it is also compared with
the true labels."""

MAX_MIOU_LOSS = 0.01
"""Maximum loss of mean IoU against the true labels for an INT8 file …"""

MAX_IOU_LOSS = 0.03
"""… and maximum loss of IoU of any class."""

INT8_FRAMES = 128
"""Number of frames for the comparison of an INT8 file: `agreement.SAMPLES` are too few to measure a change of 0.01 in mean
IoU."""


def report_share(share: PrecisionShare, precision: str, target: str, log: Callable[[str], None]) -> dict[str, Any]:
    """Log the precision of a build, and return it for the sidecar.

    Raises:
        ModelError: the share of multiplications in the requested precision is below `MIN_SHARE`.
    """
    total = share.macs.total()
    if not total and precision != "fp32":
        raise ModelError(
            f"the model has no convolution or matrix product with stored weights, so its share of {precision} can't be measured; "
            "--precision fp32 leaves it as it is"
        )
    if precision == "fp16" and not share.share("fp16") >= MIN_SHARE:
        raise ModelError(
            f"only {share.share('fp16'):.1%} of the multiplications are FP16 (an fp16 file needs at least {MIN_SHARE:.0%}): parts "
            "of the model are fixed to FP32; use --precision fp32, or export it again in half precision"
        )
    if precision == "int8" and not share.share("int8") >= MIN_SHARE:
        raise ModelError(
            f"only {share.share('int8'):.1%} of the multiplications are INT8 (an int8 file needs at least {MIN_SHARE:.0%}): the "
            "network has operators without an INT8 form, or this CPU has no INT8 kernels for them; use --precision fp16"
        )
    where = "the parsed, strongly typed network" if target.startswith("tensorrt") else "the ONNX graph"
    if (target, precision) == ("openvino", "int8"):
        where = "the layers that OpenVINO executes here"
    layers, number = share.layers, f"{total / 1e9:.2f} billion" if total >= 1e8 else f"{total / 1e6:.2f} million"
    if not total:
        summary = "no convolutions or matrix products with stored weights"
    elif precision == "int8":
        summary = f"{share.share('int8'):.1%} of {number} {share.of} are INT8 ({layers['int8']} layers)"
    else:
        formats = f"{layers['fp16']} layers FP16 and {layers['fp32']} FP32"
        summary = f"{share.share('fp16'):.1%} of {number} {share.of} are FP16, {formats}"
    log(f"{precision}: {summary}, counted on {where}")
    int8 = {"int8_share": round(share.share("int8"), 4), "int8_layers": layers["int8"]}
    return {
        "counted_on": where,
        **(int8 if precision == "int8" else {}),
        "fp16_share": round(share.share("fp16"), 4) if total else 0.0,
        share.of: total,
        "fp16_layers": layers["fp16"],
        "fp32_layers": layers["fp32"],
    }


def verify_build(
    source_model: SourceModel,
    graph: onnx.ModelProto,
    staged: Path,
    sidecar: Sidecar,
    verify_on: Path | None,
    min_agreement: float | None,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Compare the built file with the original and measure its latency.

    If this machine can't run the built file, its ONNX graph is compared instead, without timing.

    Args:
        source_model: the user's model.
        graph: the ONNX graph that was compiled.
        staged: the built file.
        sidecar: its sidecar, without the verification.
        verify_on: frames for the comparison: a data set, images or a video; None: synthetic scenes.
        min_agreement: minimum share of pixels with the original's class; None: `MIN_AGREEMENT`.
        log: called with human-readable lines.

    Returns:
        Results for the sidecar.

    Raises:
        ModelError: the precision or the agreement is not sufficient; the message contains the figures.
    """
    facts = sidecar.facts
    results: dict[str, Any] = {}
    executed, backend, run = _runnable(staged, facts, graph)
    try:
        if backend is not None and facts.target.startswith("tensorrt"):
            half, single, int8 = engine_layers(backend.layers())
            results["engine_layers"] = {"fp16": half, "fp32": single, "int8": int8}
            log(
                f"engine inspector: {half} layers output FP16, {single} layers output FP32; {int8} layers have INT8 inputs"
            )
            if facts.precision == "fp16" and single and not half:
                raise ModelError("the engine inspector shows only FP32 layers, in an engine that was built as fp16")
            if facts.precision == "int8" and (single or half) and not int8:
                raise ModelError(
                    "the engine inspector shows no layer with INT8 inputs, in an engine that was built as int8"
                )
        reference = source_model.reference_model(facts.input_size)
        count = INT8_FRAMES if facts.precision == "int8" and verify_on else SAMPLES
        classes = sidecar.description.classes
        agreement = compare(reference.run, run, samples(facts.input_size, classes, verify_on, count), classes)
        reference.check()
        frames = verify_on.name if verify_on else "synthetic scenes and noise"
        results["agreement"] = {"ran": executed, "original": reference.label, "on": frames, **agreement.to_dict()}
        equal = f"the class map of {executed} equals that of {reference.label}, on {_percent(agreement.pixels)} of the pixels"
        log(f"compared: {equal} of {agreement.frames} frames ({frames}); by class:")
        for line in agreement.lines():
            log(line)
        try:
            _check_agreement(agreement, facts.precision, min_agreement)
        except ModelError as error:
            if _is_random(reference.run, sidecar, verify_on):
                raise ModelError(
                    f"{sidecar.source} outputs a different class map each time it is run on one image, and can't be verified: it "
                    "has Dropout in training mode, or noise; export it for inference (in PyTorch: model.eval())"
                ) from error
            raise
        if agreement.constant is None:
            log(f"verified: {_percent(agreement.pixels)} of the pixels have the original's class")
        else:
            log(
                f"weak verification: the original outputs only the class '{agreement.constant}' in all {agreement.frames} frames, "
                "as a wrong build might too; give frames that show other classes: --verify-on"
            )
        if backend is not None:
            if facts.target == "openvino":  # measured in the default precision of this CPU, as in later runs
                from rtseg.inference.openvino import OpenVinoBackend  # imports openvino

                backend.close()
                backend = OpenVinoBackend(staged)
            results["latency_ms"] = {"precision": backend.precision, **measure_latency(backend)}
            total, rate = results["latency_ms"]["total"], results["latency_ms"]["per_second"]
            log(
                f"one run in {backend.precision}: p50 {total['p50']:.2f} ms, p99 {total['p99']:.2f} ms, {rate:.0f} per second"
            )
    finally:
        if backend is not None:
            backend.close()
    return results


def _is_random(original: ClassMapFunction, sidecar: Sidecar, verify_on: Path | None) -> bool:
    """Return True if two runs of the original on the same image give different class maps, for any of the frames."""
    frames = samples(sidecar.facts.input_size, sidecar.description.classes, verify_on, SAMPLES)
    return any(bool((original(image) != original(image)).any()) for image, _ in frames)


def _check_agreement(agreement: Agreement, precision: str, min_agreement: float | None) -> None:
    """Raise ModelError if the built file differs too much from the original."""
    minimum = MIN_AGREEMENT[precision] if min_agreement is None else min_agreement
    more_exact = {"int8": "fp16", "fp16": "fp32"}.get(precision)
    suggestion = f"--precision {more_exact} is more exact, " if more_exact else ""
    if agreement.pixels < minimum or agreement.lost():
        lost = f", and mostly lost: {', '.join(agreement.lost())}" if agreement.lost() else ""
        raise ModelError(
            f"the built file agrees with the original on {agreement.pixels:.3%} of the pixels (required: {minimum:.1%}){lost}; "
            f"it was removed. {suggestion}--min-agreement accepts less"
        )
    if precision != "int8" or agreement.miou_change is None:
        return
    frequent = [name for name in agreement.iou_change if agreement.share.get(name, 0) >= LOST_SHARE]
    worst = min(frequent, key=lambda name: agreement.iou_change[name])
    if agreement.miou_change < -MAX_MIOU_LOSS or agreement.iou_change[worst] < -MAX_IOU_LOSS:
        raise ModelError(
            f"against the true labels int8 changes the mean IoU by {agreement.miou_change:+.4f} and that of {worst} by "
            f"{agreement.iou_change[worst]:+.4f} (limits: {-MAX_MIOU_LOSS} and {-MAX_IOU_LOSS}); the built file was removed. "
            "Calibrate on images that are more similar to those of your videos, or build fp16"
        )


def _runnable(staged: Path, facts: EngineFacts, graph: onnx.ModelProto) -> tuple[str, Any, ClassMapFunction]:
    """Return what this machine can run: a human-readable name, the backend (or None), and a function that runs it."""
    backend: Any = None
    if facts.target in ("tensorrt", "tensorrt-rtx") and find_gpus():
        backend = TensorRtBackend(staged, target=facts.target)
    elif facts.target == "openvino":
        from rtseg.inference.openvino import OpenVinoBackend  # imports openvino

        backend = OpenVinoBackend(staged, precision="fp32")  # compares the file, not the rounding of this CPU
    if backend is not None:
        name = f"the built file by {facts.target} on {backend.device} in {backend.precision}"
        return name, backend, lambda image: class_maps(backend, image[None])[0]
    if facts.target == "onnx":
        return "the built file by ONNX Runtime", None, onnx_class_map_function(staged, staged.name, facts.batch)
    fixed = fix_input(graph, facts.input_size, facts.batch)
    name = "the ONNX graph that the engine was built from (no GPU here to run the engine)"
    return name, None, onnx_class_map_function(fixed, staged.name, facts.batch)


def _percent(value: float) -> str:
    """Format a share in percent, as 100 % only if it is exactly 1."""
    return f"{min(value, 0.99999) if value < 1 else value:.4%}"


def percentiles(times_ms: Sequence[float]) -> dict[str, float]:
    """Return the median, 95th and 99th percentile, maximum and mean of times in milliseconds, rounded to microseconds."""
    values = np.asarray(times_ms, np.float64)
    statistics = (*np.percentile(values, (50, 95, 99)), values.max(), values.mean())
    return {name: round(float(v), 3) for name, v in zip(("p50", "p95", "p99", "max", "mean"), statistics, strict=True)}


MEASURE_SECONDS, WARMUP_SECONDS = 2.0, 0.5
"""Duration of the latency measurement of a build, and of the warm-up before it."""


def measure_latency(backend: Backend) -> dict[str, Any]:
    """Measure the latency of a loaded backend, as percentiles in milliseconds, and its throughput.

    `total` is one call of the backend. A GPU backend adds `h2d`, `compute` and `d2h`, measured with CUDA events.
    """
    width, height = backend.input_size
    times: dict[str, list[float]]
    if isinstance(backend, TensorRtBackend):
        times = backend.measure(MEASURE_SECONDS, WARMUP_SECONDS)
    else:
        image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
        times = {"total": []}
        begin = time.perf_counter()
        while (now := time.perf_counter()) - begin < WARMUP_SECONDS + MEASURE_SECONDS:
            backend.infer(image)
            if now - begin >= WARMUP_SECONDS:
                times["total"].append((time.perf_counter() - now) * 1e3)
    latency: dict[str, Any] = {key: percentiles(values) for key, values in times.items()}
    return {**latency, "runs": len(times["total"]), "per_second": round(1e3 / latency["total"]["mean"], 1)}
