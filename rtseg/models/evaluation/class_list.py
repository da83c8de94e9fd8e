"""Class lists: `classes.txt`, and color tables of data sets such as `class_dict.csv`.

One class per line, in the order of the label values: `road`. A line may also contain the value, `255 road`, or the color of
the class in color-coded labels: `road 128 64 128`, `128 64 128 road`, `road,128,64,128`, `road #804080`. `255 void` may
be added to names without values. Lines that begin with `#` are comments. A CSV header (`name,r,g,b`) names the columns.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rtseg.core.errors import DataError
from rtseg.core.palette import NO_CLASS, Rgb
from rtseg.core.text_file import read_text

CLASS_FILES = ("classes.txt", "class_dict.csv", "label_colors.txt", "labelmap.txt")
"""Names of class lists, in the order of search."""

VOID_NAMES = ("void", "unlabeled", "unlabelled", "ignore")
"""Names of Void. Its pixels are not counted."""

_COMMENT = re.compile(r"(^#(?![0-9a-fA-F]{6}\b)|\s#(?![0-9a-fA-F]{6}\b)).*")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff]")
"""Zero-width spaces and byte order marks, which editors and concatenated files leave in a text."""
_HEX = re.compile(r"#([0-9a-fA-F]{6})\b")
_COLUMNS = {
    "name": ("name", "class", "label", "class_name", "classname"),
    "value": ("id", "index", "value", "class_id", "class_index", "label_id"),
    "r": ("r", "red"),
    "g": ("g", "green"),
    "b": ("b", "blue"),
}


@dataclass(frozen=True)
class ClassRow:
    """One line of a class list."""

    name: str
    """Lower case."""

    value: int | None
    """Label value; None: the position of the line."""

    color: Rgb | None
    """Color in color-coded labels; None: the list has no colors."""

    @property
    def is_void(self) -> bool:
        """True if the name is one of `VOID_NAMES`."""
        return self.name in VOID_NAMES


def find_class_list(root: Path) -> Path | None:
    """Return the first of `CLASS_FILES` in a folder, None if there is none."""
    return next(iter(_class_lists(root)), None)


def compare_class_lists(file: Path) -> str | None:
    """Compare a class list with the others in its folder. Files that can't be read as a class list are ignored.

    Returns:
        A warning if another list has other colors, else None.

    Raises:
        DataError: another list has other classes or label values.
    """
    rows, warning = read_class_list(file), None
    colors = {row.name: row.color for row in rows if row.color}
    for other in (path for path in _class_lists(file.parent) if path != file):
        try:
            others = read_class_list(other)
        except DataError:
            continue
        if different := _difference(rows, others):
            raise DataError(
                f"{file} and {other} contradict each other: {different}; remove the one that does not belong to the labels"
            )
        odd = next((row for row in others if row.color and row.color != colors.get(row.name, row.color)), None)
        if odd and odd.color:
            used, unused = format_rgb(colors[odd.name]), format_rgb(odd.color)
            difference = f"'{odd.name}' is {unused} there and {used} here"
            warning = f"{other.name} has other colors than {file.name}, which is used: {difference}"
    return warning


def _class_lists(folder: Path) -> list[Path]:
    return [folder / name for name in CLASS_FILES if (folder / name).is_file()]


def format_rgb(color: Rgb) -> str:
    """Return a color as in a class list: `128 64 128`."""
    return "{} {} {}".format(*color)


def _difference(first: list[ClassRow], other: list[ClassRow]) -> str:
    """Describe the first class or label value in which two lists differ; empty if there is none. Void is no class."""
    one, two = rows_by_value(first), rows_by_value(other)
    for value in sorted(one.keys() | two.keys()):
        rows = one.get(value), two.get(value)
        mine, theirs = (f"'{row.name}'" if row and not row.is_void else "no class" for row in rows)
        if mine != theirs:
            return f"label value {value} is {mine} in the first and {theirs} in the second"
    return ""


def rows_by_value(rows: Sequence[ClassRow]) -> dict[int, ClassRow]:
    """Return the row of each label value. Rows without a value have the values 0, 1, 2 … in their order."""
    in_order = dict(enumerate(row for row in rows if row.value is None))
    return in_order | {row.value: row for row in rows if row.value is not None}


def read_class_list(file: Path) -> list[ClassRow]:
    """Read a class list.

    Raises:
        DataError: the file can't be read, a line is invalid, or names, values or colors are not unique.
    """
    try:
        text = read_text(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: the class list can't be read ({error}); give one class name per line") from error
    lines = [line for line in (_COMMENT.sub("", line).strip() for line in _INVISIBLE.sub("", text).split("\n")) if line]
    rows = _from_csv(file, lines) if lines and _header(lines[0]) else _from_lines(file, lines)
    _check(file, rows)
    return rows


def _header(line: str) -> dict[str, int] | None:
    """Return the column numbers of a CSV header by their meaning; None if the line is not a header."""
    cells = [cell.strip().strip("\"'").lower().replace(" ", "_") for cell in re.split(r"[,;\t]", line)]
    columns = {
        meaning: cells.index(column)
        for meaning, names in _COLUMNS.items()
        if (column := next((name for name in names if name in cells), None))
    }
    is_header = "name" in columns and ("value" in columns or {"r", "g", "b"} <= set(columns))
    return columns if is_header else None


def _from_csv(file: Path, lines: list[str]) -> list[ClassRow]:
    columns = _header(lines[0]) or {}
    delimiter = next(mark for mark in ",;\t" if mark in lines[0])
    rows = []
    for line, cells in zip(lines[1:], csv.reader(lines[1:], delimiter=delimiter, skipinitialspace=True), strict=False):
        try:
            cell = {meaning: cells[column].strip() for meaning, column in columns.items()}
            color = (int(cell["r"]), int(cell["g"]), int(cell["b"])) if "r" in cell else None
            rows.append(ClassRow(cell["name"].lower(), int(cell["value"]) if "value" in cell else None, color))
        except (IndexError, ValueError) as error:
            raise DataError(f"{file}: the line '{line}' does not fit the header '{lines[0]}'") from error
    return rows


def _from_lines(file: Path, lines: list[str]) -> list[ClassRow]:
    if len(lines) == 1 and re.search(r"[^\d\s,;][,;]\s*[^\d\s,;]", lines[0]):
        raise DataError(f"{file}: contains one line, '{lines[0]}'; give one class name per line")
    parsed = [_parse(file, line) for line in lines]
    # "2 wheeler" is a name, "2 car" a value and a name: the number is a value if every line has one, except "255 void".
    mixed = {row.value is None for row in parsed if not row.is_void} == {True, False}
    if mixed and any(row.color for row in parsed):
        odd = next(line for line, row in zip(lines, parsed, strict=True) if row.value is None)
        raise DataError(f"{file}: the line '{odd}' has no label value, others have one")
    ends = [re.fullmatch(r"(.*\D)\s(\d+)", row.name) for row in parsed if row.value is None and row.color is None]
    bases, numbers = {end[1] for end in ends if end}, {end[2] for end in ends if end}
    if not mixed and len(lines) > 1 and len(bases) == len(numbers) == len(lines):  # "rail 1", "rail 2" are names
        raise DataError(
            f"{file}: each line ends in a number, as in '{lines[0]}'; write label values first, as in '1 road', "
            "and give names that end in a number a value in front, as in '0 rail 1'"
        )
    if mixed:
        parsed = [ClassRow(line.strip(" ,;\"'").lower(), None, None) for line in lines]
    return parsed


def _parse(file: Path, line: str) -> ClassRow:
    """Split a line into value, name and color: the numbers before and after the name."""
    color: Rgb | None = None
    if match := _HEX.search(line):
        digits = match[1]
        color = int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)
        line = line.replace(match[0], " ")
    tokens = [token for token in re.split(r"[\s,;:=()\[\]\"']+", line) if token]
    words = [i for i, token in enumerate(tokens) if not token.isdecimal()]
    if not words:
        return ClassRow(line.strip(" ,;\"'").lower(), None, color)
    before = [int(token) for token in tokens[: words[0]]]
    after = [int(token) for token in tokens[words[-1] + 1 :]]
    name = " ".join(tokens[words[0] : words[-1] + 1]).lower()
    value = before.pop(0) if len(before) in (1, 4) else None
    if len(after) == 1 and re.search(r"[,;:=\t]\s*\d+\W*$", line):  # "road,1"; "rail 1" is a name
        value = after.pop() if value is None else value
    if color is None and 3 in (len(before), len(after)):
        numbers = before if len(before) == 3 else after
        color = numbers[0], numbers[1], numbers[2]
        before, after = ([], after) if numbers is before else (before, [])
    if before or len(after) > 1:
        raise DataError(f"{file}: the line '{line}' is invalid; give 'NAME', 'VALUE NAME' or 'NAME RED GREEN BLUE'")
    if value is None and color is None:
        name = line.strip(" ,;\"'").lower()  # unchanged: "wall (low)", "rail 1"
    elif after:
        name += f" {after[0]}"
    return ClassRow(name, value, color)


def _check(file: Path, rows: list[ClassRow]) -> None:
    names = [row.name for row in rows if not row.is_void]
    if not names or len(rows) > NO_CLASS + 1 or len(names) > NO_CLASS or not all(names):
        raise DataError(f"{file}: a class list has 1 to {NO_CLASS} different names, one per line, not {len(names)}")
    for kind, items in (
        ("class", names),
        ("label value", [row.value for row in rows if row.value is not None]),
        ("color", [row.color for row in rows if row.color is not None]),
    ):
        duplicate = next((item for i, item in enumerate(items) if item in items[:i]), None)
        if duplicate is not None:
            raise DataError(f"{file}: the {kind} {duplicate!r} occurs twice; each line needs its own")
    uncolored = [row.name for row in rows if row.color is None and not row.is_void]
    if uncolored and any(row.color for row in rows):
        raise DataError(f"{file}: '{uncolored[0]}' has no color, others have one; give each class its color, or none")
    for row in rows:
        for number in (row.value or 0, *(row.color or ())):
            if not 0 <= number <= 255:
                raise DataError(f"{file}: {number} of '{row.name}' is out of range; values and colors are 0 to 255")
