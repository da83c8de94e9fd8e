"""Label files: palettes, packed gray, color codes, masks of 0 and 255, and lossy files; and class lists of all formats."""

from __future__ import annotations

import codecs
import os
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from rtseg.cli.config_file import read_config
from rtseg.core.errors import DataError, OptionError
from rtseg.core.palette import CAMVID_CLASSES, load_palette
from rtseg.models.evaluation.class_list import read_class_list
from rtseg.models.evaluation.class_names import match_classes
from rtseg.models.evaluation.datasets import DataSet, check, read_image_and_label, read_pair
from rtseg.models.evaluation.label_report import LabelCounts, check_counts, label_table
from rtseg.models.evaluation.layouts import CITYSCAPES_CLASSES, open_dataset

Array = npt.NDArray[np.uint8]

STRIPES = np.repeat(np.array([[0, 1]], np.uint8), 8, axis=1).repeat(8, axis=0)
"""8x16: class 0 left, class 1 right."""

VOC = bytes(
    sum(((i >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for i in range(256) for channel in range(3)
)
"""The palette of Pascal VOC, RGB; 255 is 224 224 192."""


def write_png(path: Path, values: Array, depth: int = 8, palette: bytes = b"", color_type: int | None = None) -> None:
    """Write a PNG without a library: one-channel values packed to `depth` bits, or `[H, W, C]` bytes."""
    rows = values.reshape(len(values), -1)
    if depth < 8:
        per_byte = 8 // depth
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % per_byte)))
        shifts = np.arange(8 - depth, -1, -depth)
        rows = (rows.reshape(len(rows), -1, per_byte) << shifts).sum(axis=2).astype(np.uint8)
    data = b"".join(b"\0" + (row.astype(">u2") if depth == 16 else row).tobytes() for row in rows)
    kind = (3 if palette else {1: 0, 2: 4, 3: 2, 4: 6}[values[0, 0].size]) if color_type is None else color_type
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, kind, 0, 0, 0))]
    chunks += [(b"PLTE", palette[: 3 * min(256, 2**depth)])] if palette else []
    chunks += [(b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    )


def folders(root: Path, classes: str | bytes = "other\nroad\n", name: str = "classes.txt") -> Path:
    """Write a data set with one 16x8 image per split, and return the path of the training label."""
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(classes.encode() if isinstance(classes, str) else classes)
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        cv2.imwrite(str(root / "images" / split / "a.png"), np.zeros((8, 16, 3), np.uint8))
        write_png(root / "labels" / split / "a.png", STRIPES)
    return root / "labels/train/a.png"


def read(root: Path) -> Array:
    dataset = open_dataset(root)
    return read_pair(dataset.pairs("train")[0], dataset.table)[1]


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def counted(dataset: DataSet, split: str = "train") -> dict[str, LabelCounts]:
    counts = LabelCounts(len(dataset.classes))
    for pair in dataset.pairs(split):
        counts.add(read_image_and_label(pair, dataset.table)[1], pair.label)
    return {split: counts}


def checked(root: Path, split: str = "train") -> list[str]:
    dataset = open_dataset(root)
    return check_counts(dataset, counted(dataset, split), training=True)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_reads_gray_indices_of_any_depth(tmp_path: Path, depth: int) -> None:
    values = (np.arange(128).reshape(8, 16) % min(2**depth, 11)).astype(np.uint8)
    label = folders(tmp_path, "\n".join(CAMVID_CLASSES))
    write_png(label, values, depth)
    assert (read(tmp_path) == values).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_reads_palette_indices_of_any_depth(tmp_path: Path, depth: int) -> None:
    values = (np.arange(128).reshape(8, 16) % min(2**depth, 11)).astype(np.uint8)
    label = folders(tmp_path, "\n".join(CAMVID_CLASSES))
    if depth == 8:
        values[0, 0] = 255  # the border of Pascal VOC
    write_png(label, values, depth, VOC)
    assert (read(tmp_path) == values).all()


def test_refuses_palettes_that_differ_between_files(tmp_path: Path) -> None:
    label = folders(tmp_path)
    write_png(label, STRIPES, palette=bytes([0, 0, 0, 128, 64, 128]), depth=1)
    write_png(label.with_name("b.png"), STRIPES, palette=bytes([128, 64, 128, 0, 0, 0]), depth=1)
    cv2.imwrite(str(tmp_path / "images/train/b.png"), np.zeros((8, 16, 3), np.uint8))
    with pytest.raises(DataError, match=r"b\.png: palette index 0 is 128 64 128, in a\.png it is 0 0 0"):
        checked(tmp_path)


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
    label = folders(tmp_path, COLOR_LISTS[name], name)
    if mode == "palette":
        write_png(label, (2 - COLORED).astype(np.uint8), 8, COLORS[::-1].tobytes())  # not in the order of the classes
    else:
        rgb = COLORS[COLORED]
        opaque = np.full((8, 16, 1), 255, np.uint8)
        write_png(label, rgb if mode == "rgb" else np.concatenate([rgb, opaque], axis=2))
    assert open_dataset(tmp_path).classes == ("sky", "road")
    assert (read(tmp_path) == np.array([0, 1, 255])[COLORED]).all()


def test_names_unknown_color_and_file(tmp_path: Path) -> None:
    label = folders(tmp_path, COLOR_LISTS["classes.txt"])
    rgb = COLORS[COLORED]
    rgb[0, :3] = 1, 2, 3
    write_png(label, rgb)
    message = refused(tmp_path)
    assert str(label) in message
    assert "the color 1 2 3 (3 pixels) belongs to no class of classes.txt" in message


def test_reads_camvid_of_kaggle(tmp_path: Path) -> None:
    (tmp_path / "class_dict.csv").write_bytes(b"\xef\xbb\xbf" + COLOR_LISTS["class_dict.csv"].encode())
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        cv2.imwrite(str(tmp_path / split / "0001TP_006690.png"), np.zeros((8, 16, 3), np.uint8))
        write_png(tmp_path / f"{split}_labels" / "0001TP_006690_L.png", COLORS[COLORED])
    assert (read(tmp_path) == np.array([0, 1, 255])[COLORED]).all()


def test_reads_gray_indices_in_three_channels(tmp_path: Path) -> None:
    write_png(folders(tmp_path), STRIPES[..., None].repeat(3, axis=2))
    assert (read(tmp_path) == STRIPES).all()


@pytest.mark.parametrize("channels", [2, 4])
def test_refuses_transparent_pixels(tmp_path: Path, channels: int) -> None:
    values = STRIPES[..., None].repeat(channels, axis=2)
    values[..., -1] = 255
    label = folders(tmp_path)
    write_png(label, values)
    assert (read(tmp_path) == STRIPES).all()
    values[0, 0, -1] = 0
    write_png(label, values)
    assert "transparent" in refused(tmp_path)


def test_reports_16_bit_masks_once(tmp_path: Path) -> None:
    label = folders(tmp_path)
    for values, path in ((STRIPES, label), (STRIPES * 0 + 1, label.with_name("b.png"))):
        write_png(path, values.astype(np.uint16) * 65535, 16)
    cv2.imwrite(str(tmp_path / "images/train/b.png"), np.zeros((8, 16, 3), np.uint8))
    with pytest.raises(DataError) as caught:
        check(open_dataset(tmp_path), ["train"])
    message = str(caught.value)
    assert (
        message.count("contains a mask of 16 bits, 0 and 65535; save labels with 8 bits, as class indices 0 and 1") == 1
    )
    assert "has 2 problems" in message
    assert message.endswith(f"(the same: {label.with_name('b.png')})")
    assert "instance" not in message


def test_refuses_instance_ids(tmp_path: Path) -> None:
    write_png(folders(tmp_path), np.where(STRIPES, 26001, 7).astype(np.uint16), 16)
    assert "label value 26001" in refused(tmp_path)
    assert "labelIds" in refused(tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png"])
def test_refuses_lossy_labels_with_any_suffix(tmp_path: Path, suffix: str) -> None:
    label = folders(tmp_path)
    label.unlink()
    encoding = ".webp" if suffix == ".webp" else ".jpg"
    options = [cv2.IMWRITE_WEBP_QUALITY, 80] if encoding == ".webp" else []
    label.with_suffix(suffix).write_bytes(cv2.imencode(encoding, STRIPES * 100, options)[1].tobytes())
    assert "changes label values; save labels as PNG" in refused(tmp_path)


def test_refuses_damaged_png(tmp_path: Path) -> None:
    label = folders(tmp_path)
    png = label.read_bytes()
    for content in (png[:-20], png[:40], png.replace(b"IDAT", b"IDAX"), png[:50] + b"?" + png[51:]):
        label.write_bytes(content)
        assert "damaged" in refused(tmp_path)


def test_refuses_interpolated_color_codes(tmp_path: Path) -> None:
    label = folders(tmp_path, COLOR_LISTS["classes.txt"])
    small = COLORS[np.random.default_rng(0).integers(0, 3, (4, 8))]
    write_png(label, np.asarray(cv2.resize(small, (16, 8), interpolation=cv2.INTER_LINEAR)))
    assert "nearest neighbor" in refused(tmp_path)


@pytest.mark.parametrize(
    ("interpolation", "is_reported"), [(cv2.INTER_NEAREST, False), (cv2.INTER_LINEAR, True), (cv2.INTER_CUBIC, True)]
)
def test_reports_interpolated_indices(tmp_path: Path, interpolation: int, is_reported: bool) -> None:
    label = folders(tmp_path, "\n".join(CAMVID_CLASSES))
    small = np.random.default_rng(0).integers(0, 11, (6, 8)).astype(np.uint8)
    large = np.asarray(cv2.resize(small.repeat(9, axis=0).repeat(9, axis=1), (120, 90), interpolation=interpolation))
    write_png(label, np.minimum(large, 10))
    cv2.imwrite(str(tmp_path / "images/train/a.png"), np.zeros((90, 120, 3), np.uint8))
    assert any("interpolation" in warning for warning in checked(tmp_path)) == is_reported


@pytest.mark.parametrize("share", [2, 64, 128])
@pytest.mark.parametrize("classes", ["other\nroad\n", "road\n", "void\nroad\n"])
def test_refuses_masks_of_0_and_255(tmp_path: Path, classes: str, share: int) -> None:
    label = folders(tmp_path, classes)
    mask = np.zeros((8, 16), np.uint8)
    mask.ravel()[: 128 // share] = 255
    write_png(label, mask)
    with pytest.raises(DataError, match="255") as caught:
        checked(tmp_path)
    assert "'255 " in str(caught.value)


def test_reads_masks_of_0_and_255_with_values_in_class_list(tmp_path: Path) -> None:
    write_png(folders(tmp_path, "0 other\n255 road\n"), STRIPES * 255)
    assert (read(tmp_path) == STRIPES).all()
    assert checked(tmp_path) == []


def test_refuses_undeclared_255_and_accepts_it_as_void(tmp_path: Path) -> None:
    label = folders(tmp_path, "other\nroad\nlane\n")
    mask = STRIPES.copy()
    mask[:2] = 255
    write_png(label, mask)
    with pytest.raises(DataError, match=r"no label has 'lane', and 25\.0% of the pixels are 255"):
        checked(tmp_path)
    (tmp_path / "classes.txt").write_text("other\nroad\nlane\n255 void\n")
    assert checked(tmp_path) == ["train: no label has 'lane'; they can't be learned"]


def test_warns_of_few_255_pixels_if_class_is_absent(tmp_path: Path) -> None:
    label = folders(tmp_path, "other\nroad\nlane\n")
    mask = STRIPES.copy()
    mask[0, :3] = 255
    write_png(label, mask)
    (warning,) = checked(tmp_path)
    assert "2.3% of the pixels are 255, which is Void: is it a class?" in warning


def test_reads_border_of_voc_as_void(tmp_path: Path) -> None:
    label = folders(tmp_path, "other\nroad\nlane\n")
    mask = STRIPES.copy()
    mask[:2] = 255
    write_png(label, mask, palette=VOC)
    assert checked(tmp_path) == ["train: no label has 'lane'; they can't be learned"]


def test_reads_gray_codes_only_with_values_in_class_list(tmp_path: Path) -> None:
    label = folders(tmp_path, "other\nroad\nlane\n")
    codes = np.repeat(np.array([[0, 128, 255, 0]], np.uint8), 4, axis=1).repeat(8, axis=0)
    write_png(label, codes)
    assert "label value 128 belongs to no class; classes.txt can" in refused(tmp_path)
    for classes in ("0 other\n128 road\n255 lane\n", "other 0 0 0\nroad 128 128 128\nlane 255 255 255\n"):
        (tmp_path / "classes.txt").write_text(classes)
        assert read(tmp_path)[0, ::4].tolist() == [0, 1, 2, 0]


def test_training_requires_two_classes(tmp_path: Path) -> None:
    write_png(folders(tmp_path), STRIPES * 0)
    with pytest.raises(DataError, match="only 'other' occurs; at least two classes"):
        checked(tmp_path)
    dataset = open_dataset(tmp_path)
    assert check_counts(dataset, counted(dataset), training=False)  # an evaluation only warns


def test_reports_shares_absent_classes_and_large_void(tmp_path: Path) -> None:
    label = folders(tmp_path, "other\nroad\nlane\nvoid\n")
    values = STRIPES.copy()
    values[:6] = 3
    write_png(label, values)
    dataset = open_dataset(tmp_path)
    counts = counted(dataset)
    lines = [line.split() for line in label_table(dataset, counts).splitlines()]
    assert lines[2:] == [["images", "1"], ["other", "12.5%"], ["road", "12.5%"], ["lane", "none"], ["Void", "75.0%"]]
    absent, void = check_counts(dataset, counts, training=True)
    assert "no label has 'lane'" in absent
    assert "75.0% of the pixels are Void" in void


def test_names_two_label_files_of_one_image(tmp_path: Path) -> None:
    label = folders(tmp_path)
    cv2.imwrite(str(label.with_suffix(".bmp")), STRIPES)
    assert any("a.bmp has the same name" in problem for problem in open_dataset(tmp_path).missing["train"])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            "name,r,g,b\nother,0,0,0\nx,1,1,1\nlane,2,2,2\n",
            "label value 1 is 'road' in the first and 'x' in the second",
        ),
        ("name,r,g,b\nother,0,0,0\nlane,1,1,1\nroad,2,2,2\n", "label value 1 is 'road' in the first and 'lane'"),
        ("other 0 0 0\nroad 1 1 1\n", "label value 2 is 'lane' in the first and no class in the second"),
    ],
)
def test_names_contradictory_class_lists(tmp_path: Path, second: str, message: str) -> None:
    folders(tmp_path)
    (tmp_path / "classes.txt").write_text("other\nroad\nlane\n")
    (tmp_path / "class_dict.csv").write_text(second)
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'classes.txt'} and {tmp_path / 'class_dict.csv'} contradict")
    assert message in str(caught.value)


