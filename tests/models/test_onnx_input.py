"""Inputs of foreign ONNX networks: batch, layout, size, normalization and class names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from class_maps import onnx_class_maps
from foreign_networks import (
    FLOAT,
    HEIGHT,
    NHWC,
    UINT8,
    WIDTH,
    ForeignNetwork,
    Node,
    assert_argmax,
    assert_foreground,
    build_network,
)
from onnx import helper, numpy_helper
from onnx_models import random_images

from rtseg.core.errors import ModelError, OptionError
from rtseg.nn.preprocessing import Preprocessing

FLAT_BATCH: dict[str, tuple[list[Node], list[int], int]] = {
    "flat": ([("Sigmoid", "s", "g"), ("Reshape", "g k", "y")], [2, HEIGHT * WIDTH], 1),
    "flat, one channel": ([("Sigmoid", "s", "g"), ("Reshape", "g k", "y")], [2, HEIGHT * WIDTH, 1], 1),
    "flat, one channel first": ([("Sigmoid", "s", "g"), ("Reshape", "g k", "y")], [2, 1, HEIGHT * WIDTH], 1),
    "flat, three channels": ([("Transpose", "s", "t", NHWC), ("Reshape", "t k", "y")], [2, HEIGHT * WIDTH, 3], 3),
    "map": ([("Reshape", "s k", "y")], [2, 3, HEIGHT, WIDTH], 3),
}


@pytest.mark.parametrize("batch", [2, "N"], ids=["by the input", "only by the output"])
@pytest.mark.parametrize("case", [name for name in FLAT_BATCH if name != "flat"])
def test_requires_fixed_batch(case: str, batch: int | str, theirs: ForeignNetwork) -> None:
    nodes, shape, channels = FLAT_BATCH[case]
    theirs.write(nodes, {"y": (FLOAT, shape)}, channels=channels, source=(FLOAT, [batch, 3, HEIGHT, WIDTH]),
        k=np.array(shape),
    )  # fmt: skip
    theirs.refused(OptionError, "takes 2 images in one run, not 1: give --batch 2")
    built = theirs.build(batch=2)
    images = random_images(2, HEIGHT, WIDTH)
    maps = onnx_class_maps(built.path, images)
    np.testing.assert_array_equal(maps, images.argmax(axis=3) if channels == 3 else images[..., 0] > 127)
    assert built.sidecar.verification["agreement"]["pixels"] == 1.0


def test_fixed_batch_with_channel_last_runs_on_openvino(theirs: ForeignNetwork) -> None:
    """OpenVINO runs one image at a time: the added nodes don't fix the batch."""
    nodes: list[Node] = [("Sigmoid", "s", "g"), ("Transpose", "g", "y", NHWC)]
    theirs.write(nodes, {"y": (FLOAT, [2, HEIGHT, WIDTH, 1])}, source=(FLOAT, [2, 3, HEIGHT, WIDTH]))
    built = theirs.build(batch=2, target="openvino")
    assert built.sidecar.verification["agreement"]["pixels"] == 1.0


@pytest.mark.parametrize("case", [name for name in FLAT_BATCH if name != "map"])
def test_accepts_flat_output_of_one_image(case: str, theirs: ForeignNetwork) -> None:
    nodes, shape, channels = FLAT_BATCH[case]
    shape = [1, *shape[1:]]
    theirs.write(nodes, {"y": (FLOAT, shape)}, channels=channels, k=np.array(shape))
    (assert_argmax if channels == 3 else assert_foreground)(theirs.build())


def test_uint8_input_needs_no_normalization(theirs: ForeignNetwork) -> None:
    theirs.write([("Cast", "s", "y", {"to": FLOAT})], {"y": (FLOAT, [1, 1, HEIGHT, WIDTH])})
    model = onnx.load(theirs.path)
    model.graph.input[0].type.tensor_type.elem_type = UINT8
    del model.graph.node[0]
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["f"], to=FLOAT))
    model.graph.node.insert(1, helper.make_node("Div", ["f", "k"], ["p"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(255), "k"))
    onnx.save(model, theirs.path)
    assert_foreground(theirs.build(mean=None, std=None))
    theirs.refused(OptionError, "takes uint8, 0 to 255, and contains its normalization; leave --mean and --std out")


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("layout", [None, "nchw"])
def test_refuses_gray_input(layout: str | None, free: bool, theirs: ForeignNetwork) -> None:
    theirs.write([("Identity", "s", "y")], {"y": (FLOAT, [1, 1, HEIGHT, WIDTH])})
    model = onnx.load(theirs.path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w"))
    if free:
        for axis in (0, 2, 3):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "nchw"[axis]
    onnx.save(model, theirs.path)
    for given_layout in {layout, "nhwc"} if free else {layout}:  # a wrong layout has the same message
        theirs.refused(
            ModelError, r"takes images of 1 channel \(gray\), and rtseg's images are RGB", layout=given_layout
        )


def test_refuses_size_that_contradicts_fixed_height(theirs: ForeignNetwork) -> None:
    theirs.write([("Identity", "s", "y")], {"y": (FLOAT, [1, 1, HEIGHT, WIDTH])})
    model = onnx.load(theirs.path)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "w"
    onnx.save(model, theirs.path)
    theirs.refused(
        OptionError, f"only images of height {HEIGHT}, not 96x64; give --size 96x{HEIGHT}, or", size=(96, 64)
    )


@pytest.mark.parametrize("names", [("r", "g", "r"), ("Road", "car", "road")])
def test_refuses_duplicate_class_names_before_reading_model(names: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "theirs.onnx").write_bytes(b"not read")
    with pytest.raises(OptionError, match=r"--classes contains (r|road) more than once"):
        build_network(tmp_path / "theirs.onnx", tmp_path, tmp_path / "built", classes=names)


def test_missing_name_of_the_background_is_explained(theirs: ForeignNetwork) -> None:
    theirs.write([("Sigmoid", "s", "y")], {"y": (FLOAT, [1, 1, HEIGHT, WIDTH])})
    theirs.refused(OptionError, "has 2 classes, the first of them where no other is, but", classes=("road",))


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
@pytest.mark.parametrize("suffix", [".onnx", ".pth"])
def test_refuses_invalid_normalization_before_reading_model(
    mean: Any, std: Any, message: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"theirs{suffix}"
    path.write_bytes(b"not read")
    with pytest.raises(OptionError, match=message):
        build_network(path, tmp_path, tmp_path / "built", mean=mean, std=std)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0, 0, 0), (255, 255, 255)),
        ((127.5,) * 3, (127.5,) * 3),
        ((104, 117, 123), (1, 1, 1)),
        ((0.5,) * 3, (0.5,) * 3),
    ],
)
def test_accepts_normalization_on_one_scale(mean: Any, std: Any) -> None:
    Preprocessing(mean=mean, std=std).check()
