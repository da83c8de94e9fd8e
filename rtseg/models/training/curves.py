"""Log of a training run, as CSV and as a chart."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from rtseg.core.files import whole_file

Row = Mapping[str, float]
"""Values of one evaluation: `step`, `epoch`, `minutes`, `loss`, `pixel_accuracy`, `miou`."""


def write_log(rows: Sequence[Row], path: Path) -> None:
    """Write the whole log. The file at `path` is replaced only when the new one is complete."""
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({key: round(value, 5) for key, value in row.items()})


def write_curves(rows: Sequence[Row], path: Path, title: str) -> None:
    """Plot loss, pixel accuracy and mean IoU over the epochs as a PNG."""
    from matplotlib.figure import Figure  # not pyplot, which needs a display

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left = figure.add_subplot()
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) == 1 else ""
    left.plot(epochs, [row["loss"] for row in rows], color="tab:gray", marker=marker, label="training loss")
    left.set_xlabel("epoch")
    left.set_ylabel("training loss")
    right = left.twinx()
    for name, label, color in (("pixel_accuracy", "pixel accuracy", "tab:blue"), ("miou", "mean IoU", "tab:red")):
        values = [row[name] for row in rows]
        right.plot(epochs, values, color=color, marker=marker, label=f"{label}, best {max(values):.4f}")
    right.set_ylim(0, 1)
    right.set_ylabel("on val")
    right.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3)
    figure.suptitle(title)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=110)