def test_warns_of_class_lists_that_differ_only_in_colors(tmp_path: Path) -> None:
    write_png(folders(tmp_path), np.repeat(np.arange(3, dtype=np.uint8), [3, 3, 2])[:, None].repeat(16, axis=1))
    (tmp_path / "classes.txt").write_text("other\nroad\nlane\n")
    (tmp_path / "label_colors.txt").write_text("0 0 0 other\n1 1 1 road\n2 2 2 lane\n")
    dataset = open_dataset(tmp_path)
    assert check_counts(dataset, counted(dataset), training=True) == []  # a list without colors contradicts none
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nOther,0,0,0\nroad,9,9,9\nlane,2,2,2\n")
    (tmp_path / "classes.txt").unlink()
    (warning,) = check_counts(open_dataset(tmp_path), counted(dataset), training=True)
    assert (
        warning
        == "label_colors.txt has other colors than class_dict.csv, which is used: 'road' is 1 1 1 there and 9 9 9 here"
    )
    (tmp_path / "labelmap.txt").write_text("# not a list\nroad 1 2\n")
    open_dataset(tmp_path)


@pytest.mark.parametrize("mark", ["\u200b", "\ufeff", "\u2060"])
def test_ignores_invisible_characters_in_class_names(tmp_path: Path, mark: str) -> None:
    folders(tmp_path)
    (tmp_path / "classes.txt").write_text(f"other\n{mark}road\nlane{mark}\n", encoding="utf-8")
    assert open_dataset(tmp_path).classes == ("other", "road", "lane")


