"""Write the tables of docs/performance.md from the files in benchmarks/results; `--check` exits with 1 if they differ.

Each table is between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"


def load(name: str) -> dict[str, Any]:
    """Read a result file."""
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def rows(head: list[str], body: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def items(name: str) -> list[dict[str, Any]]:
    """Return the single results of a `rtseg bench --json` file."""
    result = load(name)
    found: list[dict[str, Any]] = result.get("items", [result])
    return found


def pipeline(*names: str) -> str:
    """Return the table of FPS against the bound."""
    head = [
        "file",
        "model",
        "encoder",
        "FPS",
        "bound",
        "FPS / bound",
        "CPU time / sum of stages",
    ]
    body = []
    for name in names:
        for item in items(name):
            width, height = item["input_size"]
            body.append(
                [
                    item["input"].removesuffix(".mp4"),
                    f"{item['model'].removeprefix('camvid-')} {width}x{height}, {item['precision']}",
                    item["preset"],
                    f"**{item['fps']:.1f}** ({min(item['fps_runs']):.1f} to {max(item['fps_runs']):.1f})",
                    f"{item['bound_fps']:.1f}",
                    f"{item['of_bound']:.2f}",
                    f"{item['cpu_ratio']:.2f}",
                ]
            )
    return rows(head, body)


def stages(*names: str) -> str:
    """Return the table of CPU time per frame by stage."""
    head = ["file", "model", "encoder", "decode", "infer (network alone)", "overlay", "encode", "sum", "whole pipeline"]
    body = []
    for name in names:
        for item in items(name):
            alone = {stage: cost["cpu_ms"] for stage, cost in item["alone"].items()}
            body.append(
                [
                    item["input"].removesuffix(".mp4"),
                    f"{item['model'].removeprefix('camvid-')}, {item['precision']}",
                    item["preset"],
                    f"{alone['decode']:.1f}",
                    f"{alone['infer']:.1f} ({item['engine']['cpu_ms']:.1f})",
                    f"{alone['overlay']:.1f}",
                    f"{alone['encode']:.1f}",
                    f"{sum(alone.values()):.1f}",
                    f"{item['cpu_ms_a_frame']:.1f}",
                ]
            )
    return rows(head, body)


def peers(name: str) -> str:
    """Return the table of rtseg and other tools."""
    result = load(name)["peers"]
    ours = {key: [peer[key] for peer in result.values()] for key in ("rtseg", "rtseg_default")}
    bf16, default = (ours[key][0]["precision"].upper() for key in ("rtseg", "rtseg_default"))
    head = [
        "tool",
        "same x264 settings: FPS",
        f"speedup of rtseg, {bf16}",
        f"speedup of rtseg, default ({default})",
    ]
    head += ["own writer (MPEG-4): FPS", f"{bf16}", f"{default}", "memory, MiB"]
    body = []
    for peer in result.values():
        line = [peer["what"]]
        for writer in ("pyav", "own"):
            line.append(f"{peer[writer]['fps']:.1f}")
            for key, mark in (("ratio_rtseg", "**" if writer == "pyav" else ""), ("ratio_rtseg_default", "")):
                median, low, high = peer[writer][key]
                line.append(f"{mark}{median:.2f}{mark} ({low:.2f} to {high:.2f})")
        body.append([*line, f"{peer['pyav']['peak_rss_mib']:.0f}"])
    for key, runs in ours.items():
        fps = sorted(run["fps"] for run in runs)
        label = f"rtseg{' default' if key == 'rtseg_default' else ''}, {runs[0]['precision'].upper()}"
        body.append(
            [label, f"{fps[0]:.1f} to {fps[-1]:.1f}", *[""] * 5, f"{max(run['peak_rss_mib'] for run in runs):.0f}"]
        )
    return rows(head, body)


def scaling() -> str:
    """Return the table of cost by frame size."""
    head = [
        "frame size",
        "model",
        "FPS",
        "latency p50, p99 (ms)",
        "memory, MiB",
        "CPU time per frame (ms)",
    ]
    body = [
        [
            f"{row['size'][0]}x{row['size'][1]}",
            row["model"],
            f"{row['fps']:.1f}",
            f"{row['latency_ms_p50']:.0f}, {row['latency_ms_p99']:.0f}",
            f"{row['peak_rss_mib']:.0f}",
            f"{row['cpu_ms_a_frame']:.1f}",
        ]
        for row in load("scaling")["size"]
    ]
    return rows(head, body)


def profile(*names: str) -> str:
    """Return the table of CPU time per frame by library."""
    runs = [load(name) for name in names]
    head = [
        "code",
        *(f"{run['model'].removeprefix('camvid-')}, {run['precision']}, {_preset(run)}" for run in runs),
    ]
    body = [
        [part, *(f"{run['cpu_ms_a_frame'].get(part, 0):.1f}" for run in runs)] for part in runs[0]["cpu_ms_a_frame"]
    ]
    total = ["**sum**", *(f"**{run['cpu_ms_a_frame_total']:.1f}**" for run in runs)]
    return rows(head, [*body, total])


def _preset(run: dict[str, Any]) -> str:
    options = run["options"]
    return str(options[options.index("--preset") + 1]) if "--preset" in options else "veryfast"


TABLES: dict[str, Callable[[], str]] = {
    "pipeline": lambda: pipeline("bench-720p", "bench-720p-ultrafast", "bench-1080p", "bench-1080p-synthetic"),
    "stages": lambda: stages("bench-720p", "bench-720p-ultrafast", "bench-1080p", "bench-1080p-synthetic"),
    "profile": lambda: profile("profile-720p", "profile-720p-nano-ultrafast"),
    "peers": lambda: peers("peers-small-720p"),
    "scaling": scaling,
}


def filled(page: str) -> str:
    """Return the page with tables made from the results."""

    def replace(match: re.Match[str]) -> str:
        return f"<!-- table {match[1]} -->\n\n{TABLES[match[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->.*?<!-- end -->", replace, page, flags=re.DOTALL)


def main() -> int:
    """Write the page, or check it."""
    page = PAGE.read_text(encoding="utf-8")
    new = filled(page)
    if "--check" in sys.argv:
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
