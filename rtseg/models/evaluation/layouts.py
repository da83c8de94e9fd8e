"""Directory layouts of data sets: the files that form pairs, the splits, and the classes of the label values.

Each layout is one function from a folder to a `DataSet`. `open_dataset` selects the function by name or by the files in the
folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import DataError
from rtseg.core.files import IMAGE_SUFFIXES
from rtseg.core.palette import CAMVID_CLASSES, NO_CLASS
from rtseg.core.text_file import read_text
from rtseg.models.evaluation.class_list import (
    CLASS_FILES,
    compare_class_lists,
    find_class_list,
    read_class_list,
    rows_by_value,
)
from rtseg.models.evaluation.datasets import DataSet, Pair, summarize_problems
from rtseg.models.evaluation.labels import UNASSIGNED, LabelTable

Splits = dict[str, list[Pair]]
Missing = dict[str, list[str]]
LabelNames = Callable[[Path], Sequence[str]]
"""Function from an image to the possible names of its label file, without suffix."""


def detect_layout(root: Path) -> str | None:
    """Return the name of the layout whose files are in a folder, None if there is none."""
    return next((name for name, (files, _) in LAYOUTS.items() if any((root / file).exists() for file in files)), None)


def describe_layouts() -> str:
    """Return the names of all layouts with the files that identify them."""
    return "; ".join(f"{name} has {' or '.join(files)}" for name, (files, _) in LAYOUTS.items())


def open_dataset(root: Path | str, layout: str = "auto") -> DataSet:
    """Find the pairs, classes and splits of a data set, without opening the images.

    Args:
        root: the data set's folder.
        layout: a name in `LAYOUTS`, or `auto` to detect it from the files in the folder.

    Raises:
        DataError: there is no such folder or layout, no layout fits, no image has labels, or a class list is invalid.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder of a data set")
    if layout == "auto":
        detected = detect_layout(root)
        if detected is None:
            raise DataError(
                f"{root}: the layout of this data set is not known ({describe_layouts()}); name it with --layout"
            )
        layout = detected
    if layout not in LAYOUTS:
        raise DataError(f"no layout '{layout}'; there are {', '.join(LAYOUTS)}")
    dataset = LAYOUTS[layout][1](root)
    if not any(dataset.splits.values()):
        problems = [problem for messages in dataset.missing.values() for problem in messages]
        reason = f"; {summarize_problems(problems)}" if problems else ""
        raise DataError(f"{root}: no image with labels in the {layout} layout{reason}")
    return dataset


def _image_files(root: Path, pattern: str) -> list[Path]:
    """Return the image files that match a glob pattern, sorted by name. Empty if there is no such folder."""
    files = (path for path in root.glob(pattern) if not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)


def _match_splits(root: Path, images: str, labels: str, label_names: LabelNames) -> tuple[Splits, Missing]:
    """Match the files of each split that has any. `SPLIT` in the glob patterns is replaced by its name."""
    splits, missing = {}, {}
    for split in ("train", "val", "test"):
        image_files = _image_files(root, images.replace("SPLIT", split))
        label_files = _image_files(root, labels.replace("SPLIT", split))
        if image_files or label_files:
            splits[split], missing[split] = _match(image_files, label_files, label_names)
    return splits, missing


def _match(images: Sequence[Path], labels: Sequence[Path], label_names: LabelNames) -> tuple[list[Pair], list[str]]:
    """Pair images and labels by name. Returns the pairs, and messages about files without a partner."""
    unused: dict[str, Path] = {}
    paired: dict[str, Pair] = {}
    missing = []
    for label in labels:
        if label.stem in unused:
            missing.append(f"{label}: {unused[label.stem].name} has the same name; keep one of them")
        unused[label.stem] = label
    for image in images:
        names = label_names(image)
        match = next((name for name in names if name in unused), None)
        if match is not None:
            paired[match] = Pair(image, unused.pop(match))
        elif (other := next((paired[name] for name in names if name in paired), None)) is not None:
            missing.append(
                f"{image}: {other.image.name} has the same labels, {other.label.name}; keep one of the two images"
            )
        else:
            missing.append(f"{image}: has no labels (a file named {names[0]}.png is expected)")
    missing += [f"{label}: has no image" for label in unused.values()]
    return list(paired.values()), missing


def _stem(image: Path) -> tuple[str, str]:
    """Return the possible names of an image's labels: `NAME`, or `NAME_L` as in CamVid."""
    return image.stem, f"{image.stem}_L"


def _listed_classes(file: Path) -> tuple[tuple[str, ...], LabelTable]:
    """Return the classes of a class list, and the table of label values and colors. Void and 255 are not classes."""
    compare_class_lists(file)
    rows = read_class_list(file)
    classes = tuple(row.name for row in rows if not row.is_void)
    index = {row: NO_CLASS if row.is_void else classes.index(row.name) for row in rows}
    values = {value: index[row] for value, row in rows_by_value(rows).items()}
    colors = {row.color: index[row] for row in rows if row.color is not None}
    is_255_void = any(row.value == NO_CLASS and row.is_void for row in rows)
    return classes, LabelTable(_value_table(values), colors, file.name, is_255_void)


def _value_table(assigned: dict[int, int]) -> npt.NDArray[np.int16]:
    table = np.full(256, UNASSIGNED, np.int16)
    table[NO_CLASS] = NO_CLASS
    for value, index in assigned.items():
        table[value] = index
    return table


