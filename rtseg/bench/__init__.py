"""`rtseg bench`: chosen models, backends, sizes and files, measured one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from rtseg._version import __version__
from rtseg.bench.measure import SECONDS, bench, machine
from rtseg.bench.tune import tune_streams
from rtseg.inference.segmenter import Segmenter
from rtseg.io.inputs import open_source
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.models.export.auto_build import auto_build
from rtseg.render.style import Style
from rtseg.synthetic import SyntheticDrive
from rtseg.synthetic.video_file import write_video

__all__ = ["run_bench", "run_tune", "synthetic_street"]

Log = Callable[[str], None]


def run_bench(
    videos: Sequence[str],
    models: Sequence[str | None],
    backends: Sequence[str],
    sizes: Sequence[tuple[int, int] | None],
    encoding: OutputOptions,
    reading: InputOptions,
    *,
    device: str | None = None,
    seconds: float = SECONDS,
    rounds: int = 3,
    log: Log = lambda line: None,
    on_result: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Measures every combination.

    Args:
        videos: files.
        models: bundled models or model files; None: the default.
        backends: names, `auto` among them.
        sizes: (width, height) of the network's input; None: the model's own.
        encoding: how results are encoded.
        reading: how files are read, and by which decoder.
        device: as the backend names devices.
        seconds: how long each stage is measured.
        rounds: runs of the whole road.
        log: told what is being measured.
        on_result: told each result as it is there.

    Returns:
        `bench.measure.bench`'s object; of several, an object with `items`.

    Raises:
        RtsegError: a file, model or backend does not work.
    """
    for video in videos:
        open_source(video).close()  # one that can't be read is told before anything is loaded and measured
    items = []
    for video, model, backend, size in product(videos, models, backends, sizes):
        with Segmenter(
            model, backend=backend, device=device, size=size, streams=0, build_missing=partial(auto_build, log=log)
        ) as segmenter:
            name = f"{segmenter.description.name} on {segmenter.backend}, {Path(video).name}"

            def tell(line: str, name: str = name) -> None:
                log(f"{name}: {line}")

            item = bench(video, segmenter, Style(), encoding, reading, seconds=seconds, rounds=rounds, log=tell)
        items.append(item)
        on_result(item)
    if len(items) == 1:
        return items[0]
    return {"rtseg": __version__, "command": "bench", "machine": machine(), "items": items}


def run_tune(
    video: str, models: Sequence[str | None], encoding: OutputOptions, *, device: str | None = None, log: Log
) -> list[dict[str, Any]]:
    """Finds and remembers, for each model, how many pictures at once are fastest; see `tune.tune_streams`."""
    return [tune_streams(video, model, Style(), encoding, device=device, log=log) for model in models]


def synthetic_street(size: tuple[int, int], frames: int, folder: str, *, quiet: bool = False) -> str:
    """Draws the synthetic drive into a file in a folder; returns its path."""
    path = str(Path(folder) / f"drawn-{size[0]}x{size[1]}.mp4")
    write_video(SyntheticDrive(size[0], size[1], frames), path, quiet=quiet)
    return path


def bench_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for files that nobody keeps."""
    return tempfile.TemporaryDirectory(prefix="rtseg-bench-")
