"""Benchmark of a GPU, in one command under ten minutes, without network access.

    python benchmarks/gpu.py --json benchmarks/results/gpu-NAME.json [--engine FILE.engine] [--video drive.mp4]

1. Engines, torch FP16 and `torch.compile` with the same weights on the same GPU: images in host memory to class scores in
   host memory, single and in batches, alternating for five rounds. Without --engine, engines are built first.
2. The decoder: NVDEC with frames that stay in GPU memory, NVDEC with frames that are downloaded, and the software decoder.
3. The whole pipeline on a 1920x1080 file: GPU path, CPU path with NVDEC, and CPU path with the software decoder. Frames per second,
   and their share of the limit, which is the slower of engine and decoder.

A part that fails is recorded with its error message, and the rest is measured. `--device cpu` tests the script without a GPU, with
torch only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from rtseg.bench.measure import machine, write_synthetic_video
from rtseg.core.errors import RtsegError
from rtseg.gpu.cuda import Cuda
from rtseg.gpu.devices import find_gpus
from rtseg.inference import Backend, open_backend
from rtseg.inference.bundled_models import find_model, find_weights
from rtseg.inference.segmenter import Segmenter
from rtseg.io.codecs import choose_decoder
from rtseg.io.inputs import open_source
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.models.export.build import build
from rtseg.models.export.build_options import BuildOptions
from rtseg.render.style import Style
from rtseg.video.process import process

ROUNDS, SECONDS, PATH_ROUNDS = 5, 2.0, 3
FIELDS = ("fps", "path", "decoder", "encoder", "cpu_seconds", "latency_ms", "stages", "bottleneck", "notes")
"""Fields of a run's statistics that are kept."""
BATCHES = (1, 8)
TARGETS = ("tensorrt", "tensorrt-rtx")
ERRORS = (RtsegError, RuntimeError, ImportError, OSError)
"""Errors of a runtime, a compiler or a driver."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", default="small")
    parser.add_argument("--engine", type=Path, action="append", help="an existing engine; may be repeated")
    parser.add_argument("--video", help="a 1920x1080 file; default: a synthetic scene")
    parser.add_argument("--frames", type=int, default=300, help="length of the synthetic scene")
    parser.add_argument("--device", default="cuda:0")
    args = parser.parse_args()
    gpus = [] if args.device == "cpu" else find_gpus()
    if not gpus and args.device != "cpu":
        print("no NVIDIA GPU was found; `rtseg doctor` shows the reason", file=sys.stderr)
        return 1
    result: dict[str, Any] = {"machine": machine().to_dict(), "gpu": vars(gpus[0]) if gpus else None, "refused": {}}
    with tempfile.TemporaryDirectory(prefix="rtseg-gpu-") as folder:
        engines = {}
        for target in TARGETS if gpus and not args.engine else ():
            engine = attempt(
                result,
                target,
                lambda t=target: build(args.model, BuildOptions(t), out=Path(folder), verification=None).path,
            )
            engines |= {target: engine} if engine else {}
        for path in args.engine or ():
            engines[path.name] = path
        result["backends"] = measure_backends(args.model, engines, args.device, result)
        video = args.video or write_synthetic_video((1920, 1080), args.frames, folder)
        if gpus:
            result["decoders"] = measure_decoders(video, result)
            result["paths"] = measure_paths(video, engines, folder, result)
    args.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "machine"}, indent=2))
    return 0


def attempt(result: dict[str, Any], name: str, work: Callable[[], Any]) -> Any:
    """Return the result of `work`; None after an error, whose message is stored under `refused`."""
    try:
        return work()
    except ERRORS as error:
        result["refused"][name] = f"{type(error).__name__}: {error}"
        return None


def measure_backends(model: str, engines: dict[str, Path], device: str, result: dict[str, Any]) -> dict[str, Any]:
    """Measure images per second of each backend, alternating: median, smallest and largest of the rounds."""
    size = model_input_size(model)
    backends: dict[str, Backend] = {}
    for name, path in engines.items():
        target = "tensorrt-rtx" if "rtx" in path.name else "tensorrt"
        backends |= entry(name, attempt(result, name, lambda p=path, t=target: open_backend(t, p)))
    backends |= entry(
        "torch", attempt(result, "torch", lambda: open_backend("torch", find_weights(model), device=device))
    )
    backends |= entry("torch.compile", attempt(result, "torch.compile", lambda: compiled_torch(model, device)))
    images = np.random.default_rng(0).integers(0, 256, (max(BATCHES), size[1], size[0], 3), dtype=np.uint8)
    report: dict[str, Any] = {}
    for batch in BATCHES:
        rates: dict[str, list[float]] = {}
        for name, backend in backends.items():  # compiles for this shape, which is not measured
            warm = attempt(result, f"{name}, batch {batch}", lambda b=backend, n=batch: b.infer(images[:n]))
            rates |= {name: []} if warm is not None else {}
        for _ in range(ROUNDS):
            for name in rates:
                rates[name].append(images_per_second(backends[name], images[:batch]))
        for name, rounds in rates.items():
            report.setdefault(name, {"precision": backends[name].precision, "device": backends[name].device})
            report[name][f"batch {batch}"] = [round(value(rounds), 1) for value in (statistics.median, min, max)]
    for name, backend in backends.items():
        measure = getattr(backend, "measure", None)
        if measure is not None and name in report:  # copies and computation separately, by CUDA events
            report[name]["ms"] = {key: round(statistics.median(values), 4) for key, values in measure(SECONDS).items()}
        backend.close()
    return report


def entry(name: str, backend: Backend | None) -> dict[str, Backend]:
    return {} if backend is None else {name: backend}


def model_input_size(model: str) -> tuple[int, int]:
    """Return (width, height) of the model's input."""
    from rtseg.inference import describe_model

    return describe_model(find_model(model)).input_size


