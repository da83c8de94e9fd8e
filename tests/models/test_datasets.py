"""Layouts of data sets: reading of each layout, and messages that name each bad file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from label_files import read_split

from rtseg.core.errors import DataError
from rtseg.models.evaluation.datasets import DataSet, read_pair
from rtseg.models.evaluation.layouts import LAYOUTS, open_dataset

SIZE = (24, 16)


def write_image(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[:, :, 2] = 200  # red, in OpenCV's order
    cv2.imwrite(str(path), image)


def write_labels(path: Path, values: list[int], size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    label = np.resize(np.repeat(np.array(values, np.uint8), 4), (size[1], size[0]))
    cv2.imwrite(str(path), label)


FILES = {
    "folders": ("images/{split}/{name}.jpg", "labels/{split}/{name}.png", [0, 1, 2, 255]),
    "camvid": ("{split}/{name}.jpg", "{split}_labels/{name}.png", [0, 10, 11]),
    "notebook": ("images/{name}.png", "labels/{name}_P.png", [0, 1, 2]),
    "cityscapes": (
        "leftImg8bit/{split}/ulm/ulm_{name}_leftImg8bit.png",
        "gtFine/{split}/ulm/ulm_{name}_gtFine_labelIds.png",
        [7, 33, 0, 26],
    ),
    "bdd100k": ("images/10k/{split}/{name}.jpg", "labels/sem_seg/masks/{split}/{name}.png", [0, 18, 255]),
    "bdd100k-old": ("seg/images/{split}/{name}.jpg", "seg/labels/{split}/{name}_train_id.png", [0, 18, 255]),
}
"""Names of images and labels, and the values in the labels."""

EXPECTED = {
    "folders": (2, "car", [0, 1, 255]),
    "camvid": (11, "bicyclist", [0, 10, 255]),
    "notebook": (2, "wall", [0, 1, 255]),
    "cityscapes": (19, "bicycle", [0, 13, 18, 255]),
    "bdd100k": (19, "bicycle", [0, 18, 255]),
    "bdd100k-old": (19, "bicycle", [0, 18, 255]),
}
"""Number of classes, name of the last one, class indices in the labels."""

VALUE_WITHOUT_CLASS = {"folders": 3, "camvid": 12, "notebook": 3, "cityscapes": 34, "bdd100k": 19, "bdd100k-old": 19}


def write_layout(root: Path, kind: str = "folders") -> tuple[Path, Path]:
    """Write a data set, and return an image of `train` and its labels."""
    image, label, values = FILES[kind]
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        write_image(root / image.format(split=split, name=name))
        write_labels(root / label.format(split=split, name=name), values)
    if kind == "folders":
        (root / "classes.txt").write_text("Road\nvoid\nCar\n")
    elif kind == "notebook":
        (root / "codes.txt").write_text("Animal\nVoid\nWall\n")
        (root / "valid.txt").write_text("c.png\n")
    elif kind == "cityscapes":
        write_labels(root / "gtFine/train/ulm/ulm_a_gtFine_instanceIds.png", [7])
    elif kind == "bdd100k":
        write_image(root / "images/10k/test/d.jpg")  # the test labels are not public
    return root / image.format(split="train", name="a"), root / label.format(split="train", name="a")


every_layout = pytest.mark.parametrize("kind", FILES)


def test_all_layouts_are_tested() -> None:
    assert {kind.removesuffix("-old") for kind in FILES} == set(LAYOUTS)


@every_layout
@pytest.mark.parametrize("named", [False, True])
def test_detects_and_reads_layout(tmp_path: Path, kind: str, named: bool) -> None:
    write_layout(tmp_path, kind)
    layout = kind.removesuffix("-old")
    dataset = open_dataset(tmp_path, layout if named else "auto")
    count, last, indices = EXPECTED[kind]
    assert dataset.layout == layout
    assert len(dataset.classes) == count
    assert dataset.classes[-1] == last
    assert {split: len(pairs) for split, pairs in dataset.splits.items()} == {"train": 2, "val": 1}
    read_split(dataset, "train")
    read_split(dataset, "val")
    rgb, label = read_pair(dataset.pairs("train")[0], dataset.table)
    assert rgb.shape == (16, 24, 3)
    assert rgb[..., 0].mean() > 150 > rgb[..., 2].mean()  # RGB, not BGR
    assert np.unique(label.classes).tolist() == indices


def problem(dataset: DataSet, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        read_split(dataset, split)
    message = str(caught.value)
    assert "\n" not in message
    return message


@every_layout
def test_names_label_value_without_class(tmp_path: Path, kind: str) -> None:
    _, label = write_layout(tmp_path, kind)
    write_labels(label, [0, VALUE_WITHOUT_CLASS[kind]])
    assert f"{label}: label value {VALUE_WITHOUT_CLASS[kind]} belongs to no class" in problem(open_dataset(tmp_path))


BAD_FILES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "size": (
        lambda image, label: write_labels(label, [0], size=(12, 8)),
        "{label}: is 12x8, but its image {image.name} is 24x16",
    ),
    "colored labels": (lambda image, label: write_image(label), "{label}: contains 3 channels of colors"),
    "no image": (lambda image, label: image.unlink(), "{label}: has no image"),
    "no label": (lambda image, label: label.unlink(), "{image}: has no labels"),
    "empty image": (lambda image, label: image.write_bytes(b""), "{image}"),
    "empty label": (lambda image, label: label.write_bytes(b""), "{label}"),
    "damaged image": (lambda image, label: image.write_bytes(b"this is no image"), "{image}"),
    "damaged label": (lambda image, label: label.write_bytes(b"this is no image"), "{label}"),
}
"""Damage to an image and its labels, and the message."""


@every_layout
@pytest.mark.parametrize(("damage", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_names_bad_file(tmp_path: Path, kind: str, damage: Callable[[Path, Path], object], message: str) -> None:
    image, label = write_layout(tmp_path, kind)
    damage(image, label)
    assert message.format(image=image, label=label) in problem(open_dataset(tmp_path))


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".ppm", ".jpe"])
def test_finds_images_with_other_suffixes(tmp_path: Path, suffix: str) -> None:
    image, _ = write_layout(tmp_path)
    write_image(image.with_suffix(suffix))
    image.unlink()
    dataset = open_dataset(tmp_path)
    read_split(dataset, "train")
    assert dataset.pairs("train")[0].image == image.with_suffix(suffix)
    assert tuple(read_pair(dataset.pairs("train")[0], dataset.table)[0][0, 0]) == pytest.approx((200, 0, 0), abs=3)


def test_counts_all_problems(tmp_path: Path) -> None:
    write_layout(tmp_path)
    for name in "ab":
        write_labels(tmp_path / f"labels/train/{name}.png", [77])
    (tmp_path / "images/train/c.jpg").write_bytes(b"")
    message = problem(open_dataset(tmp_path))
    assert "3 problems" in message
    assert message.count("label value 77") == 1, "one message for all files with this value"
    assert "a.png: label value 77" in message
    assert "b.png)" in message
    assert "c.jpg" in message


def test_reports_missing_images_of_valid_txt(tmp_path: Path) -> None:
    write_layout(tmp_path, "notebook")
    (tmp_path / "valid.txt").write_text("c.png\nelsewhere.png\n")
    assert "elsewhere.png: is listed in valid.txt" in problem(open_dataset(tmp_path), "val")
    (tmp_path / "valid.txt").write_text("c.jpg\nelsewhere.png\n")
    with pytest.raises(
        DataError, match=r"has no split 'val'; there are: train \(3\); .*c\.jpg: is listed in valid\.txt"
    ):
        open_dataset(tmp_path).pairs("val")


def test_flat_folders_use_last_tenth_for_validation(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    for i in range(20):
        write_image(tmp_path / "images" / f"{i:02}.png")
        write_labels(tmp_path / "labels" / f"{i:02}.png", [0, 1])
    dataset = open_dataset(tmp_path)
    assert [pair.image.name for pair in dataset.pairs("val")] == ["18.png", "19.png"]
    assert len(dataset.pairs("train")) == 18


@pytest.mark.parametrize("content", ["", "road\nroad\n", "void\n"])
def test_refuses_invalid_class_list(tmp_path: Path, content: str) -> None:
    write_layout(tmp_path)
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(DataError, match=r"classes\.txt"):
        open_dataset(tmp_path)


def test_refuses_unknown_layouts_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="--layout"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="no layout 'coco'; there are cityscapes"):
        open_dataset(tmp_path, "coco")
    with pytest.raises(DataError, match="no image with labels in the camvid layout"):
        open_dataset(tmp_path, "camvid")
    write_layout(tmp_path)
    with pytest.raises(DataError, match=r"no split 'test'; there are: train \(2\), val \(1\)"):
        open_dataset(tmp_path).pairs("test")
