"""Class lists of all formats, and the matching of class names."""

from __future__ import annotations

import codecs
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from label_files import STRIPES, count_labels, write_folders, write_png

from rtseg.core.errors import DataError, OptionError
from rtseg.core.palette import CAMVID_CLASSES, load_palette
from rtseg.models.evaluation.class_list import read_class_list
from rtseg.models.evaluation.class_names import match_classes
from rtseg.models.evaluation.label_report import check_counts
from rtseg.models.evaluation.layouts import CITYSCAPES_CLASSES, open_dataset


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("name,r,g,b\nother,0,0,0\nrail,1,1,1\nroad,2,2,2\n", "label value 1 is 'road' in the first and 'rail' in"),
        ("other 0 0 0\nroad 1 1 1\n", "label value 2 is 'rail' in the first and no class in the second"),
    ],
)
def test_names_contradictory_class_lists(tmp_path: Path, second: str, message: str) -> None:
    write_folders(tmp_path)
    (tmp_path / "classes.txt").write_text("other\nroad\nrail\n")
    (tmp_path / "class_dict.csv").write_text(second)
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'classes.txt'} and {tmp_path / 'class_dict.csv'} contradict")
    assert message in str(caught.value)


def test_warns_of_class_lists_that_differ_only_in_colors(tmp_path: Path) -> None:
    write_png(write_folders(tmp_path), np.repeat(np.arange(3, dtype=np.uint8), [3, 3, 2])[:, None].repeat(16, axis=1))
    (tmp_path / "classes.txt").write_text("other\nroad\nrail\n")
    (tmp_path / "label_colors.txt").write_text("0 0 0 other\n1 1 1 road\n2 2 2 rail\n")
    dataset = open_dataset(tmp_path)
    assert check_counts(dataset, count_labels(dataset), training=True) == []  # a list without colors contradicts none
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nOther,0,0,0\nroad,9,9,9\nrail,2,2,2\n")
    (tmp_path / "classes.txt").unlink()
    assert check_counts(open_dataset(tmp_path), count_labels(dataset), training=True) == [
        "label_colors.txt has other colors than class_dict.csv, which is used: 'road' is 1 1 1 there and 9 9 9 here"
    ]
    (tmp_path / "labelmap.txt").write_text("# not a list\nroad 1 2\n")
    open_dataset(tmp_path)


@pytest.mark.parametrize("mark", ["\u200b", "\ufeff", "\u2060"])
def test_ignores_invisible_characters_in_class_names(tmp_path: Path, mark: str) -> None:
    write_folders(tmp_path)
    (tmp_path / "classes.txt").write_text(f"other\n{mark}road\nrail{mark}\n", encoding="utf-8")
    assert open_dataset(tmp_path).classes == ("other", "road", "rail")


NAMES = [(None, "sky"), (None, "traffic light"), (None, "2 wheeler")]
VALUES = [(7, "sky"), (11, "traffic light")]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("sky\ntraffic light\n2 wheeler\n", NAMES),
        ("\ufeffsky\ntraffic light\n2 wheeler\n", NAMES),
        ("Sky\r\nTraffic light \r\n2 wheeler\r\n\r\n\r\n", NAMES),
        ("# classes\n\nsky  # above\n  traffic light\t\n2 wheeler\n", NAMES),
        ('"sky",\n"traffic light",\n"2 wheeler"\n', NAMES),
        ("sky\rtraffic light\r2 wheeler\r", NAMES),
        ("wall (low)\nRail-2\ncar/truck\n", [(None, "wall (low)"), (None, "rail-2"), (None, "car/truck")]),
        ("7 sky\n11 traffic light\n", VALUES),
        ("7: sky\n11: traffic light\n", VALUES),
        ("sky,7\ntraffic light,11\n", VALUES),
        ("id;name\n7;Sky\n11;Traffic light\n", VALUES),
        ("rail 1\nrail 2\n", [(None, "rail 1"), (None, "rail 2")]),
        ("road 1\ntree\n", [(None, "road 1"), (None, "tree")]),
        ("0 rail 1\n1 road 7\n", [(0, "rail 1"), (1, "road 7")]),
    ],
)
def test_reads_names_and_values_of_class_list(tmp_path: Path, content: str, rows: list[tuple[int | None, str]]) -> None:
    (tmp_path / "classes.txt").write_bytes(content.encode())
    assert [(row.value, row.name) for row in read_class_list(tmp_path / "classes.txt")] == rows


