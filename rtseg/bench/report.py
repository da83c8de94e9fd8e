"""Reports of `rtseg bench`: a table, a chart, and a comparison of two results."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtseg.core.errors import BackendError, OptionError
from rtseg.core.files import mark_image, write_whole
from rtseg.core.report import EMBEDDED, Percentiles, Report, RunIdentity
from rtseg.core.stats import STAGES
from rtseg.core.text_file import read_text
from rtseg.core.video_report import VideoReport

_COMPARED = ("fps", "bound_fps", "of_bound", "cpu_ms_a_frame", "cpu_ratio", "peak_rss_mib")
"""Figures that `compare` compares, in addition to those of the stages."""


@dataclass(frozen=True, kw_only=True)
class StageCostReport(Percentiles):
    """Cost of one stage, measured separately: percentiles of the wall time per frame."""

    cpu_ms: float
    """CPU time per frame of all threads."""

    fps: float
    streams: int | None = None
    """Number of parallel inferences; only of the network."""


@dataclass(frozen=True, kw_only=True)
class MachineReport(Report):
    """Machine on which a benchmark ran."""

    processor: str
    cores: int
    system: str
    python: str
    packages: Mapping[str, str]
    """Version by package."""


@dataclass(frozen=True, kw_only=True)
class BenchReport(Report):
    """Result of one model on one backend with one file."""

    video: VideoReport = field(metadata=EMBEDDED)
    """Run of the whole pipeline with the median frame rate."""

    alone: Mapping[str, StageCostReport]
    """Each stage, measured separately."""

    engine: StageCostReport
    """The network without scaling and color conversion."""

    cores: int
    bound_fps: float
    """Highest frame rate that the cores allow with these stages."""

    of_bound: float
    """Frame rate of the pipeline divided by the bound."""

    cpu_ms_a_frame: float
    """CPU time per frame of the pipeline."""

    cpu_ratio: float
    """CPU time per frame of the pipeline divided by the sum over the stages."""

    fps_runs: tuple[float, ...]
    """Frame rate of each run of the pipeline, sorted."""

    advice: str
    """The bottleneck and its remedy in one line."""

    machine: MachineReport
    preset: str
    """Encoder preset."""


def results_to_dict(items: Sequence[BenchReport]) -> dict[str, Any]:
    """Return the JSON object of `--json`: that of the only result, or one with all results under `items`."""
    if len(items) == 1:
        return items[0].to_dict()
    return {
        "command": "bench",
        "machine": items[0].machine.to_dict(),
        "items": [item.to_dict() for item in items],
    }


def label(identity: RunIdentity) -> str:
    """Return a short description of a result: model, size, backend, precision and input."""
    width, height = identity.input_size
    return f"{identity.model} {width}x{height}, {identity.backend} {identity.precision}, {identity.input}"


def table(item: BenchReport) -> str:
    """Return a result as a table for a terminal: each stage, the whole pipeline, and the bound."""
    pipeline = item.video.pipeline
    lines = [
        label(item.video.identity),
        f"  {'':8}{'p50 ms':>9}{'p99 ms':>9}{'cpu ms':>9}{'fps':>8}",
        *(
            f"  {name:8}{cost.p50:9.2f}{cost.p99:9.2f}{cost.cpu_ms:9.2f}{cost.fps:8.0f}"
            for name, cost in (("engine", item.engine), *((stage, item.alone[stage]) for stage in STAGES))
        ),
        f"  {'pipeline':8}{pipeline.latency_ms.p50:9.2f}{pipeline.latency_ms.p99:9.2f}"
        f"{item.cpu_ms_a_frame:9.2f}{pipeline.fps:8.1f}",
        f"  bound {item.bound_fps:.1f} fps on {item.cores} cores: reached {item.of_bound:.0%}, "
        f"with {item.cpu_ratio:.2f} times the CPU time of the separate stages",
        f"  {item.advice}",
    ]
    return "\n".join(lines)


def require_chart() -> None:
    """Raise BackendError if matplotlib is not installed. Call it before the measurements for `write_chart`."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BackendError('a chart needs matplotlib: pip install "rtseg[train]", or leave --chart out')


