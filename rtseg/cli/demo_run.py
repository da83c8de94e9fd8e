"""`rtseg demo`: a street drawn with known classes, encoded, segmented, colored, encoded again, and compared with the truth."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from rtseg.core.frame import ClassMap, Passthrough, SegmentedFrame
from rtseg.core.letterbox import resize_classes
from rtseg.core.metrics import confusion, per_class_iou, pixel_accuracy
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import OutputOptions
from rtseg.render.style import Style
from rtseg.synthetic import SyntheticDrive
from rtseg.synthetic.video_file import write_video
from rtseg.video.process import process

COMPARED_FRAMES = 300
"""Class maps of at most so many frames, evenly spread, are kept and compared with the truth."""


class ClassKeeper:
    """A sink that keeps every n-th class map, so that comparing costs the run nothing."""

    name = "truth"

    def __init__(self, every: int) -> None:
        self._every = every
        self.written = 0
        self.kept: dict[int, ClassMap] = {}

    def write(self, item: SegmentedFrame) -> None:
        """Keeps the class map at the network's resolution."""
        if item.frame.index % self._every == 0:
            self.kept[item.frame.index] = item.classes.copy()
        self.written += 1

    def pass_through(self, packet: Passthrough) -> None:
        """Ignored: there is no sound to compare."""

    def close(self) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """Nothing to do."""


def run_demo(
    output: str,
    segmenter: Segmenter,
    style: Style,
    encoding: OutputOptions,
    *,
    size: tuple[int, int],
    frames: int,
    seed: int,
    quiet: bool = False,
) -> dict[str, Any]:
    """Draws the drive, takes it through the same road as any video, and compares.

    Returns:
        The statistics of `process`, with `command` = `demo`, `pixel_accuracy` (0 to 1, all pixels of the compared frames, at the
        drive's size) and `iou` by class (classes that occur).

    Raises:
        RtsegError: as `process`.
    """
    drive = SyntheticDrive(size[0], size[1], frames, seed)
    keeper = ClassKeeper(every=max(1, -(-frames // COMPARED_FRAMES)))
    with tempfile.TemporaryDirectory(prefix="rtseg-demo-") as folder:
        source = str(Path(folder) / "synthetic-drive.mp4")
        write_video(drive, source, quiet=quiet)
        result = process(source, output, segmenter, style, encoding, quiet=quiet, extra_sinks=[keeper])
    classes = len(segmenter.classes)
    matrix = np.zeros((classes, classes + 1), dtype=np.int64)
    for index, classes_seen in keeper.kept.items():
        truth = drive.frame(index)[1]
        matrix += confusion(truth, resize_classes(classes_seen, size[0], size[1]), classes)
    iou = per_class_iou(matrix, predicted_too=True)
    return {
        **result,
        "command": "demo",
        "input": f"synthetic drive {size[0]}x{size[1]}, {frames} frames, seed {seed}",
        "pixel_accuracy": round(pixel_accuracy(matrix), 4),
        "iou": {
            name: round(float(value), 4)
            for name, value in zip(segmenter.classes, iou, strict=True)
            if not np.isnan(value)
        },
    }
