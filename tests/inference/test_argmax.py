"""OpenVINO without the enlargement and argmax of the model: the same class maps, only where that is what the model does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtseg import SyntheticDrive
from rtseg.inference.argmax import ScoresToClasses
from rtseg.inference.bundled_models import find_model
from rtseg.inference.openvino import stay_silent
from rtseg.inference.openvino_graph import scores_form

stay_silent()
ov = pytest.importorskip("openvino")
ops = pytest.importorskip("openvino.opset13")


def by_hand(scores: Any, enlarged: tuple[int, int]) -> Any:
    """Bilinear by pixel centers, edges repeated, in float64; then the first of the largest."""

    def weights(count: int, wanted: int) -> Any:
        place = np.clip((np.arange(wanted) + 0.5) * count / wanted - 0.5, 0, count - 1)
        low = np.minimum(place.astype(int), max(count - 2, 0))
        matrix = np.zeros((wanted, count))
        np.add.at(matrix, (np.arange(wanted), low), 1 - (place - low))
        np.add.at(matrix, (np.arange(wanted), np.minimum(low + 1, count - 1)), place - low)
        return matrix

    down, across = weights(scores.shape[1], enlarged[1]), weights(scores.shape[2], enlarged[0])
    return np.einsum("ih,khw,jw->kij", down, scores.astype(np.float64), across).argmax(axis=0)


@pytest.mark.parametrize("classes", [1, 2, 11, 256])
@pytest.mark.parametrize("enlarged", [(24, 16), (48, 32), (24, 17), (12, 8)])
def test_the_class_with_the_largest_enlarged_score(classes: int, enlarged: tuple[int, int]) -> None:
    scores = np.random.default_rng(classes).normal(size=(classes, 8, 12)).astype(np.float32)
    answer = np.full(enlarged[::-1], 99, np.uint8)
    ScoresToClasses(enlarged, enlarged)(scores, answer)
    assert (answer == by_hand(scores, enlarged)).mean() > 0.999  # FP32 against FP64


def test_of_equal_scores_the_first_class() -> None:
    scores = np.zeros((5, 4, 4), np.float32)
    scores[[2, 4]] = 1
    answer = np.empty((8, 8), np.uint8)
    ScoresToClasses((8, 8), (8, 8))(scores, answer)
    assert (answer == 2).all()


def test_what_hangs_over_is_cut_off_and_nothing_stays_from_before() -> None:
    to_classes = ScoresToClasses((16, 12), (13, 9))
    draw = np.random.default_rng(0)
    for _ in range(3):
        scores = draw.normal(size=(7, 6, 8)).astype(np.float32)
        answer = np.empty((9, 13), np.uint8)
        to_classes(scores, answer)
        np.testing.assert_array_equal(answer, by_hand(scores, (16, 12))[:9, :13])


def network(after: Callable[[Any], Any]) -> Any:
    """Scores `[1, 4, 12, 16]` of a picture of 48x36, then `after`, which gives what argmax takes."""
    image = ops.parameter([1, 36, 48, 3], np.uint8, name="image")
    planes = ops.transpose(ops.convert(image, np.float32), ops.constant([0, 3, 1, 2]))
    weights = np.random.default_rng(3).normal(size=(4, 3, 3, 3)).astype(np.float32)
    scores = ops.convolution(planes, ops.constant(weights), [3, 3], [0, 0], [0, 0], [1, 1])
    top = ops.topk(after(scores), ops.constant(1), 1, "max", "value", "i64", stable=True)
    classes = ops.convert(ops.squeeze(top.output(1), ops.constant([1])), np.uint8)
    classes.output(0).set_names({"classes"})
    image.output(0).set_names({"image"})
    return ov.Model([ops.result(classes)], [image])


def enlarge(
    mode: str = "linear_onnx", centers: str = "half_pixel", height: int = 36, **more: Any
) -> Callable[[Any], Any]:
    def apply(scores: Any) -> Any:
        return ops.interpolate(
            scores, ops.constant([height, 48]), mode, "sizes", axes=ops.constant([2, 3]),
            coordinate_transformation_mode=centers, **more,
        )  # fmt: skip

    return apply


def cut(start: int) -> Callable[[Any], Any]:
    def apply(scores: Any) -> Any:
        larger = enlarge(height=40)(scores)
        return ops.slice(larger, *(ops.constant([value]) for value in (start, start + 36, 1, 2)))

    return apply


@pytest.mark.parametrize("after", [enlarge(), enlarge("linear"), cut(0)], ids=["onnx", "linear", "cut"])
def test_the_rest_of_the_model_is_done_outside_with_the_same_result(after: Callable[[Any], Any]) -> None:
    model = network(after)
    form, enlarged = scores_form(model)
    picture = np.random.default_rng(1).integers(0, 256, (1, 36, 48, 3), np.uint8)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    whole = ov.compile_model(model, "CPU", exact)({"image": picture})["classes"][0]
    answer = np.empty((36, 48), np.uint8)
    result = ov.compile_model(form, "CPU", exact)({"image": picture})
    ScoresToClasses(enlarged, (48, 36))(result["scores"][0], answer)
    assert len(np.unique(whole)) > 1
    assert (answer == whole).mean() > 0.999
    assert [name for output in model.outputs for name in output.names] == ["classes"], "the model itself was changed"


@pytest.mark.parametrize(
    "after",
    [
        enlarge("nearest"),
        enlarge("cubic"),
        enlarge(centers="align_corners"),
        enlarge(centers="asymmetric"),
        enlarge(pads_begin=[0, 0, 0, 0], pads_end=[0, 0, 0, 1]),
        cut(2),
        lambda scores: ops.softmax(enlarge()(scores), 1),
        lambda scores: scores,
    ],
    ids=["nearest", "cubic", "corners", "asymmetric", "padded", "cut elsewhere", "softmax", "not enlarged"],
)
def test_a_model_that_does_something_else_stays_whole(after: Callable[[Any], Any]) -> None:
    assert scores_form(network(after)) is None


@pytest.mark.parametrize("name", ["nano", "small", "small-int8"])
@pytest.mark.parametrize("size", [(160, 96), (150, 90)])
def test_the_bundled_models(name: str, size: tuple[int, int]) -> None:
    path: Path = find_model(name)
    core = ov.Core()
    model = core.read_model(path)
    model.reshape({"image": [1, size[1], size[0], 3]})
    form, enlarged = scores_form(model)
    picture = next(iter(SyntheticDrive(*size, frames=1, seed=4)))[0][None]
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    whole = core.compile_model(model, "CPU", exact)({"image": picture})["classes"][0]
    answer = np.empty(size[::-1], np.uint8)
    ScoresToClasses(enlarged, size)(core.compile_model(form, "CPU", exact)({"image": picture})["scores"][0], answer)
    assert (answer == whole).mean() > 0.999
