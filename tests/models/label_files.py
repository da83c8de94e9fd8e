"""Label files and data sets that the tests of labels write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from rtseg.core.errors import DataError
from rtseg.models.evaluation.datasets import DataSet, read_pair
from rtseg.models.evaluation.evaluate import evaluate
from rtseg.models.evaluation.label_report import LabelCounts, check_counts
from rtseg.models.evaluation.layouts import open_dataset

Array = npt.NDArray[np.uint8]

STRIPES = np.repeat(np.array([[0, 1]], np.uint8), 8, axis=1).repeat(8, axis=0)
"""8x16: class 0 left, class 1 right."""

VOC_PALETTE = bytes(
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


def write_folders(root: Path, classes: str | bytes = "other\nroad\n", name: str = "classes.txt") -> Path:
    """Write a data set with one 16x8 image per split, and return the path of the training label."""
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(classes.encode() if isinstance(classes, str) else classes)
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        cv2.imwrite(str(root / "images" / split / "a.png"), np.zeros((8, 16, 3), np.uint8))
        write_png(root / "labels" / split / "a.png", STRIPES)
    return root / "labels/train/a.png"


def read_label(root: Path) -> Array:
    """Return the class map of the first training label."""
    dataset = open_dataset(root)
    return read_pair(dataset.pairs("train")[0], dataset.table)[1].classes


def refusal(root: Path) -> str:
    """Return the message with which the first training label is refused."""
    with pytest.raises(DataError) as caught:
        read_label(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_split(dataset: DataSet, split: str) -> None:
    """Read all images and labels of a split, as an evaluation does."""
    evaluate(lambda rgb: np.zeros(rgb.shape[:2], np.uint8), dataset, split)


def count_labels(dataset: DataSet, split: str = "train") -> dict[str, LabelCounts]:
    """Count the label values of a split."""
    counts = LabelCounts(len(dataset.classes))
    for pair in dataset.pairs(split):
        counts.add(read_pair(pair, dataset.table)[1], pair.label)
    return {split: counts}


def label_warnings(root: Path, split: str = "train") -> list[str]:
    """Return the warnings of a check of the labels for training."""
    dataset = open_dataset(root)
    return check_counts(dataset, count_labels(dataset, split), training=True)
