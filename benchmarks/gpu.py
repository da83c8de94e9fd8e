"""What a GPU makes of it, in one command under ten minutes that needs nothing from the network.

    python benchmarks/gpu.py --json benchmarks/results/gpu-NAME.json [--engine FILE.engine] [--video drive.mp4]

1. The engine beside torch FP16 and `torch.compile` of the same weights, on the same GPU: pictures from the host and class maps back
   to it, one at a time and in batches, turn by turn for five rounds. An engine is built where none is named.
2. The decoder alone: the card's (NVDEC) with its pictures left there, the card's with its pictures brought down, the processor's.
3. The whole road on a 1920x1080 file: over the card, over the processor with the card's decoder, and with the processor's. Frames a
   second, and the share of the slower of bare engine and bare decoder that it reaches.

What can't run is told in the exact words of whoever refused, and the rest is measured all the same. `--device cpu` tries the script
where there is no GPU: torch alone.
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

from rtseg.bench import synthetic_street
from rtseg.bench.measure import machine
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
from rtseg.render.style import Style
from rtseg.video.process import process

ROUNDS, SECONDS, ROAD_ROUNDS = 5, 2.0, 3
KEPT = ("fps", "road", "decoder", "encoder", "cpu_seconds", "latency_ms", "stages", "bottleneck", "notes")
BATCHES = (1, 8)
TARGETS = ("tensorrt", "tensorrt-rtx")
REFUSED = (RtsegError, RuntimeError, ImportError, OSError)
"""What a run-time, a compiler or a driver may raise."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", default="small")
    parser.add_argument("--engine", type=Path, action="append", help="built before; may be repeated")
    parser.add_argument("--video", help="1920x1080; without it a street is drawn")
    parser.add_argument("--frames", type=int, default=300, help="of the street that is drawn")
    parser.add_argument("--device", default="cuda:0")
    args = parser.parse_args()
    gpus = [] if args.device == "cpu" else find_gpus()
    if not gpus and args.device != "cpu":
        print("no NVIDIA GPU answers here; `rtseg doctor` says why", file=sys.stderr)
        return 1
    result: dict[str, Any] = {"machine": machine(), "gpu": vars(gpus[0]) if gpus else None, "refused": {}}
    with tempfile.TemporaryDirectory(prefix="rtseg-gpu-") as folder:
        engines = {}
        for target in TARGETS if gpus and not args.engine else ():
            kept = attempt(
                result, target, lambda t=target: build(args.model, target=t, out=Path(folder), verify=False).path
            )
            engines |= {target: kept} if kept else {}
        for path in args.engine or ():
            engines[path.name] = path
        result["backends"] = beside_each_other(args.model, engines, args.device, result)
        video = args.video or synthetic_street((1920, 1080), args.frames, folder, quiet=True)
        if gpus:
            result["decoders"] = decoders(video, result)
            result["road"] = frame_paths(video, engines, folder, result)
    args.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "machine"}, indent=2))
    return 0


def attempt(result: dict[str, Any], what: str, work: Callable[[], Any]) -> Any:
    """What the work gives, or None: then the exact words stand under `refused`."""
    try:
        return work()
    except REFUSED as error:
        result["refused"][what] = f"{type(error).__name__}: {error}"
        return None


def beside_each_other(model: str, engines: dict[str, Path], device: str, result: dict[str, Any]) -> dict[str, Any]:
    """Pictures a second of each, turn by turn: medians, and smallest and largest of the rounds."""
    size = open_source_size(model)
    opened: dict[str, Backend] = {}
    for name, path in engines.items():
        target = "tensorrt-rtx" if "rtx" in path.name else "tensorrt"
        opened |= given(name, attempt(result, name, lambda p=path, t=target: open_backend(t, p)))
    opened |= given(
        "torch", attempt(result, "torch", lambda: open_backend("torch", find_weights(model), device=device))
    )
    opened |= given("torch.compile", attempt(result, "torch.compile", lambda: compiled(model, device)))
    pictures = np.random.default_rng(0).integers(0, 256, (max(BATCHES), size[1], size[0], 3), dtype=np.uint8)
    told: dict[str, Any] = {}
    for batch in BATCHES:
        rates: dict[str, list[float]] = {}
        for name, backend in opened.items():  # compiling for this shape is no part of it
            ready = attempt(result, f"{name}, batch {batch}", lambda b=backend, n=batch: b.infer(pictures[:n]))
            rates |= {name: []} if ready is not None else {}
        for _ in range(ROUNDS):
            for name in rates:
                rates[name].append(pictures_a_second(opened[name], pictures[:batch]))
        for name, found in rates.items():
            told.setdefault(name, {"precision": opened[name].precision, "device": opened[name].device})
            told[name][f"batch {batch}"] = [round(value(found), 1) for value in (statistics.median, min, max)]
    for name, backend in opened.items():
        measure = getattr(backend, "measure", None)
        if measure is not None and name in told:  # copies and computation apart, by CUDA's own clock
            told[name]["ms"] = {key: round(statistics.median(values), 4) for key, values in measure(SECONDS).items()}
        backend.close()
    return told


