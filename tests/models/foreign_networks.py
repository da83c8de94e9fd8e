"""Foreign ONNX networks that the tests of `rtseg build` write and build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from building import build
from onnx import TensorProto, helper, numpy_helper
from onnx_models import random_images

from rtseg.core.errors import RtsegError
from rtseg.models.export.build import BuildResult
from rtseg.models.export.onnx_file import read_onnx
from rtseg.models.export.source_model import onnx_class_map_function
from rtseg.nn.preprocessing import Preprocessing

WIDTH, HEIGHT = 64, 48
UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
FLOAT, INT64, UINT8, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8, TensorProto.BOOL
Node = tuple[Any, ...]


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
    """Write a foreign network that computes scores `s` from RGB of 0 to 1 in `x`, followed by the given nodes.

    Args:
        path: path of the file.
        nodes: (operator, inputs, outputs, attributes) of each node after `s`, float `[N, channels, 48, 64]`.
        outputs: type and shape of each output by name.
        channels: 1: foreground where red is above one half. 3: red, green, blue.
        nhwc: True for an input in NHWC layout.
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
        [helper.make_tensor_value_info(name, *type_and_shape) for name, type_and_shape in outputs.items()],
        [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in {"w": weight, "b": bias, **constants}.items()
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


class ForeignNetwork:
    """A foreign network of a test, `theirs.onnx`, and its builds in the folder `built`."""

    def __init__(self, folder: Path, frames: Path) -> None:
        self.path, self.out, self.frames = folder / "theirs.onnx", folder / "built", frames

    def write(self, *arguments: Any, **named_arguments: Any) -> None:
        """Write the network; see `network`."""
        network(self.path, *arguments, **named_arguments)

    def build(self, **arguments: Any) -> BuildResult:
        """Build it; see `build_network`."""
        return build_network(self.path, self.frames, self.out, **arguments)

    def refused(self, error: type[RtsegError], message: str, **arguments: Any) -> str:
        """Assert that a build raises an error of one line and leaves no file; return its message."""
        before = self._files()
        with pytest.raises(error, match=message) as refused:
            self.build(**arguments)
        assert "\n" not in str(refused.value)
        assert self._files() == before
        return str(refused.value)

    def _files(self) -> list[Path]:
        return sorted(self.out.iterdir()) if self.out.exists() else []

    def run(self, image: Any, output: str | None = None) -> Any:
        """Return an output of ONNX Runtime for an image, uint8 `[H, W, 3]`, without the batch axis."""
        return run_network(self.path, image, output)

    def show_random_colors(self, rng: np.random.Generator) -> None:
        """Replace the frames by images without ties between interpolated scores."""
        for file in self.frames.iterdir():
            cv2.imwrite(str(file), rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


def run_network(model: Path | bytes, image: Any, output: str | None = None) -> Any:
    """Return an output of ONNX Runtime for an image, uint8 `[H, W, 3]`, without the batch axis."""
    x = (image / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)
    return onnxruntime.InferenceSession(model).run([output] if output else None, {"x": x})[0][0]


def assert_class_map(built: BuildResult, expected: Callable[[Any], Any]) -> None:
    """Assert that the class map of an image is the one that `expected` returns for the image."""
    image = random_images(1, HEIGHT, WIDTH)[0]
    np.testing.assert_array_equal(class_map(built, image), expected(image))


def assert_argmax(built: BuildResult) -> None:
    """Assert that the class map of a network of three channels is the index of the largest of red, green and blue."""
    assert_class_map(built, lambda image: image.argmax(axis=2))


def assert_foreground(built: BuildResult) -> None:
    """Assert that the class map of a network of one channel is 1 where red is above one half, else 0."""
    assert_class_map(built, lambda image: image[..., 0] > 127)


def build_network(path: Path, frames: Path, out: Path, lines: list[str] | None = None, **arguments: Any) -> BuildResult:
    """Build a network. Arguments that are not those of `build` go to `Preprocessing`."""
    build_options = ("batch", "precision", "target", "size", "calibrate", "force")
    options = {key: arguments.pop(key) for key in build_options if key in arguments}
    return build(
        path,
        out=out,
        **{"target": "onnx", "verify_on": frames, **options},
        preprocessing=Preprocessing(**{**UNIT, **arguments}),
        log=lines.append if lines is not None else lambda line: None,
    )


def class_map(built: BuildResult, image: Any) -> Any:
    return onnx_class_map_function(read_onnx(built.path), built.path.name, built.sidecar.facts.batch)(image)


def single_output(
    *nodes: Node, shape: list[Any] | None = None, element: int = FLOAT, **constants: Any
) -> dict[str, Any]:
    return {"nodes": list(nodes), "outputs": {"y": (element, shape or [1, 1, HEIGHT, WIDTH])}, **constants}


SIGMOID = ("Sigmoid", "s", "g")
HALF = np.array(0.5, np.float32)
ONE = np.array(1.0, np.float32)
NHWC = {"perm": [0, 2, 3, 1]}
LAST = [1, HEIGHT, WIDTH, 3]
ARGMAX = ("ArgMax", "s", "a", {"axis": 1, "keepdims": 0})
AS_FLOAT = ("Cast", "a", "y", {"to": FLOAT})
SOFTMAX = ("Softmax", "s", "m", {"axis": 1})
FLAT = [1, HEIGHT, WIDTH]
WIDE = [1, 3, HEIGHT, WIDTH]
UNIT_CONV = np.ones((1, 1, 1, 1), np.float32)
UNIT_CONV_3 = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)


def two_outputs(first: str, second: str, reduce: int = 1) -> dict[str, Any]:
    """Return a graph whose first output is wrong (negative scores, smaller if `reduce` is above 1) and whose second is right."""
    nodes: list[Node] = [("Neg", "s", "n")]
    nodes.append(("AveragePool", "n", first, {"kernel_shape": [reduce] * 2, "strides": [reduce] * 2}))
    nodes.append(("Identity", "s", second))
    small, full = [1, 3, HEIGHT // reduce, WIDTH // reduce], [1, 3, HEIGHT, WIDTH]
    return {"nodes": nodes, "outputs": {first: (FLOAT, small), second: (FLOAT, full)}}
