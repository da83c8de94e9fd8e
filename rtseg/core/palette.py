"""Class names and colors: built-in palettes, palette files, and the minimum color distance."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import OptionError
from rtseg.core.text_file import read_text

Rgb = tuple[int, int, int]

NO_CLASS = 255
"""Value of pixels without a class in class maps and masks: excluded by `--only`, or Void in labels."""

MIN_COLOR_DISTANCE = 12.0
"""Minimum distance of two colors in CIE Lab (delta E 1976); closer ones are hard to distinguish in video."""

STREET: dict[str, Rgb] = {
    "sky": (90, 190, 255),
    "building": (150, 95, 60),
    "pole": (235, 235, 235),
    "road": (110, 60, 170),
    "pavement": (240, 110, 220),
    "tree": (40, 150, 40),
    "sign": (255, 220, 0),
    "fence": (255, 130, 0),
    "car": (20, 70, 255),
    "pedestrian": (255, 40, 40),
    "bicyclist": (0, 230, 190),
}
"""Default colors, which remain distinguishable after 4:2:0 subsampling and with 50 % opacity."""

CAMVID: dict[str, Rgb] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
"""Colors of the CamVid data set (Brostow, Fauqueur, Cipolla 2009, in the 11-class form of SegNet), in the order of its labels."""

CAMVID_CLASSES = tuple(CAMVID)
"""The 11 classes of CamVid in the order of the data set. Label 11 is Void and is not a class."""

CITYSCAPES: dict[str, Rgb] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "pavement": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "tree": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "pedestrian": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
    "bicyclist": (119, 11, 32),
}
"""Colors of Cityscapes (labels.py of the data set's scripts), with the class names of Cityscapes and CamVid."""

BUILT_IN: dict[str, dict[str, Rgb]] = {"street": STREET, "camvid": CAMVID, "cityscapes": CITYSCAPES}


@dataclass(frozen=True)
class Palette:
    """Classes of a model with one color each."""

    classes: tuple[str, ...]
    """Class names, lower case, unique. The index of a name is the class index in class maps."""

    colors: tuple[Rgb, ...]
    """One color per class: red, green, blue, each 0 to 255."""

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.colors):
            counts = f"{len(self.classes)} classes, {len(self.colors)} colors"
            raise OptionError(f"a palette needs one color a class: {counts}")
        if not 1 <= len(self.classes) <= NO_CLASS:
            raise OptionError(f"a palette must have 1 to {NO_CLASS} classes, not {len(self.classes)}")
        if len(set(self.classes)) != len(self.classes):
            raise OptionError(f"class names must differ: {', '.join(self.classes)}")
        for name, color in zip(self.classes, self.colors, strict=True):
            if len(color) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in color):
                raise OptionError(f"the color of '{name}' is {color!r}; give red, green, blue, each 0 to 255")

    def table(self) -> npt.NDArray[np.uint8]:
        """Return the colors as an array, uint8 `[classes, 3]`, RGB."""
        return np.array(self.colors, dtype=np.uint8)

    def index(self, name: str) -> int:
        """Return the class index of a name.

        Raises:
            OptionError: the class does not exist. The message contains the most similar name and all class names.
        """
        try:
            return self.classes.index(name.strip().lower())
        except ValueError:
            matches = difflib.get_close_matches(name.strip().lower(), self.classes, n=1)
            hint = f"did you mean '{matches[0]}'? " if matches else ""
            known = ", ".join(self.classes)
            raise OptionError(f"no class '{name}' in this model; {hint}its classes are {known}") from None

    def indices(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the class indices of several names in ascending order. Raises OptionError as `index` does."""
        return tuple(sorted({self.index(name) for name in names}))

    def similar_colors(self) -> list[tuple[str, str, float]]:
        """Return the pairs of classes with a color distance below `MIN_COLOR_DISTANCE`, and the distances in CIE Lab."""
        pairs = combinations(zip(self.classes, _to_lab(self.table()), strict=True), 2)
        distances = ((first, second, float(np.linalg.norm(a - b))) for (first, a), (second, b) in pairs)
        return [entry for entry in distances if entry[2] < MIN_COLOR_DISTANCE]


def load_palette(name_or_file: str, classes: Sequence[str], fallback: Sequence[Rgb] | None = None) -> Palette:
    """Load the palette of the option `--palette NAME|FILE` for the classes of a model.

    Args:
        name_or_file: one of `BUILT_IN`, "model" for the colors in `fallback`, or a JSON file
            `{"road": [128, 64, 128], ...}` (or `"#804080"`).
        classes: class names of the model. Classes that are missing in the palette get a generated color.
        fallback: colors of the model, if it has any.

    Raises:
        OptionError: the palette or file does not exist, a color is invalid, or two colors of a file are too similar.
    """
    names = tuple(c.lower() for c in classes)
    if name_or_file == "model":
        return Palette(names, tuple(fallback) if fallback else spread_colors(len(names)))
    if name_or_file in BUILT_IN:
        return Palette(names, _complete(names, BUILT_IN[name_or_file]))
    palette = Palette(names, _complete(names, _read_palette_file(name_or_file)))
    for first, second, distance in palette.similar_colors():
        raise OptionError(
            f"palette {name_or_file}: the colors of '{first}' and '{second}' look alike "
            f"(distance {distance:.0f} in CIE Lab, at least {MIN_COLOR_DISTANCE:.0f} is needed); change one"
        )
    return palette


def spread_colors(count: int, taken: Sequence[Rgb] = ()) -> tuple[Rgb, ...]:
    """Return `count` colors from a coarse RGB grid that differ as much as possible from each other and from those `taken`."""
    steps = (20, 75, 130, 190, 245) if count + len(taken) <= 100 else (10, 50, 90, 130, 170, 210, 250)
    grid = np.array([(r, g, b) for r in steps for g in steps for b in steps], dtype=np.uint8)
    lab = _to_lab(grid)
    chosen = _to_lab(np.array(taken, dtype=np.uint8).reshape(-1, 3))
    result: list[Rgb] = []
    for _ in range(count):
        distance = np.linalg.norm(lab[:, None] - chosen[None], axis=2).min(axis=1) if len(chosen) else lab[:, 0]
        best = int(np.argmax(distance))
        red, green, blue = grid[best].tolist()
        result.append((red, green, blue))
        chosen = np.concatenate([chosen, lab[best : best + 1]])
    return tuple(result)


def _complete(classes: Sequence[str], known: dict[str, Rgb]) -> tuple[Rgb, ...]:
    """Return a color for each class: the known color, or a generated one."""
    missing = [c for c in classes if c not in known]
    generated = iter(spread_colors(len(missing), [known[c] for c in classes if c in known]))
    return tuple(known[c] if c in known else next(generated) for c in classes)


def _read_palette_file(file: str) -> dict[str, Rgb]:
    path = Path(file)
    if not path.is_file():
        example = '{"road": [128, 64, 128]}'
        raise OptionError(
            f"no palette '{file}': built in are {', '.join(BUILT_IN)}; or give a JSON file like {example}"
        )
    try:
        data = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(f"palette {file} can't be read: {error}") from error
    if not isinstance(data, dict):
        kind = type(data).__name__
        raise OptionError(f"palette {file} must be one JSON object of class names and colors, not a {kind}")
    return {str(name).lower(): _parse_color(str(name), value) for name, value in data.items()}


def _parse_color(name: str, value: object) -> Rgb:
    if isinstance(value, str):
        text = value.removeprefix("#")
        try:
            if len(text) == 6:
                return int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)
        except ValueError:
            pass
    elif isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        return value[0], value[1], value[2]
    raise OptionError(f"the color of '{name}' is {value!r}; give [red, green, blue], each 0 to 255, or \"#rrggbb\"")


def _to_lab(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Convert sRGB `[n, 3]` to CIE Lab under D65 (IEC 61966-2-1 and CIE 15:2004)."""
    c = rgb.astype(np.float64) / 255.0
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0)
    return np.stack([116.0 * f[:, 1] - 16.0, 500.0 * (f[:, 0] - f[:, 1]), 200.0 * (f[:, 1] - f[:, 2])], axis=1)
