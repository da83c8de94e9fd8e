"""Makes docs/pictures/overview.jpg: a synthetic street and a real one, as they came and colored by the bundled model.

python benchmarks/pictures.py path/to/camvid
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
    pictures = [SyntheticDrive(480, 360, frames=80, seed=2).frame(40)[0], read_image(Path(sys.argv[1]) / REAL)]
    rows = []
    for number, picture in enumerate(pictures):
        overlay = Overlay(load_palette("street", segmenter.classes), alpha=0.55, legend=number == 0)
        frame = rgb_frame(np.ascontiguousarray(picture))
        rows.append(np.hstack([picture, frame_rgb(overlay.apply(frame, segmenter.segment(frame)))]))
    write_image(Path(__file__).parents[1] / "docs" / "pictures" / "overview.jpg", np.vstack(rows))


if __name__ == "__main__":
    main()
