"""Run of `rtseg demo`: a synthetic video with known classes is segmented like any video, and the result is compared."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from rtseg.core.frame import ClassMap, ProcessedFrame
from rtseg.core.letterbox import resize_classes
from rtseg.core.metrics import confusion, per_class_iou, pixel_accuracy
from rtseg.core.progress import Progress
from rtseg.core.video_report import DemoReport
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import OutputOptions
from rtseg.io.outputs import Sink
from rtseg.render.style import Style
from rtseg.synthetic import SyntheticDrive
from rtseg.synthetic.video_file import write_video
from rtseg.video.process import process

COMPARED_FRAMES = 300
"""Maximum number of frames, evenly spread, whose class maps are compared with the ground truth."""


class ClassMapCollector(Sink):
    """Sink that stores every n-th class map, for a comparison after the run."""

    name = "truth"
    written = 0

    def __init__(self, every: int) -> None:
        self._every = every
        self.class_maps: dict[int, ClassMap] = {}

    def write(self, item: ProcessedFrame) -> None:
        """Store the class map at the resolution of the network."""
        if item.frame.index % self._every == 0:
            self.class_maps[item.frame.index] = item.classes.copy()
        self.written += 1


def run_demo(
    output: str,
    segmenter: Segmenter,
    style: Style,
    output_options: OutputOptions,
    *,
    size: tuple[int, int],
    frames: int,
    seed: int,
    progress: Progress | None = None,
) -> DemoReport:
    """Render a synthetic video, process it like any video, and compare the result with the ground truth."""
    scene = SyntheticDrive(size[0], size[1], frames, seed)
    collector = ClassMapCollector(every=max(1, -(-frames // COMPARED_FRAMES)))
    with tempfile.TemporaryDirectory(prefix="rtseg-demo-") as folder:
        source = str(Path(folder) / "synthetic-drive.mp4")
        write_video(scene, source, progress=progress)
        result = process(source, output, segmenter, style, output_options, progress=progress, extra_sinks=[collector])
    classes = len(segmenter.classes)
    matrix = np.zeros((classes, classes + 1), dtype=np.int64)
    for index, predicted in collector.class_maps.items():
        truth = scene.frame(index)[1]
        matrix += confusion(truth, resize_classes(predicted, size[0], size[1]), classes)
    iou = per_class_iou(matrix, predicted_too=True)
    title = f"synthetic drive {size[0]}x{size[1]}, {frames} frames, seed {seed}"
    return DemoReport(
        video=replace(result, identity=replace(result.identity, command="demo", input=title)),
        pixel_accuracy=round(pixel_accuracy(matrix), 4),
        iou={
            name: round(float(value), 4)
            for name, value in zip(segmenter.classes, iou, strict=True)
            if not np.isnan(value)
        },
    )