def test_names_two_images_of_one_label_file(tmp_path: Path) -> None:
    folders(tmp_path)
    (image,) = (tmp_path / "images/train").iterdir()
    other = image.with_suffix(".bmp" if image.suffix != ".bmp" else ".png")
    cv2.imwrite(str(other), np.zeros((8, 16, 3), np.uint8))
    (message,) = open_dataset(tmp_path).missing["train"]
    first, second = sorted((image, other))
    assert message == f"{second}: {first.name} has the same labels, a.png; keep one of the two images"


NAMES = ["sky", "traffic light", "2 wheeler"]


@pytest.mark.parametrize(
    "content",
    [
        "sky\ntraffic light\n2 wheeler\n",
        "\ufeffsky\ntraffic light\n2 wheeler\n",
        "Sky\r\nTraffic light \r\n2 wheeler\r\n\r\n\r\n",
        "# classes\n\nsky  # above\n  traffic light\t\n2 wheeler\n",
        '"sky",\n"traffic light",\n"2 wheeler"\n',
        "sky\rtraffic light\r2 wheeler\r",
    ],
)
def test_reads_class_list_with_any_line_endings_and_quotes(tmp_path: Path, content: str) -> None:
    (tmp_path / "classes.txt").write_bytes(content.encode())
    rows = read_class_list(tmp_path / "classes.txt")
    assert [row.name for row in rows] == NAMES
    assert {row.value for row in rows} == {None}


