"""Resize a real video for measurements: python benchmarks/enlarge.py drive.mp4 1920x1080 out.mp4 [FRAMES]

H.264, `medium`, crf 20, B-frames, one slice per frame, as cameras and editors write it. After the end of the video its frames
repeat backwards.
"""

import itertools
import sys
from fractions import Fraction

import av

source, (width, height), output = sys.argv[1], map(int, sys.argv[2].split("x")), sys.argv[3]
frame_count = int(sys.argv[4]) if len(sys.argv) > 4 else 300
with av.open(source) as container:
    rate = container.streams.video[0].average_rate
    frames = [
        frame.reformat(width, height, "yuv420p") for frame in itertools.islice(container.decode(video=0), frame_count)
    ]
with av.open(output, "w") as container:
    stream = container.add_stream("libx264", rate=Fraction(rate.numerator, rate.denominator))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.options = {"preset": "medium", "crf": "20"}
    for number, frame in enumerate(itertools.islice(itertools.cycle([*frames, *frames[-2:0:-1]]), frame_count)):
        frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, 1) / rate, 0
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