def given(name: str, backend: Backend | None) -> dict[str, Backend]:
    return {} if backend is None else {name: backend}


def open_source_size(model: str) -> tuple[int, int]:
    """(width, height) of the model's own input."""
    from rtseg.inference import describe_model

    return describe_model(find_model(model)).input_size


def compiled(model: str, device: str) -> Backend:
    """The torch backend with its network compiled, as torch's documentation has it for repeated shapes."""
    import torch

    backend: Any = open_backend("torch", find_weights(model), device=device)
    backend._module = torch.compile(backend._module, mode="default" if device == "cpu" else "max-autotune")
    return backend  # type: ignore[no-any-return]


def pictures_a_second(backend: Backend, pictures: npt.NDArray[np.uint8]) -> float:
    """From the host's memory to class maps there, one call after the other."""
    count, begin = 0, time.perf_counter()
    while (now := time.perf_counter()) - begin < SECONDS / ROUNDS:
        backend.infer(pictures)
        count += len(pictures)
    return count / (now - begin)


ROADS = {"gpu": "nvdec", "processor, nvdec": "nvdec", "processor, software": "software"}
"""The roads that are measured, and who decodes on each."""


def decoders(video: str, result: dict[str, Any]) -> dict[str, float]:
    """Frames a second of decoding alone, for each road: pictures where it wants them."""
    rates = {}
    for name, decoder in ROADS.items():
        rate = attempt(result, f"decoder, {name}", lambda n=name, d=decoder: decoded_a_second(video, d, n == "gpu"))
        if rate is not None:
            rates[name] = round(rate, 1)
    return rates


def decoded_a_second(video: str, decoder: str, stays: bool) -> float:
    if stays:
        Cuda(0).use()  # the decoder takes the context that is current
    source = open_source(video, decoder=choose_decoder(decoder), gpu=0 if stays else None)
    try:
        begin = time.perf_counter()
        count = sum(1 for _ in source)
        return count / (time.perf_counter() - begin)
    finally:
        source.close()


def frame_paths(video: str, engines: dict[str, Path], folder: str, result: dict[str, Any]) -> dict[str, Any]:
    """Each road with each engine, turn by turn: the median run, and all of its rates."""
    told: dict[str, Any] = {}
    for name, path in engines.items():
        runs: dict[str, list[dict[str, Any]]] = {taken: [] for taken in result["decoders"]}
        for _ in range(ROAD_ROUNDS):
            for taken, kept in runs.items():
                one = attempt(result, f"road {name}, {taken}", lambda p=path, t=taken: frame_path(video, p, t, folder))
                kept += [one] if one else []
        for taken, kept in runs.items():
            if not kept:
                continue
            run = sorted(kept, key=lambda one: float(one["fps"]))[len(kept) // 2]
            limit = min(result["decoders"][taken], result["backends"].get(name, {}).get("batch 1", [0.0])[0])
            told[f"{name}, {taken}"] = {
                **run,
                "fps_runs": [one["fps"] for one in kept],
                "share_of_limit": round(run["fps"] / limit, 3) if limit else None,
            }
    return told


def frame_path(video: str, engine: Path, taken: str, folder: str) -> dict[str, Any]:
    reading = InputOptions(decoder=choose_decoder(ROADS[taken]))
    over_processor = mock.patch("rtseg.pipeline.gpu_path.why_not_on_gpu", return_value="it is what is measured")
    with (
        nullcontext() if taken == "gpu" else over_processor,
        Segmenter(engine, streams=0) as segmenter,
    ):
        run = process(
            video, f"{folder}/out.mp4", segmenter, Style(), OutputOptions(preset="ultrafast"), reading, quiet=True
        )
    if run["road"] != taken.split(",")[0]:
        raise RuntimeError(f"the road was the {run['road']}'s: {run['notes']}")
    return {key: run[key] for key in KEPT}


if __name__ == "__main__":
    sys.exit(main())
