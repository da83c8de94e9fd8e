"""Write docs/images/overview.jpg: a synthetic and a real street scene, before and after rendering with the bundled model.

python benchmarks/result_images.py path/to/camvid
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from rtseg.core.frame import rgb_frame
from rtseg.core.palette import load_palette
from rtseg.inference.segmenter import Segmenter
from rtseg.render.overlay import Overlay
from rtseg.synthetic import SyntheticDrive
from rtseg.video.image import frame_rgb, read_image, write_image

REAL = "val/0016E5_08101.webp"


def main() -> None:
    segmenter = Segmenter()
    images = [SyntheticDrive(480, 360, frames=80, seed=2).frame(40)[0], read_image(Path(sys.argv[1]) / REAL)]
    rows = []
    for number, image in enumerate(images):
        overlay = Overlay(load_palette("street", segmenter.classes), alpha=0.55, legend=number == 0)
        frame = rgb_frame(np.ascontiguousarray(image))
        rows.append(np.hstack([image, frame_rgb(overlay.apply(frame, segmenter.segment(frame)))]))
    write_image(Path(__file__).parents[1] / "docs" / "images" / "overview.jpg", np.vstack(rows))


if __name__ == "__main__":
    main()
