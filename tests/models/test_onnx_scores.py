"""Scores of foreign ONNX networks: missing classes, weights, and activations at the end."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from foreign_networks import (
    HEIGHT,
    SIGMOID,
    SOFTMAX,
    WIDE,
    WIDTH,
    ForeignNetwork,
    assert_class_map,
    class_map,
    single_output,
)

from rtseg.core.errors import ModelError, OptionError

LAST_CHANNELS: dict[str, Any] = {"from": np.array([1]), "to": np.array([3]), "axis": np.array([1])}


def test_refuses_softmax_along_wrong_axis(theirs: ForeignNetwork) -> None:
    for axis, layout in ((3, None), (2, None), (3, "nchw")):
        theirs.write(channels=3, **single_output(("Softmax", "s", "y", {"axis": axis}), shape=WIDE))
        message = rf"1 along axis {axis}, not along axis 1, the class axis; export it with its Softmax along axis 1"
        theirs.refused(ModelError, message, output_layout=layout)


def test_refuses_softmax_with_missing_class_unless_kind_is_given(theirs: ForeignNetwork) -> None:
    cut = ("Slice", "m from to axis", "y")
    theirs.write(channels=3, **single_output(SOFTMAX, cut, **LAST_CHANNELS, shape=[1, 2, HEIGHT, WIDTH]))
    theirs.refused(
        ModelError,
        r"2 probabilities add up to less than one half on \d+\.\d% .* a class were missing",
        classes=("green", "blue"),
    )
    built = theirs.build(classes=("green", "blue"), output_kind="probabilities")
    assert_class_map(built, lambda image: image[..., 1:].argmax(axis=2))


def test_accepts_missing_class_that_never_has_highest_score(theirs: ForeignNetwork) -> None:
    low = np.array([-100, 0, 0], np.float32).reshape(1, 3, 1, 1)
    nodes = [("Add", "s low", "l"), ("Softmax", "l", "m", {"axis": 1}), ("Slice", "m from to axis", "y")]
    theirs.write(channels=3, **single_output(*nodes, low=low, **LAST_CHANNELS, shape=[1, 2, HEIGHT, WIDTH]))
    assert_class_map(theirs.build(classes=("green", "blue")), lambda image: image[..., 1:].argmax(axis=2))


WEIGHTS = np.array([0.2, 1, 3], np.float32).reshape(1, 3, 1, 1)
WEIGHTED: dict[str, tuple[dict[str, Any], str | None, int]] = {
    "sigmoids, weighted": (single_output(SIGMOID, ("Mul", "g k", "y"), k=WEIGHTS, shape=WIDE), "probabilities", 17),
    "softmax, weighted": (single_output(SOFTMAX, ("Mul", "m k", "y"), k=WEIGHTS, shape=WIDE), None, 17),
    "softmax, weighted, kind given": (single_output(SOFTMAX, ("Mul", "m k", "y"), k=WEIGHTS, shape=WIDE), "probabilities", 17),
    "softmax over the whole image": (single_output(("Softmax", "s", "y", {"axis": 1}), shape=WIDE), None, 11),
}  # fmt: skip


@pytest.mark.parametrize("case", WEIGHTED)
def test_takes_highest_of_scores_without_constant_sum(case: str, theirs: ForeignNetwork) -> None:
    graph, kind, opset = WEIGHTED[case]
    theirs.write(channels=3, opset=opset, **graph)
    assert_class_map(theirs.build(output_kind=kind), lambda image: theirs.run(image).argmax(axis=0))


def test_refuses_weighted_sigmoids_and_suggests_probabilities(theirs: ForeignNetwork) -> None:
    theirs.write(channels=3, **WEIGHTED["sigmoids, weighted"][0])
    theirs.refused(OptionError, r"--output-kind probabilities if the highest is the class$")


@pytest.mark.parametrize("case", ["times 100", "mean of two"])
def test_detects_missing_class_after_scaling_or_mean(case: str, theirs: ForeignNetwork) -> None:
    two = ("Softmax", "s", "m2", {"axis": 1})
    step = ("Mul", "m k", "h") if case == "times 100" else ("Mean", "m m2", "h")
    cut = ("Slice", "h from to axis", "y")
    graph = single_output(SOFTMAX, two, step, cut, **LAST_CHANNELS, k=np.float32(100), shape=[1, 2, HEIGHT, WIDTH])
    theirs.write(channels=3, **graph)
    theirs.refused(ModelError, r"add up to less than one half on .* a class were missing", classes=("green", "blue"))


FINAL_ACTIVATION: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "softmax, max pool": (single_output(SOFTMAX, ("MaxPool", "m", "y", {"kernel_shape": [5, 5], "pads": [2] * 4}),
        shape=WIDE), None, "fp16"),
    "softmax on a quarter of the size": (
        single_output(("AveragePool", "s", "a", {"kernel_shape": [4, 4], "strides": [4, 4]}), ("Softmax", "a", "y", {"axis": 1}),
            shape=[1, 3, 12, 16]), None, "fp16",
    ),
    "softmax, space to depth": (
        single_output(SOFTMAX, ("SpaceToDepth", "m", "y", {"blocksize": 2}), shape=[1, 12, 24, 32]), "probabilities", "fp16"
    ),
    "sigmoid, saturated": (
        single_output(("Add", "s k", "a"), ("Sigmoid", "a", "y"), k=np.float32(30), shape=WIDE), "probabilities", "fp32"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FINAL_ACTIVATION)
def test_keeps_final_activation_that_changes_class(case: str, theirs: ForeignNetwork) -> None:
    graph, kind, precision = FINAL_ACTIVATION[case]
    theirs.write(channels=3, **graph)
    rng = np.random.default_rng(1)
    theirs.show_random_colors(rng)
    built = theirs.build(output_kind=kind, precision=precision)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    scores = theirs.run(image)
    expected = np.stack([cv2.resize(plane, (WIDTH, HEIGHT)) for plane in scores]).argmax(axis=0)
    assert (class_map(built, image) == expected).mean() > 0.99