@pytest.mark.parametrize(
    "content", ["sky #808080\n", "128 128 128 sky\n", "0 sky 128 128 128\n", "sky: [128, 128, 128]\n"]
)
def test_reads_class_list_with_colors(tmp_path: Path, content: str) -> None:
    (tmp_path / "classes.txt").write_text(content)
    (row,) = read_class_list(tmp_path / "classes.txt")
    assert (row.name, row.color) == ("sky", (128, 128, 128))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (codecs.BOM_UTF16_LE + "sky\n".encode("utf-16-le"), "UTF-16; save it as UTF-8"),
        ("sky\n".encode("utf-16-le"), "NUL"),
        (b"stra\xdfe\n", "not UTF-8"),
        (b"sky,road,car\n", "one class name per line"),
        (b"sky 1 2 3\nroad 1 2 3\n", "twice"),
        (b"sky 1 2 3\nroad\n", "'road' has no color"),
        (b"0 sky\n0 road\n", "twice"),
        (b"sky 1 2 300\n", "out of range"),
        (b"name,r,g,b\nsky,1,2\n", "does not fit the header"),
        (b"road 1\ntree 2\nsky 3\n", "each line ends in a number, as in 'road 1'; write label values first"),
    ],
)
def test_refuses_malformed_class_list_with_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_class_list(tmp_path / "classes.txt")
    assert "\n" not in str(caught.value)


def test_palette_accepts_byte_order_mark(tmp_path: Path) -> None:
    palette = tmp_path / "p.json"
    palette.write_bytes(codecs.BOM_UTF8 + b'{"road": [1, 2, 3]}')
    assert load_palette(str(palette), ("road",)).colors == ((1, 2, 3),)
    palette.write_bytes("{}".encode("utf-16"))
    with pytest.raises(OptionError, match="UTF-16; save it as UTF-8"):
        load_palette(str(palette), ("road",))


def write_notebook(root: Path, *names: str) -> None:
    """Write images and labels in the layout `notebook`, without OpenCV's functions for files, which need UTF-8 names."""
    for name in names:
        write_png(root / "images" / f"{name}.png", np.zeros((8, 16, 3), np.uint8))
        write_png(root / "labels" / f"{name}_P.png", STRIPES)


def test_reads_valid_txt_with_byte_order_mark_crlf_and_spaces(tmp_path: Path) -> None:
    (tmp_path / "codes.txt").write_bytes(codecs.BOM_UTF8 + b"Sky\r\nRoad\r\n")
    (tmp_path / "valid.txt").write_bytes(codecs.BOM_UTF8 + b"b 1.png\r\n\r\n")
    write_notebook(tmp_path, "a", "b 1")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("sky", "road")
    assert [pair.image.name for pair in dataset.pairs("val")] == ["b 1.png"]
    assert dataset.missing["val"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names of bytes")
def test_reads_valid_txt_with_non_utf8_names(tmp_path: Path) -> None:
    name = os.fsdecode(b"b\xe9")
    (tmp_path / "codes.txt").write_text("Sky\nRoad\n")
    (tmp_path / "valid.txt").write_bytes(b"b\xe9.png\n")
    write_notebook(tmp_path, "a", name)
    dataset = open_dataset(tmp_path)
    assert [pair.image.name for pair in dataset.pairs("val")] == [f"{name}.png"]
    assert dataset.missing["val"] == []
    (tmp_path / "valid.txt").write_bytes(b"c\xe9.png\n")
    (message,) = open_dataset(tmp_path).missing["val"]
    assert "valid.txt: no image with labels has the name 'c\\udce9.png'; save the list as UTF-8" in message


def test_matches_classes_of_cityscapes_and_camvid() -> None:
    match = match_classes(CAMVID_CLASSES, tuple(CITYSCAPES_CLASSES.values()))
    assert set(match.pairs) >= {
        ("pavement", "sidewalk", "synonym"),
        ("pedestrian", "person", "synonym"),
        ("sign", "traffic sign", "synonym"),
        ("tree", "vegetation", "similar"),
        ("bicyclist", "rider", "similar"),
        ("road", "road", "same name"),
    }
    unmatched = {"wall", "traffic light", "terrain", "truck", "bus", "train", "motorcycle", "bicycle"}
    assert set(match.data_only) == unmatched
    assert match.model_only == ()


@pytest.mark.parametrize(
    ("model", "data"),
    [("Traffic_Sign", "traffic sign"), ("cars", "car"), ("Column_Pole", "pole"), ("SignSymbol", "Traffic Signs"),
     ("buses", "bus"), ("bus", "bus"), ("trafficLight", "traffic-lights"), ("people", "person")],
)  # fmt: skip
def test_matches_spellings(model: str, data: str) -> None:
    assert match_classes([model, "x"], ["y", data]).pairs[0][:2] == (model, data)


def test_matches_each_class_once() -> None:
    match = match_classes(["bicyclist", "pedestrian"], ["rider", "cyclist", "pedestrian", "person"])
    assert match.pairs == (("pedestrian", "pedestrian", "same name"),)
    assert match.data_only == ("rider", "cyclist", "person")
    assert match.ambiguous == ("'rider' or 'cyclist' of the labels could be 'bicyclist' of the model",)
