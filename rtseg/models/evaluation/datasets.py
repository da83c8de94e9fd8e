"""Data sets on disk: which files belong together, and which label value means which class.

Every layout is one function from a folder to a `DataSet`; `open_dataset` picks the function by name or by the files that
are there, and `check` reads everything once, so that what is wrong is known by name before hours of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import DataError
from rtseg.core.files import IMAGE_SUFFIXES
from rtseg.core.palette import CAMVID_CLASSES, NO_CLASS
from rtseg.core.text_file import read_text
from rtseg.models.evaluation.class_list import CLASS_FILES, compare_class_lists, find_class_list, read_class_list
from rtseg.models.evaluation.labels import NOBODYS, Label, LabelTable, read_label


@dataclass(frozen=True)
class Pair:
    """One picture and its labels."""

    image: Path
    label: Path


@dataclass(frozen=True)
class DataSet:
    """What a layout found under a folder."""

    layout: str
    """A name in `LAYOUTS`."""

    root: Path
    """The folder."""

    classes: tuple[str, ...]
    """Class names in index order, lower case, without Void."""

    table: LabelTable
    """Which label value or color means which class."""

    splits: dict[str, list[Pair]]
    """`train`, `val` and `test`, as far as they are there, each in name order."""

    missing: dict[str, list[str]] = field(default_factory=dict)
    """What has no partner, by split, in words."""

    def pairs(self, split: str) -> list[Pair]:
        """The pairs of one split.

        Raises:
            DataError: there is no such split.
        """
        if not self.splits.get(split):
            there = ", ".join(f"{name} ({len(pairs)})" for name, pairs in self.splits.items() if pairs) or "none"
            missing = self.missing.get(split, [])
            why = f"; {_few(missing)}" if missing else ""
            raise DataError(f"{self.root} ({self.layout}) has no split '{split}'; there are: {there}{why}")
        return self.splits[split]


def layout_of(root: Path) -> str | None:
    """The name of the layout whose files are in a folder; None: of none that is known."""
    return next((name for name, (mark, _) in LAYOUTS.items() if any((root / m).exists() for m in mark)), None)


def marks() -> str:
    """By what each layout is known, in words."""
    return "; ".join(f"{name} has {' or '.join(mark)}" for name, (mark, _) in LAYOUTS.items())


def open_dataset(root: Path | str, layout: str = "auto") -> DataSet:
    """Finds the pairs, classes and splits of a data set. Opens no picture: `check` does that.

    Args:
        root: the data set's folder.
        layout: a name in `LAYOUTS`, or `auto` to tell by the files that are there.

    Raises:
        DataError: no such folder or layout, no layout fits, or a class list can't be used.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder of a data set")
    if layout == "auto":
        found = layout_of(root)
        if found is None:
            raise DataError(f"{root}: the layout of this data set is not known ({marks()}); name it with --layout")
        layout = found
    if layout not in LAYOUTS:
        raise DataError(f"no layout '{layout}'; there are {', '.join(LAYOUTS)}")
    dataset = LAYOUTS[layout][1](root)
    if not any(dataset.splits.values()):
        problems = [problem for found in dataset.missing.values() for problem in found]
        raise DataError(
            f"{root}: no picture with labels in the {layout} layout" + (f"; {_few(problems)}" if problems else "")
        )
    return dataset


def read_pair(pair: Pair, table: LabelTable) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read an image, uint8 `[H, W, 3]` RGB, and its class map, uint8 `[H, W]`, `NO_CLASS` where Void.

    Raises:
        DataError: a file can't be read, the sizes differ, or a label value belongs to no class. The message names the file.
    """
    rgb, label = read_image_and_label(pair, table)
    return rgb, label.classes


def read_image_and_label(pair: Pair, table: LabelTable) -> tuple[npt.NDArray[np.uint8], Label]:
    """As `read_pair`, with what else the label file says."""
    bgr = _read_image(pair.image)
    label = read_label(pair.label, table)
    height, width = label.classes.shape
    if (height, width) != bgr.shape[:2]:
        raise DataError(
            f"{pair.label}: is {width}x{height}, but its image {pair.image.name} is {bgr.shape[1]}x{bgr.shape[0]}"
        )
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), label


def check(dataset: DataSet, splits: Iterable[str], each: Callable[[Pair], None] | None = None) -> None:
    """Reads every pair of these splits.

    Args:
        dataset: what `open_dataset` found.
        splits: names of splits; each must be there.
        each: called after each pair, for progress.

    Raises:
        DataError: anything is wrong with any file; the message counts all that is and names the first few.
    """
    problems: list[str] = []
    for split in splits:
        problems += dataset.missing.get(split, [])
        for pair in dataset.pairs(split):
            try:
                read_pair(pair, dataset.table)
            except DataError as error:
                problems.append(str(error))
            if each is not None:
                each(pair)
    raise_problems(dataset, problems)


def raise_problems(dataset: DataSet, problems: Sequence[str]) -> None:
    """Raises `DataError` if there are any problems."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DataError(f"{dataset.root} ({dataset.layout}) has {count}: {_few(problems)}")


