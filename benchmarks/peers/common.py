"""Shared code of the peers: the frame writer and the timer. Needs only OpenCV, NumPy and PyAV.

Each peer is the loop that a user would write with that library. Loading and the first inference are not timed; everything from
reading the first frame to closing the file is.
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
"""RGB colors of CamVid's eleven classes."""


class PyAvWriter:
    """Encoder of BGR frames with rtseg's settings: x264, crf 23, the given preset."""

    def __init__(self, path, fps, size, preset):
        self._container = av.open(path, "w")
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        self._stream.width, self._stream.height, self._stream.pix_fmt = *size, "yuv420p"
        self._stream.options = {"crf": "23", "preset": preset}

    def write(self, frame):
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))

    def release(self):
        self._container.mux(self._stream.encode(None))
        self._container.close()


def parse():
    """Parse the arguments of a peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("video")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--size", type=int, nargs=2, required=True, metavar=("W", "H"))
    parser.add_argument("--writer", choices=("own", "pyav"), required=True)
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--output", required=True)
    return parser.parse_args()


def open_writer(args, fps, size):
    """Open OpenCV's writer (MPEG-4 part 2, since its wheel has no H.264 encoder), or PyAV with rtseg's settings."""
    if args.writer == "own":
        return cv2.VideoWriter(args.output, cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    return PyAvWriter(args.output, fps, size, args.preset)


def blend(frame, classes):
    """Blend as typical scripts do: colors by NumPy indexing, in floating point.

    Args:
        frame: BGR uint8 `[H, W, 3]`.
        classes: uint8 `[H, W]`.
    """
    return (0.5 * frame + 0.5 * COLORS[classes][..., ::-1]).astype(np.uint8)


class Timer:
    """Context manager that prints frames, wall time and CPU time as one line of JSON."""

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