def test_class_names_keep_punctuation_and_numbers(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("wall (low)\nlane 1\nLane-2\ncar/truck\n")
    names = [row.name for row in read_class_list(tmp_path / "classes.txt")]
    assert names == ["wall (low)", "lane 1", "lane-2", "car/truck"]


@pytest.mark.parametrize(
    "content",
    [
        "7 sky\n11 traffic light\n",
        "7: sky\n11: traffic light\n",
        "sky,7\ntraffic light,11\n",
        "id;name\n7;Sky\n11;Traffic light\n",
    ],
)
def test_reads_class_list_with_values(tmp_path: Path, content: str) -> None:
    (tmp_path / "classes.txt").write_text(content)
    assert [(row.value, row.name) for row in read_class_list(tmp_path / "classes.txt")] == [
        (7, "sky"),
        (11, "traffic light"),
    ]


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
    ],
)
def test_refuses_malformed_class_list_with_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_class_list(tmp_path / "classes.txt")
    assert "\n" not in str(caught.value)


def test_palette_and_config_accept_byte_order_mark(tmp_path: Path) -> None:
    palette, config = tmp_path / "p.json", tmp_path / "rtseg.toml"
    palette.write_bytes(codecs.BOM_UTF8 + b'{"road": [1, 2, 3]}')
    config.write_bytes(codecs.BOM_UTF8 + b'[live]\r\ncamera = "0"\r\n')
    assert load_palette(str(palette), ("road",)).colors == ((1, 2, 3),)
    assert read_config(config) == {"camera": "0"}
    for file in (palette, config):
        file.write_bytes("{}".encode("utf-16"))
    with pytest.raises(OptionError, match="UTF-16; save it as UTF-8"):
        load_palette(str(palette), ("road",))
    with pytest.raises(OptionError, match="UTF-16; save it as UTF-8"):
        read_config(config)