def _few(problems: Sequence[str], most: int = 8) -> str:
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    files: dict[str, list[str]] = {}  # by what is wrong with them: one sentence for all
    for problem in problems[:most]:
        file, _, text = problem.partition(": ")
        files.setdefault(text, []).append(file)
    same = {text: f" (the same: {', '.join(names[1:])})" if names[1:] else "" for text, names in files.items()}
    return "; ".join(f"{names[0]}: {text}{same[text]}" for text, names in files.items()) + more


def _read_image(path: Path) -> npt.NDArray[np.uint8]:
    # From bytes: imread says the same of a missing file, a folder and a damaged picture, and can't open some names on Windows.
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except (OSError, cv2.error) as error:
        raise DataError(f"{path}: can't be read ({error})") from error
    if picture is None:
        raise DataError(f"{path}: is not a picture, or is damaged")
    return np.asarray(picture)


def _pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted by name; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def _match(
    images: Iterable[Path], labels: Iterable[Path], label_names: Callable[[Path], Sequence[str]]
) -> tuple[list[Pair], list[str]]:
    """Pairs by name, and what has no partner.

    Args:
        images: pictures.
        labels: label files.
        label_names: the file names, without ending, that a picture's labels may have.
    """
    waiting: dict[str, Path] = {}
    taken: dict[str, Pair] = {}
    pairs, missing = [], []
    for label in labels:
        if label.stem in waiting:
            missing.append(f"{label}: {waiting[label.stem].name} has the same name; keep one of them")
        waiting[label.stem] = label
    for image in images:
        names = label_names(image)
        found = next((name for name in names if name in waiting), None)
        if found is not None:
            taken[found] = Pair(image, waiting.pop(found))
            pairs.append(taken[found])
        elif (other := next((taken[name] for name in names if name in taken), None)) is not None:
            missing.append(
                f"{image}: {other.image.name} has the same labels, {other.label.name}; keep one of the two images"
            )
        else:
            missing.append(f"{image}: has no labels (a file named {names[0]}.png is expected)")
    missing += [f"{label}: has no picture" for label in waiting.values()]
    return pairs, missing


def _stem(image: Path) -> tuple[str, str]:
    """`NAME`, or `NAME_L` as in CamVid."""
    return image.stem, f"{image.stem}_L"


def _listed_classes(file: Path) -> tuple[tuple[str, ...], LabelTable]:
    """The classes of a class list, and what label values and colors mean; Void and 255 are no class."""
    compare_class_lists(file)
    rows = read_class_list(file)
    classes = tuple(row.name for row in rows if not row.is_void)
    index = {row: NO_CLASS if row.is_void else classes.index(row.name) for row in rows}
    in_order = [row for row in rows if row.value is None]
    values = dict(enumerate(index[row] for row in in_order))
    values |= {row.value: index[row] for row in rows if row.value is not None}
    colors = {row.color: index[row] for row in rows if row.color is not None}
    is_255_void = any(row.value == NO_CLASS and row.is_void for row in rows)
    return classes, LabelTable(_values(values), colors, file.name, is_255_void)


def _values(owned: dict[int, int]) -> npt.NDArray[np.int16]:
    table = np.full(256, NOBODYS, np.int16)
    table[NO_CLASS] = NO_CLASS
    for value, index in owned.items():
        table[value] = index
    return table


