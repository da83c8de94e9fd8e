"""How many pictures at once are fastest on this machine: measured on the whole road, and remembered."""

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
"""Runs of each setting, in turn, so that a busy moment of the machine does not fall on one of them alone."""


def tune_streams(
    video: str,
    model: str | None,
    style: Style,
    encoding: OutputOptions,
    *,
    device: str | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Runs the whole road with each sensible number of streams and remembers the fastest for `rtseg video`.

    Args:
        video: a file like those that are to be processed.
        model: a bundled model or model file; None: the default.
        look: how frames are colored.
        encoding: how results are encoded.
        device: an OpenVINO device.
        log: told what was found.

    Returns:
        `model`, `fps` by number of streams (median), `streams` (the fastest), `file` (where it is remembered).

    Raises:
        OptionError: the model's backend has no choice of streams.
        RtsegError: as `process`.
    """
    cores = usable_cores()
    candidates = sorted({1, 2, max(1, cores // 2), cores})
    opened = [
        Segmenter(model, backend="auto", device=device, streams=streams, build_missing=partial(auto_build, log=log))
        for streams in candidates
    ]
    try:
        if opened[0].backend != "openvino":
            raise OptionError(
                f"--tune is for OpenVINO, and this machine runs {opened[0].backend}: there is nothing to choose"
            )
        fps: dict[int, list[float]] = {streams: [] for streams in candidates}
        with tempfile.TemporaryDirectory(prefix="rtseg-tune-") as folder:
            for _ in range(ROUNDS):
                for streams, segmenter in zip(candidates, opened, strict=True):
                    result = process(video, str(Path(folder) / "out.mp4"), segmenter, style, encoding, quiet=True)
                    fps[streams].append(float(result["fps"]))
        name = opened[0].file.stem
    finally:
        for segmenter in opened:
            segmenter.close()
    medians = {streams: round(statistics.median(values), 2) for streams, values in fps.items()}
    best = max(medians, key=lambda streams: medians[streams])
    file = save_tuned_streams(name, best)
    told = ", ".join(f"{streams}: {value:.1f} fps" for streams, value in medians.items())
    log(f"{name}, pictures at once: {told}. Kept {best} in {file}")
    return {"model": name, "fps": {str(k): v for k, v in medians.items()}, "streams": best, "file": str(file)}
