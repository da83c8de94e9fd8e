"""Benchmark of upsampling and argmax: OpenVINO against rtseg. `python benchmarks/argmax.py`

One core, one image at a time, as in each of several streams. `scores` is the model, `whole` the model with upsampling and argmax
by OpenVINO, `rest` rtseg's upsampling and argmax; medians in milliseconds, and the share of pixels with the same class.
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
from rtseg.synthetic import SyntheticDrive

SIZE = (480, 288)
RUNS = 100
HEAD_STRIDE = 2


def milliseconds(work: Callable[[], Any]) -> float:
    """Return the median time of many calls."""
    work()
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def with_argmax(model: Any) -> Any:
    """Return a copy of a model of fixed size that also upsamples its scores and takes the class of the largest."""
    from openvino import Model, Type
    from openvino import opset13 as ops

    model = model.clone()
    scores = model.output(0).get_node().input_value(0)
    upsampled = ops.interpolate(
        scores, ops.constant([SIZE[1], SIZE[0]]), "linear_onnx", "sizes", axes=ops.constant([2, 3]),
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    largest = ops.topk(upsampled, ops.constant(1), 1, "max", "none", "i32")
    return Model([ops.result(ops.convert(largest.output(1), Type.u8))], model.get_parameters())


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
        requests = [core.compile_model(m, "CPU", settings).create_infer_request() for m in (with_argmax(model), model)]
        whole, scores = (lambda r=r: r.infer({"image": image}, share_outputs=True)[0] for r in requests)
        to_classes = partial(ScoresToClasses(HEAD_STRIDE), scores()[0].astype(np.float32), SIZE)
        same = float((to_classes() == whole()[0, 0]).mean())
        times = [milliseconds(work) for work in (whole, scores, to_classes)]
        print(f"{name:12}" + "".join(f"{value:8.2f}" for value in times) + f"{same:10.4%}")


if __name__ == "__main__":
    main()
