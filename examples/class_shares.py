"""Write the share of each class in each frame of a video to a CSV file.

python examples/class_shares.py drive.mp4 shares.csv
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from rtseg import Segmenter, open_source


def main(video: str, output: str) -> None:
    """Segment a video and write one CSV row per frame: time in seconds, then shares from 0 to 1."""
    with Segmenter() as segmenter, Path(output).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["seconds", *segmenter.classes])
        for frame, classes in segmenter.stream(open_source(video)):
            shares = np.bincount(classes.ravel(), minlength=len(segmenter.classes)) / classes.size
            writer.writerow([f"{frame.pts_seconds:.3f}", *(f"{share:.4f}" for share in shares)])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
