"""Tuning of the number of inference streams: the fastest one on the whole pipeline is saved for this machine."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rtseg.core.cpu import usable_cores
from rtseg.core.errors import OptionError
from rtseg.inference.segmenter import Segmenter
from rtseg.inference.tuning import save_tuned_streams
from rtseg.io.options import OutputOptions
from rtseg.models.export.auto_build import auto_build
from rtseg.render.style import Style
from rtseg.video.process import process

ROUNDS = 3
"""Number of runs of each setting. The settings alternate, so that a change of the machine's load affects all of them."""


def tune_streams(
    video: str,
    model: str | None,
    style: Style,
    output_options: OutputOptions,
    *,
    device: str | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run the whole pipeline with several numbers of streams, and save the fastest one for `rtseg video`.

    Args:
        video: a typical input file.
        model: a bundled model or model file; None: the default.
        style: rendering options.
        output_options: encoding options.
        device: an OpenVINO device.
        log: called with the result as one line.

    Returns:
        `model`, `fps` (median frame rate by number of streams), `streams` (the fastest), `file` (the settings file).

    Raises:
        OptionError: the model's backend has no configurable number of streams.
        RtsegError: the video can't be processed, as for `rtseg.video.process.process`.
    """
    cores = usable_cores()
    candidates = sorted({1, 2, max(1, cores // 2), cores})
    segmenters = [
        Segmenter(model, backend="auto", device=device, streams=streams, build_missing=partial(auto_build, log=log))
        for streams in candidates
    ]
    try:
        if segmenters[0].backend != "openvino":
            raise OptionError(f"--tune needs OpenVINO, but the selected backend is {segmenters[0].backend}")
        fps: dict[int, list[float]] = {streams: [] for streams in candidates}
        with tempfile.TemporaryDirectory(prefix="rtseg-tune-") as folder:
            for _ in range(ROUNDS):
                for streams, segmenter in zip(candidates, segmenters, strict=True):
                    result = process(video, str(Path(folder) / "out.mp4"), segmenter, style, output_options)
                    fps[streams].append(result.pipeline.fps)
        name = segmenters[0].file.stem
    finally:
        for segmenter in segmenters:
            segmenter.close()
    medians = {streams: round(statistics.median(values), 2) for streams, values in fps.items()}
    best = max(medians, key=lambda streams: medians[streams])
    file = save_tuned_streams(name, best)
    summary = ", ".join(f"{streams}: {value:.1f} fps" for streams, value in medians.items())
    log(f"{name}, streams: {summary}. Saved {best} in {file}")
    return {"model": name, "fps": {str(k): v for k, v in medians.items()}, "streams": best, "file": str(file)}
