"""`rtseg build` against the user's own file: outputs of every kind are read right or asked for, and a wrong reading is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import cv2  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_models import CLASSES, foreign_model, pictures, truth  # noqa: E402

from rtseg.core.errors import ModelError, OptionError  # noqa: E402
from rtseg.models.export import onnx_adapter as onnx_source  # noqa: E402
from rtseg.models.export.build import BuildResult, build  # noqa: E402
from rtseg.models.export.onnx_file import read_onnx  # noqa: E402
from rtseg.models.export.source_model import onnx_class_map_function  # noqa: E402
from rtseg.nn.preprocessing import Preprocessing  # noqa: E402

WIDTH, HEIGHT = 64, 48
UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
FLOAT, INT64, UINT8, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8, TensorProto.BOOL
Node = tuple[Any, ...]


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Images to verify on: patches of all colors that the small networks tell apart."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, image in enumerate(pictures(3, HEIGHT, WIDTH, seed=3)):
        cv2.imwrite(str(folder / f"{i}.png"), image[:, :, ::-1])
    return folder


def network(
    path: Path,
    nodes: list[Node],
    outputs: dict[str, tuple[int, list[Any]]],
    *,
    channels: int = 1,
    nhwc: bool = False,
    source: tuple[int, list[Any]] | None = None,
    opset: int = 17,
    **constants: Any,
) -> Path:
    """A network from elsewhere that takes RGB of 0 to 1 as `x`, makes scores `s` of it, and then has the given nodes.

    Args:
        path: where to.
        nodes: (operator, inputs, outputs, attributes) each, from `s`, float `[N, channels, 48, 64]`.
        outputs: type and shape by name.
        channels: 1: foreground where red is above one half. 3: red, green, blue.
        nhwc: of the input.
        source: type and shape of the input.
        opset: operator set.
        constants: weights by name.
    """
    weight = np.zeros((channels, 3, 1, 1), np.float32)
    for i in range(channels):
        weight[i, i] = 10
    bias = np.full(channels, -5, np.float32)
    first = [("Transpose", "x", "p", {"perm": [0, 3, 1, 2]})] if nhwc else [("Identity", "x", "p")]
    graph = helper.make_graph(
        [
            helper.make_node(n[0], n[1].split(" "), n[2].split(), **(n[3] if len(n) > 3 else {}))
            for n in [*first, ("Conv", "p w b", "s"), *nodes]
        ],
        "theirs",
        [
            helper.make_tensor_value_info(
                "x", *(source or (FLOAT, [1, HEIGHT, WIDTH, 3] if nhwc else [1, 3, HEIGHT, WIDTH]))
            )
        ],
        [helper.make_tensor_value_info(name, *what) for name, what in outputs.items()],
        [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in {"w": weight, "b": bias, **constants}.items()
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def built_of(path: Path, frames: Path, out: Path, lines: list[str] | None = None, **said: Any) -> BuildResult:
    options = {key: said.pop(key) for key in ("batch", "precision", "target", "size", "calibrate") if key in said}
    return build(
        path,
        out=out,
        **{"target": "onnx", "verify_on": frames, **options},
        preprocessing=Preprocessing(**{**UNIT, **said}),
        log=lines.append if lines is not None else lambda line: None,
    )


def class_map(built: BuildResult, image: Any) -> Any:
    return onnx_class_map_function(read_onnx(built.path), built.path.name, built.sidecar.facts.batch)(image)


def one(*nodes: Node, shape: list[Any] | None = None, element: int = FLOAT, **constants: Any) -> dict[str, Any]:
    return {"nodes": list(nodes), "outputs": {"y": (element, shape or [1, 1, HEIGHT, WIDTH])}, **constants}


SIGMOID = ("Sigmoid", "s", "g")
HALF = np.array(0.5, np.float32)
ONE = np.array(1.0, np.float32)

ONE_SCORE: dict[str, dict[str, Any]] = {
    "logits": one(("Identity", "s", "y")),
    "sigmoid": one(("Sigmoid", "s", "y")),
    "sigmoid, identity": one(SIGMOID, ("Identity", "g", "y")),
    "sigmoid, reshape to nhwc": one(
        SIGMOID, ("Reshape", "g k", "y"), shape=[1, HEIGHT, WIDTH, 1], k=np.array([1, HEIGHT, WIDTH, 1])
    ),
    "sigmoid, transpose": one(SIGMOID, ("Transpose", "g", "y", {"perm": [0, 2, 3, 1]}), shape=[1, HEIGHT, WIDTH, 1]),
    "sigmoid, squeeze": one(SIGMOID, ("Squeeze", "g k", "y"), shape=[1, HEIGHT, WIDTH], k=np.array([1])),
    "sigmoid, flat": one(SIGMOID, ("Flatten", "g", "y"), shape=[1, HEIGHT * WIDTH]),
    "sigmoid, without a batch axis": one(SIGMOID, ("Squeeze", "g", "y"), shape=[HEIGHT, WIDTH]),
    "sigmoid, clip": one(SIGMOID, ("Clip", "g lo hi", "y"), lo=np.float32(1e-6), hi=np.float32(1 - 1e-6)),
    "sigmoid, double": one(SIGMOID, ("Cast", "g", "y", {"to": TensorProto.DOUBLE}), element=TensorProto.DOUBLE),
    "sigmoid, dropout": one(SIGMOID, ("Dropout", "g", "y")),
    "sigmoid on half the size, resize": one(
        ("AveragePool", "s", "a", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Sigmoid", "a", "g"),
        ("Resize", "g  r", "y", {"mode": "nearest"}),
        r=np.array([1, 1, 2, 2], np.float32),
    ),
    "hard sigmoid": one(("HardSigmoid", "s", "y")),
    "hard sigmoid in parts": one(
        ("Mul", "s k", "a"), ("Add", "a half", "c"), ("Clip", "c zero one", "y"),
        k=np.float32(0.2), half=HALF, zero=np.float32(0), one=ONE,
    ),
    "sigmoid in parts": one(
        ("Neg", "s", "n"), ("Exp", "n", "e"), ("Add", "e one", "d"), ("Reciprocal", "d", "y"), one=ONE
    ),
    "tanh": one(("Tanh", "s", "y")),
    "tanh, moved to 0 to 1": one(("Tanh", "s", "t"), ("Add", "t one", "u"), ("Mul", "u half", "y"), one=ONE, half=HALF),
    "sigmoid times 255": one(SIGMOID, ("Mul", "g k", "y"), k=np.float32(255)),
    "sigmoid times 255, uint8": one(
        SIGMOID, ("Mul", "g k", "m"), ("Cast", "m", "y", {"to": UINT8}), k=np.float32(255), element=UINT8
    ),
    "sigmoid, round": one(SIGMOID, ("Round", "g", "y")),
    "sigmoid, greater, float": one(
        SIGMOID, ("Greater", "g half", "t"), ("Cast", "t", "y", {"to": FLOAT}), half=HALF
    ),
    "sigmoid, greater, bool": one(SIGMOID, ("Greater", "g half", "y"), half=HALF, element=BOOL),
    "mask of 0 and 255": one(
        ("Greater", "s zero", "t"), ("Cast", "t", "f", {"to": FLOAT}), ("Mul", "f k", "y"), zero=np.float32(0), k=np.float32(255)
    ),
    "mask of 0 and 255, uint8, by where": one(
        ("Greater", "s zero", "t"), ("Where", "t full none", "y"), zero=np.float32(0), full=np.uint8(255), none=np.uint8(0),
        element=UINT8,
    ),
    "p beside 1 - p": one(
        SIGMOID, ("Sub", "one g", "q"), ("Concat", "q g", "y", {"axis": 1}), one=ONE, shape=[1, 2, HEIGHT, WIDTH]
    ),
    "p beside 1 - p, nhwc": one(
        SIGMOID, ("Sub", "one g", "q"), ("Concat", "q g", "c", {"axis": 1}), ("Transpose", "c", "y", {"perm": [0, 2, 3, 1]}),
        one=ONE, shape=[1, HEIGHT, WIDTH, 2],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ONE_SCORE)
def test_output_of_one_score_is_read_by_its_kind(kind: str, frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", **ONE_SCORE[kind])
    lines: list[str] = []
    built = built_of(theirs, frames, tmp_path / "built", lines)
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image[..., 0] > 127)
    assert any(line.startswith("verified: 100.0000%") for line in lines), lines
    assert any("theirs.onnx, run as it is by ONNX Runtime" in line for line in lines)


def test_tanh_is_not_called_probabilities(frames: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    built_of(network(tmp_path / "theirs.onnx", **ONE_SCORE["tanh"]), frames, tmp_path / "built", lines)
    assert "output 'y': logits, foreground above 0, on 100" in next(line for line in lines if "compared:" in line)


def test_network_that_takes_floats_of_0_to_255(frames: Path, tmp_path: Path) -> None:
    weight = np.zeros((1, 3, 1, 1), np.float32)
    weight[0, 0] = 10 / 255  # as a Rescaling inside
    theirs = network(tmp_path / "theirs.onnx", **one(("Identity", "s", "y")), w=weight)
    built = built_of(theirs, frames, tmp_path / "built", mean=(0.0,) * 3, std=(0.00392157,) * 3)
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image[..., 0] > 127)


def test_complement_of_a_sigmoid_is_foreground_where_it_is_high(frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", **one(SIGMOID, ("Sub", "one g", "y"), one=ONE))
    built = built_of(theirs, frames, tmp_path / "built")
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image[..., 0] < 127)


NHWC = {"perm": [0, 2, 3, 1]}
LAST = [1, HEIGHT, WIDTH, 3]
THREE: dict[str, dict[str, Any]] = {
    "softmax in nhwc": one(("Transpose", "s", "t", NHWC), ("Softmax", "t", "y", {"axis": -1}), shape=LAST),
    "softmax, transpose": one(("Softmax", "s", "t", {"axis": 1}), ("Transpose", "t", "y", NHWC), shape=LAST),
    "softmax flat, reshape": one(
        ("Transpose", "s", "t", NHWC), ("Reshape", "t flat", "f"), ("Softmax", "f", "m", {"axis": -1}), ("Reshape", "m back", "y"),
        flat=np.array([-1, 3]), back=np.array(LAST), shape=LAST,
    ),
    "softmax over flattened pixels": one(
        ("Transpose", "s", "t", NHWC), ("Reshape", "t flat", "f"), ("Softmax", "f", "y", {"axis": -1}),
        flat=np.array([1, -1, 3]), shape=[1, HEIGHT * WIDTH, 3],
    ),
    "log softmax": one(("LogSoftmax", "s", "y", {"axis": 1}), shape=[1, 3, HEIGHT, WIDTH]),
    "logits in nhwc": one(("Transpose", "s", "y", NHWC), shape=LAST),
    "logits without a batch axis": one(("Squeeze", "s k", "y"), k=np.array([0]), shape=[3, HEIGHT, WIDTH]),
    "softmax, clip, resize": one(
        ("Softmax", "s", "m", {"axis": 1}), ("Clip", "m lo hi", "c"), ("Resize", "c  r", "y", {"mode": "linear"}),
        lo=np.float32(0), hi=ONE, r=np.array([1, 1, 1, 1], np.float32), shape=[1, 3, HEIGHT, WIDTH],
    ),
    "argmax": one(("ArgMax", "s", "y", {"axis": 1}), element=INT64),
    "argmax, float": one(
        ("ArgMax", "s", "a", {"axis": 1, "keepdims": 0}), ("Cast", "a", "y", {"to": FLOAT}), shape=[1, HEIGHT, WIDTH]
    ),
    "argmax, uint8": one(("ArgMax", "s", "a", {"axis": 1}), ("Cast", "a", "y", {"to": UINT8}), element=UINT8),
    "softmax, argmax in nhwc, float": one(
        ("Transpose", "s", "t", NHWC), ("Softmax", "t", "m", {"axis": 3}), ("ArgMax", "m", "a", {"axis": 3}),
        ("Cast", "a", "y", {"to": FLOAT}), shape=[1, HEIGHT, WIDTH, 1],
    ),
    "shape computed in the graph": one(
        ("Shape", "x", "h", {"start": 2, "end": 4}), ("Concat", "nc h", "k", {"axis": 0}), ("Reshape", "s k", "y"),
        nc=np.array([1, 3]), shape=["n", "c", "h", "w"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", THREE)
def test_output_of_three_scores_is_read_without_class_names(kind: str, frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", channels=3, **THREE[kind])
    names = ("red", "green", "blue") if "argmax" in kind else None
    built = built_of(theirs, frames, tmp_path / "built", classes=names)
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image.argmax(axis=2))
    assert built.sidecar.verification["agreement"]["pixels"] == 1.0


def separate(*more: Node, **constants: Any) -> dict[str, Any]:
    return one(("Sigmoid", "s", "y"), *more, shape=[1, 3, HEIGHT, WIDTH], **constants)


ASKED: dict[str, tuple[dict[str, Any], int, str]] = {
    "relu": (one(("Relu", "s", "y")), 1, "is computed by Relu, which is ambiguous; specify --output-kind logits"),
    "relu6": (
        one(("Clip", "s low high", "y"), low=np.float32(0), high=np.float32(6)),
        1,
        "is computed by Clip of Conv, which is ambiguous; specify --output-kind logits",
    ),
    "one channel of several logits": (
        one(("Slice", "s from to axis", "y"), **{"from": np.array([1])}, to=np.array([2]), axis=np.array([1])),
        3,
        "--output-kind",
    ),
    "sigmoid for each class": (
        separate(), 3, "--output-kind probabilities where the highest is the class, or --output-kind multilabel"
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


@pytest.mark.parametrize("kind", ASKED)
def test_what_the_graph_does_not_decide_is_asked_for(kind: str, frames: Path, tmp_path: Path) -> None:
    graph, channels, message = ASKED[kind]
    theirs = network(tmp_path / "theirs.onnx", channels=channels, **graph)
    with pytest.raises(OptionError, match=message) as refused:
        built_of(theirs, frames, tmp_path / "built")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "built").exists()


def test_output_kind_decides_what_the_graph_does_not(frames: Path, tmp_path: Path) -> None:
    image = pictures(1, HEIGHT, WIDTH)[0]
    relu = network(tmp_path / "relu.onnx", **one(("Relu", "s", "y")))
    built = built_of(relu, frames, tmp_path / "a", output_kind="logits")
    np.testing.assert_array_equal(class_map(built, image), image[..., 0] > 127)
    own = network(tmp_path / "own.onnx", channels=3, **separate())
    built = built_of(own, frames, tmp_path / "b", output_kind="probabilities")
    np.testing.assert_array_equal(class_map(built, image), image.argmax(axis=2))
    built = built_of(own, frames, tmp_path / "c", output_kind="multilabel")
    wanted = np.where(image.max(axis=2) > 127, image.argmax(axis=2) + 1, 0)
    np.testing.assert_array_equal(class_map(built, image), wanted)
    assert len(built.sidecar.description.classes) == 4
    assert "--output-kind multilabel" in built.sidecar.command


def test_values_that_contradict_the_said_kind_are_refused(frames: Path, tmp_path: Path) -> None:
    # a convolution that gives 0 to 1: nothing in the graph shows that these are probabilities
    theirs = network(
        tmp_path / "theirs.onnx",
        **one(("Sigmoid", "s", "g"), ("Conv", "g unit", "y"), unit=np.ones((1, 1, 1, 1), np.float32)),
    )
    with pytest.raises(ModelError, match=r"'y' was read as logits, but its values are .* --output-kind logits or prob"):
        built_of(theirs, frames, tmp_path / "built")
    assert not list((tmp_path / "built").iterdir())
    built = built_of(theirs, frames, tmp_path / "built", output_kind="probabilities")
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image[..., 0] > 127)


ARGMAX = ("ArgMax", "s", "a", {"axis": 1, "keepdims": 0})
AS_FLOAT = ("Cast", "a", "y", {"to": FLOAT})
SOFTMAX = ("Softmax", "s", "m", {"axis": 1})
FLAT = [1, HEIGHT, WIDTH]
WIDE = [1, 3, HEIGHT, WIDTH]
UNIT_CONV = np.ones((1, 1, 1, 1), np.float32)
UNIT_CONV_3 = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
CONTRADICTED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "logits as probabilities": (one(("Identity", "s", "y")), 1, "probabilities", r"values are -3.8.* to .*outside 0 to 1"),
    "logits as a mask": (one(("Identity", "s", "y")), 1, "mask", r"values are -3.8.* to .*outside 0 to 255"),
    "logits as class indices": (one(("Identity", "s", "y")), 1, "classes", "values are .* and not integers"),
    "sigmoid as logits": (one(("Sigmoid", "s", "y")), 1, "logits", "values are 0 to 1 by the graph"),
    "sigmoid times 255 as logits": (one(SIGMOID, ("Mul", "g k", "y"), k=np.float32(255)), 1, "logits",
        "its values are 0 to 255 by the graph, and logits can be below 0;",
    ),
    **{
        f"tanh as {kind}": (
            one(("Tanh", "s", "y")), 1, kind, "values are -1 to 1 by the graph, symmetric around 0 like logits; .*use logits"
        )
        for kind in ("probabilities", "mask")
    },
    "three tanh as probabilities": (one(("Tanh", "s", "y"), shape=WIDE), 3, "probabilities", "-1 to 1 by the graph"),
    "hidden sigmoid as logits": (
        one(SIGMOID, ("Conv", "g unit", "y"), unit=UNIT_CONV), 1, "logits", "like probabilities; .*--output-kind prob"
    ),
    "hidden sigmoid as a mask": (
        one(SIGMOID, ("Conv", "g unit", "y"), unit=UNIT_CONV), 1, "mask", "values are .*those of a mask are 0 and 255"
    ),
    "hidden sigmoid times 255 as probabilities": (
        one(SIGMOID, ("Conv", "g unit", "y"), unit=UNIT_CONV * 255), 1, "probabilities", "outside 0 to 1"
    ),
    "clip at 6 as probabilities": (
        one(("Clip", "s lo hi", "y"), lo=np.float32(0), hi=np.float32(6)), 1, "probabilities", "values are 0 to 6 by the graph"
    ),
    **{
        f"class indices, float, as {kind}": (
            one(ARGMAX, AS_FLOAT, shape=FLAT), 3, kind, "contains class indices, 0 to 2, by the graph"
        )
        for kind in ("mask", "probabilities", "logits")
    },
    **{
        f"hidden class indices as {kind}": (
            one(("ArgMax", "s", "a", {"axis": 1}), ("Cast", "a", "f", {"to": FLOAT}), ("Conv", "f unit", "y"), unit=UNIT_CONV),
            3, kind, r"values are 0 to 2,",
        )
        for kind in ("mask", "probabilities", "logits")
    },
    "three logits as multilabel": (one(("Identity", "s", "y"), shape=WIDE), 3, "multilabel", "outside 0 to 1"),
    "three logits as probabilities": (one(("Identity", "s", "y"), shape=WIDE), 3, "probabilities", "outside 0 to 1"),
    "softmax as multilabel": (one(SOFTMAX, ("Identity", "m", "y"), shape=WIDE), 3, "multilabel", "Softmax makes channels that"),
    "softmax as logits": (one(SOFTMAX, ("Identity", "m", "y"), shape=WIDE), 3, "logits", "Softmax makes channels that"),
    "hidden softmax as multilabel": (
        one(SOFTMAX, ("Conv", "m unit", "y"), unit=UNIT_CONV_3, shape=WIDE), 3, "multilabel", "add up to 1 over the classes"
    ),
    "log softmax as multilabel": (
        one(("LogSoftmax", "s", "y", {"axis": 1}), shape=WIDE), 3, "multilabel", "LogSoftmax makes channels"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTED)
def test_output_kind_that_graph_or_values_contradict_is_refused(case: str, frames: Path, tmp_path: Path) -> None:
    graph, channels, kind, message = CONTRADICTED[case]
    theirs = network(tmp_path / "theirs.onnx", channels=channels, **graph)
    several = "three" in case or "softmax" in case
    names = 4 if kind == "multilabel" else channels if several else 2
    with pytest.raises((ModelError, OptionError), match=message) as refused:
        built_of(theirs, frames, tmp_path / "built", output_kind=kind, classes=tuple("abcd"[:names]))
    assert "\n" not in str(refused.value)
    assert "'y'" in str(refused.value)
    assert not (tmp_path / "built").exists() or not list((tmp_path / "built").iterdir())


def test_output_kind_that_is_contradicted_on_frames_of_one_class_is_refused(frames: Path, tmp_path: Path) -> None:
    # background everywhere if a mask: "weak verification" must not hide that the values are no mask's
    theirs = network(tmp_path / "theirs.onnx", **one(("Identity", "s", "y")))
    for file in frames.iterdir():
        cv2.imwrite(str(file), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(ModelError, match="--output-kind mask does not fit its output 'y': its values are -5 to -5"):
        built_of(theirs, frames, tmp_path / "built", output_kind="mask")


FITS: dict[str, tuple[dict[str, Any], int, str]] = {
    "logits": (one(("Identity", "s", "y")), 1, "logits"),
    "logits cut at 6": (one(("Clip", "s lo hi", "y"), lo=np.float32(0), hi=np.float32(6)), 1, "logits"),
    "sigmoid": (one(("Sigmoid", "s", "y")), 1, "probabilities"),
    "sigmoid times 255": (one(SIGMOID, ("Mul", "g k", "y"), k=np.float32(255)), 1, "probabilities"),
    "hidden sigmoid": (one(SIGMOID, ("Conv", "g unit", "y"), unit=UNIT_CONV), 1, "probabilities"),
    "tanh": (one(("Tanh", "s", "y")), 1, "logits"),
    "mask of 0 and 1": (one(("Greater", "s zero", "a"), AS_FLOAT, zero=np.float32(0)), 1, "mask"),
    "hidden mask of 0 and 255": (
        one(("Greater", "s zero", "t"), ("Cast", "t", "f", {"to": FLOAT}), ("Conv", "f unit", "y"),
            zero=np.float32(0), unit=UNIT_CONV * 255), 1, "mask",
    ),
    "softmax": (one(SOFTMAX, ("Identity", "m", "y"), shape=WIDE), 3, "probabilities"),
    "three logits": (one(("Identity", "s", "y"), shape=WIDE), 3, "logits"),
    "log softmax": (one(("LogSoftmax", "s", "y", {"axis": 1}), shape=WIDE), 3, "logits"),
    "class indices": (one(ARGMAX, AS_FLOAT, shape=FLAT), 3, "classes"),
}  # fmt: skip


@pytest.mark.parametrize("case", FITS)
def test_output_kind_that_fits_is_taken(case: str, frames: Path, tmp_path: Path) -> None:
    graph, channels, kind = FITS[case]
    theirs = network(tmp_path / "theirs.onnx", channels=channels, **graph)
    names = ("a", "b", "c") if channels == 3 else ("a", "b")
    built = built_of(theirs, frames, tmp_path / "built", output_kind=kind, classes=names)
    image = pictures(1, HEIGHT, WIDTH)[0]
    wanted = image.argmax(axis=2) if channels == 3 else image[..., 0] > 127
    np.testing.assert_array_equal(class_map(built, image), wanted)


AS_INDEX = ("Cast", "a", "f", {"to": FLOAT})
ARGMAX_1 = ("ArgMax", "s", "a", {"axis": 1})
SURE = ("Greater", "top k", "sure")
TOP = ("ReduceMax", "s", "top", {"axes": [1]})
NO_INDICES: dict[str, tuple[dict[str, Any], str]] = {
    "divided to 0 to 1": (one(ARGMAX_1, AS_INDEX, ("Div", "f k", "y"), k=np.float32(2)), "one of 3 values a pixel, 0, 0.5, 1:"),
    "times 127.5": (one(ARGMAX_1, AS_INDEX, ("Mul", "f k", "y"), k=np.float32(127.5)), "3 values a pixel, 0, 127.5, 255:"),
    "times 127.5, uint8": (
        one(ARGMAX_1, AS_INDEX, ("Mul", "f k", "m"), ("Cast", "m", "y", {"to": UINT8}), k=np.float32(127.5), element=UINT8),
        "3 values a pixel, 0, 127, 255:",
    ),
    "times 60, uint8": (
        one(ARGMAX_1, AS_INDEX, ("Mul", "f k", "m"), ("Cast", "m", "y", {"to": UINT8}), k=np.float32(60), element=UINT8),
        "3 values a pixel, 0, 60, 120:",
    ),
    "from a table": (
        one(ARGMAX, ("Gather", "table a", "y"), table=np.array([0, 0.25, 1], np.float32), shape=FLAT),
        "3 values a pixel, 0, 0.25, 1:",
    ),
    "from -1": (one(ARGMAX_1, ("Sub", "a k", "y"), k=np.array(1), element=INT64), "3 values a pixel, -1, 0, 1:"),
    "from -1, uint8": (
        one(ARGMAX_1, ("Sub", "a k", "m"), ("Cast", "m", "y", {"to": UINT8}), k=np.array(1), element=UINT8),
        "its graph sets pixels without a class to 255",
    ),
    "255 where none is sure": (
        one(ARGMAX_1, TOP, SURE, ("Where", "sure a none", "y"), k=np.float32(1), none=np.array(255), element=INT64),
        "its graph sets pixels without a class to 255",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", [None, "classes", "mask", "probabilities", "logits"])
@pytest.mark.parametrize("case", NO_INDICES)
def test_classes_that_are_no_indices_are_refused_whatever_is_said(
    case: str, kind: str | None, frames: Path, tmp_path: Path
) -> None:
    graph, message = NO_INDICES[case]
    theirs = network(tmp_path / "theirs.onnx", channels=3, **graph)
    with pytest.raises(ModelError, match=rf"its output 'y' can't be used: .*{message}.*; export it without") as refused:
        built_of(theirs, frames, tmp_path / "built", output_kind=kind, classes=("a", "b"))
    assert "\n" not in str(refused.value)
    assert "--output-kind" not in str(refused.value)
    assert not (tmp_path / "built").exists()


def test_classes_merged_by_a_whole_division_are_taken(frames: Path, tmp_path: Path) -> None:
    graph = one(ARGMAX_1, ("Add", "a k1", "m"), ("Div", "m k", "y"), k1=np.array(1), k=np.array(2), element=INT64)
    theirs = network(tmp_path / "theirs.onnx", channels=3, **graph)
    built = built_of(theirs, frames, tmp_path / "built", classes=("red", "other"))
    image = pictures(1, HEIGHT, WIDTH)[0]
    x = (image / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)
    wanted = onnxruntime.InferenceSession(str(theirs)).run(None, {"x": x})[0][0, 0]
    np.testing.assert_array_equal(class_map(built, image), wanted)


def test_hidden_255_of_no_class_is_told(frames: Path, tmp_path: Path) -> None:
    where = ("Where", "sure f none", "m")
    graph = one(
        ARGMAX_1,
        AS_INDEX,
        TOP,
        SURE,
        where,
        ("Conv", "m unit", "y"),
        k=np.float32(1),
        none=np.float32(255),
        unit=UNIT_CONV,
    )
    theirs = network(tmp_path / "theirs.onnx", channels=3, **graph)
    with pytest.raises(ModelError, match=r"gives 255, which is no class, .*; export it without") as refused:
        built_of(theirs, frames, tmp_path / "built", output_kind="classes", classes=("a", "b", "c"))
    assert "--classes" not in str(refused.value)


def test_vote_of_three_is_foreground_above_one_half(frames: Path, tmp_path: Path) -> None:
    # its values are 0, 1/3, 2/3 and 1, as those of a class map that was scaled
    votes: list[Node] = []
    for i, limit in enumerate(("low", "zero", "high")):
        votes += [("Greater", f"s {limit}", f"b{i}"), ("Cast", f"b{i}", f"f{i}", {"to": FLOAT})]
    limits = {"low": np.float32(-3), "zero": np.float32(0), "high": np.float32(2)}
    theirs = network(tmp_path / "theirs.onnx", **one(*votes, ("Mean", "f0 f1 f2", "y"), **limits))
    built = built_of(theirs, frames, tmp_path / "built", output_kind="probabilities")
    image = pictures(1, HEIGHT, WIDTH)[0]
    x = (image / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)
    wanted = onnxruntime.InferenceSession(str(theirs)).run(None, {"x": x})[0][0, 0] > 0.5
    np.testing.assert_array_equal(class_map(built, image), wanted)


def test_model_that_gives_nan_is_refused(frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", **one(("Sqrt", "s", "q"), ("Sub", "q one", "y"), one=ONE))
    with pytest.raises(ModelError, match="it outputs NaN on the compared frames"):
        built_of(theirs, frames, tmp_path / "built", output_kind="logits")


CUT_OFF: dict[str, Any] = {"from": np.array([1]), "to": np.array([3]), "axis": np.array([1])}


def test_softmax_along_the_wrong_axis_is_told(frames: Path, tmp_path: Path) -> None:
    for axis, layout in ((3, None), (2, None), (3, "nchw")):
        theirs = network(tmp_path / "theirs.onnx", channels=3, **one(("Softmax", "s", "y", {"axis": axis}), shape=WIDE))
        message = (
            rf"1 along axis {axis}, not along axis 1, where the classes are; export it with its Softmax along axis 1"
        )
        with pytest.raises(ModelError, match=message):
            built_of(theirs, frames, tmp_path / "built", output_layout=layout)


def test_softmax_whose_first_class_was_cut_off_is_asked_for(frames: Path, tmp_path: Path) -> None:
    cut = ("Slice", "m from to axis", "y")
    theirs = network(tmp_path / "cut.onnx", channels=3, **one(SOFTMAX, cut, **CUT_OFF, shape=[1, 2, HEIGHT, WIDTH]))
    with pytest.raises(
        ModelError, match=r"2 probabilities add up to less than one half on \d+\.\d% .* a class was cut off"
    ):
        built_of(theirs, frames, tmp_path / "built", classes=("green", "blue"))
    built = built_of(theirs, frames, tmp_path / "built", classes=("green", "blue"), output_kind="probabilities")
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image[..., 1:].argmax(axis=2))


def test_class_that_is_cut_off_and_never_the_highest_is_no_matter(frames: Path, tmp_path: Path) -> None:
    low = np.array([-100, 0, 0], np.float32).reshape(1, 3, 1, 1)
    nodes = [("Add", "s low", "l"), ("Softmax", "l", "m", {"axis": 1}), ("Slice", "m from to axis", "y")]
    theirs = network(tmp_path / "cut.onnx", channels=3, **one(*nodes, low=low, **CUT_OFF, shape=[1, 2, HEIGHT, WIDTH]))
    built = built_of(theirs, frames, tmp_path / "built", classes=("green", "blue"))
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image[..., 1:].argmax(axis=2))


WEIGHTS = np.array([0.2, 1, 3], np.float32).reshape(1, 3, 1, 1)
WEIGHTED: dict[str, tuple[dict[str, Any], str | None, int]] = {
    "sigmoids, weighted": (one(SIGMOID, ("Mul", "g k", "y"), k=WEIGHTS, shape=WIDE), "probabilities", 17),
    "softmax, weighted": (one(SOFTMAX, ("Mul", "m k", "y"), k=WEIGHTS, shape=WIDE), None, 17),
    "softmax, weighted, said": (one(SOFTMAX, ("Mul", "m k", "y"), k=WEIGHTS, shape=WIDE), "probabilities", 17),
    "softmax over the whole image": (one(("Softmax", "s", "y", {"axis": 1}), shape=WIDE), None, 11),
}  # fmt: skip


@pytest.mark.parametrize("case", WEIGHTED)
def test_scores_without_a_total_have_the_class_of_the_highest(case: str, frames: Path, tmp_path: Path) -> None:
    graph, kind, opset = WEIGHTED[case]
    theirs = network(tmp_path / "theirs.onnx", channels=3, opset=opset, **graph)
    built = built_of(theirs, frames, tmp_path / "built", output_kind=kind)
    image = pictures(1, HEIGHT, WIDTH)[0]
    x = (image / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)
    wanted = onnxruntime.InferenceSession(str(theirs)).run(None, {"x": x})[0][0].argmax(axis=0)
    np.testing.assert_array_equal(class_map(built, image), wanted)


def test_weighted_sigmoids_are_asked_for_by_the_kind_that_fits(frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", channels=3, **WEIGHTED["sigmoids, weighted"][0])
    with pytest.raises(OptionError, match=r"--output-kind probabilities where the highest is the class$"):
        built_of(theirs, frames, tmp_path / "built")


@pytest.mark.parametrize("case", ["times 100", "mean of two"])
def test_class_that_was_cut_off_is_seen_behind_other_nodes(case: str, frames: Path, tmp_path: Path) -> None:
    two = ("Softmax", "s", "m2", {"axis": 1})
    step = ("Mul", "m k", "h") if case == "times 100" else ("Mean", "m m2", "h")
    graph = one(
        SOFTMAX, two, step, ("Slice", "h from to axis", "y"), **CUT_OFF, k=np.float32(100), shape=[1, 2, HEIGHT, WIDTH]
    )
    theirs = network(tmp_path / "cut.onnx", channels=3, **graph)
    with pytest.raises(ModelError, match=r"add up to less than one half on .* a class was cut off"):
        built_of(theirs, frames, tmp_path / "built", classes=("green", "blue"))


LATE: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "softmax, max pool": (one(SOFTMAX, ("MaxPool", "m", "y", {"kernel_shape": [5, 5], "pads": [2] * 4}), shape=WIDE), None, "fp16"),
    "softmax on a quarter of the size": (
        one(("AveragePool", "s", "a", {"kernel_shape": [4, 4], "strides": [4, 4]}), ("Softmax", "a", "y", {"axis": 1}),
            shape=[1, 3, 12, 16]), None, "fp16",
    ),
    "softmax, space to depth": (
        one(SOFTMAX, ("SpaceToDepth", "m", "y", {"blocksize": 2}), shape=[1, 12, 24, 32]), "probabilities", "fp16"
    ),
    "sigmoid, saturated": (
        one(("Add", "s k", "a"), ("Sigmoid", "a", "y"), k=np.float32(30), shape=WIDE), "probabilities", "fp32"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LATE)
def test_activation_at_the_end_counts_where_it_changes_the_class(case: str, frames: Path, tmp_path: Path) -> None:
    graph, kind, precision = LATE[case]
    theirs = network(tmp_path / "theirs.onnx", channels=3, **graph)
    rng = np.random.default_rng(1)
    for file in frames.iterdir():
        cv2.imwrite(str(file), rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    built = built_of(theirs, frames, tmp_path / "built", output_kind=kind, precision=precision)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    x = (image / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)
    scores = onnxruntime.InferenceSession(str(theirs)).run(None, {"x": x})[0][0]
    wanted = np.stack([cv2.resize(plane, (WIDTH, HEIGHT)) for plane in scores]).argmax(axis=0)
    assert (class_map(built, image) == wanted).mean() > 0.99


RANDOM: dict[str, tuple[list[Node], dict[str, Any]]] = {
    "dropout in training mode": ([("Dropout", "s ratio on", "y")], {"ratio": HALF, "on": np.array(True)}),
    "noise": ([("RandomNormalLike", "s", "n", {"scale": 9.0}), ("Add", "s n", "y")], {}),
}


@pytest.mark.parametrize("case", RANDOM)
def test_network_that_gives_another_result_each_time_is_told(case: str, frames: Path, tmp_path: Path) -> None:
    nodes, constants = RANDOM[case]
    theirs = network(tmp_path / "theirs.onnx", channels=3, **one(*nodes, **constants, shape=WIDE))
    with pytest.raises(
        ModelError, match=r"theirs\.onnx outputs a different class map each time .* training mode, or noise"
    ) as told:
        built_of(theirs, frames, tmp_path / "built")
    assert "--precision" not in str(told.value)
    assert not list((tmp_path / "built").iterdir())


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_output_without_a_shape_is_taken(target: str, frames: Path, tmp_path: Path) -> None:
    pytest.importorskip(target)
    theirs = network(tmp_path / "theirs.onnx", channels=3, **one(ARGMAX, ("Identity", "a", "y"), element=INT64))
    model = onnx.load(theirs)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, theirs)
    built = built_of(theirs, frames, tmp_path / "built", target=target, classes=("red", "green", "blue"))
    assert built.sidecar.verification["agreement"]["pixels"] == 1.0
    assert {
        name: round(value, 3) for name, value in built.sidecar.verification["agreement"]["overlap"].items()
    } == dict.fromkeys(("red", "green", "blue"), 1.0)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_network_of_fp16_edges_and_fp32_inside_is_taken(precision: str, frames: Path, tmp_path: Path) -> None:
    half = TensorProto.FLOAT16
    theirs = network(
        tmp_path / "theirs.onnx",
        [("Cast", "s", "y", {"to": half})],
        {"y": (half, WIDE)},
        channels=3,
        source=(half, WIDE),
    )
    model = onnx.load(theirs)
    model.graph.node[0].CopyFrom(helper.make_node("Cast", ["x"], ["p"], to=FLOAT))
    onnx.save(model, theirs)
    built = built_of(theirs, frames, tmp_path / "built", precision=precision)
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image.argmax(axis=2))
    weights = {tensor.name: tensor.data_type for tensor in onnx.load(built.path).graph.initializer}
    assert weights["network/w"] == (half if precision == "fp16" else FLOAT)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_file_of_onnx_runtimes_half_precision_converter_is_taken(precision: str, frames: Path, tmp_path: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    theirs = network(tmp_path / "theirs.onnx", channels=3, **one(("Softmax", "s", "y", {"axis": 1}), shape=WIDE))
    onnx.save(convert_float_to_float16(onnx.load(theirs), keep_io_types=True), theirs)
    with pytest.raises(onnx.checker.ValidationError, match="topologically sorted"):
        onnx.checker.check_model(str(theirs))  # its casts stand last
    built = built_of(theirs, frames, tmp_path / "built", precision=precision)
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image.argmax(axis=2))


def test_nodes_in_any_order_are_taken(tmp_path: Path) -> None:
    def branch(name: str, *nodes: Any) -> Any:
        return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(name, FLOAT, WIDE)])

    theirs = network(
        tmp_path / "theirs.onnx", channels=3, **one(("Identity", "s", "y"), shape=WIDE, yes=np.array(True))
    )
    model = onnx.load(theirs)
    kept = branch("kept", helper.make_node("Neg", ["t"], ["kept"]), helper.make_node("Neg", ["s"], ["t"]))
    turned = branch("turned", helper.make_node("Neg", ["s"], ["turned"]))
    model.graph.node[-1].CopyFrom(helper.make_node("If", ["yes"], ["y"], then_branch=kept, else_branch=turned))
    nodes = list(reversed([onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, theirs)
    read = read_onnx(theirs)
    onnx.checker.check_model(read, full_check=True)
    image = pictures(1, HEIGHT, WIDTH)[0]
    x = (image / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)
    scores = onnxruntime.InferenceSession(read.SerializeToString()).run(None, {"x": x})[0][0]
    np.testing.assert_array_equal(scores.argmax(axis=0), image.argmax(axis=2))


def test_nodes_in_a_circle_are_refused(frames: Path, tmp_path: Path) -> None:
    graph = one(("Add", "s b2", "a2"), ("Neg", "a2", "b2"), ("Identity", "a2", "y"), shape=WIDE)
    theirs = network(tmp_path / "theirs.onnx", channels=3, **graph)
    with pytest.raises(
        ModelError, match=r"theirs\.onnx is not a valid ONNX model: Nodes in a graph must be topolog"
    ) as no:
        built_of(theirs, frames, tmp_path / "built")
    assert "\n" not in str(no.value)


PALETTE = np.array([[128, 64, 128], [70, 70, 70], [0, 0, 142]], np.float32)
ROAD = np.array([128, 64, 128], np.float32).reshape(1, 3, 1, 1)
CUT: dict[str, Any] = {"from": np.array([0]), "to": np.array([1]), "axis": np.array([1])}
COLORED: dict[str, dict[str, Any]] = {
    "gather": one(ARGMAX, ("Gather", "pal a", "y"), pal=PALETTE, shape=LAST),
    "gather, uint8": one(ARGMAX, ("Gather", "pal a", "y"), pal=PALETTE.astype(np.uint8), shape=LAST, element=UINT8),
    "gather, scaled to 0 to 1": one(
        ARGMAX, ("Gather", "pal a", "g"), ("Div", "g k", "y"), pal=PALETTE, k=np.float32(255), shape=LAST
    ),
    "gather, black and white": one(
        ARGMAX, ("Gather", "pal a", "y"), pal=np.repeat(np.array([[0], [255], [255]], np.float32), 3, axis=1), shape=LAST
    ),
    "gather, nchw": one(ARGMAX, ("Gather", "pal a", "g"), ("Transpose", "g", "y", {"perm": [0, 3, 1, 2]}), pal=PALETTE, shape=WIDE),
    "one-hot, matmul": one(
        ARGMAX, ("OneHot", "a depth onoff", "o"), ("MatMul", "o pal", "y"), pal=PALETTE, depth=np.array([3]),
        onoff=np.array([0, 1], np.float32), shape=LAST,
    ),
    "softmax, matmul": one(
        ("Transpose", "s", "t", NHWC), ("Softmax", "t", "m", {"axis": 3}), ("MatMul", "m pal", "y"), pal=PALETTE, shape=LAST
    ),
    "gather, half of it and half of the input, nchw": one(
        ARGMAX, ("Gather", "pal a", "g"), ("Transpose", "g", "c", {"perm": [0, 3, 1, 2]}), ("Mul", "c half", "d"),
        ("Mul", "x k", "e"), ("Add", "d e", "y"), pal=PALETTE, half=HALF, k=np.float32(127), shape=WIDE,
    ),
    "color where there is foreground, else the input, nchw": one(
        ("Slice", "s from to axis", "f"), ("Greater", "f zero", "t"), ("Where", "t color x", "y"), **CUT, zero=np.float32(0),
        color=ROAD, shape=WIDE,
    ),
    "input darkened by a sigmoid, nchw": one(
        ("Slice", "s from to axis", "f"), ("Sigmoid", "f", "g"), ("Mul", "x g", "y"), **CUT, shape=WIDE
    ),
    "color where there is foreground, else black, nchw": one(
        ("Slice", "s from to axis", "f"), ("Greater", "f zero", "t"), ("Where", "t color black", "y"), **CUT, zero=np.float32(0),
        color=ROAD, black=np.zeros((1, 3, 1, 1), np.float32), shape=WIDE,
    ),
    "color by color, nchw": one(
        ARGMAX, ("Unsqueeze", "a axis", "i"), ("Equal", "i i1", "e1"), ("Equal", "i i2", "e2"), ("Where", "e2 c2 none", "v"),
        ("Where", "e1 color v", "y"), axis=np.array([1]), i1=np.array(1), i2=np.array(2), color=ROAD, c2=ROAD[:, ::-1] / 2,
        none=np.float32(0), shape=WIDE,
    ),
    "sum of masks times colors, nchw": one(
        ARGMAX, ("Unsqueeze", "a axis", "i"), ("Equal", "i i1", "e1"), ("Equal", "i i2", "e2"), ("Cast", "e1", "f1", {"to": FLOAT}),
        ("Cast", "e2", "f2", {"to": FLOAT}), ("Mul", "f1 color", "m1"), ("Mul", "f2 c2", "m2"), ("Add", "m1 m2", "y"),
        axis=np.array([1]), i1=np.array(1), i2=np.array(2), color=ROAD, c2=ROAD[:, ::-1] / 2, shape=WIDE,
    ),
    "sigmoid in three channels, nchw": one(
        ("Slice", "s from to axis", "f"), ("Sigmoid", "f", "g"), ("Concat", "g g g", "y", {"axis": 1}), **CUT, shape=WIDE
    ),
    "mask expanded to three channels, nchw": one(
        ("Slice", "s from to axis", "f"), ("Greater", "f zero", "t"), ("Cast", "t", "g", {"to": FLOAT}), ("Expand", "g k", "y"),
        **CUT, zero=np.float32(0), k=np.array(WIDE), shape=WIDE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", [None, "probabilities", "multilabel", "logits"])
@pytest.mark.parametrize("case", COLORED)
def test_colored_output_is_refused_as_what_it_is(case: str, kind: str | None, frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", channels=3, **COLORED[case])
    with pytest.raises(ModelError, match=r"its output 'y' is a colored image .* export the network without that step"):
        built_of(
            theirs, frames, tmp_path / "built", output_kind=kind, output_layout="nchw" if "nchw" in case else "nhwc"
        )


def in_function(path: Path, inputs: list[str], *nodes: Any) -> None:
    """Makes the last node of a network a local function of these nodes, from `inputs` to `y`."""
    model = onnx.load(path)
    model.functions.append(
        helper.make_function("theirs", "Head", inputs, ["y"], list(nodes), [helper.make_opsetid("", 17)])
    )
    model.graph.node[-1].domain, model.graph.node[-1].op_type = "theirs", "Head"
    model.opset_import.append(helper.make_opsetid("theirs", 1))
    onnx.save(model, path)


def test_what_a_local_function_does_is_seen(frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", **one(("Identity", "s", "y")))
    in_function(theirs, ["s"], helper.make_node("Sigmoid", ["s"], ["y"]))
    built = built_of(theirs, frames, tmp_path / "built")
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image[..., 0] > 127)


def test_overlay_in_a_local_function_is_refused(frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", channels=3, **one(("Add", "s x", "y"), shape=WIDE))
    in_function(theirs, ["s", "x"], helper.make_node("Add", ["s", "x"], ["y"]))
    with pytest.raises(ModelError, match=r"is a colored image .* the input image is blended into it"):
        built_of(theirs, frames, tmp_path / "built")


PLAIN: dict[str, dict[str, Any]] = {
    "one-hot by equal": one(
        ARGMAX, ("Unsqueeze", "a axis", "i"), ("Equal", "i all", "e"), ("Cast", "e", "y", {"to": FLOAT}), axis=np.array([1]),
        all=np.arange(3).reshape(1, 3, 1, 1), shape=WIDE,
    ),
    "one-hot class by class": one(
        ARGMAX, ("Unsqueeze", "a axis", "i"), ("Equal", "i i1", "e1"), ("Equal", "i i2", "e2"), ("Where", "e2 c2 c0", "v"),
        ("Where", "e1 c1 v", "y"), axis=np.array([1]), i1=np.array(1), i2=np.array(2),
        **{f"c{i}": np.eye(3, dtype=np.float32)[i].reshape(1, 3, 1, 1) for i in range(3)}, shape=WIDE,
    ),
    "bias with other axes": one(
        ("Unsqueeze", "bias axes", "c"), ("Add", "s c", "y"), bias=np.zeros(3, np.float32), axes=np.array([0, 2, 3]), shape=WIDE
    ),
    "channels in another order and back": one(
        ("Gather", "s order", "t", {"axis": 1}), ("Split", "t", "t0 t1 t2", {"axis": 1}), ("Concat", "t2 t1 t0", "y", {"axis": 1}),
        order=np.array([2, 1, 0]), shape=WIDE,
    ),
    "scores where the image is not black": one(
        ("ReduceMax", "x", "h", {"axes": [1]}), ("GreaterOrEqual", "h zero", "t"), ("Where", "t s zero", "y"), zero=np.float32(0),
        shape=WIDE,
    ),
    "scores times a sigmoid": one(
        ("Abs", "s", "q"), ("Sigmoid", "q", "g"), ("ReduceMax", "g", "h", {"axes": [1]}), ("Mul", "s h", "y"), shape=WIDE
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PLAIN)
def test_scores_that_look_like_colors_are_taken(case: str, frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", channels=3, **PLAIN[case])
    kind = "probabilities" if "one-hot" in case else None
    built = built_of(theirs, frames, tmp_path / "built", output_kind=kind, output_layout="nchw")
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image.argmax(axis=2))


# Several outputs.


def several(first: str, second: str, reduce: int = 1) -> dict[str, Any]:
    """The first output is wrong (negative scores, smaller where `reduce` is above 1), the second right."""
    nodes: list[Node] = [("Neg", "s", "n")]
    nodes.append(("AveragePool", "n", first, {"kernel_shape": [reduce] * 2, "strides": [reduce] * 2}))
    nodes.append(("Identity", "s", second))
    small, full = [1, 3, HEIGHT // reduce, WIDTH // reduce], [1, 3, HEIGHT, WIDTH]
    return {"nodes": nodes, "outputs": {first: (FLOAT, small), second: (FLOAT, full)}}


@pytest.mark.parametrize(
    "graph",
    [
        several("d4", "d1", 4),
        several("aux", "out"),
        {
            "nodes": [("GlobalAveragePool", "s", "v"), ("Flatten", "v", "label"), ("Identity", "s", "mask")],
            "outputs": {"label": (FLOAT, [1, 3]), "mask": (FLOAT, [1, 3, HEIGHT, WIDTH])},
        },
        {
            "nodes": [("ArgMax", "s", "map", {"axis": 1, "keepdims": 0}), ("Softmax", "s", "scores", {"axis": 1})],
            "outputs": {"map": (INT64, [1, HEIGHT, WIDTH]), "scores": (FLOAT, [1, 3, HEIGHT, WIDTH])},
        },
    ],
    ids=["deep supervision", "auxiliary head first", "classification first", "class map and its scores"],
)
def test_main_output_is_taken_and_named(graph: dict[str, Any], frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", channels=3, **graph)
    built = built_of(theirs, frames, tmp_path / "built")
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image.argmax(axis=2))
    chosen = list(graph["outputs"])[1]
    assert any(f"'{chosen}' is used" in note for note in built.notes)


def test_an_output_that_the_user_names_is_called_so(frames: Path, tmp_path: Path) -> None:
    """There is another map: it is not the only one, and no rule chose it."""
    theirs = network(tmp_path / "theirs.onnx", channels=3, **several("aux", "out"))
    built = built_of(theirs, frames, tmp_path / "built", output="aux")
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image.argmin(axis=2))
    (note,) = [note for note in built.notes if "is used" in note]
    assert note == "of the outputs aux, out 'aux' is used (--onnx-output)"


@pytest.mark.parametrize("auxiliary", ["aux", "aux_out", "d1_aux", "Auxiliary"])
def test_larger_auxiliary_output_is_left(auxiliary: str, frames: Path, tmp_path: Path) -> None:
    small, full = [1, 3, HEIGHT // 4, WIDTH // 4], [1, 6, HEIGHT, WIDTH]
    pool = ("AveragePool", "s", "out", {"kernel_shape": [4, 4], "strides": [4, 4]})
    nodes = [("Neg", "s", "n"), ("Concat", "n s", auxiliary, {"axis": 1}), pool]
    theirs = network(tmp_path / "theirs.onnx", nodes, {auxiliary: (FLOAT, full), "out": (FLOAT, small)}, channels=3)
    built = built_of(theirs, frames, tmp_path / "built", classes=("red", "green", "blue"))
    image = pictures(1, HEIGHT, WIDTH)[0]
    x = (image / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)
    scores = onnxruntime.InferenceSession(str(theirs)).run(["out"], {"x": x})[0][0]
    wanted = np.stack([cv2.resize(plane, (WIDTH, HEIGHT)) for plane in scores]).argmax(axis=0)
    assert (class_map(built, image) == wanted).mean() > 0.99
    assert any("'out' is used, the one that is not called auxiliary" in note for note in built.notes)


def beside_objects(maps: list[Node], shape: list[Any], table: list[Any]) -> dict[str, Any]:
    """A map `masks` beside a table `objects`, such as boxes or a class for each query."""
    rows = np.ones((int(np.prod(table)), 3), np.float32)
    nodes = [
        ("GlobalAveragePool", "s", "v"),
        ("Reshape", "v k", "f"),
        ("MatMul", "rows f", "m"),
        ("Reshape", "m t", "objects"),
    ]
    constants = {"k": np.array([3, -1]), "rows": rows, "t": np.array(table)}
    outputs = {"objects": (FLOAT, table), "masks": (FLOAT, shape)}
    return {"nodes": [*nodes, *maps], "outputs": outputs, "channels": 3, **constants}


SMALL = ("AveragePool", "s", "masks", {"kernel_shape": [4, 4], "strides": [4, 4]})
INSTANCES: dict[str, dict[str, Any]] = {
    "boxes beside prototypes": beside_objects([SMALL], [1, 3, 12, 16], [1, 116, 84]),
    "boxes of three grids beside prototypes": beside_objects([SMALL], [1, 3, 12, 16], [1, 3, 8, 8, 85]),
    "classes beside a mask for each query": beside_objects([SMALL], [1, 3, 12, 16], [1, 3, 134]),
    "boxes beside a mask for each object": beside_objects(
        [("Transpose", "s", "masks", {"perm": [1, 0, 2, 3]})], [3, 1, 48, 64], [3, 5]
    ),
}


@pytest.mark.parametrize("case", INSTANCES)
def test_instance_segmentation_is_not_taken_for_classes(case: str, frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", **INSTANCES[case])
    with pytest.raises(OptionError, match=r"'objects' \[.*'masks' \[.* look like an instance segmentation") as refused:
        built_of(theirs, frames, tmp_path / "built")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "built").exists()


@pytest.mark.parametrize("named", [False, True])
def test_map_beside_objects_is_taken_at_the_images_size_or_by_its_name(
    named: bool, frames: Path, tmp_path: Path
) -> None:
    maps = [SMALL] if named else [("Identity", "s", "masks")]
    shape = [1, 3, 12, 16] if named else WIDE
    theirs = network(tmp_path / "theirs.onnx", **beside_objects(maps, shape, [1, 116, 84]))
    built = built_of(theirs, frames, tmp_path / "built", output="masks" if named else None)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, :32, 0] = image[:, 32:, 2] = 200  # one border, on the grid of the smaller map
    np.testing.assert_array_equal(class_map(built, image), image.argmax(axis=2))


def test_label_for_each_image_of_a_batch_is_no_object(frames: Path, tmp_path: Path) -> None:
    pool = [("GlobalAveragePool", "s", "v"), ("Flatten", "v", "label"), SMALL]
    outputs = {"label": (FLOAT, [2, 3]), "masks": (FLOAT, [2, 3, 12, 16])}
    source = (FLOAT, [2, 3, HEIGHT, WIDTH])
    theirs = network(tmp_path / "theirs.onnx", pool, outputs, channels=3, source=source)
    built = built_of(theirs, frames, tmp_path / "built", batch=2, precision="fp32")
    assert any("'masks' is used" in note for note in built.notes)


def test_named_output_is_taken(frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", channels=3, **several("d4", "d1", 4))
    built = built_of(theirs, frames, tmp_path / "built", output="d4")
    assert "output 'd4'" in built.sidecar.verification["agreement"]["original"]


# Old operator sets.


@pytest.mark.parametrize("opset", [9, 11])
def test_old_upsampling_keeps_its_meaning(opset: int, frames: Path, tmp_path: Path) -> None:
    pool = ("AveragePool", "s", "a", {"kernel_shape": [4, 4], "strides": [4, 4]})
    scales = np.array([1, 1, 4, 4], np.float32)
    if opset == 9:  # from the corner of a pixel, not from its center
        up: list[Node] = [("Upsample", "a scales", "y", {"mode": "linear"})]
        extra = {"scales": scales}
    else:  # scales that are there and empty, beside sizes
        up = [("Resize", "a roi none sizes", "y", {"mode": "linear"})]
        empty = np.zeros(0, np.float32)
        extra = {"roi": empty, "none": empty, "sizes": np.array([1, 3, HEIGHT, WIDTH])}
    graph = one(pool, *up, shape=[1, 3, HEIGHT, WIDTH], **extra)
    theirs = network(tmp_path / "theirs.onnx", channels=3, opset=opset, **graph)
    session = onnxruntime.InferenceSession(str(theirs))
    # Any colors: with those of `pictures` two scores are equal halfway between patches.
    rng = np.random.default_rng(1)
    for file in frames.iterdir():
        cv2.imwrite(str(file), rng.integers(0, 256, (12, 16, 3), np.uint8).repeat(4, axis=0).repeat(4, axis=1))
    built = built_of(theirs, frames, tmp_path / "built", precision="fp32")
    image = rng.integers(0, 256, (12, 16, 3), np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    scores = session.run(None, {"x": (image / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)})[0]
    assert (class_map(built, image) == scores[0].argmax(axis=0)).mean() > 0.995


# Quantized networks.

STEP, ZERO = np.float32(1 / 255), np.uint8(0)
Q_LOGITS = {"step": np.float32(0.1), "zero": np.uint8(128)}
QUANTIZED: dict[str, tuple[dict[str, Any], int]] = {
    "sigmoid, q, dq": (
        one(SIGMOID, ("QuantizeLinear", "g step zero", "q"), ("DequantizeLinear", "q step zero", "y"), step=STEP, zero=ZERO), 1
    ),
    "sigmoid, q, dq before the sigmoid": (
        one(("QuantizeLinear", "s step zero", "q"), ("DequantizeLinear", "q step zero", "d"), ("Sigmoid", "d", "y"), **Q_LOGITS), 1
    ),
    "sigmoid, q to uint8": (one(SIGMOID, ("QuantizeLinear", "g step zero", "y"), step=STEP, zero=ZERO, element=UINT8), 1),
    "sigmoid, q to int8": (
        one(SIGMOID, ("QuantizeLinear", "g step zero", "y"), step=STEP, zero=np.int8(-128), element=TensorProto.INT8), 1
    ),
    "sigmoid, q to int8, nhwc": (
        one(SIGMOID, ("QuantizeLinear", "g step zero", "q"), ("Transpose", "q", "y", {"perm": [0, 2, 3, 1]}), step=STEP,
            zero=np.int8(-128), element=TensorProto.INT8, shape=[1, HEIGHT, WIDTH, 1]), 1,
    ),
    "logits, q to uint8": (one(("QuantizeLinear", "s step zero", "y"), **Q_LOGITS, element=UINT8), 1),
    "three logits, q to uint8": (one(("QuantizeLinear", "s step zero", "y"), **Q_LOGITS, element=UINT8, shape=WIDE), 3),
    "softmax, q to uint8": (
        one(SOFTMAX, ("QuantizeLinear", "m step zero", "y"), step=STEP, zero=ZERO, element=UINT8, shape=WIDE), 3
    ),
}  # fmt: skip


@pytest.mark.parametrize("opset", [13, 17, 19])
@pytest.mark.parametrize("case", QUANTIZED)
def test_quantized_output_is_read_by_what_its_numbers_mean(case: str, opset: int, frames: Path, tmp_path: Path) -> None:
    graph, channels = QUANTIZED[case]
    theirs = network(tmp_path / "theirs.onnx", channels=channels, opset=opset, **graph)
    built = built_of(theirs, frames, tmp_path / "built")
    image = pictures(1, HEIGHT, WIDTH)[0]
    wanted = image.argmax(axis=2) if channels == 3 else image[..., 0] > 127
    np.testing.assert_array_equal(class_map(built, image), wanted)
    assert built.sidecar.verification["agreement"]["pixels"] == 1.0


DQ = "DequantizeLinear"
THREE_QUANTIZED: dict[str, Any] = {  # as ONNX Runtime's static quantization writes convolutions; `s` itself is not used
    **one(
        ("QuantizeLinear", "x step zero", "q"), (DQ, "q step zero", "d"), (DQ, "weight wstep wzero", "dw"), ("Conv", "d dw", "y"),
        step=STEP, zero=ZERO, weight=np.eye(3, dtype=np.int8).reshape(3, 3, 1, 1) * np.int8(100), wstep=np.float32(0.1),
        wzero=np.int8(0), shape=WIDE,
    ),
    "channels": 3,
}  # fmt: skip


def test_quantized_network_is_refused_as_fp16_and_taken_as_it_is(frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", **THREE_QUANTIZED)
    with pytest.raises(
        OptionError, match=r"is quantized: 100% of its multiplications are INT8 already.*--precision fp32"
    ):
        built_of(theirs, frames, tmp_path / "built")
    built = built_of(theirs, frames, tmp_path / "built", precision="fp32")
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image.argmax(axis=2))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_network_of_16_bit_activations_is_not_called_int8(precision: str, frames: Path, tmp_path: Path) -> None:
    wide = {**THREE_QUANTIZED, "step": np.float32(1 / 65535), "zero": np.uint16(0)}
    theirs = network(tmp_path / "theirs.onnx", opset=21, **wide)
    calibrate = {"calibrate": frames} if precision == "int8" else {}
    with pytest.raises(
        OptionError, match=r"100% of its multiplications are of numbers that are not INT8.*--precision fp32"
    ):
        built_of(theirs, frames, tmp_path / "built", precision=precision, **calibrate)
    built = built_of(theirs, frames, tmp_path / "built", precision="fp32")
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image.argmax(axis=2))


# Inputs.


def test_fixed_batch_is_named_and_taken(frames: Path, tmp_path: Path) -> None:
    theirs = network(
        tmp_path / "theirs.onnx",
        [("Identity", "s", "y")],
        {"y": (FLOAT, [4, 3, HEIGHT, WIDTH])},
        channels=3,
        source=(FLOAT, [4, 3, HEIGHT, WIDTH]),
    )
    with pytest.raises(OptionError, match="takes 4 images in one run, not 1: give --batch 4"):
        built_of(theirs, frames, tmp_path / "built")
    built = built_of(theirs, frames, tmp_path / "built", batch=4)
    images = pictures(4, HEIGHT, WIDTH)
    maps = onnxruntime.InferenceSession(str(built.path)).run(None, {"image": images})[0]
    np.testing.assert_array_equal(maps, images.argmax(axis=3))
    assert built.sidecar.verification["agreement"]["pixels"] == 1.0


FLAT_BATCH: dict[str, tuple[list[Node], list[int], int]] = {
    "flat": ([("Sigmoid", "s", "g"), ("Reshape", "g k", "y")], [2, HEIGHT * WIDTH], 1),
    "flat, one channel": ([("Sigmoid", "s", "g"), ("Reshape", "g k", "y")], [2, HEIGHT * WIDTH, 1], 1),
    "flat, one channel first": ([("Sigmoid", "s", "g"), ("Reshape", "g k", "y")], [2, 1, HEIGHT * WIDTH], 1),
    "flat, three channels": ([("Transpose", "s", "t", NHWC), ("Reshape", "t k", "y")], [2, HEIGHT * WIDTH, 3], 3),
    "map": ([("Reshape", "s k", "y")], [2, 3, HEIGHT, WIDTH], 3),
}


@pytest.mark.parametrize("case", [name for name in FLAT_BATCH if name != "flat"])
def test_batch_that_the_output_alone_fixes_is_named_and_taken(case: str, frames: Path, tmp_path: Path) -> None:
    nodes, shape, channels = FLAT_BATCH[case]
    theirs = network(
        tmp_path / "theirs.onnx", nodes, {"y": (FLOAT, shape)}, channels=channels, source=(FLOAT, ["N", 3, HEIGHT, WIDTH]),
        k=np.array(shape),
    )  # fmt: skip
    with pytest.raises(OptionError, match="takes 2 images in one run, not 1: give --batch 2"):
        built_of(theirs, frames, tmp_path / "built")
    built = built_of(theirs, frames, tmp_path / "built", batch=2)
    images = pictures(2, HEIGHT, WIDTH)
    maps = onnxruntime.InferenceSession(str(built.path)).run(None, {"image": images})[0]
    np.testing.assert_array_equal(maps, images.argmax(axis=3) if channels == 3 else images[..., 0] > 127)
    assert built.sidecar.verification["agreement"]["pixels"] == 1.0


@pytest.mark.parametrize("case", [name for name in FLAT_BATCH if name != "map"])
def test_flat_output_of_one_image_is_taken(case: str, frames: Path, tmp_path: Path) -> None:
    nodes, shape, channels = FLAT_BATCH[case]
    shape = [1, *shape[1:]]
    theirs = network(tmp_path / "theirs.onnx", nodes, {"y": (FLOAT, shape)}, channels=channels, k=np.array(shape))
    built = built_of(theirs, frames, tmp_path / "built")
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(
        class_map(built, image), image.argmax(axis=2) if channels == 3 else image[..., 0] > 127
    )


def test_uint8_input_needs_no_normalization(frames: Path, tmp_path: Path) -> None:
    theirs = network(
        tmp_path / "theirs.onnx",
        [("Cast", "s", "y", {"to": FLOAT})],
        {"y": (FLOAT, [1, 1, HEIGHT, WIDTH])},
    )
    model = onnx.load(theirs)
    model.graph.input[0].type.tensor_type.elem_type = UINT8
    del model.graph.node[0]
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["f"], to=FLOAT))
    model.graph.node.insert(1, helper.make_node("Div", ["f", "k"], ["p"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(255), "k"))
    onnx.save(model, theirs)
    built = built_of(theirs, frames, tmp_path / "built", mean=None, std=None)
    image = pictures(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), image[..., 0] > 127)
    with pytest.raises(OptionError, match="takes uint8, 0 to 255, and contains its normalization; leave --mean and --std out"):
        built_of(theirs, frames, tmp_path / "built")


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("layout", [None, "nchw"])
def test_gray_input_is_refused_in_one_line(layout: str | None, free: bool, frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", [("Identity", "s", "y")], {"y": (FLOAT, [1, 1, HEIGHT, WIDTH])})
    model = onnx.load(theirs)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w"))
    if free:
        for axis in (0, 2, 3):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "nchw"[axis]
    onnx.save(model, theirs)
    for told in {layout, "nhwc"} if free else {layout}:  # a wrong guess gets no other answer
        with pytest.raises(ModelError, match=r"takes images of 1 channel \(gray\), and rtseg's images are RGB"):
            built_of(theirs, frames, tmp_path / "built", layout=told)


def test_size_of_a_network_that_fixes_one_side(frames: Path, tmp_path: Path) -> None:
    theirs = network(tmp_path / "theirs.onnx", [("Identity", "s", "y")], {"y": (FLOAT, [1, 1, HEIGHT, WIDTH])})
    model = onnx.load(theirs)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "w"
    onnx.save(model, theirs)
    with pytest.raises(OptionError, match=f"only images of height {HEIGHT}, not 96x64; give --size 96x{HEIGHT}, or"):
        built_of(theirs, frames, tmp_path / "built", size=(96, 64))


@pytest.mark.parametrize("names", [("r", "g", "r"), ("Road", "car", "road")])
def test_class_named_twice_is_refused_before_work(names: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "theirs.onnx").write_bytes(b"not looked at")
    with pytest.raises(OptionError, match=r"--classes names (r|road) more than once"):
        built_of(tmp_path / "theirs.onnx", tmp_path, tmp_path / "built", classes=names)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((float("nan"), 0, 0), (1, 1, 1), "--mean is nan,0,0; each value must be a finite number"),
        ((0, 0, 0), (1, float("inf"), 1), "--std is 1,inf,1; each value must be a finite number"),
        (
            (0.485, 0.456, 0.406),
            (58.4, 57.1, 57.4),
            "--mean 0.485,0.456,0.406 and --std 58.4,57.1,57.4 are on different",
        ),
        ((123.7, 116.3, 103.5), (0.229, 0.224, 0.225), "are on different scales; give both on the scale of 0 to 1 or"),
    ],
)
@pytest.mark.parametrize("ending", [".onnx", ".pth"])
def test_normalization_that_cannot_be_meant_is_refused_before_work(
    mean: Any, std: Any, message: str, ending: str, tmp_path: Path
) -> None:
    theirs = tmp_path / f"theirs{ending}"
    theirs.write_bytes(b"not looked at")
    with pytest.raises(OptionError, match=message):
        built_of(theirs, tmp_path, tmp_path / "built", mean=mean, std=std)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0, 0, 0), (255, 255, 255)),
        ((127.5,) * 3, (127.5,) * 3),
        ((104, 117, 123), (1, 1, 1)),
        ((0.5,) * 3, (0.5,) * 3),
    ],
)
def test_normalization_on_one_scale_is_taken(mean: Any, std: Any) -> None:
    Preprocessing(mean=mean, std=std).check()


def test_cut_borders_are_refused(frames: Path, tmp_path: Path) -> None:
    theirs = network(
        tmp_path / "theirs.onnx",
        [("Slice", "s from to axes", "y")],
        {"y": (FLOAT, [1, 3, 32, 44])},
        channels=3,
        **{"from": np.array([8, 10])},
        to=np.array([40, 54]),
        axes=np.array([2, 3]),
    )
    with pytest.raises(ModelError, match=r"no output is a map of its input, 64x48: 'y' \[1, 3, 32, 44\]"):
        built_of(theirs, frames, tmp_path / "built")


# Staleness.


def test_new_weights_beside_the_same_onnx_file_are_built_again(frames: Path, tmp_path: Path) -> None:
    theirs = foreign_model(tmp_path / "theirs.onnx", size=(WIDTH, HEIGHT))
    said = {"classes": CLASSES}

    def save(scale: float) -> None:
        model = onnx.load(theirs)
        for tensor in model.graph.initializer:
            if tensor.name == "second":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(scale), "second"))
        (tmp_path / "theirs.data").unlink(missing_ok=True)
        onnx.save(model, theirs, save_as_external_data=True, location="theirs.data", size_threshold=0)

    save(1)
    small_file = theirs.read_bytes()
    first = built_of(theirs, frames, tmp_path / "built", **said)
    assert built_of(theirs, frames, tmp_path / "built", **said).reasons == ()
    save(-1)
    assert theirs.read_bytes() == small_file
    again = built_of(theirs, frames, tmp_path / "built", **said)
    assert again.reasons[0].startswith("source was ")
    image = pictures(1, HEIGHT, WIDTH)[0]
    assert (class_map(first, image) == truth(image[None])[0]).all()
    assert (class_map(again, image) != truth(image[None])[0]).mean() > 0.5


# A wrong wrapper.


def _wrong_before(change: Callable[[list[Any], onnx.ModelProto], None]) -> Any:
    right = onnx_source._before

    def before(model: Any, layout: str, mean: Any, scale: Any) -> Any:
        nodes = right(model, layout, mean, scale)
        change(nodes, model)
        return nodes

    return before


def _channels_swapped(nodes: list[Any], model: Any) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "swap"))
    nodes.insert(0, helper.make_node("Gather", ["image", "swap"], ["bgr"], axis=3))
    nodes[1].input[0] = "bgr"


def _normalization_left_out(nodes: list[Any], model: Any) -> None:
    for node in nodes:
        if node.op_type in ("Sub", "Mul"):
            node.op_type = "Identity"
            del node.input[1:]


def _wrong_after(**changes: Any) -> Any:
    right = onnx_source._after
    return lambda model, output, size, batch: right(model, dataclasses.replace(output, **changes), size, batch)


def _sigmoid_twice(model: Any, output: Any, size: Any, batch: int) -> Any:
    nodes = _RIGHT_AFTER(model, output, size, batch)
    name = nodes[0].input[0]
    nodes[0].input[0] = "again"
    return [helper.make_node("Sigmoid", [name], ["again"]), *nodes]


def _corners_aligned(model: Any, output: Any, size: Any, batch: int) -> Any:
    nodes = _RIGHT_AFTER(model, output, size, batch)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name == "coordinate_transformation_mode":
                attribute.s = b"asymmetric"
    return nodes


_RIGHT_AFTER = onnx_source._after
THREE_LOGITS = one(("Identity", "s", "y"), shape=[1, 3, HEIGHT, WIDTH])
WRONG: dict[str, tuple[dict[str, Any], int, str, Any]] = {
    "channels swapped": (THREE_LOGITS, 3, "_before", _wrong_before(_channels_swapped)),
    "normalization left out": (
        one(("Abs", "s", "y"), shape=[1, 3, HEIGHT, WIDTH]), 3, "_before", _wrong_before(_normalization_left_out)
    ),
    "argmax over another axis": (
        one(("Transpose", "s", "y", NHWC), shape=[1, HEIGHT, WIDTH, 3]),
        3,
        "_after",
        _wrong_after(axis=1, shape=(1, 3, HEIGHT * WIDTH))
    ),
    "sigmoid twice": (one(("Sigmoid", "s", "y")), 1, "_after", _sigmoid_twice),
    "sigmoid read as logits": (one(("Sigmoid", "s", "y")), 1, "_after", _wrong_after(threshold=0.0)),
    "upsampling from corners": (
        one(("AveragePool", "s", "y", {"kernel_shape": [4, 4], "strides": [4, 4]}), shape=[1, 3, HEIGHT // 4, WIDTH // 4]),
        3,
        "_after",
        _corners_aligned,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_wrapper_is_refused(kind: str, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, channels, part, wrong = WRONG[kind]
    theirs = network(tmp_path / "theirs.onnx", channels=channels, **graph)
    assert built_of(theirs, frames, tmp_path / "right").sidecar.verification["agreement"]["pixels"] > 0.995
    monkeypatch.setattr(onnx_source, part, wrong)
    with pytest.raises(ModelError, match=r"agrees with the original on \d+\.\d+% of the pixels") as refused:
        built_of(theirs, frames, tmp_path / "built")
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "built").iterdir())


def test_wrong_output_in_the_built_file_is_refused(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = network(tmp_path / "theirs.onnx", channels=3, **several("aux", "out"))
    monkeypatch.setattr(onnx_source, "_keep_output", lambda model, name: None)
    monkeypatch.setattr(onnx_source, "_after", _wrong_after(name="aux"))
    with pytest.raises(ModelError, match="agrees with the original on"):
        built_of(theirs, frames, tmp_path / "built")
    assert not list((tmp_path / "built").iterdir())


def test_original_that_gives_one_class_is_called_weak(frames: Path, tmp_path: Path) -> None:
    far = np.full((1, 1, 1, 1), 100, np.float32)
    theirs = network(tmp_path / "theirs.onnx", **one(("Add", "s far", "y"), far=far))
    lines: list[str] = []
    built = built_of(theirs, frames, tmp_path / "built", lines)
    (weak,) = [line for line in lines if line.startswith("weak verification")]
    assert "the class 'class-1'" in weak
    assert "--verify-on" in weak
    assert not any(line.startswith("verified") for line in lines)
    assert built.sidecar.verification["agreement"]["constant"] == "class-1"


def test_openvino_file_is_compared_with_the_users_own(frames: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    theirs = network(tmp_path / "theirs.onnx", **ONE_SCORE["sigmoid, reshape to nhwc"])
    lines: list[str] = []
    built_of(theirs, frames, tmp_path / "built", lines, target="openvino")
    assert any("by openvino on" in line and "run as it is by ONNX Runtime" in line for line in lines)
