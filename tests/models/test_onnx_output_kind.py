"""`--output-kind` and class indices of foreign ONNX networks: contradictions with the graph or the values are refused."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from foreign_networks import (
    ARGMAX,
    AS_FLOAT,
    FLAT,
    FLOAT,
    HEIGHT,
    INT64,
    ONE,
    SIGMOID,
    SOFTMAX,
    UINT8,
    UNIT_CONV,
    UNIT_CONV_3,
    WIDE,
    WIDTH,
    ForeignNetwork,
    Node,
    assert_argmax,
    assert_class_map,
    assert_foreground,
    single_output,
)

from rtseg.core.errors import ModelError, RtsegError

CONTRADICTED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "logits as probabilities": (single_output(("Identity", "s", "y")), 1, "probabilities",
        r"values are -3.8.* to .*outside 0 to 1"),
    "logits as a mask": (single_output(("Identity", "s", "y")), 1, "mask", r"values are -3.8.* to .*outside 0 to 255"),
    "logits as class indices": (single_output(("Identity", "s", "y")), 1, "classes", "values are .* and not integers"),
    "sigmoid as logits": (single_output(("Sigmoid", "s", "y")), 1, "logits", "values are 0 to 1 by the graph"),
    "sigmoid times 255 as logits": (single_output(SIGMOID, ("Mul", "g k", "y"), k=np.float32(255)), 1, "logits",
        "its values are 0 to 255 by the graph, and logits can be below 0;",
    ),
    **{
        f"tanh as {kind}": (
            single_output(("Tanh", "s", "y")), 1, kind,
                "values are -1 to 1 by the graph, symmetric around 0 like logits; .*use logits"
        )
        for kind in ("probabilities", "mask")
    },
    "three tanh as probabilities": (single_output(("Tanh", "s", "y"), shape=WIDE), 3, "probabilities", "-1 to 1 by the graph"),
    "hidden sigmoid as logits": (
        single_output(SIGMOID, ("Conv", "g unit", "y"), unit=UNIT_CONV), 1, "logits", "like probabilities; .*--output-kind prob"
    ),
    "hidden sigmoid as a mask": (
        single_output(SIGMOID, ("Conv", "g unit", "y"), unit=UNIT_CONV), 1, "mask", "values are .*those of a mask are 0 and 255"
    ),
    "hidden sigmoid times 255 as probabilities": (
        single_output(SIGMOID, ("Conv", "g unit", "y"), unit=UNIT_CONV * 255), 1, "probabilities", "outside 0 to 1"
    ),
    "clip at 6 as probabilities": (
        single_output(("Clip", "s lo hi", "y"), lo=np.float32(0), hi=np.float32(6)), 1, "probabilities",
            "values are 0 to 6 by the graph"
    ),
    **{
        f"class indices, float, as {kind}": (
            single_output(ARGMAX, AS_FLOAT, shape=FLAT), 3, kind, "contains class indices, 0 to 2, by the graph"
        )
        for kind in ("mask", "probabilities", "logits")
    },
    **{
        f"hidden class indices as {kind}": (
            single_output(("ArgMax", "s", "a", {"axis": 1}), ("Cast", "a", "f", {"to": FLOAT}), ("Conv", "f unit", "y"),
                unit=UNIT_CONV),
            3, kind, r"values are 0 to 2,",
        )
        for kind in ("mask", "probabilities", "logits")
    },
    "three logits as multilabel": (single_output(("Identity", "s", "y"), shape=WIDE), 3, "multilabel", "outside 0 to 1"),
    "three logits as probabilities": (single_output(("Identity", "s", "y"), shape=WIDE), 3, "probabilities", "outside 0 to 1"),
    "softmax as multilabel": (single_output(SOFTMAX, ("Identity", "m", "y"), shape=WIDE), 3, "multilabel",
        "Softmax exclude each other"),
    "softmax as logits": (single_output(SOFTMAX, ("Identity", "m", "y"), shape=WIDE), 3, "logits", "Softmax exclude each other"),
    "hidden softmax as multilabel": (
        single_output(SOFTMAX, ("Conv", "m unit", "y"), unit=UNIT_CONV_3, shape=WIDE), 3, "multilabel",
            "add up to 1 over the classes"
    ),
    "log softmax as multilabel": (
        single_output(("LogSoftmax", "s", "y", {"axis": 1}), shape=WIDE), 3, "multilabel", "LogSoftmax exclude each other"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTED)
def test_refuses_output_kind_that_contradicts_graph_or_values(case: str, theirs: ForeignNetwork) -> None:
    graph, channels, kind, message = CONTRADICTED[case]
    theirs.write(channels=channels, **graph)
    several = "three" in case or "softmax" in case
    names = 4 if kind == "multilabel" else channels if several else 2
    refused = theirs.refused(RtsegError, message, output_kind=kind, classes=tuple("abcd"[:names]))
    assert "'y'" in refused


def test_refuses_contradicted_output_kind_on_frames_of_one_class(theirs: ForeignNetwork) -> None:
    # As a mask, all frames would be background. "weak verification" must not hide that the values are not those of a mask.
    theirs.write(**single_output(("Identity", "s", "y")))
    for file in theirs.frames.iterdir():
        cv2.imwrite(str(file), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    theirs.refused(
        ModelError, "--output-kind mask does not fit its output 'y': its values are -5 to -5", output_kind="mask"
    )


FITS: dict[str, tuple[dict[str, Any], int, str]] = {
    "logits": (single_output(("Identity", "s", "y")), 1, "logits"),
    "logits cut at 6": (single_output(("Clip", "s lo hi", "y"), lo=np.float32(0), hi=np.float32(6)), 1, "logits"),
    "sigmoid": (single_output(("Sigmoid", "s", "y")), 1, "probabilities"),
    "sigmoid times 255": (single_output(SIGMOID, ("Mul", "g k", "y"), k=np.float32(255)), 1, "probabilities"),
    "hidden sigmoid": (single_output(SIGMOID, ("Conv", "g unit", "y"), unit=UNIT_CONV), 1, "probabilities"),
    "tanh": (single_output(("Tanh", "s", "y")), 1, "logits"),
    "mask of 0 and 1": (single_output(("Greater", "s zero", "a"), AS_FLOAT, zero=np.float32(0)), 1, "mask"),
    "hidden mask of 0 and 255": (
        single_output(("Greater", "s zero", "t"), ("Cast", "t", "f", {"to": FLOAT}), ("Conv", "f unit", "y"),
            zero=np.float32(0), unit=UNIT_CONV * 255), 1, "mask",
    ),
    "softmax": (single_output(SOFTMAX, ("Identity", "m", "y"), shape=WIDE), 3, "probabilities"),
    "three logits": (single_output(("Identity", "s", "y"), shape=WIDE), 3, "logits"),
    "log softmax": (single_output(("LogSoftmax", "s", "y", {"axis": 1}), shape=WIDE), 3, "logits"),
    "class indices": (single_output(ARGMAX, AS_FLOAT, shape=FLAT), 3, "classes"),
}  # fmt: skip


@pytest.mark.parametrize("case", FITS)
def test_accepts_output_kind_that_fits(case: str, theirs: ForeignNetwork) -> None:
    graph, channels, kind = FITS[case]
    theirs.write(channels=channels, **graph)
    names = ("a", "b", "c") if channels == 3 else ("a", "b")
    (assert_argmax if channels == 3 else assert_foreground)(theirs.build(output_kind=kind, classes=names))


AS_INDEX = ("Cast", "a", "f", {"to": FLOAT})
ARGMAX_1 = ("ArgMax", "s", "a", {"axis": 1})
CONFIDENT = ("Greater", "top k", "confident")
TOP = ("ReduceMax", "s", "top", {"axes": [1]})
NOT_INDICES: dict[str, tuple[dict[str, Any], str]] = {
    "divided to 0 to 1": (single_output(ARGMAX_1, AS_INDEX, ("Div", "f k", "y"), k=np.float32(2)), "one of 3 values, 0, 0.5, 1:"),
    "times 127.5": (single_output(ARGMAX_1, AS_INDEX, ("Mul", "f k", "y"), k=np.float32(127.5)), "one of 3 values, 0, 127.5, 255:"),
    "times 127.5, uint8": (
        single_output(ARGMAX_1, AS_INDEX, ("Mul", "f k", "m"), ("Cast", "m", "y", {"to": UINT8}), k=np.float32(127.5),
            element=UINT8),
        "one of 3 values, 0, 127, 255:",
    ),
    "times 60, uint8": (
        single_output(ARGMAX_1, AS_INDEX, ("Mul", "f k", "m"), ("Cast", "m", "y", {"to": UINT8}), k=np.float32(60), element=UINT8),
        "one of 3 values, 0, 60, 120:",
    ),
    "from a table": (
        single_output(ARGMAX, ("Gather", "table a", "y"), table=np.array([0, 0.25, 1], np.float32), shape=FLAT),
        "one of 3 values, 0, 0.25, 1:",
    ),
    "from -1": (single_output(ARGMAX_1, ("Sub", "a k", "y"), k=np.array(1), element=INT64), "one of 3 values, -1, 0, 1:"),
    "from -1, uint8": (
        single_output(ARGMAX_1, ("Sub", "a k", "m"), ("Cast", "m", "y", {"to": UINT8}), k=np.array(1), element=UINT8),
        "its graph sets pixels without a class to 255",
    ),
    "255 where all scores are low": (
        single_output(ARGMAX_1, TOP, CONFIDENT, ("Where", "confident a none", "y"), k=np.float32(1), none=np.array(255),
            element=INT64),
        "its graph sets pixels without a class to 255",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", [None, "classes", "mask", "probabilities", "logits"])
@pytest.mark.parametrize("case", NOT_INDICES)
def test_refuses_scaled_or_shifted_class_indices(case: str, kind: str | None, theirs: ForeignNetwork) -> None:
    graph, message = NOT_INDICES[case]
    theirs.write(channels=3, **graph)
    refused = theirs.refused(
        ModelError,
        rf"its output 'y' can't be used: .*{message}.*; export it without",
        output_kind=kind,
        classes=("a", "b"),
    )
    assert "--output-kind" not in refused


def test_accepts_classes_merged_by_integer_division(theirs: ForeignNetwork) -> None:
    graph = single_output(
        ARGMAX_1, ("Add", "a k1", "m"), ("Div", "m k", "y"), k1=np.array(1), k=np.array(2), element=INT64
    )
    theirs.write(channels=3, **graph)
    assert_class_map(theirs.build(classes=("red", "other")), lambda image: theirs.run(image)[0])


def test_refuses_value_255_found_in_output(theirs: ForeignNetwork) -> None:
    where = ("Where", "confident f none", "m")
    nodes = (ARGMAX_1, AS_INDEX, TOP, CONFIDENT, where, ("Conv", "m unit", "y"))
    graph = single_output(*nodes, k=np.float32(1), none=np.float32(255), unit=UNIT_CONV)
    theirs.write(channels=3, **graph)
    refused = theirs.refused(
        ModelError, r"outputs 255 \(no class\) .*; export it without", output_kind="classes", classes=("a", "b", "c")
    )
    assert "--classes" not in refused


def test_reads_mean_of_three_masks_as_probability(theirs: ForeignNetwork) -> None:
    # The values are 0, 1/3, 2/3 and 1, like those of a scaled class map.
    votes: list[Node] = []
    for i, limit in enumerate(("low", "zero", "high")):
        votes += [("Greater", f"s {limit}", f"b{i}"), ("Cast", f"b{i}", f"f{i}", {"to": FLOAT})]
    limits = {"low": np.float32(-3), "zero": np.float32(0), "high": np.float32(2)}
    theirs.write(**single_output(*votes, ("Mean", "f0 f1 f2", "y"), **limits))
    assert_class_map(theirs.build(output_kind="probabilities"), lambda image: theirs.run(image)[0] > 0.5)


def test_refuses_network_that_outputs_nan(theirs: ForeignNetwork) -> None:
    theirs.write(**single_output(("Sqrt", "s", "q"), ("Sub", "q one", "y"), one=ONE))
    theirs.refused(ModelError, "it outputs NaN on the compared frames", output_kind="logits")