def test_reads_valid_txt_with_byte_order_mark_crlf_and_spaces(tmp_path: Path) -> None:
    (tmp_path / "codes.txt").write_bytes(codecs.BOM_UTF8 + b"Sky\r\nRoad\r\n")
    (tmp_path / "valid.txt").write_bytes(codecs.BOM_UTF8 + b"b 1.png\r\n\r\n")
    for name in ("a", "b 1"):
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.zeros((8, 16, 3), np.uint8))
        write_png(tmp_path / "labels" / f"{name}_P.png", STRIPES)
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("sky", "road")
    assert [pair.image.name for pair in dataset.pairs("val")] == ["b 1.png"]
    assert dataset.missing["val"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names of bytes")
def test_reads_valid_txt_with_non_utf8_names(tmp_path: Path) -> None:
    name = os.fsdecode(b"b\xe9")
    (tmp_path / "codes.txt").write_text("Sky\nRoad\n")
    (tmp_path / "valid.txt").write_bytes(b"b\xe9.png\n")
    (tmp_path / "images").mkdir()
    for i, stem in enumerate(("a", name)):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), np.zeros((8, 16, 3), np.uint8))
        write_png(tmp_path / "labels" / f"{i}_P.png", STRIPES)
        (tmp_path / "images" / f"{i}.png").rename(tmp_path / "images" / f"{stem}.png")
        (tmp_path / "labels" / f"{i}_P.png").rename(tmp_path / "labels" / f"{stem}_P.png")
    dataset = open_dataset(tmp_path)
    assert [pair.image.name for pair in dataset.pairs("val")] == [f"{name}.png"]
    assert dataset.missing["val"] == []
    (tmp_path / "valid.txt").write_bytes(b"c\xe9.png\n")
    (message,) = open_dataset(tmp_path).missing["val"]
    assert "valid.txt: no image with labels has the name 'c\\udce9.png'; save the list as UTF-8" in message


