"""Cut of a foreign network before its argmax and its final upsampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from foreign_networks import (
    ARGMAX,
    FLAT,
    HEIGHT,
    INT64,
    LAST,
    NHWC,
    UINT8,
    WIDE,
    WIDTH,
    ForeignNetwork,
    Node,
    single_output,
)

from rtseg.core.errors import BackendError
from rtseg.inference.segmenter import Segmenter

POOL = ("AveragePool", "s", "p4", {"kernel_shape": [4, 4], "strides": [4, 4]})
FACTORS = np.array([1, 1, 4, 4], np.float32)


def upsample(name: str = "y", centers: str = "half_pixel", mode: str = "linear") -> list[Node]:
    attributes = {"mode": mode, "coordinate_transformation_mode": centers}
    return [POOL, ("Resize", "p4  factors", name, attributes)]


def one_map(*nodes: Node, shape: list[Any] = FLAT, element: int = INT64, **constants: Any) -> dict[str, Any]:
    return single_output(*nodes, shape=shape, element=element, **constants)


SMALL = [1, 3, HEIGHT // 4, WIDTH // 4]
CUT: dict[str, tuple[dict[str, Any], list[int]]] = {
    "argmax": (one_map(("ArgMax", "s", "y", {"axis": 1, "keepdims": 0})), WIDE),
    "argmax in nhwc, uint8": (
        one_map(
            ("Transpose", "s", "t", NHWC),
            ("ArgMax", "t", "a", {"axis": -1}),
            ("Squeeze", "a axis", "q"),
            ("Cast", "q", "y", {"to": UINT8}),
            element=UINT8,
            axis=np.array([3]),
        ),
        WIDE,
    ),
    "upsampling": (single_output(*upsample(), shape=WIDE, factors=FACTORS), SMALL),
    "upsampling, nhwc": (
        single_output(*upsample("u", "pytorch_half_pixel"), ("Transpose", "u", "y", NHWC), shape=LAST, factors=FACTORS),
        SMALL,
    ),
    "upsampling, argmax": (
        one_map(*upsample("u"), ("ArgMax", "u", "y", {"axis": 1, "keepdims": 0}), factors=FACTORS),
        SMALL,
    ),
}
NOT_CUT: dict[str, tuple[dict[str, Any], list[int]]] = {
    "asymmetric": (single_output(*upsample(centers="asymmetric"), shape=WIDE, factors=FACTORS), WIDE),
    "align corners": (single_output(*upsample(centers="align_corners"), shape=WIDE, factors=FACTORS), WIDE),
    "nearest": (single_output(*upsample(mode="nearest"), shape=WIDE, factors=FACTORS), WIDE),
    "cubic": (single_output(*upsample(mode="cubic"), shape=WIDE, factors=FACTORS), WIDE),
    "shifted after": (single_output(*upsample("u"), ("Abs", "u", "y"), shape=WIDE, factors=FACTORS), WIDE),
}


@pytest.mark.parametrize("case", [*CUT, *NOT_CUT])
def test_output_is_cut_where_the_class_map_stays_the_same(case: str, theirs: ForeignNetwork) -> None:
    graph, shape = {**CUT, **NOT_CUT}[case]
    theirs.show_random_colors(np.random.default_rng(1))
    theirs.write(channels=3, **graph)
    built = theirs.build(precision="fp32")
    assert built.sidecar.verification["agreement"]["pixels"] > 0.999
    assert built.sidecar.description.output == "scores"
    (output,) = onnx.load(built.path).graph.output
    assert [dim.dim_value for dim in output.type.tensor_type.shape.dim] == shape


def test_class_map_without_scores_refuses_smoothing(theirs: ForeignNetwork) -> None:
    graph = one_map(ARGMAX, ("Sub", "two a", "y"), two=np.array(2))
    theirs.write(channels=3, **graph)
    built = theirs.build(classes=("blue", "green", "red"))
    assert built.sidecar.description.output == "classes"
    with Segmenter(built.path, backend="openvino") as segmenter:
        assert segmenter(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).shape == (HEIGHT, WIDTH)
    with pytest.raises(
        BackendError, match=r"--smooth averages class scores, and .* outputs class maps: leave --smooth out$"
    ):
        Segmenter(built.path, backend="openvino", smooth=0.3)
