"""Detection of the kind and class axis of the output of foreign ONNX networks by `rtseg build`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from foreign_networks import (
    BOOL,
    FLOAT,
    HALF,
    HEIGHT,
    INT64,
    LAST,
    NHWC,
    ONE,
    SIGMOID,
    UINT8,
    UNIT_CONV,
    WIDTH,
    ForeignNetwork,
    Node,
    assert_argmax,
    assert_class_map,
    assert_foreground,
    single_output,
)
from onnx import TensorProto

from rtseg.core.errors import ModelError, OptionError

SINGLE_CHANNEL: dict[str, dict[str, Any]] = {
    "logits": single_output(("Identity", "s", "y")),
    "sigmoid": single_output(("Sigmoid", "s", "y")),
    "sigmoid, identity": single_output(SIGMOID, ("Identity", "g", "y")),
    "sigmoid, reshape to nhwc": single_output(
        SIGMOID, ("Reshape", "g k", "y"), shape=[1, HEIGHT, WIDTH, 1], k=np.array([1, HEIGHT, WIDTH, 1])
    ),
    "sigmoid, transpose": single_output(SIGMOID, ("Transpose", "g", "y", {"perm": [0, 2, 3, 1]}), shape=[1, HEIGHT, WIDTH, 1]),
    "sigmoid, squeeze": single_output(SIGMOID, ("Squeeze", "g k", "y"), shape=[1, HEIGHT, WIDTH], k=np.array([1])),
    "sigmoid, flat": single_output(SIGMOID, ("Flatten", "g", "y"), shape=[1, HEIGHT * WIDTH]),
    "sigmoid, without a batch axis": single_output(SIGMOID, ("Squeeze", "g", "y"), shape=[HEIGHT, WIDTH]),
    "sigmoid, clip": single_output(SIGMOID, ("Clip", "g lo hi", "y"), lo=np.float32(1e-6), hi=np.float32(1 - 1e-6)),
    "sigmoid, double": single_output(SIGMOID, ("Cast", "g", "y", {"to": TensorProto.DOUBLE}), element=TensorProto.DOUBLE),
    "sigmoid, dropout": single_output(SIGMOID, ("Dropout", "g", "y")),
    "sigmoid on half the size, resize": single_output(
        ("AveragePool", "s", "a", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Sigmoid", "a", "g"),
        ("Resize", "g  r", "y", {"mode": "nearest"}),
        r=np.array([1, 1, 2, 2], np.float32),
    ),
    "hard sigmoid": single_output(("HardSigmoid", "s", "y")),
    "hard sigmoid in parts": single_output(
        ("Mul", "s k", "a"), ("Add", "a half", "c"), ("Clip", "c zero one", "y"),
        k=np.float32(0.2), half=HALF, zero=np.float32(0), one=ONE,
    ),
    "sigmoid in parts": single_output(
        ("Neg", "s", "n"), ("Exp", "n", "e"), ("Add", "e one", "d"), ("Reciprocal", "d", "y"), one=ONE
    ),
    "tanh": single_output(("Tanh", "s", "y")),
    "tanh, shifted to 0 to 1": single_output(("Tanh", "s", "t"), ("Add", "t one", "u"), ("Mul", "u half", "y"), one=ONE, half=HALF),
    "sigmoid times 255": single_output(SIGMOID, ("Mul", "g k", "y"), k=np.float32(255)),
    "sigmoid times 255, uint8": single_output(
        SIGMOID, ("Mul", "g k", "m"), ("Cast", "m", "y", {"to": UINT8}), k=np.float32(255), element=UINT8
    ),
    "sigmoid, round": single_output(SIGMOID, ("Round", "g", "y")),
    "sigmoid, greater, float": single_output(
        SIGMOID, ("Greater", "g half", "t"), ("Cast", "t", "y", {"to": FLOAT}), half=HALF
    ),
    "sigmoid, greater, bool": single_output(SIGMOID, ("Greater", "g half", "y"), half=HALF, element=BOOL),
    "mask of 0 and 255": single_output(
        ("Greater", "s zero", "t"), ("Cast", "t", "f", {"to": FLOAT}), ("Mul", "f k", "y"), zero=np.float32(0), k=np.float32(255)
    ),
    "mask of 0 and 255, uint8, by where": single_output(
        ("Greater", "s zero", "t"), ("Where", "t full none", "y"), zero=np.float32(0), full=np.uint8(255), none=np.uint8(0),
        element=UINT8,
    ),
    "p and 1 - p": single_output(
        SIGMOID, ("Sub", "one g", "q"), ("Concat", "q g", "y", {"axis": 1}), one=ONE, shape=[1, 2, HEIGHT, WIDTH]
    ),
    "p and 1 - p, nhwc": single_output(
        SIGMOID, ("Sub", "one g", "q"), ("Concat", "q g", "c", {"axis": 1}), ("Transpose", "c", "y", {"perm": [0, 2, 3, 1]}),
        one=ONE, shape=[1, HEIGHT, WIDTH, 2],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SINGLE_CHANNEL)
def test_detects_kind_of_single_channel_output(kind: str, theirs: ForeignNetwork) -> None:
    theirs.write(**SINGLE_CHANNEL[kind])
    lines: list[str] = []
    assert_foreground(theirs.build(lines=lines))
    assert any(line.startswith("verified: 100.0000%") for line in lines), lines
    assert any("theirs.onnx, run as it is by ONNX Runtime" in line for line in lines)


def test_reads_tanh_output_as_logits(theirs: ForeignNetwork) -> None:
    lines: list[str] = []
    theirs.write(**SINGLE_CHANNEL["tanh"])
    theirs.build(lines=lines)
    assert "output 'y': logits, foreground above 0, on 100" in next(line for line in lines if "compared:" in line)


def test_builds_network_with_float_input_of_0_to_255(theirs: ForeignNetwork) -> None:
    weight = np.zeros((1, 3, 1, 1), np.float32)
    weight[0, 0] = 10 / 255  # as a Rescaling inside
    theirs.write(**single_output(("Identity", "s", "y")), w=weight)
    assert_foreground(theirs.build(mean=(0.0,) * 3, std=(0.00392157,) * 3))


def test_reads_complement_of_sigmoid_as_probability(theirs: ForeignNetwork) -> None:
    theirs.write(**single_output(SIGMOID, ("Sub", "one g", "y"), one=ONE))
    assert_class_map(theirs.build(), lambda image: image[..., 0] < 127)


THREE_CHANNELS: dict[str, dict[str, Any]] = {
    "softmax in nhwc": single_output(("Transpose", "s", "t", NHWC), ("Softmax", "t", "y", {"axis": -1}), shape=LAST),
    "softmax, transpose": single_output(("Softmax", "s", "t", {"axis": 1}), ("Transpose", "t", "y", NHWC), shape=LAST),
    "softmax flat, reshape": single_output(
        ("Transpose", "s", "t", NHWC), ("Reshape", "t flat", "f"), ("Softmax", "f", "m", {"axis": -1}), ("Reshape", "m back", "y"),
        flat=np.array([-1, 3]), back=np.array(LAST), shape=LAST,
    ),
    "softmax over flattened pixels": single_output(
        ("Transpose", "s", "t", NHWC), ("Reshape", "t flat", "f"), ("Softmax", "f", "y", {"axis": -1}),
        flat=np.array([1, -1, 3]), shape=[1, HEIGHT * WIDTH, 3],
    ),
    "log softmax": single_output(("LogSoftmax", "s", "y", {"axis": 1}), shape=[1, 3, HEIGHT, WIDTH]),
    "logits in nhwc": single_output(("Transpose", "s", "y", NHWC), shape=LAST),
    "logits without a batch axis": single_output(("Squeeze", "s k", "y"), k=np.array([0]), shape=[3, HEIGHT, WIDTH]),
    "softmax, clip, resize": single_output(
        ("Softmax", "s", "m", {"axis": 1}), ("Clip", "m lo hi", "c"), ("Resize", "c  r", "y", {"mode": "linear"}),
        lo=np.float32(0), hi=ONE, r=np.array([1, 1, 1, 1], np.float32), shape=[1, 3, HEIGHT, WIDTH],
    ),
    "argmax": single_output(("ArgMax", "s", "y", {"axis": 1}), element=INT64),
    "argmax, float": single_output(
        ("ArgMax", "s", "a", {"axis": 1, "keepdims": 0}), ("Cast", "a", "y", {"to": FLOAT}), shape=[1, HEIGHT, WIDTH]
    ),
    "argmax, uint8": single_output(("ArgMax", "s", "a", {"axis": 1}), ("Cast", "a", "y", {"to": UINT8}), element=UINT8),
    "softmax, argmax in nhwc, float": single_output(
        ("Transpose", "s", "t", NHWC), ("Softmax", "t", "m", {"axis": 3}), ("ArgMax", "m", "a", {"axis": 3}),
        ("Cast", "a", "y", {"to": FLOAT}), shape=[1, HEIGHT, WIDTH, 1],
    ),
    "shape computed in the graph": single_output(
        ("Shape", "x", "h", {"start": 2, "end": 4}), ("Concat", "nc h", "k", {"axis": 0}), ("Reshape", "s k", "y"),
        nc=np.array([1, 3]), shape=["n", "c", "h", "w"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", THREE_CHANNELS)
def test_detects_class_axis_of_three_channel_output(kind: str, theirs: ForeignNetwork) -> None:
    theirs.write(channels=3, **THREE_CHANNELS[kind])
    names = ("red", "green", "blue") if "argmax" in kind else None
    built = theirs.build(classes=names)
    assert_argmax(built)
    assert built.sidecar.verification["agreement"]["pixels"] == 1.0


def independent_sigmoids(*more: Node, **constants: Any) -> dict[str, Any]:
    return single_output(("Sigmoid", "s", "y"), *more, shape=[1, 3, HEIGHT, WIDTH], **constants)


AMBIGUOUS: dict[str, tuple[dict[str, Any], int, str]] = {
    "relu": (single_output(("Relu", "s", "y")), 1, "is computed by Relu, which is ambiguous; specify --output-kind logits"),
    "relu6": (
        single_output(("Clip", "s low high", "y"), low=np.float32(0), high=np.float32(6)),
        1,
        "is computed by Clip of Conv, which is ambiguous; specify --output-kind logits",
    ),
    "one channel of several logits": (
        single_output(("Slice", "s from to axis", "y"), **{"from": np.array([1])}, to=np.array([2]), axis=np.array([1])),
        3,
        "--output-kind",
    ),
    "sigmoid for each class": (
        independent_sigmoids(), 3, "--output-kind probabilities if the highest is the class, or --output-kind multilabel"
    ),
    "two outputs of the same size": (
        {
            "nodes": [("Neg", "s", "o1"), ("Mul", "s s", "o2")],
            "outputs": dict.fromkeys(("o1", "o2"), (FLOAT, [1, 3, 48, 64])),
        },
        3,
        r"2 outputs that may be the segmentation: 'o1' \[1, 3, 48, 64\], 'o2'.*--onnx-output NAME",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_refuses_ambiguous_output_and_names_option(kind: str, theirs: ForeignNetwork) -> None:
    graph, channels, message = AMBIGUOUS[kind]
    theirs.write(channels=channels, **graph)
    theirs.refused(OptionError, message)


def test_output_kind_resolves_ambiguous_output(theirs: ForeignNetwork) -> None:
    theirs.write(**single_output(("Relu", "s", "y")))
    assert_foreground(theirs.build(output_kind="logits"))
    theirs.write(channels=3, **independent_sigmoids())
    assert_argmax(theirs.build(output_kind="probabilities"))
    built = theirs.build(output_kind="multilabel")
    assert_class_map(built, lambda image: np.where(image.max(axis=2) > 127, image.argmax(axis=2) + 1, 0))
    assert len(built.sidecar.description.classes) == 4
    assert "--output-kind multilabel" in built.sidecar.command


def test_refuses_values_that_contradict_detected_kind(theirs: ForeignNetwork) -> None:
    # The graph does not show that the output of this convolution is 0 to 1.
    theirs.write(**single_output(SIGMOID, ("Conv", "g unit", "y"), unit=UNIT_CONV))
    theirs.refused(ModelError, r"'y' was read as logits, but its values are .* --output-kind logits or prob")
    assert_foreground(theirs.build(output_kind="probabilities"))