def test_matches_classes_of_cityscapes_and_camvid() -> None:
    match = match_classes(CAMVID_CLASSES, tuple(CITYSCAPES_CLASSES.values()))
    pairs = {mine: (theirs, how) for mine, theirs, how in match.pairs}
    assert pairs["pavement"] == ("sidewalk", "synonym")
    assert pairs["pedestrian"] == ("person", "synonym")
    assert pairs["sign"] == ("traffic sign", "synonym")
    assert pairs["tree"] == ("vegetation", "similar")
    assert pairs["bicyclist"] == ("rider", "similar")
    assert pairs["road"] == ("road", "same name")
    assert set(match.data_only) == {
        "wall",
        "traffic light",
        "terrain",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    }
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


def test_names_file_and_both_sizes_of_mismatch(tmp_path: Path) -> None:
    label = folders(tmp_path)
    write_png(label, STRIPES[:4], 1)
    message = refused(tmp_path)
    assert all(words in message for words in (str(label), "16x4", "16x8"))


def test_refuses_class_list_with_values_after_names(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("road 1\ntree 2\nsky 3\n")
    with pytest.raises(DataError, match="each line ends in a number, as in 'road 1'; write label values first"):
        read_class_list(file)
    file.write_text("1 road\n2 tree\n3 sky\n")
    assert [(row.value, row.name) for row in read_class_list(file)] == [(1, "road"), (2, "tree"), (3, "sky")]
    for names in (["lane 1", "lane 2"], ["road 1", "tree"]):
        file.write_text("\n".join(names))
        assert [(row.value, row.name) for row in read_class_list(file)] == [(None, name) for name in names]
    file.write_text("0 lane 1\n1 road 7\n")
    assert [(row.value, row.name) for row in read_class_list(file)] == [(0, "lane 1"), (1, "road 7")]