def _folders(root: Path) -> DataSet:
    """Open `images/`, `labels/` and a class list. Both folders contain `train`, `val` (and `test`), or files.

    In the second case `val` is the last tenth of the files by name.
    """
    classes, table = _listed_classes(find_class_list(root) or root / CLASS_FILES[0])
    splits, missing = _match_splits(root, "images/SPLIT/*", "labels/SPLIT/*", _stem)
    if not splits:
        pairs, missing["train"] = _match(_image_files(root, "images/*"), _image_files(root, "labels/*"), _stem)
        # A block of images, not every tenth: neighbors by name are often neighbors in a video and nearly equal.
        last = len(pairs) - max(1, len(pairs) // 10)
        splits = {"train": pairs[:last], "val": pairs[last:]}
    return DataSet("folders", root, classes, table, splits, missing)


def _camvid(root: Path) -> DataSet:
    """Open CamVid: `train/`, `train_labels/`, `val/`, `val_labels/` (`test/`).

    The classes are those of the class list (`class_dict.csv`). Without one they are the 11 classes of SegNet, and 11 is Void.
    """
    splits, missing = _match_splits(root, "SPLIT/*", "SPLIT_labels/*", _stem)
    count = len(CAMVID_CLASSES)
    file = find_class_list(root)
    if file is not None:
        classes, table = _listed_classes(file)
    else:
        classes, table = CAMVID_CLASSES, LabelTable(_value_table({i: i for i in range(count)}))
    if classes == CAMVID_CLASSES and table.values[count] == UNASSIGNED:
        table.values[count] = NO_CLASS
    return DataSet("camvid", root, classes, table, splits, missing)


def _notebook(root: Path) -> DataSet:
    """Open CamVid of fast.ai: `images/NAME.png`, `labels/NAME_P.png`, classes in `codes.txt`, files of `val` in `valid.txt`."""
    classes, table = _listed_classes(root / "codes.txt")
    files = _image_files(root, "images/*"), _image_files(root, "labels/*")
    pairs, missing = _match(*files, lambda image: [f"{image.stem}_P"])
    try:
        lines = (line.strip() for line in read_text(root / "valid.txt", "surrogateescape").split("\n"))
        listed = [line for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError) as error:
        raise DataError(f"{root / 'valid.txt'}: the list of validation files can't be read ({error})") from error
    present = {pair.image.name for pair in pairs}
    absent = [
        f"{root / 'images' / name}: is listed in valid.txt, but there is no image with labels"
        if name.isprintable()
        else f"{root / 'valid.txt'}: no image with labels has the name {name!a}; save the list as UTF-8 if its names are"
        for name in listed
        if name not in present
    ]
    splits = {
        "train": [pair for pair in pairs if pair.image.name not in set(listed)],
        "val": [pair for pair in pairs if pair.image.name in set(listed)],
    }
    return DataSet("notebook", root, classes, table, splits, {"train": missing, "val": absent})


CITYSCAPES_CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light", 20: "traffic sign",
    21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train",
    32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""Names of the 19 evaluated classes by labelId (cityscapesscripts/helpers/labels.py), in the order of the train ids. The other
ids up to 33 are Void."""


def _cityscapes(root: Path) -> DataSet:
    """Open Cityscapes: `leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png`, `gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png`."""
    assigned = dict.fromkeys(range(34), NO_CLASS) | {value: i for i, value in enumerate(CITYSCAPES_CLASSES)}
    table = LabelTable(_value_table(assigned), is_255_void=True)
    files = "leftImg8bit/SPLIT/*/*_leftImg8bit.png", "gtFine/SPLIT/*/*_gtFine_labelIds.png"
    splits, missing = _match_splits(
        root, *files, lambda image: [image.stem.removesuffix("_leftImg8bit") + "_gtFine_labelIds"]
    )
    return DataSet("cityscapes", root, tuple(CITYSCAPES_CLASSES.values()), table, splits, missing)


def _bdd100k(root: Path) -> DataSet:
    """Open BDD100K: `images/10k/SPLIT` and `labels/sem_seg/masks/SPLIT`.

    The old layout is `seg/images/SPLIT` and `seg/labels/SPLIT/NAME_train_id.png`.
    """
    old = (root / "seg").is_dir()
    classes = tuple(CITYSCAPES_CLASSES.values())  # BDD100K uses Cityscapes' train ids
    images, labels = ("seg/images", "seg/labels") if old else ("images/10k", "labels/sem_seg/masks")
    splits, missing = _match_splits(
        root, f"{images}/SPLIT/*", f"{labels}/SPLIT/*", lambda image: [image.stem + "_train_id" * old]
    )
    if not splits.get("test"):  # the test labels are not public
        splits.pop("test", None)
        missing.pop("test", None)
    table = LabelTable(_value_table({i: i for i in range(len(classes))}), is_255_void=True)
    return DataSet("bdd100k", root, classes, table, splits, missing)


LAYOUTS: dict[str, tuple[tuple[str, ...], Callable[[Path], DataSet]]] = {
    "cityscapes": (("leftImg8bit",), _cityscapes),
    "bdd100k": (("labels/sem_seg", "seg/labels"), _bdd100k),
    "notebook": (("codes.txt",), _notebook),
    "camvid": (("train_labels", "val_labels"), _camvid),
    "folders": (CLASS_FILES, _folders),
}
"""Name -> files or folders, any of which identifies the layout, and the function that opens it. `auto` uses this order."""
