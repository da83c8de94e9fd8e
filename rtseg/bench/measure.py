"""Benchmark of each stage, of the whole pipeline, and of the upper bound of its frame rate.

The bound is the number of cores divided by the CPU time per frame of all stages, each measured separately: no schedule of the same
stages on the same machine is faster. Two ratios show the efficiency of the pipeline: its frame rate relative to the bound, and its
CPU time per frame relative to the sum of the stages.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import metadata
from itertools import product
from pathlib import Path

from rtseg.bench.report import BenchReport, MachineReport, StageCostReport
from rtseg.bench.stages import measure_stages
from rtseg.core.cpu import cpu_name, usable_cores
from rtseg.core.progress import Progress
from rtseg.core.stats import peak_rss_mib
from rtseg.core.video_report import VideoReport
from rtseg.inference.segmenter import Segmenter
from rtseg.io.inputs import open_source
from rtseg.io.options import DEFAULT_INPUT, InputOptions, OutputOptions
from rtseg.models.export.auto_build import auto_build
from rtseg.render.style import Style
from rtseg.synthetic import SyntheticDrive
from rtseg.synthetic.video_file import write_video
from rtseg.video.process import process

_PACKAGES = (
    "numpy av opencv-python opencv-python-headless openvino torch tensorrt tensorrt-rtx".split()  # noqa: SIM905
)
"""Packages that affect the speed."""


def run_bench(
    videos: Sequence[str],
    models: Sequence[str | None],
    backends: Sequence[str],
    sizes: Sequence[tuple[int, int] | None],
    output_options: OutputOptions,
    input_options: InputOptions,
    *,
    device: str | None,
    seconds: float,
    rounds: int,
    log: Callable[[str], None],
) -> Iterator[BenchReport]:
    """Measure every combination of videos, models, backends and sizes with `bench`, and yield each result when it is complete.

    None in `models` and `sizes` means the default.

    Raises:
        RtsegError: a file can't be read, or a model or backend can't be loaded.
    """
    for video in videos:
        open_source(video).close()  # report an unreadable file before anything is measured
    for video, model, backend, size in product(videos, models, backends, sizes):
        with Segmenter(
            model, backend=backend, device=device, size=size, streams=0, build_missing=partial(auto_build, log=log)
        ) as segmenter:
            name = f"{segmenter.description.name} on {segmenter.backend}, {Path(video).name}"

            def log_line(line: str, name: str = name) -> None:
                log(f"{name}: {line}")

            yield bench(
                video,
                segmenter,
                Style(),
                output_options,
                input_options,
                seconds=seconds,
                rounds=rounds,
                log=log_line,
            )


def write_synthetic_video(size: tuple[int, int], frames: int, folder: str, progress: Progress | None = None) -> str:
    """Write a video of the synthetic scene into a folder and return its path."""
    path = str(Path(folder) / f"synthetic-{size[0]}x{size[1]}.mp4")
    write_video(SyntheticDrive(size[0], size[1], frames), path, progress=progress)
    return path


def bench(
    video: str,
    segmenter: Segmenter,
    style: Style,
    output_options: OutputOptions,
    input_options: InputOptions = DEFAULT_INPUT,
    *,
    seconds: float = 3.0,
    rounds: int = 3,
    log: Callable[[str], None] = lambda line: None,
) -> BenchReport:
    """Measure one model on one backend with one file.

    Args:
        video, segmenter, style, output_options, input_options: as for `rtseg.video.process.process`; the output is deleted.
        seconds: minimum duration of the measurement of each stage.
        rounds: number of runs of the whole pipeline; the result has the statistics of the run with the median frame rate.
        log: called with a progress message.

    Raises:
        OptionError: the video has no frames.
        RtsegError: the video can't be processed, as for `rtseg.video.process.process`.
    """
    overlay = style.overlay(segmenter.description)
    with tempfile.TemporaryDirectory(prefix="rtseg-bench-") as folder:
        suffix = Path(video).suffix
        output = str(Path(folder) / f"out{suffix if suffix in ('.mkv', '.webm') else '.mp4'}")
        runs: list[VideoReport] = []
        for number in range(rounds):
            if number == rounds // 2:  # in the middle, because the speed of a machine drifts
                stages, engine = measure_stages(
                    video, output, segmenter, overlay, output_options, input_options, seconds, log
                )
            log(f"whole pipeline, {number + 1} of {rounds}")
            runs.append(process(video, output, segmenter, style, output_options, input_options))
    runs.sort(key=lambda run: run.pipeline.fps)
    run, cores = runs[len(runs) // 2], usable_cores()
    accelerated = _accelerated_stages(segmenter, output_options, input_options)
    stages_cpu_ms = sum(stage.cpu_ms for stage in stages.values())
    bound = min(cores * 1000 / stages_cpu_ms, *(stages[stage].fps for stage in accelerated), float("inf"))
    pipeline_cpu_ms = (run.pipeline.cpu_seconds or 0.0) * 1000 / max(1, run.pipeline.frames.written)
    return BenchReport(
        video=replace(
            run,
            identity=replace(run.identity, command="bench", input=Path(video).name, output=""),
            pipeline=replace(run.pipeline, peak_rss_mib=round(peak_rss_mib(), 1)),
        ),
        preset=output_options.preset or "veryfast",
        alone=stages,
        engine=engine,
        cores=cores,
        bound_fps=round(bound, 2),
        of_bound=round(run.pipeline.fps / bound, 4),
        cpu_ms_a_frame=round(pipeline_cpu_ms, 3),
        cpu_ratio=round(pipeline_cpu_ms / stages_cpu_ms, 4),
        fps_runs=tuple(round(each.pipeline.fps, 2) for each in runs),
        advice=advice(stages, cores, accelerated),
        machine=machine(),
    )


def machine() -> MachineReport:
    """Return CPU, number of cores, operating system and versions of the machine."""
    versions = {}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return MachineReport(
        processor=cpu_name(),
        cores=usable_cores(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages=versions,
    )


def _accelerated_stages(
    segmenter: Segmenter, output_options: OutputOptions, input_options: InputOptions
) -> tuple[str, ...]:
    """Return the stages that run on a GPU or a hardware codec."""
    accelerated = {
        "decode": input_options.decoder != "software",
        "infer": segmenter.gpu is not None or "NVIDIA" in segmenter.device,
        "encode": output_options.codec is not None
        and ("nvenc" in output_options.codec or output_options.codec == "gstreamer"),
    }
    return tuple(stage for stage, value in accelerated.items() if value)


def advice(stages: Mapping[str, StageCostReport], cores: int, accelerated: Sequence[str] = ()) -> str:
    """Return the bottleneck and its remedy in one line. The stages `accelerated` run on a GPU or a hardware codec."""
    total = sum(stage.cpu_ms for stage in stages.values())
    slowest = min(accelerated, key=lambda name: stages[name].fps, default="")
    if slowest and stages[slowest].fps < cores * 1000 / total:
        bottleneck = f"{slowest}, on an accelerator, reaches no more than {stages[slowest].fps:.0f} fps"
    else:
        slowest = max(stages, key=lambda name: stages[name].cpu_ms)
        bottleneck = f"{slowest} takes {stages[slowest].cpu_ms / total:.0%} of the CPU time"
    remedy = {
        "decode": "a smaller or less compressed input is decoded faster, and so is any with a hardware decoder",
        "infer": "a smaller model (--model nano), a smaller --size, INT8 (rtseg build --precision int8) or a GPU is faster",
        "overlay": "smaller frames are rendered faster",
        "encode": "a faster --preset (ultrafast) takes less time for larger files; a hardware encoder frees the cores",
    }
    return f"{bottleneck}: {remedy[slowest]}"
