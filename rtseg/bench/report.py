"""Reports of `rtseg bench`: a table, a chart, and a comparison of two results."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rtseg.core.errors import BackendError, OptionError
from rtseg.core.files import mark_image, write_whole
from rtseg.core.stats import STAGES
from rtseg.core.text_file import read_text

COMPARED = ("fps", "bound_fps", "of_bound", "cpu_ms_a_frame", "cpu_ratio", "peak_rss_mib")
"""Figures that `compare` compares, in addition to those of the stages."""


def items_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results of a result file as a list."""
    items: list[dict[str, Any]] = result.get("items", [result])
    return items


def label(item: dict[str, Any]) -> str:
    """Return a short description of a result: model, size, backend, precision and input."""
    width, height = item["input_size"]
    return f"{item['model']} {width}x{height}, {item['backend']} {item['precision']}, {item['input']}"


def table(items: Sequence[dict[str, Any]]) -> str:
    """Return the results as a table for a terminal: each stage, the whole pipeline, and the bound."""
    lines = []
    for item in items:
        engine = item["engine"]
        lines += [
            label(item),
            f"  {'':8}{'p50 ms':>9}{'p99 ms':>9}{'cpu ms':>9}{'fps':>8}",
            *(
                f"  {name:8}{cost['p50']:9.2f}{cost['p99']:9.2f}{cost['cpu_ms']:9.2f}{cost['fps']:8.0f}"
                for name, cost in (("engine", engine), *((stage, item["alone"][stage]) for stage in STAGES))
            ),
            f"  {'pipeline':8}{item['latency_ms']['p50']:9.2f}{item['latency_ms']['p99']:9.2f}"
            f"{item['cpu_ms_a_frame']:9.2f}{item['fps']:8.1f}",
            f"  bound {item['bound_fps']:.1f} fps on {item['cores']} cores: reached {item['of_bound']:.0%}, "
            f"with {item['cpu_ratio']:.2f} times the CPU time of the separate stages",
            f"  {item['advice']}",
            "",
        ]
    return "\n".join(lines).rstrip()


def require_chart() -> None:
    """Raise BackendError if matplotlib, which `write_chart` needs, is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BackendError('a chart needs matplotlib: pip install "rtseg[train]", or leave --chart out')


def write_chart(items: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a PNG with a bar of stage times, the frame rate and its bound for each result.

    Raises:
        BackendError: matplotlib is not installed.
        SinkError: the file can't be written.
    """
    require_chart()
    from matplotlib.figure import Figure  # not pyplot, which needs a display

    figure = Figure(figsize=(9, 1.6 + 0.8 * len(items)), layout="constrained")
    axes = figure.add_subplot()
    colors = dict(zip(STAGES, ("tab:blue", "tab:orange", "tab:green", "tab:red"), strict=True))
    for row, item in enumerate(items):
        left = 0.0
        for stage in STAGES:
            width = item["alone"][stage]["cpu_ms"]
            axes.barh(row, width, left=left, color=colors[stage], label=stage if row == 0 else None)
            if width > 0.05 * sum(item["alone"][s]["cpu_ms"] for s in STAGES):
                axes.text(left + width / 2, row, f"{width:.1f}", ha="center", va="center", color="white", fontsize=8)
            left += width
        axes.text(
            left,
            row,
            f"  {item['fps']:.1f} of {item['bound_fps']:.1f} fps ({item['of_bound']:.0%})",
            va="center",
            fontsize=9,
        )
    longest = max(sum(item["alone"][s]["cpu_ms"] for s in STAGES) for item in items)
    axes.set_xlim(0, longest * 1.35)
    axes.set_yticks(range(len(items)), [label(item).replace(", ", "\n", 1) for item in items], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("CPU time per frame, each stage measured separately (ms)")
    figure.legend(loc="outside upper right", ncols=4, fontsize=8)
    machine = items[0]["machine"]
    figure.suptitle(f"{machine['processor']}, {machine['cores']} cores", fontsize=9, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    write_whole(path, mark_image(buffer.getvalue()))


def load_result(path: Path) -> dict[str, Any]:
    """Read a file that `rtseg bench --json` wrote.

    Raises:
        OptionError: the file is missing or is not a benchmark result.
    """
    try:
        result = json.loads(read_text(path))
        for item in items_of(result):
            for key in ("alone", *COMPARED):
                item[key]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"{path} is not a result of `rtseg bench --json`") from error
    return dict(result)


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare two results item by item.

    Returns:
        A row for each figure, with `item`, `what` (name of the figure), `before`, `after` and `ratio` (after / before; None if
        before is zero).

    Raises:
        OptionError: the results have different numbers of items.
    """
    old, new = items_of(before), items_of(after)
    if len(old) != len(new):
        raise OptionError(
            f"the first file contains {len(old)} results, the second {len(new)}: measure the same in both"
        )
    rows = []
    for old_item, new_item in zip(old, new, strict=True):
        pairs = [
            (f"{stage} cpu ms", old_item["alone"][stage]["cpu_ms"], new_item["alone"][stage]["cpu_ms"])
            for stage in STAGES
        ]
        pairs += [(name.replace("_", " "), old_item[name], new_item[name]) for name in COMPARED]
        name = label(old_item)
        if label(old_item) != label(new_item):
            name = f"{label(old_item)} compared with {label(new_item)}"
        for what, first, second in pairs:
            ratio = round(second / first, 4) if first else None
            rows.append({"item": name, "what": what, "before": first, "after": second, "ratio": ratio})
    return rows


def compare_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows of `compare` as a table for a terminal."""
    lines, item = [], None
    for row in rows:
        if row["item"] != item:
            item = row["item"]
            lines += [str(item), f"  {'':16}{'before':>10}{'after':>10}{'ratio':>8}"]
        ratio = "" if row["ratio"] is None else f"{row['ratio']:8.2f}"
        lines.append(f"  {row['what']:16}{row['before']:10.2f}{row['after']:10.2f}{ratio}")
    return "\n".join(lines)
