"""Change between frames of a street video and at cuts, to choose `rtseg.inference.temporal_smoothing.CUT_LEVELS`.

    python benchmarks/cuts.py path/to/camvid clip.mp4...

Prints the largest change between consecutive frames of CamVid's sequence `val` and of each clip, the same with every second frame
left out, and the smallest change between images of different CamVid videos: levels of 255, as from
`rtseg.inference.temporal_smoothing.change`.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from rtseg.inference.temporal_smoothing import CUT_LEVELS, change, shrink
from rtseg.video.image import find_images, frame_images, read_image

EVERY = 6
"""Step between the CamVid images that are compared: they are a second apart, and neighbors are similar."""


def main() -> None:
    camvid, *clips = sys.argv[1:]
    for name in (f"{camvid}/val", *clips):
        thumbnails = [shrink(image) for image in frame_images(Path(name))]
        steps = [max(change(a, b) for a, b in zip(thumbnails, thumbnails[step:], strict=False)) for step in (1, 2)]
        print(f"{steps[0]:5.1f}, {steps[1]:5.1f} with half the frames: {Path(name).name}, {len(thumbnails)} frames")
    videos = [(path.name[:6], shrink(read_image(path))) for path in find_images([f"{camvid}/train"])[::EVERY]]
    pairs = [change(a, b) for (one, a), (other, b) in itertools.combinations(videos, 2) if one != other]
    print(f"{min(pairs):5.1f}: smallest of {len(pairs)} pairs of images of different videos")
    print(f"{CUT_LEVELS:5.1f}: threshold for a cut")


if __name__ == "__main__":
    main()