def _folders(root: Path) -> DataSet:
    """`images/`, `labels/` and a class list; `train`, `val` (and `test`) in each, or flat with the last tenth by name as `val`."""
    classes, table = _listed_classes(find_class_list(root) or root / CLASS_FILES[0])
    splits, missing = {}, {}
    for split in ("train", "val", "test"):
        images, labels = _pictures(root / "images" / split), _pictures(root / "labels" / split)
        if images or labels:
            splits[split], missing[split] = _match(images, labels, _stem)
    if not splits:
        pairs, missing["train"] = _match(_pictures(root / "images"), _pictures(root / "labels"), _stem)
        # One block, not every tenth: neighbors in name order are often neighbors in a film, and near copies.
        last = len(pairs) - max(1, len(pairs) // 10)
        splits = {"train": pairs[:last], "val": pairs[last:]}
    return DataSet("folders", root, classes, table, splits, missing)


def _camvid(root: Path) -> DataSet:
    """CamVid: `train/`, `train_labels/`, `val/`, `val_labels/` (`test/`).

    Without a class list it has the 11 classes of SegNet, and 11 is Void; with one (`class_dict.csv`) it has those.
    """
    splits, missing = {}, {}
    for split in ("train", "val", "test"):
        images, labels = _pictures(root / split), _pictures(root / f"{split}_labels")
        if images or labels:
            splits[split], missing[split] = _match(images, labels, _stem)
    count = len(CAMVID_CLASSES)
    classes, table = CAMVID_CLASSES, LabelTable(_values({**{i: i for i in range(count)}, count: NO_CLASS}))
    file = find_class_list(root)
    if file is not None:
        classes, table = _listed_classes(file)
        if classes == CAMVID_CLASSES and table.values[count] == NOBODYS:
            table.values[count] = NO_CLASS
    return DataSet("camvid", root, classes, table, splits, missing)


def _notebook(root: Path) -> DataSet:
    """fast.ai's CamVid: `images/NAME.png`, `labels/NAME_P.png`, `codes.txt` with the classes, `valid.txt` names `val`'s files."""
    classes, table = _listed_classes(root / "codes.txt")
    pairs, missing = _match(_pictures(root / "images"), _pictures(root / "labels"), lambda image: [f"{image.stem}_P"])
    try:
        lines = (line.strip() for line in read_text(root / "valid.txt", "surrogateescape").split("\n"))
        listed = [line for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError) as error:
        raise DataError(f"{root / 'valid.txt'}: the list of validation files can't be read ({error})") from error
    there = {pair.image.name for pair in pairs}
    absent = [
        f"{root / 'images' / name}: stands in valid.txt but has no picture with labels"
        if name.isprintable()
        else f"{root / 'valid.txt'}: no picture with labels has the name {name!a}; save the list as UTF-8 if its names are"
        for name in listed
        if name not in there
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
"""labelId to name of the 19 classes that count (cityscapesscripts/helpers/labels.py); their order gives the train ids.
The other ids up to 33 are Void."""


def _cityscapes(root: Path) -> DataSet:
    """`leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png` and `gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png`."""
    owned = dict.fromkeys(range(34), NO_CLASS) | {value: i for i, value in enumerate(CITYSCAPES_CLASSES)}
    table = LabelTable(_values(owned), is_255_void=True)
    splits, missing = {}, {}
    for split in ("train", "val", "test"):
        images = sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        labels = sorted((root / "gtFine" / split).glob("*/*_gtFine_labelIds.png"))
        if images or labels:
            splits[split], missing[split] = _match(
                images, labels, lambda image: [image.stem.removesuffix("_leftImg8bit") + "_gtFine_labelIds"]
            )
    return DataSet("cityscapes", root, tuple(CITYSCAPES_CLASSES.values()), table, splits, missing)


def _bdd100k(root: Path) -> DataSet:
    """`images/10k/SPLIT` and `labels/sem_seg/masks/SPLIT`; older: `seg/images/SPLIT` and `seg/labels/SPLIT/NAME_train_id.png`."""
    old = (root / "seg").is_dir()
    classes = tuple(CITYSCAPES_CLASSES.values())  # BDD100K uses Cityscapes' train ids
    splits, missing = {}, {}
    for split in ("train", "val", "test"):
        images = _pictures(root / ("seg/images" if old else "images/10k") / split)
        labels = _pictures(root / ("seg/labels" if old else "labels/sem_seg/masks") / split)
        if split == "test" and not labels:
            continue  # the test labels are not public
        if images or labels:
            splits[split], missing[split] = _match(images, labels, lambda image: [image.stem + "_train_id" * old])
    table = LabelTable(_values({i: i for i in range(len(classes))}), is_255_void=True)
    return DataSet("bdd100k", root, classes, table, splits, missing)


LAYOUTS: dict[str, tuple[tuple[str, ...], Callable[[Path], DataSet]]] = {
    "cityscapes": (("leftImg8bit",), _cityscapes),
    "bdd100k": (("labels/sem_seg", "seg/labels"), _bdd100k),
    "notebook": (("codes.txt",), _notebook),
    "camvid": (("train_labels", "val_labels"), _camvid),
    "folders": (CLASS_FILES, _folders),
}
"""Name -> the files or folders of which one gives the layout away, and its function. `auto` tries them in this order."""
