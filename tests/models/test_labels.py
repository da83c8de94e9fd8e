"""Label files: palettes, packed gray, color codes, masks of 0 and 255, and lossy files."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from label_files import (
    STRIPES,
    VOC_PALETTE,
    count_labels,
    label_warnings,
    read_label,
    read_split,
    refusal,
    write_folders,
    write_png,
)

from rtseg.core.errors import DataError
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.models.evaluation.label_report import check_counts, label_table
from rtseg.models.evaluation.layouts import open_dataset


@pytest.mark.parametrize(
    ("depth", "palette"), [*((depth, b"") for depth in (1, 2, 4, 8, 16)), *((d, VOC_PALETTE) for d in (1, 2, 4, 8))]
)
def test_reads_gray_and_palette_indices_of_any_depth(tmp_path: Path, depth: int, palette: bytes) -> None:
    values = (np.arange(128).reshape(8, 16) % min(2**depth, 11)).astype(np.uint8)
    if depth == 8:
        values[0, 0] = 255  # the border of Pascal VOC
    write_png(write_folders(tmp_path, "\n".join(CAMVID_CLASSES)), values, depth, palette)
    assert (read_label(tmp_path) == values).all()


def test_refuses_palettes_that_differ_between_files(tmp_path: Path) -> None:
    label = write_folders(tmp_path)
    write_png(label, STRIPES, palette=bytes([0, 0, 0, 128, 64, 128]), depth=1)
    write_png(label.with_name("b.png"), STRIPES, palette=bytes([128, 64, 128, 0, 0, 0]), depth=1)
    cv2.imwrite(str(tmp_path / "images/train/b.png"), np.zeros((8, 16, 3), np.uint8))
    with pytest.raises(DataError, match=r"b\.png: palette index 0 is 128 64 128, in a\.png it is 0 0 0"):
        label_warnings(tmp_path)


COLORS = np.array([[128, 128, 128], [128, 64, 128], [0, 0, 0]], np.uint8)
COLORED = np.repeat(np.array([[0, 1, 2, 1]]), 4, axis=1).repeat(8, axis=0)
COLOR_LISTS = {
    "classes.txt": "Sky 128 128 128\nRoad 128 64 128\nVoid 0 0 0\n",
    "class_dict.csv": "name,r,g,b\r\nSky,128,128,128\r\nRoad,128,64,128\r\nVoid,0,0,0\r\n\r\n",
    "label_colors.txt": "128 128 128\tSky\n128 64 128\t\tRoad\n0 0 0\t\tVoid\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nsky:128,128,128::\nroad:128,64,128::\nvoid:0,0,0::\n",
}


@pytest.mark.parametrize("name", COLOR_LISTS)
@pytest.mark.parametrize("mode", ["rgb", "rgba", "palette"])
def test_reads_color_codes_of_class_list(tmp_path: Path, name: str, mode: str) -> None:
    label = write_folders(tmp_path, COLOR_LISTS[name], name)
    if mode == "palette":
        write_png(label, (2 - COLORED).astype(np.uint8), 8, COLORS[::-1].tobytes())  # not in the order of the classes
    else:
        rgb = COLORS[COLORED]
        opaque = np.full((8, 16, 1), 255, np.uint8)
        write_png(label, rgb if mode == "rgb" else np.concatenate([rgb, opaque], axis=2))
    assert open_dataset(tmp_path).classes == ("sky", "road")
    assert (read_label(tmp_path) == np.array([0, 1, 255])[COLORED]).all()


def test_names_unknown_color_and_file(tmp_path: Path) -> None:
    label = write_folders(tmp_path, COLOR_LISTS["classes.txt"])
    rgb = COLORS[COLORED]
    rgb[0, :3] = 1, 2, 3
    write_png(label, rgb)
    assert refusal(tmp_path) == f"{label}: the color 1 2 3 (3 pixels) belongs to no class of classes.txt"


def test_reads_camvid_of_kaggle(tmp_path: Path) -> None:
    (tmp_path / "class_dict.csv").write_bytes(b"\xef\xbb\xbf" + COLOR_LISTS["class_dict.csv"].encode())
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        cv2.imwrite(str(tmp_path / split / "0001TP_006690.png"), np.zeros((8, 16, 3), np.uint8))
        write_png(tmp_path / f"{split}_labels" / "0001TP_006690_L.png", COLORS[COLORED])
    assert (read_label(tmp_path) == np.array([0, 1, 255])[COLORED]).all()


def test_reads_gray_indices_in_three_channels(tmp_path: Path) -> None:
    write_png(write_folders(tmp_path), STRIPES[..., None].repeat(3, axis=2))
    assert (read_label(tmp_path) == STRIPES).all()


@pytest.mark.parametrize("channels", [2, 4])
def test_refuses_transparent_pixels(tmp_path: Path, channels: int) -> None:
    values = STRIPES[..., None].repeat(channels, axis=2)
    values[..., -1] = 255
    label = write_folders(tmp_path)
    write_png(label, values)
    assert (read_label(tmp_path) == STRIPES).all()
    values[0, 0, -1] = 0
    write_png(label, values)
    assert "transparent" in refusal(tmp_path)


def test_reports_16_bit_masks_once(tmp_path: Path) -> None:
    label = write_folders(tmp_path)
    for values, path in ((STRIPES, label), (STRIPES * 0 + 1, label.with_name("b.png"))):
        write_png(path, values.astype(np.uint16) * 65535, 16)
    cv2.imwrite(str(tmp_path / "images/train/b.png"), np.zeros((8, 16, 3), np.uint8))
    with pytest.raises(DataError) as caught:
        read_split(open_dataset(tmp_path), "train")
    message = str(caught.value)
    mask = "contains a mask of 16 bits, 0 and 65535; save labels with 8 bits, as class indices 0 and 1"
    assert message.endswith(f"has 2 problems: {label}: {mask} (the same: {label.with_name('b.png')})")


def test_refuses_instance_ids(tmp_path: Path) -> None:
    write_png(write_folders(tmp_path), np.where(STRIPES, 26001, 7).astype(np.uint16), 16)
    assert re.search("label value 26001.*labelIds", refusal(tmp_path))


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png"])
def test_refuses_lossy_labels_with_any_suffix(tmp_path: Path, suffix: str) -> None:
    label = write_folders(tmp_path)
    label.unlink()
    encoding = ".webp" if suffix == ".webp" else ".jpg"
    options = [cv2.IMWRITE_WEBP_QUALITY, 80] if encoding == ".webp" else []
    label.with_suffix(suffix).write_bytes(cv2.imencode(encoding, STRIPES * 100, options)[1].tobytes())
    assert "changes label values; save labels as PNG" in refusal(tmp_path)


def test_refuses_damaged_png(tmp_path: Path) -> None:
    label = write_folders(tmp_path)
    png = label.read_bytes()
    for content in (png[:-20], png[:40], png.replace(b"IDAT", b"IDAX"), png[:50] + b"?" + png[51:]):
        label.write_bytes(content)
        assert "damaged" in refusal(tmp_path)


def test_refuses_interpolated_color_codes(tmp_path: Path) -> None:
    label = write_folders(tmp_path, COLOR_LISTS["classes.txt"])
    small = COLORS[np.random.default_rng(0).integers(0, 3, (4, 8))]
    write_png(label, np.asarray(cv2.resize(small, (16, 8), interpolation=cv2.INTER_LINEAR)))
    assert "nearest neighbor" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("interpolation", "is_reported"), [(cv2.INTER_NEAREST, False), (cv2.INTER_LINEAR, True), (cv2.INTER_CUBIC, True)]
)
def test_reports_interpolated_indices(tmp_path: Path, interpolation: int, is_reported: bool) -> None:
    label = write_folders(tmp_path, "\n".join(CAMVID_CLASSES))
    small = np.random.default_rng(0).integers(0, 11, (6, 8)).astype(np.uint8)
    large = np.asarray(cv2.resize(small.repeat(9, axis=0).repeat(9, axis=1), (120, 90), interpolation=interpolation))
    write_png(label, np.minimum(large, 10))
    cv2.imwrite(str(tmp_path / "images/train/a.png"), np.zeros((90, 120, 3), np.uint8))
    assert any("interpolation" in warning for warning in label_warnings(tmp_path)) == is_reported


@pytest.mark.parametrize("share", [2, 64, 128])
@pytest.mark.parametrize("classes", ["other\nroad\n", "road\n", "void\nroad\n"])
def test_refuses_masks_of_0_and_255(tmp_path: Path, classes: str, share: int) -> None:
    label = write_folders(tmp_path, classes)
    mask = np.zeros((8, 16), np.uint8)
    mask.ravel()[: 128 // share] = 255
    write_png(label, mask)
    with pytest.raises(DataError, match="255") as caught:
        label_warnings(tmp_path)
    assert "'255 " in str(caught.value)


def test_reads_masks_of_0_and_255_with_values_in_class_list(tmp_path: Path) -> None:
    write_png(write_folders(tmp_path, "0 other\n255 road\n"), STRIPES * 255)
    assert (read_label(tmp_path) == STRIPES).all()
    assert label_warnings(tmp_path) == []


def test_refuses_undeclared_255_and_accepts_it_as_void(tmp_path: Path) -> None:
    label = write_folders(tmp_path, "other\nroad\nrail\n")
    mask = STRIPES.copy()
    mask[:2] = 255
    write_png(label, mask)
    with pytest.raises(DataError, match=r"no label has 'rail', and 25\.0% of the pixels are 255"):
        label_warnings(tmp_path)
    write_png(label, mask, palette=VOC_PALETTE)  # in which 255 has the color of a border
    assert label_warnings(tmp_path) == ["train: no label has 'rail'; they can't be learned"]
    write_png(label, mask)
    (tmp_path / "classes.txt").write_text("other\nroad\nrail\n255 void\n")
    assert label_warnings(tmp_path) == ["train: no label has 'rail'; they can't be learned"]


def test_warns_of_few_255_pixels_if_class_is_absent(tmp_path: Path) -> None:
    label = write_folders(tmp_path, "other\nroad\nrail\n")
    mask = STRIPES.copy()
    mask[0, :3] = 255
    write_png(label, mask)
    (warning,) = label_warnings(tmp_path)
    assert "2.3% of the pixels are 255, which is Void: is it a class?" in warning


def test_reads_gray_codes_only_with_values_in_class_list(tmp_path: Path) -> None:
    label = write_folders(tmp_path, "other\nroad\nrail\n")
    codes = np.repeat(np.array([[0, 128, 255, 0]], np.uint8), 4, axis=1).repeat(8, axis=0)
    write_png(label, codes)
    assert "label value 128 belongs to no class; classes.txt can" in refusal(tmp_path)
    for classes in ("0 other\n128 road\n255 rail\n", "other 0 0 0\nroad 128 128 128\nrail 255 255 255\n"):
        (tmp_path / "classes.txt").write_text(classes)
        assert read_label(tmp_path)[0, ::4].tolist() == [0, 1, 2, 0]


def test_training_requires_two_classes(tmp_path: Path) -> None:
    write_png(write_folders(tmp_path), STRIPES * 0)
    with pytest.raises(DataError, match="only 'other' occurs; at least two classes"):
        label_warnings(tmp_path)
    dataset = open_dataset(tmp_path)
    assert check_counts(dataset, count_labels(dataset), training=False)  # an evaluation only warns


def test_reports_shares_absent_classes_and_large_void(tmp_path: Path) -> None:
    label = write_folders(tmp_path, "other\nroad\nrail\nvoid\n")
    values = STRIPES.copy()
    values[:6] = 3
    write_png(label, values)
    dataset = open_dataset(tmp_path)
    counts = count_labels(dataset)
    lines = [line.split() for line in label_table(dataset, counts).splitlines()]
    assert lines[2:] == [["images", "1"], ["other", "12.5%"], ["road", "12.5%"], ["rail", "none"], ["Void", "75.0%"]]
    absent, void = check_counts(dataset, counts, training=True)
    assert "no label has 'rail'" in absent
    assert "75.0% of the pixels are Void" in void


def test_names_two_images_or_label_files_of_one_name(tmp_path: Path) -> None:
    label, image = write_folders(tmp_path), tmp_path / "images/train/a.png"
    cv2.imwrite(str(image.with_suffix(".bmp")), np.zeros((8, 16, 3), np.uint8))
    (message,) = open_dataset(tmp_path).missing["train"]
    assert message == f"{image}: a.bmp has the same labels, a.png; keep one of the two images"
    cv2.imwrite(str(label.with_suffix(".bmp")), STRIPES)
    assert any("a.bmp has the same name" in problem for problem in open_dataset(tmp_path).missing["train"])
