"""What each stage costs alone, what the whole road reaches, and what it could reach at most.

The bound is the number of cores divided by the processor time that a frame takes in all stages, each measured alone: no order of
work, however clever, is faster on this machine with these stages. A road that reaches its share of it by wasting less is better;
one that reaches it because its stages waste time is not, so both are told: frames per second against the bound, and processor
time of a frame on the road against the sum of the stages.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rtseg._version import __version__
from rtseg.bench.stages import StageCost, alone
from rtseg.core.cpu import cpu_name, usable_cores
from rtseg.core.errors import OptionError
from rtseg.core.stats import peak_rss_mib
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.render.style import Style
from rtseg.video.process import process

SECONDS = 3.0
"""How long a stage is measured at least, unless told otherwise."""


def bench(
    video: str,
    segmenter: Segmenter,
    style: Style,
    encoding: OutputOptions,
    reading: InputOptions | None = None,
    *,
    seconds: float = SECONDS,
    rounds: int = 3,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measures one model on one backend with one file.

    Args:
        video: the file that is decoded.
        segmenter: the loaded model.
        look: how frames are colored.
        encoding: how the result is encoded; its file is thrown away.
        reading: how the file is read, and by which decoder; None: all of it, in software.
        seconds: how long each stage is measured.
        rounds: runs of the whole road; the one of median speed is told.
        log: told what is being measured.

    Returns:
        The statistics of that run, as `--stats` writes them, and beside them `preset`, `alone` (by stage, see `StageCost`),
        `engine` (the network without scaling and color conversion), `cores`, `bound_fps`, `of_bound` (share of the bound that
        was reached), `cpu_ms_a_frame` (on the road), `cpu_ratio` (that by the sum of the stages alone), `fps_runs`, `advice`
        and `machine`.

    Raises:
        RtsegError: as `process`.
    """
    if rounds < 1:
        raise OptionError(f"rounds is {rounds}; give 1 or more")
    overlay, reading = style.overlay(segmenter.description), reading or InputOptions()
    with tempfile.TemporaryDirectory(prefix="rtseg-bench-") as folder:
        output = str(
            Path(folder) / ("out" + (Path(video).suffix if Path(video).suffix in {".mkv", ".webm"} else ".mp4"))
        )
        runs = []
        for number in range(rounds):
            if number == rounds // 2:  # in the middle: a machine's speed drifts
                stages, engine = alone(video, output, segmenter, overlay, encoding, reading, seconds, log)
            log(f"the whole road, {number + 1} of {rounds}")
            runs.append(process(video, output, segmenter, style, encoding, reading, quiet=True))
    runs.sort(key=lambda run: float(run["fps"]))
    elsewhere = _not_the_cores(segmenter, encoding, reading)
    return {
        **_result(runs, stages, engine, video, segmenter, elsewhere),
        "preset": encoding.preset or "veryfast",
    }


def machine() -> dict[str, Any]:
    """Processor, cores, system and versions: what a figure has to name to mean anything."""
    versions = {}
    for package in (
        "numpy",
        "av",
        "opencv-python",
        "opencv-python-headless",
        "openvino",
        "torch",
        "tensorrt",
        "tensorrt-rtx",
    ):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": cpu_name(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


def _not_the_cores(segmenter: Segmenter, encoding: OutputOptions, reading: InputOptions) -> tuple[str, ...]:
    """Stages whose time is a GPU's or a codec's of the hardware."""
    found = {
        "decode": reading.decoder != "software",
        "infer": segmenter.engine is not None or "NVIDIA" in segmenter.device,
        "encode": encoding.codec is not None and ("nvenc" in encoding.codec or encoding.codec == "gstreamer"),
    }
    return tuple(stage for stage, is_so in found.items() if is_so)


def _result(
    runs: list[dict[str, Any]],
    stages: dict[str, StageCost],
    engine: StageCost,
    video: str,
    segmenter: Segmenter,
    elsewhere: tuple[str, ...],
) -> dict[str, Any]:
    run, cores = runs[len(runs) // 2], usable_cores()
    together_ms = sum(stage.cpu_ms for stage in stages.values())
    bound = min(cores * 1000 / together_ms, *(stages[stage].fps for stage in elsewhere), float("inf"))
    pipeline_ms = run["cpu_seconds"] * 1000 / max(1, run["frames"]["written"])
    return {
        **run,
        "command": "bench",
        "input": Path(video).name,
        "output": "",
        "alone": {name: stage.to_dict() for name, stage in stages.items()},
        "engine": {**engine.to_dict(), "streams": segmenter.streams},
        "cores": cores,
        "bound_fps": round(bound, 2),
        "of_bound": round(run["fps"] / bound, 4),
        "cpu_ms_a_frame": round(pipeline_ms, 3),
        "cpu_ratio": round(pipeline_ms / together_ms, 4),
        "fps_runs": [round(float(one["fps"]), 2) for one in runs],
        "advice": advice(stages, cores, elsewhere),
        "peak_rss_mib": round(peak_rss_mib(), 1),
        "machine": machine(),
        "rtseg": __version__,
    }


def advice(stages: dict[str, StageCost], cores: int, elsewhere: Sequence[str] = ()) -> str:
    """What limits, and what to do about it, in one line.

    Args:
        stages: each alone.
        cores: that they share.
        elsewhere: stages that run on other hardware.
    """
    total = sum(stage.cpu_ms for stage in stages.values())
    slowest = min(elsewhere, key=lambda name: stages[name].fps, default="")
    if slowest and stages[slowest].fps < cores * 1000 / total:
        share = f"{slowest}, on hardware of its own, reaches no more than {stages[slowest].fps:.0f} fps"
    else:
        slowest = max(stages, key=lambda name: stages[name].cpu_ms)
        share = f"{slowest} takes {stages[slowest].cpu_ms / total:.0%} of the processor time"
    remedy = {
        "decode": "a smaller or less compressed input is decoded faster, and so is one by a hardware decoder",
        "infer": "a smaller model (--model nano), a smaller --size, INT8 (rtseg build --precision int8) or a GPU is faster",
        "overlay": "smaller frames are colored faster",
        "encode": "a faster --preset (ultrafast) makes larger files sooner; a hardware encoder frees the cores",
    }
    return f"{share}: {remedy[slowest]}"
