"""Color a video and list the moments in which a pedestrian is in the middle of the frame.

python examples/custom_sink.py drive.mp4 out.mp4
"""

from __future__ import annotations

import sys

from rtseg import Segmenter
from rtseg.core.frame import ProcessedFrame
from rtseg.io.options import OutputOptions
from rtseg.io.outputs import Sink
from rtseg.render.style import Style
from rtseg.video.process import process


class PedestrianAhead(Sink):
    """A sink: it receives every segmented frame in order, next to the video that rtseg writes."""

    name = "pedestrian-ahead"
    written = 0

    def __init__(self, pedestrian: int, share: float = 0.01) -> None:
        """Store the class index of pedestrians and the share of the middle third that counts."""
        self.seconds: list[float] = []
        self._pedestrian, self._share = pedestrian, share

    def write(self, item: ProcessedFrame) -> None:
        """Check one frame. `item.classes` is the class map at the network's resolution, uint8 `[h, w]`."""
        third = item.classes.shape[1] // 3
        if (item.classes[:, third : 2 * third] == self._pedestrian).mean() >= self._share:
            self.seconds.append(item.frame.pts_seconds)
        self.written += 1


def main(video: str, output: str) -> None:
    """Process a video with the additional sink and print what it found."""
    with Segmenter(streams=0) as segmenter:
        sink = PedestrianAhead(segmenter.classes.index("pedestrian"))
        report = process(video, output, segmenter, Style(legend=True), OutputOptions(), extra_sinks=[sink])
    print(f"{report.pipeline.frames.written} frames at {report.pipeline.fps:.1f} FPS")
    print("pedestrian ahead at", ", ".join(f"{second:.2f} s" for second in sink.seconds) or "no time")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
