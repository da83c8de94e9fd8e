"""How much does a street change from frame to frame, and how much at a cut? `rtseg.inference.temporal_smoothing.CUT_LEVELS` lies between.

    python benchmarks/cuts.py path/to/camvid clip.mp4...

Prints the largest change between two frames of CamVid's sequence `val` and of each clip, the same where every second frame is
left out, and the smallest between two pictures of different CamVid drives: levels of 255, as `rtseg.inference.temporal_smoothing.change` has them.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from rtseg.inference.temporal_smoothing import CUT_LEVELS, change, shrink
from rtseg.video.image import find_images, frame_images, read_image

EVERY = 6
"""Of CamVid's labeled pictures, a second apart, each so many is taken: neighbors are alike."""


def main() -> None:
    camvid, *clips = sys.argv[1:]
    for name in (f"{camvid}/val", *clips):
        small = [shrink(picture) for picture in frame_images(Path(name))]
        steps = [max(change(a, b) for a, b in zip(small, small[step:], strict=False)) for step in (1, 2)]
        print(f"{steps[0]:5.1f}, {steps[1]:5.1f} with half the frames: {Path(name).name}, {len(small)} frames")
    drives = [(path.name[:6], shrink(read_image(path))) for path in find_images([f"{camvid}/train"])[::EVERY]]
    pairs = [change(a, b) for (one, a), (other, b) in itertools.combinations(drives, 2) if one != other]
    print(f"{min(pairs):5.1f}: the least between two of {len(pairs)} pairs of pictures of different drives")
    print(f"{CUT_LEVELS:5.1f}: taken for a cut")


if __name__ == "__main__":
    main()
