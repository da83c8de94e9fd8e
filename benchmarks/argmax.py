"""Benchmark of upsampling and argmax: OpenVINO against rtseg. `python benchmarks/argmax.py`

One core, one image at a time, as in each of several streams. `whole` is the complete model, `scores` the model up to its scores,
`rest` rtseg's upsampling and argmax; medians in milliseconds, and the share of pixels with the same class.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np

from rtseg.inference.argmax import ScoresToClasses
from rtseg.inference.bundled_models import find_model
from rtseg.inference.openvino import disable_telemetry
from rtseg.inference.openvino_graph import scores_graph
from rtseg.synthetic import SyntheticDrive

SIZE = (480, 288)
RUNS = 100


def milliseconds(work: Callable[[], Any]) -> float:
    """Return the median time of many calls."""
    work()
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def main() -> None:
    disable_telemetry()
    import openvino as ov

    cv2.setNumThreads(1)
    core = ov.Core()
    settings = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    image = next(iter(SyntheticDrive(*SIZE, frames=1)))[0][None]
    print(f"{'model':12}{'whole':>8}{'scores':>8}{'rest':>8}{'same':>10}")
    for name in ("nano", "small", "small-int8"):
        model = core.read_model(find_model(name))
        model.reshape({"image": [1, SIZE[1], SIZE[0], 3]})
        graph, upsampled_size = scores_graph(model)
        requests = [core.compile_model(m, "CPU", settings).create_infer_request() for m in (model, graph)]
        whole, scores = (lambda r=r: r.infer({"image": image}, share_outputs=True) for r in requests)
        to_classes, classes = ScoresToClasses(upsampled_size, SIZE), np.empty(SIZE[::-1], np.uint8)
        score_map = scores()["scores"][0]
        to_classes(score_map, classes)
        same = float((classes == whole()["classes"][0]).mean())
        times = [milliseconds(work) for work in (whole, scores, partial(to_classes, score_map, classes))]
        print(f"{name:12}" + "".join(f"{value:8.2f}" for value in times) + f"{same:10.4%}")


if __name__ == "__main__":
    main()
