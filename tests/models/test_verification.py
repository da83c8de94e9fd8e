"""`rtseg build` compares each built file with the source model and refuses a wrong one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign_networks import (
    HEIGHT,
    NHWC,
    SIGMOID,
    WIDE,
    WIDTH,
    ForeignNetwork,
    build_network,
    class_map,
    single_output,
    two_outputs,
)
from onnx import helper, numpy_helper
from onnx_models import CLASSES, expected_classes, foreign_model, random_images

from rtseg.core.errors import ModelError
from rtseg.models.export import onnx_adapter


def test_rebuilds_after_change_of_external_weights(frames: Path, tmp_path: Path) -> None:
    path = foreign_model(tmp_path / "theirs.onnx", size=(WIDTH, HEIGHT))

    def save(scale: float) -> None:
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            if tensor.name == "second":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(scale), "second"))
        (tmp_path / "theirs.data").unlink(missing_ok=True)
        onnx.save(model, path, save_as_external_data=True, location="theirs.data", size_threshold=0)

    save(1)
    onnx_file = path.read_bytes()
    first = build_network(path, frames, tmp_path / "built", classes=CLASSES)
    assert build_network(path, frames, tmp_path / "built", classes=CLASSES).reasons == ()
    save(-1)
    assert path.read_bytes() == onnx_file
    again = build_network(path, frames, tmp_path / "built", classes=CLASSES)
    assert again.reasons[0].startswith("source was ")
    image = random_images(1, HEIGHT, WIDTH)[0]
    assert (class_map(first, image) == expected_classes(image[None])[0]).all()
    assert (class_map(again, image) != expected_classes(image[None])[0]).mean() > 0.5


# A wrong adapter.


def _changed_input_nodes(change: Callable[[list[Any], onnx.ModelProto], None]) -> Any:
    original = onnx_adapter._input_nodes

    def before(model: Any, layout: str, mean: Any, scale: Any) -> Any:
        nodes = original(model, layout, mean, scale)
        change(nodes, model)
        return nodes

    return before


def _swap_channels(nodes: list[Any], model: Any) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "swap"))
    nodes.insert(0, helper.make_node("Gather", ["image", "swap"], ["bgr"], axis=3))
    nodes[1].input[0] = "bgr"


def _remove_normalization(nodes: list[Any], model: Any) -> None:
    for node in nodes:
        if node.op_type in ("Sub", "Mul"):
            node.op_type = "Identity"
            del node.input[1:]


def _changed_output(**changes: Any) -> Any:
    original = onnx_adapter._output_nodes
    return lambda model, output, size, batch: original(model, dataclasses.replace(output, **changes), size, batch)


def _apply_sigmoid_twice(model: Any, output: Any, size: Any, batch: int) -> Any:
    nodes, result = _AFTER(model, output, size, batch)
    name = nodes[0].input[0]
    nodes[0].input[0] = "again"
    return [helper.make_node("Sigmoid", [name], ["again"]), *nodes], result


def _cut_asymmetric_resize(model: Any, *arguments: Any) -> Any:
    for attribute in model.graph.node[-1].attribute:
        if attribute.name == "coordinate_transformation_mode":
            attribute.s = b"half_pixel"
    return _CUT(model, *arguments)


_AFTER, _CUT = onnx_adapter._output_nodes, onnx_adapter.cut_to_scores
THREE_LOGITS = single_output(("Identity", "s", "y"), shape=[1, 3, HEIGHT, WIDTH])
WRONG: dict[str, tuple[dict[str, Any], int, str, Any]] = {
    "channels swapped": (THREE_LOGITS, 3, "_input_nodes", _changed_input_nodes(_swap_channels)),
    "no normalization": (
        single_output(("Abs", "s", "y"), shape=[1, 3, HEIGHT, WIDTH]), 3, "_input_nodes",
            _changed_input_nodes(_remove_normalization)
    ),
    "argmax over another axis": (
        single_output(("Transpose", "s", "y", NHWC), shape=[1, HEIGHT, WIDTH, 3]),
        3,
        "_output_nodes",
        _changed_output(axis=1, shape=(1, 3, HEIGHT * WIDTH))
    ),
    "sigmoid twice": (single_output(("Sigmoid", "s", "y")), 1, "_output_nodes", _apply_sigmoid_twice),
    "sigmoid as logits in the adapter": (single_output(("Sigmoid", "s", "y")), 1, "_output_nodes", _changed_output(threshold=0.0)),
    "upsampling from corners": (
        single_output(("AveragePool", "s", "a", {"kernel_shape": [4, 4], "strides": [4, 4]}), ("Mul", "a k", "small"),
            ("Resize", "small  factors", "y", {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}),
            shape=WIDE, factors=np.array([1, 1, 4, 4], np.float32), k=np.float32([[[1.0]], [[1.1]], [[1.3]]])),  # no ties
        3,
        "cut_to_scores",
        _cut_asymmetric_resize,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_refuses_wrong_adapter(kind: str, theirs: ForeignNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, channels, part, wrong = WRONG[kind]
    theirs.write(channels=channels, **graph)
    assert theirs.build().sidecar.verification["agreement"]["pixels"] > 0.995
    monkeypatch.setattr(onnx_adapter, part, wrong)
    theirs.refused(ModelError, r"agrees with the original on \d+\.\d+% of the pixels", force=True)


def test_refuses_wrong_output_in_built_file(theirs: ForeignNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs.write(channels=3, **two_outputs("aux", "out"))
    monkeypatch.setattr(onnx_adapter, "_keep_output", lambda model, name: None)
    monkeypatch.setattr(onnx_adapter, "_output_nodes", _changed_output(name="aux"))
    theirs.refused(ModelError, "agrees with the original on")


def test_reports_weak_verification_for_single_class(theirs: ForeignNetwork) -> None:
    far = np.full((1, 1, 1, 1), 100, np.float32)
    theirs.write(**single_output(("Add", "s far", "y"), far=far))
    lines: list[str] = []
    built = theirs.build(lines=lines)
    (weak,) = [line for line in lines if line.startswith("weak verification")]
    assert "the class 'class-1'" in weak
    assert "--verify-on" in weak
    assert not any(line.startswith("verified") for line in lines)
    assert built.sidecar.verification["agreement"]["constant"] == "class-1"


def test_compares_openvino_file_with_source_onnx(theirs: ForeignNetwork) -> None:
    reshape = ("Reshape", "g k", "y")
    nhwc = [1, HEIGHT, WIDTH, 1]
    theirs.write(**single_output(SIGMOID, reshape, shape=nhwc, k=np.array(nhwc)))
    lines: list[str] = []
    theirs.build(lines=lines, target="openvino")
    assert any("by openvino on" in line and "run as it is by ONNX Runtime" in line for line in lines)
