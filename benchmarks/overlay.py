"""Benchmark of rendering one frame on one core: `python benchmarks/overlay.py`.

Each case is the median of the fastest tenth of many runs, to reduce the influence of other programs. Frames are yuv420p; the class
map consists of blobs of 11 classes at 512x288, the size of a network's class map.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from fractions import Fraction

import cv2
import numpy as np

from rtseg.core.frame import Color, Frame
from rtseg.core.letterbox import resize_classes
from rtseg.core.palette import CAMVID_CLASSES, load_palette
from rtseg.render.overlay import Overlay

HUD = ("31 fps   inference 12 ms", "openvino bf16")


def milliseconds(work: Callable[[], object], runs: int) -> float:
    """Return the wall time of one undisturbed call."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(sorted(times)[: max(1, runs // 10)])


def noise_frame(width: int, height: int) -> Frame:
    """Return a frame of noise; the cost of blending does not depend on the content."""
    rng = np.random.default_rng(1)
    chroma = (height // 2, width // 2)
    planes = tuple(rng.integers(16, 236, shape, dtype=np.uint8) for shape in ((height, width), chroma, chroma))
    return Frame((planes[0], planes[1], planes[2]), "yuv420p", Color("bt709", False), 0, Fraction(1, 25), 0)


def class_map() -> np.ndarray:
    """Return blobs of 11 classes, uint8 `[288, 512]`."""
    scores = np.random.default_rng(2).normal(size=(11, 9, 16)).astype(np.float32)
    return (
        np.stack([cv2.resize(s, (512, 288), interpolation=cv2.INTER_CUBIC) for s in scores]).argmax(0).astype(np.uint8)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="calls per case")
    runs = parser.parse_args().runs
    cv2.setNumThreads(1)
    palette = load_palette("street", CAMVID_CLASSES)
    road_car = palette.indices(["road", "car"])
    cases = {
        "overlay": Overlay(palette),
        "overlay, --only road,car": Overlay(palette, only=road_car),
        "overlay, --legend --hud": Overlay(palette, legend=True, hud=True),
        "mask": Overlay(palette, view="mask"),
        "side-by-side": Overlay(palette, view="side-by-side"),
    }
    sizes = [(1280, 720), (1920, 1080), (3840, 2160)]
    classes = class_map()
    print(f"{'ms per frame, one core':32}" + "".join(f"{height:>6}p" for _, height in sizes))
    frames = [noise_frame(width, height) for width, height in sizes]
    for name, overlay in cases.items():
        row = [milliseconds(lambda o=overlay, f=frame: o.apply(f, classes, HUD), runs) for frame in frames]
        print(f"{name:32}" + "".join(f"{value:7.2f}" for value in row))
    row = [milliseconds(lambda s=size: resize_classes(classes, *s), runs) for size in sizes]
    print(f"{'class map at the source size':32}" + "".join(f"{value:7.2f}" for value in row))


if __name__ == "__main__":
    main()
