"""What the peers share: where pictures go, and how the time is taken. Needs OpenCV, NumPy and PyAV alone.

Each peer is the loop that a user would write with that library. Loading and the first inference are not timed; from the first
frame read to the file closed all is.
"""

import argparse
import json
import resource
import sys
import time
from fractions import Fraction
from importlib import metadata

import av
import cv2
import numpy as np

COLORS = np.array(
    [
        (70, 130, 180), (120, 120, 120), (190, 190, 160), (128, 64, 128), (244, 35, 232), (107, 142, 35), (220, 220, 0),
        (190, 153, 153), (0, 0, 230), (220, 20, 60), (255, 127, 0),
    ],
    dtype=np.uint8,
)  # fmt: skip
"""RGB by class index: CamVid's eleven."""


class PyAvWriter:
    """Takes BGR pictures and encodes them as rtseg does: x264, crf 23, the given preset."""

    def __init__(self, path, fps, size, preset):
        self._container = av.open(path, "w")
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        self._stream.width, self._stream.height, self._stream.pix_fmt = *size, "yuv420p"
        self._stream.options = {"crf": "23", "preset": preset}

    def write(self, picture):
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))

    def release(self):
        self._container.mux(self._stream.encode(None))
        self._container.close()


def parse():
    """The arguments that every peer takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("video")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--size", type=int, nargs=2, required=True, metavar=("W", "H"))
    parser.add_argument("--writer", choices=("own", "pyav"), required=True)
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--output", required=True)
    return parser.parse_args()


def open_writer(args, fps, size):
    """OpenCV's own writer (its wheel has no H.264: MPEG-4 part 2), or PyAV under rtseg's settings."""
    if args.writer == "own":
        return cv2.VideoWriter(args.output, cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    return PyAvWriter(args.output, fps, size, args.preset)


def blend(picture, classes):
    """The overlay in a script from the web: colors by NumPy indexing, blended in floating point.

    Args:
        picture: BGR uint8 `[H, W, 3]`.
        classes: uint8 `[H, W]`.
    """
    return (0.5 * picture + 0.5 * COLORS[classes][..., ::-1]).astype(np.uint8)


class Timer:
    """Prints frames, wall and processor seconds as one line of JSON."""

    def __enter__(self):
        self.frames = 0
        self._cpu = time.process_time()
        self._wall = time.perf_counter()
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            return
        seconds, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        versions = {}
        for name in (
            "torch",
            "onnxruntime",
            "openvino",
            "openvino-model-api",
            "supervision",
            "opencv-python",
            "opencv-python-headless",
            "av",
            "numpy",
        ):
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        json.dump(
            {
                "frames": self.frames,
                "seconds": seconds,
                "fps": self.frames / seconds,
                "cpu_ms_a_frame": cpu / self.frames * 1000,
                "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "packages": versions,
            },
            sys.stdout,
        )
