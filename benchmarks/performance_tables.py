"""Writes the tables of docs/performance.md from the files in benchmarks/results; `--check` only says whether they are there.

Each table stands between `<!-- table NAME -->` and `<!-- end -->`; what stands there is replaced.
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
    """A result file."""
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def rows(head: list[str], body: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def items(name: str) -> list[dict[str, Any]]:
    """The single results of a `rtseg bench --json` file."""
    result = load(name)
    found: list[dict[str, Any]] = result.get("items", [result])
    return found


def road(*names: str) -> str:
    """The whole road against its bound."""
    head = [
        "file",
        "model",
        "encoder",
        "frames a second",
        "bound",
        "reached",
        "processor time against the stages alone",
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
    """Where each millisecond goes: processor time of a frame by stage."""
    head = ["file", "model", "encoder", "decode", "infer (network alone)", "overlay", "encode", "sum", "on the road"]
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
    """rtseg beside what people would use instead."""
    result = load(name)["peers"]
    ours = {key: [told[key] for told in result.values()] for key in ("rtseg", "rtseg_default")}
    bf16, default = (ours[key][0]["precision"].upper() for key in ("rtseg", "rtseg_default"))
    head = [
        "what",
        "same x264 settings: fps",
        f"rtseg, {bf16}: times as fast",
        f"rtseg by itself, {default}: times as fast",
    ]
    head += ["own writer (MPEG-4): fps", f"{bf16}", f"{default}", "memory, MiB"]
    body = []
    for told in result.values():
        line = [told["what"]]
        for writer in ("pyav", "own"):
            line.append(f"{told[writer]['fps']:.1f}")
            for key, mark in (("ratio_rtseg", "**" if writer == "pyav" else ""), ("ratio_rtseg_default", "")):
                median, low, high = told[writer][key]
                line.append(f"{mark}{median:.2f}{mark} ({low:.2f} to {high:.2f})")
        body.append([*line, f"{told['pyav']['peak_rss_mib']:.0f}"])
    for key, runs in ours.items():
        fps = sorted(run["fps"] for run in runs)
        label = f"rtseg{' by itself' if key == 'rtseg_default' else ''}, {runs[0]['precision'].upper()}"
        body.append(
            [label, f"{fps[0]:.1f} to {fps[-1]:.1f}", *[""] * 5, f"{max(run['peak_rss_mib'] for run in runs):.0f}"]
        )
    return rows(head, body)


def scaling() -> str:
    """How cost grows with the picture's size."""
    head = [
        "picture",
        "model",
        "frames a second",
        "latency p50, p99 (ms)",
        "memory, MiB",
        "processor time a frame (ms)",
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
    """Whose code ran, in milliseconds of processor time for a frame."""
    runs = [load(name) for name in names]
    head = [
        "whose code",
        *(f"{run['model'].removeprefix('camvid-')}, {run['precision']}, {_preset(run)}" for run in runs),
    ]
    body = [
        [part, *(f"{run['cpu_ms_a_frame'].get(part, 0):.1f}" for run in runs)] for part in runs[0]["cpu_ms_a_frame"]
    ]
    total = ["**together**", *(f"**{run['cpu_ms_a_frame_total']:.1f}**" for run in runs)]
    return rows(head, [*body, total])


def _preset(run: dict[str, Any]) -> str:
    options = run["options"]
    return str(options[options.index("--preset") + 1]) if "--preset" in options else "veryfast"


TABLES: dict[str, Callable[[], str]] = {
    "road": lambda: road("bench-720p", "bench-720p-ultrafast", "bench-1080p", "bench-1080p-drawn"),
    "stages": lambda: stages("bench-720p", "bench-720p-ultrafast", "bench-1080p", "bench-1080p-drawn"),
    "profile": lambda: profile("profile-720p", "profile-720p-nano-ultrafast"),
    "peers": lambda: peers("peers-small-720p"),
    "scaling": scaling,
}


def filled(page: str) -> str:
    """The page with its tables as the results have them."""

    def replace(match: re.Match[str]) -> str:
        return f"<!-- table {match[1]} -->\n\n{TABLES[match[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->.*?<!-- end -->", replace, page, flags=re.DOTALL)


def main() -> int:
    """Writes, or checks."""
    page = PAGE.read_text(encoding="utf-8")
    new = filled(page)
    if "--check" in sys.argv:
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
