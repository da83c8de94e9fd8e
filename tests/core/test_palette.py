"""Tests of palettes: validation, generated colors, and the minimum color distance."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from rtseg.core.errors import OptionError
from rtseg.core.palette import (
    BUILT_IN,
    CAMVID_CLASSES,
    MIN_COLOR_DISTANCE,
    STREET,
    Palette,
    _to_lab,
    load_palette,
    spread_colors,
)

CITYSCAPES_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip


@pytest.mark.parametrize("name", ["street", "camvid", "cityscapes"])
def test_built_in_colors_differ(name: str) -> None:
    palette = load_palette(name, CAMVID_CLASSES)
    assert palette.classes == CAMVID_CLASSES
    assert palette.similar_colors() == []


@pytest.mark.parametrize("below", [20, 60, 100, 150, 200, 250])
def test_default_colors_differ_with_half_opacity(below: int) -> None:
    """With 50 % opacity over a shade of gray, the default colors stay above the minimum distance."""
    blended = np.rint(np.array(list(STREET.values())) * 0.5 + below * 0.5).astype(np.uint8)
    lab = _to_lab(blended)
    min_distance = min(np.linalg.norm(lab[i] - lab[j]) for i, j in combinations(range(len(lab)), 2))
    assert min_distance > MIN_COLOR_DISTANCE * 1.2


def test_lab_of_known_colors() -> None:
    lab = _to_lab(np.array([(255, 255, 255), (0, 0, 0), (255, 0, 0)], dtype=np.uint8))
    assert lab == pytest.approx(np.array([(100, 0, 0), (0, 0, 0), (53.24, 80.09, 67.20)]), abs=0.1)


def test_similar_colors_returns_the_classes_and_their_distance() -> None:
    palette = Palette(("a", "b", "c"), ((10, 10, 10), (14, 10, 10), (200, 0, 0)))
    ((first, second, distance),) = palette.similar_colors()
    assert (first, second) == ("a", "b")
    assert 0 < distance < MIN_COLOR_DISTANCE


def test_errors_for_unknown_names_list_the_known_ones() -> None:
    palette = load_palette("street", CAMVID_CLASSES)
    with pytest.raises(OptionError, match="no palette 'stret': built in are street, camvid, cityscapes"):
        load_palette("stret", CAMVID_CLASSES)
    with pytest.raises(OptionError, match="no class 'pedestrain' in this model; did you mean 'pedestrian'"):
        palette.index("pedestrain")
    with pytest.raises(OptionError, match="its classes are sky, building"):
        palette.indices(["road", "spaceship"])


def test_indices_ignores_case_spaces_order_and_duplicates() -> None:
    palette = load_palette("street", CAMVID_CLASSES)
    assert palette.indices([" Car", "road", "car"]) == (3, 8)


def test_palette_file_with_lists_and_hex_colors(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"Road": [1, 2, 3], "car": "#fF8000"}))
    palette = load_palette(str(file), ("road", "car", "tram"))
    assert palette.colors[:2] == ((1, 2, 3), (255, 128, 0))
    assert palette.similar_colors() == []  # the tram has a generated color


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "can't be read"),
        ("[1]", "must be one JSON object"),
        ('{"sky": [1, 2]}', r"the color of 'sky' is \[1, 2\]"),
        ('{"sky": [1, 2, 256]}', "each 0 to 255"),
        ('{"sky": [1, 2, true]}', "each 0 to 255"),
        ('{"sky": "#12345"}', "#rrggbb"),
        ('{"sky": "#zzzzzz"}', "#rrggbb"),
        ('{"road": [10, 10, 10], "car": [12, 10, 10]}', "'road' and 'car' look alike"),
    ],
)
def test_invalid_palette_file_gives_a_one_line_error(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(content)
    with pytest.raises(OptionError, match=message) as caught:
        load_palette(str(file), ("road", "car"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "colors", "message"),
    [
        (("a",), (), "one color a class"),
        ((), (), "must have 1 to 255 classes, not 0"),
        (tuple(str(i) for i in range(256)), ((0, 0, 0),) * 256, "not 256"),
        (("a", "a"), ((0, 0, 0), (9, 9, 9)), "must differ"),
        (("a",), ((0, 0, 300),), "the color of 'a'"),
        (("a",), ((0, 0),), "the color of 'a'"),
    ],
)
def test_rejects_invalid_palettes(classes: tuple[str, ...], colors: tuple, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Palette(classes, colors)


def test_palette_model_uses_the_colors_of_the_model() -> None:
    assert load_palette("model", ("Road", "car"), [(1, 2, 3), (200, 2, 3)]).colors == ((1, 2, 3), (200, 2, 3))
    assert load_palette("model", ("road", "car")).similar_colors() == []


def test_classes_missing_in_a_palette_get_distinct_colors() -> None:
    palette = load_palette("street", (*CAMVID_CLASSES, "tram", "animal"))
    assert palette.colors[: len(CAMVID_CLASSES)] == tuple(STREET[c] for c in CAMVID_CLASSES)
    assert palette.similar_colors() == []


def test_spread_colors_are_all_different() -> None:
    assert len(set(spread_colors(255))) == 255
    assert Palette(tuple(map(str, range(20))), spread_colors(20)).similar_colors() == []


def test_cityscapes_classes_have_the_data_sets_colors() -> None:
    palette = load_palette("cityscapes", CITYSCAPES_CLASSES)
    assert palette.colors[palette.index("vegetation")] == (107, 142, 35)
    assert len(set(palette.colors)) == 19
    assert set(BUILT_IN) == {"street", "camvid", "cityscapes"}
