"""Conversion of class scores to class maps: the class with the largest upsampled score, on any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from rtseg.inference.argmax import ScoresToClasses


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


def random_scores(class_count: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(seed).normal(size=(class_count, 8, 12)).astype(dtype)


@pytest.mark.parametrize("class_count", [1, 2, 11, 256])
@pytest.mark.parametrize("size", [(24, 16), (48, 32), (25, 17), (12, 8)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_class_has_the_largest_upsampled_score(class_count: int, size: tuple[int, int], dtype: Any) -> None:
    scores = random_scores(class_count, dtype=dtype)
    classes = ScoresToClasses(0)(scores, size)
    assert (classes.shape, classes.dtype) == (size[::-1], np.uint8)
    assert (classes == reference(scores, size)).mean() > 0.99  # FP32 against FP64


def test_class_map_is_the_upper_left_part_of_scores_upsampled_by_the_head_stride() -> None:
    to_classes, scores = ScoresToClasses(2), random_scores(7)
    for size in ((24, 16), (23, 15)):
        classes = to_classes(scores, size)
        np.testing.assert_array_equal(classes, reference(scores, (24, 16))[: size[1], : size[0]])


def test_equal_scores_give_the_first_class() -> None:
    scores = np.zeros((5, 4, 4), np.float32)
    scores[[2, 4]] = 1
    assert (ScoresToClasses(2)(scores, (8, 8)) == 2).all()


def test_concurrent_calls_give_correct_results() -> None:
    to_classes = ScoresToClasses(2)
    scores = [random_scores(11, seed) for seed in range(40)]
    sizes = [(24, 16) if seed % 3 else (21, 16) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(to_classes, scores, sizes))
    for result, planes, size in zip(results, scores, sizes, strict=True):
        np.testing.assert_array_equal(result, ScoresToClasses(2)(planes, size))
