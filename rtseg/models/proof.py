"""Proof of a build: how much of it is FP16, whether it says what the original says, and how fast it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from rtseg.engine_file import EngineFacts, Sidecar
from rtseg.errors import ModelError, OptionError
from rtseg.models.agreement import Agreement, Run, compare, samples
from rtseg.models.onnx_file import fix_input
from rtseg.models.origin import Origin, onnx_run
from rtseg.models.precision import Share, engine_layers
from rtseg.nvidia import find_gpus

MIN_HALF = 0.9
"""Share of the multiplications that must be FP16 in a file that is called fp16."""


def check_share(share: Share, precision: str, target: str) -> dict[str, Any]:
    """What the count says, for the sidecar; an "fp16" file that is FP32 is an error."""
    if precision == "fp16" and not share.half >= MIN_HALF:
        raise ModelError(
            f"this would be called fp16, but {share.half:.1%} of its multiplications are (at least {MIN_HALF:.0%} are needed): "
            "the model keeps FP32 inside: export it anew in half precision"
        )
    where = "the parsed, strongly typed network" if target.startswith("tensorrt") else "the ONNX graph"
    return {
        "counted_on": where,
        "fp16_share": round(share.half, 4),
        "multiplications": share.macs,
        "fp16_layers": share.half_layers,
        "fp32_layers": share.float_layers,
    }


def share_line(counted: dict[str, Any], precision: str) -> str:
    """How much is FP16, for people."""
    return (
        f"{precision}: {counted['fp16_share']:.1%} of {counted['multiplications'] / 1e9:.2f} billion multiplications are FP16, "
        f"{counted['fp16_layers']} layers FP16 and {counted['fp32_layers']} FP32, counted on {counted['counted_on']}"
    )


def prove(
    origin: Origin,
    graph: onnx.ModelProto,
    staged: Path,
    sidecar: Sidecar,
    verify_on: Path | None,
    min_agreement: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Runs the built file, or where this machine can't, the graph it was made from, beside the original."""
    facts = sidecar.facts
    proof: dict[str, Any] = {}
    ran, backend, run = _what_runs(staged, facts, graph)
    try:
        if backend is not None and facts.target.startswith("tensorrt"):
            half, single = engine_layers(backend.layers())
            proof["engine_layers"] = {"fp16": half, "fp32": single}
            say(f"layers of the engine by its inspector: {half} in FP16, {single} in FP32")
            if facts.precision == "fp16" and single and not half:
                raise ModelError("this would be called fp16, but its inspector shows FP32 layers alone")
        agreement = _compare(origin, run, sidecar, verify_on)
        proof["agreement"] = {
            "ran": ran,
            "on": verify_on.name if verify_on else "synthetic drive",
            **agreement.to_dict(),
        }
        say(f"{ran}, beside the original:")
        for line in agreement.lines():
            say(line)
        if agreement.pixels < min_agreement or agreement.lost():
            lost = f", and of {', '.join(agreement.lost())} little is left" if agreement.lost() else ""
            raise ModelError(
                f"the built file agrees with the original on {agreement.pixels:.3%} of the pixels, and {min_agreement:.1%} are "
                f"asked{lost}; it was removed. --precision fp32 keeps more, --min-agreement accepts less"
            )
        if backend is not None:
            if facts.target == "openvino":  # timed as it will run, in the processor's own precision
                from rtseg.backends.openvino import OpenVinoBackend

                backend.close()
                backend = OpenVinoBackend(staged)
            proof["latency_ms"] = {"precision": backend.precision, **measure(backend)}
            total, rate = proof["latency_ms"]["total"], proof["latency_ms"]["per_second"]
            say(
                f"one run in {backend.precision}: p50 {total['p50']:.2f} ms, p99 {total['p99']:.2f} ms, {rate:.0f} a second"
            )
    finally:
        if backend is not None:
            backend.close()
    return proof


def _what_runs(staged: Path, facts: EngineFacts, graph: onnx.ModelProto) -> tuple[str, Any, Run]:
    """What can run here: in words, the backend if it is one, and the function."""
    backend: Any = None
    if facts.target in ("tensorrt", "tensorrt-rtx") and find_gpus():
        from rtseg.backends.tensorrt import TensorRtBackend

        backend = TensorRtBackend(staged, target=facts.target)
    elif facts.target == "openvino":
        from rtseg.backends.openvino import OpenVinoBackend

        backend = OpenVinoBackend(staged, precision="fp32")  # the file is judged, not what a processor may round to
    if backend is not None:
        return (
            f"the built file on {backend.device} in {backend.precision}",
            backend,
            lambda picture: backend.infer(picture[None])[0],
        )
    single = fix_input(graph, facts.input_size, facts.batch) if facts.batch == 1 else None
    if single is None:
        raise OptionError("with --batch above 1 the proof needs a GPU; --no-verify leaves it out")
    what = "the ONNX file" if facts.target == "onnx" else "no GPU here: the graph that the engine was built from"
    return f"{what}, on the processor", None, onnx_run(single, staged.name)


def _compare(origin: Origin, run: Run, sidecar: Sidecar, verify_on: Path | None) -> Agreement:
    size, classes = sidecar.facts.input_size, sidecar.description.classes
    return compare(origin.original(size), run, samples(size, classes, verify_on), classes)


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


def measure(backend: Any, seconds: float = 2.0, warmup_seconds: float = 0.5) -> dict[str, Any]:
    """Latency of a loaded backend alone, by percentiles in milliseconds, and its throughput.

    On a GPU `h2d`, `compute` and `d2h` stand apart, by CUDA events; `total` is one run as the caller sees it.
    """
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
