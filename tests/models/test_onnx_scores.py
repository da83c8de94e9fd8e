"""Scores of foreign ONNX networks: missing classes, weights, and activations at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import cv2  # noqa: E402
from foreign_networks import (  # noqa: E402
    HEIGHT,
    SIGMOID,
    SOFTMAX,
    WIDE,
    WIDTH,
    build_network,
    class_map,
    network,
    single_output,
)
from onnx_models import random_images  # noqa: E402

from rtseg.core.errors import ModelError, OptionError  # noqa: E402

LAST_CHANNELS: dict[str, Any] = {"from": np.array([1]), "to": np.array([3]), "axis": np.array([1])}


def test_refuses_softmax_along_wrong_axis(frames: Path, tmp_path: Path) -> None:
    for axis, layout in ((3, None), (2, None), (3, "nchw")):
        path = network(
            tmp_path / "theirs.onnx", channels=3, **single_output(("Softmax", "s", "y", {"axis": axis}), shape=WIDE)
        )
        message = rf"1 along axis {axis}, not along axis 1, the class axis; export it with its Softmax along axis 1"
        with pytest.raises(ModelError, match=message):
            build_network(path, frames, tmp_path / "built", output_layout=layout)


def test_refuses_softmax_with_missing_class_unless_kind_is_given(frames: Path, tmp_path: Path) -> None:
    cut = ("Slice", "m from to axis", "y")
    path = network(
        tmp_path / "cut.onnx", channels=3, **single_output(SOFTMAX, cut, **LAST_CHANNELS, shape=[1, 2, HEIGHT, WIDTH])
    )
    with pytest.raises(
        ModelError, match=r"2 probabilities add up to less than one half on \d+\.\d% .* a class were missing"
    ):
        build_network(path, frames, tmp_path / "built", classes=("green", "blue"))
    built = build_network(path, frames, tmp_path / "built", classes=("green", "blue"), output_kind="probabilities")
    image = random_images(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image[..., 1:].argmax(axis=2))


def test_accepts_missing_class_that_never_has_highest_score(frames: Path, tmp_path: Path) -> None:
    low = np.array([-100, 0, 0], np.float32).reshape(1, 3, 1, 1)
    nodes = [("Add", "s low", "l"), ("Softmax", "l", "m", {"axis": 1}), ("Slice", "m from to axis", "y")]
    path = network(
        tmp_path / "cut.onnx",
        channels=3,
        **single_output(*nodes, low=low, **LAST_CHANNELS, shape=[1, 2, HEIGHT, WIDTH]),
    )
    built = build_network(path, frames, tmp_path / "built", classes=("green", "blue"))
    image = random_images(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image[..., 1:].argmax(axis=2))


WEIGHTS = np.array([0.2, 1, 3], np.float32).reshape(1, 3, 1, 1)
WEIGHTED: dict[str, tuple[dict[str, Any], str | None, int]] = {
    "sigmoids, weighted": (single_output(SIGMOID, ("Mul", "g k", "y"), k=WEIGHTS, shape=WIDE), "probabilities", 17),
    "softmax, weighted": (single_output(SOFTMAX, ("Mul", "m k", "y"), k=WEIGHTS, shape=WIDE), None, 17),
    "softmax, weighted, kind given": (single_output(SOFTMAX, ("Mul", "m k", "y"), k=WEIGHTS, shape=WIDE), "probabilities", 17),
    "softmax over the whole image": (single_output(("Softmax", "s", "y", {"axis": 1}), shape=WIDE), None, 11),
}  # fmt: skip


@pytest.mark.parametrize("case", WEIGHTED)
def test_takes_highest_of_scores_without_constant_sum(case: str, frames: Path, tmp_path: Path) -> None:
    graph, kind, opset = WEIGHTED[case]
    path = network(tmp_path / "theirs.onnx", channels=3, opset=opset, **graph)
    built = build_network(path, frames, tmp_path / "built", output_kind=kind)
    image = random_images(1, HEIGHT, WIDTH)[0]
    x = (image / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)
    expected = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0][0].argmax(axis=0)
    np.testing.assert_array_equal(class_map(built, image), expected)


def test_refuses_weighted_sigmoids_and_suggests_probabilities(frames: Path, tmp_path: Path) -> None:
    path = network(tmp_path / "theirs.onnx", channels=3, **WEIGHTED["sigmoids, weighted"][0])
    with pytest.raises(OptionError, match=r"--output-kind probabilities if the highest is the class$"):
        build_network(path, frames, tmp_path / "built")


@pytest.mark.parametrize("case", ["times 100", "mean of two"])
def test_detects_missing_class_after_scaling_or_mean(case: str, frames: Path, tmp_path: Path) -> None:
    two = ("Softmax", "s", "m2", {"axis": 1})
    step = ("Mul", "m k", "h") if case == "times 100" else ("Mean", "m m2", "h")
    graph = single_output(
        SOFTMAX,
        two,
        step,
        ("Slice", "h from to axis", "y"),
        **LAST_CHANNELS,
        k=np.float32(100),
        shape=[1, 2, HEIGHT, WIDTH],
    )
    path = network(tmp_path / "cut.onnx", channels=3, **graph)
    with pytest.raises(ModelError, match=r"add up to less than one half on .* a class were missing"):
        build_network(path, frames, tmp_path / "built", classes=("green", "blue"))


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
def test_keeps_final_activation_that_changes_class(case: str, frames: Path, tmp_path: Path) -> None:
    graph, kind, precision = FINAL_ACTIVATION[case]
    path = network(tmp_path / "theirs.onnx", channels=3, **graph)
    rng = np.random.default_rng(1)
    for file in frames.iterdir():
        cv2.imwrite(str(file), rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    built = build_network(path, frames, tmp_path / "built", output_kind=kind, precision=precision)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    x = (image / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)
    scores = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0][0]
    expected = np.stack([cv2.resize(plane, (WIDTH, HEIGHT)) for plane in scores]).argmax(axis=0)
    assert (class_map(built, image) == expected).mean() > 0.99
