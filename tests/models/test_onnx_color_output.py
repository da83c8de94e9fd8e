"""Outputs of foreign ONNX networks that are color images are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign_networks import (
    ARGMAX,
    FLOAT,
    HALF,
    LAST,
    NHWC,
    UINT8,
    WIDE,
    ForeignNetwork,
    assert_argmax,
    assert_foreground,
    single_output,
)
from onnx import helper

from rtseg.core.errors import ModelError

PALETTE = np.array([[128, 64, 128], [70, 70, 70], [0, 0, 142]], np.float32)
COLOR = np.array([128, 64, 128], np.float32).reshape(1, 3, 1, 1)
FIRST_CHANNEL: dict[str, Any] = {"from": np.array([0]), "to": np.array([1]), "axis": np.array([1])}
COLORED: dict[str, dict[str, Any]] = {
    "gather": single_output(ARGMAX, ("Gather", "pal a", "y"), pal=PALETTE, shape=LAST),
    "gather, uint8": single_output(ARGMAX, ("Gather", "pal a", "y"), pal=PALETTE.astype(np.uint8), shape=LAST, element=UINT8),
    "gather, scaled to 0 to 1": single_output(
        ARGMAX, ("Gather", "pal a", "g"), ("Div", "g k", "y"), pal=PALETTE, k=np.float32(255), shape=LAST
    ),
    "gather, black and white": single_output(
        ARGMAX, ("Gather", "pal a", "y"), pal=np.repeat(np.array([[0], [255], [255]], np.float32), 3, axis=1), shape=LAST
    ),
    "gather, nchw": single_output(ARGMAX, ("Gather", "pal a", "g"), ("Transpose", "g", "y", {"perm": [0, 3, 1, 2]}),
        pal=PALETTE, shape=WIDE),
    "one-hot, matmul": single_output(
        ARGMAX, ("OneHot", "a depth onoff", "o"), ("MatMul", "o pal", "y"), pal=PALETTE, depth=np.array([3]),
        onoff=np.array([0, 1], np.float32), shape=LAST,
    ),
    "softmax, matmul": single_output(
        ("Transpose", "s", "t", NHWC), ("Softmax", "t", "m", {"axis": 3}), ("MatMul", "m pal", "y"), pal=PALETTE, shape=LAST
    ),
    "gather, half of it and half of the input, nchw": single_output(
        ARGMAX, ("Gather", "pal a", "g"), ("Transpose", "g", "c", {"perm": [0, 3, 1, 2]}), ("Mul", "c half", "d"),
        ("Mul", "x k", "e"), ("Add", "d e", "y"), pal=PALETTE, half=HALF, k=np.float32(127), shape=WIDE,
    ),
    "color where there is foreground, else the input, nchw": single_output(
        ("Slice", "s from to axis", "f"), ("Greater", "f zero", "t"), ("Where", "t color x", "y"), **FIRST_CHANNEL,
            zero=np.float32(0),
        color=COLOR, shape=WIDE,
    ),
    "input darkened by a sigmoid, nchw": single_output(
        ("Slice", "s from to axis", "f"), ("Sigmoid", "f", "g"), ("Mul", "x g", "y"), **FIRST_CHANNEL, shape=WIDE
    ),
    "color where there is foreground, else black, nchw": single_output(
        ("Slice", "s from to axis", "f"), ("Greater", "f zero", "t"), ("Where", "t color black", "y"), **FIRST_CHANNEL,
            zero=np.float32(0),
        color=COLOR, black=np.zeros((1, 3, 1, 1), np.float32), shape=WIDE,
    ),
    "color by color, nchw": single_output(
        ARGMAX, ("Unsqueeze", "a axis", "i"), ("Equal", "i i1", "e1"), ("Equal", "i i2", "e2"), ("Where", "e2 c2 none", "v"),
        ("Where", "e1 color v", "y"), axis=np.array([1]), i1=np.array(1), i2=np.array(2), color=COLOR, c2=COLOR[:, ::-1] / 2,
        none=np.float32(0), shape=WIDE,
    ),
    "sum of masks times colors, nchw": single_output(
        ARGMAX, ("Unsqueeze", "a axis", "i"), ("Equal", "i i1", "e1"), ("Equal", "i i2", "e2"), ("Cast", "e1", "f1", {"to": FLOAT}),
        ("Cast", "e2", "f2", {"to": FLOAT}), ("Mul", "f1 color", "m1"), ("Mul", "f2 c2", "m2"), ("Add", "m1 m2", "y"),
        axis=np.array([1]), i1=np.array(1), i2=np.array(2), color=COLOR, c2=COLOR[:, ::-1] / 2, shape=WIDE,
    ),
    "sigmoid in three channels, nchw": single_output(
        ("Slice", "s from to axis", "f"), ("Sigmoid", "f", "g"), ("Concat", "g g g", "y", {"axis": 1}), **FIRST_CHANNEL, shape=WIDE
    ),
    "mask expanded to three channels, nchw": single_output(
        ("Slice", "s from to axis", "f"), ("Greater", "f zero", "t"), ("Cast", "t", "g", {"to": FLOAT}), ("Expand", "g k", "y"),
        **FIRST_CHANNEL, zero=np.float32(0), k=np.array(WIDE), shape=WIDE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", [None, "probabilities", "multilabel", "logits"])
@pytest.mark.parametrize("case", COLORED)
def test_refuses_colored_output(case: str, kind: str | None, theirs: ForeignNetwork) -> None:
    theirs.write(channels=3, **COLORED[case])
    theirs.refused(
        ModelError,
        r"its output 'y' is a colored image .* export the network without that step",
        output_kind=kind,
        output_layout="nchw" if "nchw" in case else "nhwc",
    )


def in_function(path: Path, inputs: list[str], *nodes: Any) -> None:
    """Replace the last node of a network by a local function of these nodes, from `inputs` to `y`."""
    model = onnx.load(path)
    model.functions.append(
        helper.make_function("theirs", "Head", inputs, ["y"], list(nodes), [helper.make_opsetid("", 17)])
    )
    model.graph.node[-1].domain, model.graph.node[-1].op_type = "theirs", "Head"
    model.opset_import.append(helper.make_opsetid("theirs", 1))
    onnx.save(model, path)


def test_analyzes_local_function(theirs: ForeignNetwork) -> None:
    theirs.write(**single_output(("Identity", "s", "y")))
    in_function(theirs.path, ["s"], helper.make_node("Sigmoid", ["s"], ["y"]))
    assert_foreground(theirs.build())


def test_refuses_overlay_in_local_function(theirs: ForeignNetwork) -> None:
    theirs.write(channels=3, **single_output(("Add", "s x", "y"), shape=WIDE))
    in_function(theirs.path, ["s", "x"], helper.make_node("Add", ["s", "x"], ["y"]))
    theirs.refused(ModelError, r"is a colored image .* the input image is blended into it")


RESEMBLING_COLORS: dict[str, dict[str, Any]] = {
    "one-hot by equal": single_output(
        ARGMAX, ("Unsqueeze", "a axis", "i"), ("Equal", "i all", "e"), ("Cast", "e", "y", {"to": FLOAT}), axis=np.array([1]),
        all=np.arange(3).reshape(1, 3, 1, 1), shape=WIDE,
    ),
    "one-hot class by class": single_output(
        ARGMAX, ("Unsqueeze", "a axis", "i"), ("Equal", "i i1", "e1"), ("Equal", "i i2", "e2"), ("Where", "e2 c2 c0", "v"),
        ("Where", "e1 c1 v", "y"), axis=np.array([1]), i1=np.array(1), i2=np.array(2),
        **{f"c{i}": np.eye(3, dtype=np.float32)[i].reshape(1, 3, 1, 1) for i in range(3)}, shape=WIDE,
    ),
    "bias with other axes": single_output(
        ("Unsqueeze", "bias axes", "c"), ("Add", "s c", "y"), bias=np.zeros(3, np.float32), axes=np.array([0, 2, 3]), shape=WIDE
    ),
    "channels in another order and back": single_output(
        ("Gather", "s order", "t", {"axis": 1}), ("Split", "t", "t0 t1 t2", {"axis": 1}), ("Concat", "t2 t1 t0", "y", {"axis": 1}),
        order=np.array([2, 1, 0]), shape=WIDE,
    ),
    "scores where the image is not black": single_output(
        ("ReduceMax", "x", "h", {"axes": [1]}), ("GreaterOrEqual", "h zero", "t"), ("Where", "t s zero", "y"), zero=np.float32(0),
        shape=WIDE,
    ),
    "scores times a sigmoid": single_output(
        ("Abs", "s", "q"), ("Sigmoid", "q", "g"), ("ReduceMax", "g", "h", {"axes": [1]}), ("Mul", "s h", "y"), shape=WIDE
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RESEMBLING_COLORS)
def test_accepts_scores_that_resemble_colors(case: str, theirs: ForeignNetwork) -> None:
    theirs.write(channels=3, **RESEMBLING_COLORS[case])
    kind = "probabilities" if "one-hot" in case else None
    assert_argmax(theirs.build(output_kind=kind, output_layout="nchw"))
