"""Selection of the segmentation output of foreign ONNX networks with several outputs."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from foreign_networks import (
    FLOAT,
    HEIGHT,
    INT64,
    WIDE,
    WIDTH,
    ForeignNetwork,
    Node,
    assert_argmax,
    assert_class_map,
    class_map,
    two_outputs,
)
from onnx_models import random_images

from rtseg.core.errors import ModelError, OptionError


@pytest.mark.parametrize(
    "graph",
    [
        two_outputs("d4", "d1", 4),
        two_outputs("aux", "out"),
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
def test_selects_main_output_and_reports_it(graph: dict[str, Any], theirs: ForeignNetwork) -> None:
    theirs.write(channels=3, **graph)
    built = theirs.build()
    assert_argmax(built)
    chosen = list(graph["outputs"])[1]
    assert any(f"'{chosen}' is used" in note for note in built.notes)


def test_reports_output_selected_by_user(theirs: ForeignNetwork) -> None:
    theirs.write(channels=3, **two_outputs("aux", "out"))
    built = theirs.build(output="aux")
    assert_class_map(built, lambda image: image.argmin(axis=2))
    (note,) = [note for note in built.notes if "is used" in note]
    assert note == "of the outputs aux, out 'aux' is used (--onnx-output)"
    assert "output 'aux'" in built.sidecar.verification["agreement"]["original"]


@pytest.mark.parametrize("auxiliary", ["aux", "aux_out", "d1_aux", "Auxiliary"])
def test_ignores_larger_auxiliary_output(auxiliary: str, theirs: ForeignNetwork) -> None:
    small, full = [1, 3, HEIGHT // 4, WIDTH // 4], [1, 6, HEIGHT, WIDTH]
    pool = ("AveragePool", "s", "out", {"kernel_shape": [4, 4], "strides": [4, 4]})
    nodes = [("Neg", "s", "n"), ("Concat", "n s", auxiliary, {"axis": 1}), pool]
    theirs.write(nodes, {auxiliary: (FLOAT, full), "out": (FLOAT, small)}, channels=3)
    built = theirs.build(classes=("red", "green", "blue"))
    image = random_images(1, HEIGHT, WIDTH)[0]
    expected = np.stack([cv2.resize(p, (WIDTH, HEIGHT)) for p in theirs.run(image, "out")]).argmax(axis=0)
    assert (class_map(built, image) == expected).mean() > 0.99
    assert any("'out' is used, the one that is not called auxiliary" in note for note in built.notes)


def next_to_objects(maps: list[Node], shape: list[Any], table: list[Any]) -> dict[str, Any]:
    """Return a graph with a map `masks` and a table `objects`, such as boxes or a class for each query."""
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
    "boxes and prototypes": next_to_objects([SMALL], [1, 3, 12, 16], [1, 116, 84]),
    "boxes of three grids and prototypes": next_to_objects([SMALL], [1, 3, 12, 16], [1, 3, 8, 8, 85]),
    "classes and a mask for each query": next_to_objects([SMALL], [1, 3, 12, 16], [1, 3, 134]),
    "boxes and a mask for each object": next_to_objects(
        [("Transpose", "s", "masks", {"perm": [1, 0, 2, 3]})], [3, 1, 48, 64], [3, 5]
    ),
}


@pytest.mark.parametrize("case", INSTANCES)
def test_refuses_instance_segmentation(case: str, theirs: ForeignNetwork) -> None:
    theirs.write(**INSTANCES[case])
    theirs.refused(OptionError, r"'objects' \[.*'masks' \[.* look like an instance segmentation")


@pytest.mark.parametrize("named", [False, True])
def test_accepts_map_next_to_objects_at_image_size_or_by_name(named: bool, theirs: ForeignNetwork) -> None:
    maps = [SMALL] if named else [("Identity", "s", "masks")]
    shape = [1, 3, 12, 16] if named else WIDE
    theirs.write(**next_to_objects(maps, shape, [1, 116, 84]))
    built = theirs.build(output="masks" if named else None)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, :32, 0] = image[:, 32:, 2] = 200  # one class border, on the grid of the smaller map
    np.testing.assert_array_equal(class_map(built, image), image.argmax(axis=2))


def test_accepts_map_next_to_label_of_each_image(theirs: ForeignNetwork) -> None:
    pool = [("GlobalAveragePool", "s", "v"), ("Flatten", "v", "label"), SMALL]
    outputs = {"label": (FLOAT, [2, 3]), "masks": (FLOAT, [2, 3, 12, 16])}
    source = (FLOAT, [2, 3, HEIGHT, WIDTH])
    theirs.write(pool, outputs, channels=3, source=source)
    built = theirs.build(batch=2, precision="fp32")
    assert any("'masks' is used" in note for note in built.notes)


def test_refuses_output_with_cropped_borders(theirs: ForeignNetwork) -> None:
    theirs.write(
        [("Slice", "s from to axes", "y")],
        {"y": (FLOAT, [1, 3, 32, 44])},
        channels=3,
        **{"from": np.array([8, 10])},
        to=np.array([40, 54]),
        axes=np.array([2, 3]),
    )
    theirs.refused(ModelError, r"no output is a map of its input, 64x48: 'y' \[1, 3, 32, 44\]")
