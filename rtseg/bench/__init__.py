"""Benchmarks for `rtseg bench`: every combination of videos, models, backends and sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from rtseg.bench.measure import SECONDS, bench
from rtseg.bench.report import BenchReport
from rtseg.core.progress import Progress
from rtseg.inference.segmenter import Segmenter
from rtseg.io.inputs import open_source
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.models.export.auto_build import auto_build
from rtseg.render.style import Style
from rtseg.synthetic import SyntheticDrive
from rtseg.synthetic.video_file import write_video


def run_bench(
    videos: Sequence[str],
    models: Sequence[str | None],
    backends: Sequence[str],
    sizes: Sequence[tuple[int, int] | None],
    output_options: OutputOptions,
    input_options: InputOptions,
    *,
    device: str | None = None,
    seconds: float = SECONDS,
    rounds: int = 3,
    log: Callable[[str], None] = lambda line: None,
) -> Iterator[BenchReport]:
    """Measure every combination of videos, models, backends and sizes, and yield each result when it is complete.

    Args:
        videos: video files.
        models: bundled models or model files; None: the default.
        backends: names of backends, including `auto`.
        sizes: (width, height) of the network's input; None: the model's own.
        output_options: encoding options.
        input_options: decoding options.
        device: device name of the backend.
        seconds: minimum duration of the measurement of each stage.
        rounds: number of runs of the whole pipeline.
        log: called with a progress message.

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