def compiled_torch(model: str, device: str) -> Backend:
    """Return the torch backend with a compiled network, in the mode that torch recommends for repeated shapes."""
    import torch

    backend: Any = open_backend("torch", find_weights(model), device=device)
    backend._module = torch.compile(backend._module, mode="default" if device == "cpu" else "max-autotune")
    return backend  # type: ignore[no-any-return]


def images_per_second(backend: Backend, images: npt.NDArray[np.uint8]) -> float:
    """Measure consecutive calls, from images in host memory to class scores in host memory."""
    count, begin = 0, time.perf_counter()
    while (now := time.perf_counter()) - begin < SECONDS / ROUNDS:
        backend.infer(images)
        count += len(images)
    return count / (now - begin)


PATHS = {"gpu": "nvdec", "cpu, nvdec": "nvdec", "cpu, software": "software"}
"""Decoder of each measured path."""


def measure_decoders(video: str, result: dict[str, Any]) -> dict[str, float]:
    """Measure frames per second of the decoder for each path, with frames in the memory that the path needs."""
    rates = {}
    for name, decoder in PATHS.items():
        rate = attempt(result, f"decoder, {name}", lambda n=name, d=decoder: decoded_per_second(video, d, n == "gpu"))
        if rate is not None:
            rates[name] = round(rate, 1)
    return rates


def decoded_per_second(video: str, decoder: str, on_gpu: bool) -> float:
    if on_gpu:
        Cuda(0).make_current()  # the decoder uses the current context
    source = open_source(video, InputOptions(decoder=choose_decoder(decoder)), gpu=0 if on_gpu else None)
    try:
        begin = time.perf_counter()
        count = sum(1 for _ in source)
        return count / (time.perf_counter() - begin)
    finally:
        source.close()


def measure_paths(video: str, engines: dict[str, Path], folder: str, result: dict[str, Any]) -> dict[str, Any]:
    """Measure each path with each engine, alternating: the median run, and the rates of all runs."""
    report: dict[str, Any] = {}
    for name, engine in engines.items():
        runs: dict[str, list[dict[str, Any]]] = {path: [] for path in result["decoders"]}
        for _ in range(PATH_ROUNDS):
            for path, path_runs in runs.items():
                run = attempt(result, f"path {name}, {path}", lambda e=engine, p=path: run_path(video, e, p, folder))
                path_runs += [run] if run else []
        for path, path_runs in runs.items():
            if not path_runs:
                continue
            median_run = sorted(path_runs, key=lambda run: float(run["fps"]))[len(path_runs) // 2]
            limit = min(result["decoders"][path], result["backends"].get(name, {}).get("batch 1", [0.0])[0])
            report[f"{name}, {path}"] = {
                **median_run,
                "fps_runs": [run["fps"] for run in path_runs],
                "share_of_limit": round(median_run["fps"] / limit, 3) if limit else None,
            }
    return report


def run_path(video: str, engine: Path, path: str, folder: str) -> dict[str, Any]:
    reading = InputOptions(decoder=choose_decoder(PATHS[path]))
    force_cpu_path = mock.patch("rtseg.pipeline.gpu_processor.cpu_path_reason", return_value="forced by the benchmark")
    with (
        nullcontext() if path == "gpu" else force_cpu_path,
        Segmenter(engine, streams=0) as segmenter,
    ):
        run = process(video, f"{folder}/out.mp4", segmenter, Style(), OutputOptions(preset="ultrafast"), reading)
    if run.path != path.split(",")[0]:
        raise RuntimeError(f"the run used the {run.path} path: {run.notes}")
    return {key: value for key, value in run.to_dict().items() if key in FIELDS}


if __name__ == "__main__":
    sys.exit(main())
