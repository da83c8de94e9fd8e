"""Upsampling and argmax outside of OpenVINO: the same class maps as from the whole model, only where the model allows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtseg import SyntheticDrive
from rtseg.inference.argmax import ScoresToClasses
from rtseg.inference.bundled_models import find_model
from rtseg.inference.openvino import disable_telemetry
from rtseg.inference.openvino_graph import scores_graph

disable_telemetry()
ov = pytest.importorskip("openvino")
ops = pytest.importorskip("openvino.opset13")


def reference(scores: Any, upsampled_size: tuple[int, int]) -> Any:
    """Upsample bilinearly in float64 (pixel centers, edges repeated), then take the first of the largest scores."""

    def weights(count: int, target: int) -> Any:
        position = np.clip((np.arange(target) + 0.5) * count / target - 0.5, 0, count - 1)
        low = np.minimum(position.astype(int), max(count - 2, 0))
        matrix = np.zeros((target, count))
        np.add.at(matrix, (np.arange(target), low), 1 - (position - low))
        np.add.at(matrix, (np.arange(target), np.minimum(low + 1, count - 1)), position - low)
        return matrix

    down, across = weights(scores.shape[1], upsampled_size[1]), weights(scores.shape[2], upsampled_size[0])
    return np.einsum("ih,khw,jw->kij", down, scores.astype(np.float64), across).argmax(axis=0)


@pytest.mark.parametrize("class_count", [1, 2, 11, 256])
@pytest.mark.parametrize("upsampled_size", [(24, 16), (48, 32), (24, 17), (12, 8)])
def test_class_has_the_largest_upsampled_score(class_count: int, upsampled_size: tuple[int, int]) -> None:
    scores = np.random.default_rng(class_count).normal(size=(class_count, 8, 12)).astype(np.float32)
    classes = np.full(upsampled_size[::-1], 99, np.uint8)
    ScoresToClasses(upsampled_size, upsampled_size)(scores, classes)
    assert (classes == reference(scores, upsampled_size)).mean() > 0.999  # FP32 against FP64


def test_equal_scores_give_the_first_class() -> None:
    scores = np.zeros((5, 4, 4), np.float32)
    scores[[2, 4]] = 1
    classes = np.empty((8, 8), np.uint8)
    ScoresToClasses((8, 8), (8, 8))(scores, classes)
    assert (classes == 2).all()


def test_class_map_is_cropped_and_memory_is_reused() -> None:
    to_classes = ScoresToClasses((16, 12), (13, 9))
    rng = np.random.default_rng(0)
    for _ in range(3):
        scores = rng.normal(size=(7, 6, 8)).astype(np.float32)
        classes = np.empty((9, 13), np.uint8)
        to_classes(scores, classes)
        np.testing.assert_array_equal(classes, reference(scores, (16, 12))[:9, :13])


def network(after: Callable[[Any], Any]) -> Any:
    """Return a model with scores `[1, 4, 12, 16]` of a 48x36 image, then `after`, then argmax."""
    image = ops.parameter([1, 36, 48, 3], np.uint8, name="image")
    planes = ops.transpose(ops.convert(image, np.float32), ops.constant([0, 3, 1, 2]))
    weights = np.random.default_rng(3).normal(size=(4, 3, 3, 3)).astype(np.float32)
    scores = ops.convolution(planes, ops.constant(weights), [3, 3], [0, 0], [0, 0], [1, 1])
    top = ops.topk(after(scores), ops.constant(1), 1, "max", "value", "i64", stable=True)
    classes = ops.convert(ops.squeeze(top.output(1), ops.constant([1])), np.uint8)
    classes.output(0).set_names({"classes"})
    image.output(0).set_names({"image"})
    return ov.Model([ops.result(classes)], [image])


def upsample(
    mode: str = "linear_onnx", centers: str = "half_pixel", height: int = 36, **options: Any
) -> Callable[[Any], Any]:
    def apply(scores: Any) -> Any:
        return ops.interpolate(
            scores, ops.constant([height, 48]), mode, "sizes", axes=ops.constant([2, 3]),
            coordinate_transformation_mode=centers, **options,
        )  # fmt: skip

    return apply


def crop(start: int) -> Callable[[Any], Any]:
    def apply(scores: Any) -> Any:
        larger = upsample(height=40)(scores)
        return ops.slice(larger, *(ops.constant([value]) for value in (start, start + 36, 1, 2)))

    return apply


@pytest.mark.parametrize("after", [upsample(), upsample("linear"), crop(0)], ids=["onnx", "linear", "crop"])
def test_scores_graph_and_argmax_match_the_whole_model(after: Callable[[Any], Any]) -> None:
    model = network(after)
    graph, upsampled_size = scores_graph(model)
    image = np.random.default_rng(1).integers(0, 256, (1, 36, 48, 3), np.uint8)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    whole = ov.compile_model(model, "CPU", exact)({"image": image})["classes"][0]
    classes = np.empty((36, 48), np.uint8)
    result = ov.compile_model(graph, "CPU", exact)({"image": image})
    ScoresToClasses(upsampled_size, (48, 36))(result["scores"][0], classes)
    assert len(np.unique(whole)) > 1
    assert (classes == whole).mean() > 0.999
    assert [name for output in model.outputs for name in output.names] == ["classes"], "the model itself was changed"


@pytest.mark.parametrize(
    "after",
    [
        upsample("nearest"),
        upsample("cubic"),
        upsample(centers="align_corners"),
        upsample(centers="asymmetric"),
        upsample(pads_begin=[0, 0, 0, 0], pads_end=[0, 0, 0, 1]),
        crop(2),
        lambda scores: ops.softmax(upsample()(scores), 1),
        lambda scores: scores,
    ],
    ids=["nearest", "cubic", "corners", "asymmetric", "padded", "crop elsewhere", "softmax", "not upsampled"],
)
def test_scores_graph_is_none_for_other_operations(after: Callable[[Any], Any]) -> None:
    assert scores_graph(network(after)) is None


@pytest.mark.parametrize("name", ["nano", "small", "small-int8"])
@pytest.mark.parametrize("size", [(160, 96), (150, 90)])
def test_scores_graph_of_the_bundled_models(name: str, size: tuple[int, int]) -> None:
    path: Path = find_model(name)
    core = ov.Core()
    model = core.read_model(path)
    model.reshape({"image": [1, size[1], size[0], 3]})
    graph, upsampled_size = scores_graph(model)
    image = next(iter(SyntheticDrive(*size, frames=1, seed=4)))[0][None]
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    whole = core.compile_model(model, "CPU", exact)({"image": image})["classes"][0]
    classes = np.empty(size[::-1], np.uint8)
    ScoresToClasses(upsampled_size, size)(
        core.compile_model(graph, "CPU", exact)({"image": image})["scores"][0], classes
    )
    assert (classes == whole).mean() > 0.999