def write_chart(items: Sequence[BenchReport], path: Path) -> None:
    """Write a PNG with a bar of stage times, the frame rate and its bound for each result."""
    from matplotlib.figure import Figure  # not pyplot, which needs a display

    figure = Figure(figsize=(9, 1.6 + 0.8 * len(items)), layout="constrained")
    axes = figure.add_subplot()
    colors = dict(zip(STAGES, ("tab:blue", "tab:orange", "tab:green", "tab:red"), strict=True))
    totals = [sum(item.alone[stage].cpu_ms for stage in STAGES) for item in items]
    for row, (item, total) in enumerate(zip(items, totals, strict=True)):
        left = 0.0
        for stage in STAGES:
            width = item.alone[stage].cpu_ms
            axes.barh(row, width, left=left, color=colors[stage], label=stage if row == 0 else None)
            if width > 0.05 * total:
                axes.text(left + width / 2, row, f"{width:.1f}", ha="center", va="center", color="white", fontsize=8)
            left += width
        reached = f"  {item.video.pipeline.fps:.1f} of {item.bound_fps:.1f} fps ({item.of_bound:.0%})"
        axes.text(left, row, reached, va="center", fontsize=9)
    axes.set_xlim(0, max(totals) * 1.35)
    axes.set_yticks(
        range(len(items)), [label(item.video.identity).replace(", ", "\n", 1) for item in items], fontsize=8
    )
    axes.invert_yaxis()
    axes.set_xlabel("CPU time per frame, each stage measured separately (ms)")
    figure.legend(loc="outside upper right", ncols=4, fontsize=8)
    machine = items[0].machine
    figure.suptitle(f"{machine.processor}, {machine.cores} cores", fontsize=9, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    write_whole(path, mark_image(buffer.getvalue()))


# Comparison


@dataclass(frozen=True)
class SavedResult:
    """Figures of a result that `rtseg bench --json` wrote."""

    label: str
    figures: Mapping[str, float]
    """Figures to compare, by name."""


@dataclass(frozen=True)
class ComparedFigure(Report):
    """Figure in two results."""

    item: str
    """Label of the result."""

    what: str
    """Name of the figure."""

    before: float
    after: float
    ratio: float | None
    """`after` / `before`; None if `before` is zero."""


def load_results(path: Path) -> list[SavedResult]:
    """Read a file that `rtseg bench --json` wrote.

    Raises:
        OptionError: the file is missing or is not a benchmark result.
    """
    try:
        data = json.loads(read_text(path))
        return [_saved_result(item) for item in data.get("items", [data])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"{path} is not a result of `rtseg bench --json`") from error


def _saved_result(item: Mapping[str, Any]) -> SavedResult:
    identity = RunIdentity(**{entry: item[entry] for entry in RunIdentity.__dataclass_fields__})
    figures = {f"{stage} cpu ms": float(item["alone"][stage]["cpu_ms"]) for stage in STAGES}
    return SavedResult(label(identity), figures | {name.replace("_", " "): float(item[name]) for name in _COMPARED})


def compare(before: Sequence[SavedResult], after: Sequence[SavedResult]) -> list[ComparedFigure]:
    """Compare two files item by item.

    Raises:
        OptionError: the files have different numbers of results.
    """
    if len(before) != len(after):
        raise OptionError(
            f"the first file contains {len(before)} results, the second {len(after)}: measure the same in both"
        )
    rows = []
    for old, new in zip(before, after, strict=True):
        name = old.label if old.label == new.label else f"{old.label} compared with {new.label}"
        for what, first in old.figures.items():
            second = new.figures[what]
            rows.append(ComparedFigure(name, what, first, second, round(second / first, 4) if first else None))
    return rows


def compare_table(rows: Sequence[ComparedFigure]) -> str:
    """Return the rows of `compare` as a table for a terminal."""
    lines, item = [], None
    for row in rows:
        if row.item != item:
            item = row.item
            lines += [item, f"  {'':16}{'before':>10}{'after':>10}{'ratio':>8}"]
        ratio = "" if row.ratio is None else f"{row.ratio:8.2f}"
        lines.append(f"  {row.what:16}{row.before:10.2f}{row.after:10.2f}{ratio}")
    return "\n".join(lines)
