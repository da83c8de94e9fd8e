"""Kills `rtseg video` and `rtseg live --record` repeatedly at random moments and checks the remaining files.

    python tests/kills.py --kills 100 --jobs 2

A moment is a frame of the run, or a share of the time to complete the file, so that it does not depend on the speed of the
machine. Prints a table. The exit code is 1 if a file under a final name is incomplete, if a remaining file is not playable, or
if the next run does not complete.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from kill_runs import Kind, kill_live, kill_video  # noqa: E402
from proofs import keep_proof  # noqa: E402

VIDEO = [Kind(f"video {s[1:]}{' with audio' * a}", s, audio=a) for s in (".mp4", ".mkv", ".mov", ".ts") for a in (0, 1)]
LIVE = [Kind(f"live {s[1:]}{' segments' * c}", s, segments=c) for s in (".mp4", ".mkv", ".ts", ".mov") for c in (0, 1)]


def shares(total: int, parts: int) -> Iterator[int]:
    """Split `total` into parts that differ by at most 1."""
    for part in range(parts):
        yield total // parts + (part < total % parts)


def run_kills(kills: int, jobs: int, seed: int = 7) -> list[Kind]:
    """Run a number of kills of `video` and the same number of `live`, distributed over their kinds."""
    work = []
    for kinds, kill in ((VIDEO, kill_video), (LIVE, kill_live)):
        for number, (kind, runs) in enumerate(zip(kinds, shares(kills, len(kinds)), strict=True)):
            if runs:
                work.append((kill, kind, runs, np.random.default_rng([seed, number])))

    def run(kill: Any, kind: Kind, runs: int, random: np.random.Generator) -> Kind:
        with tempfile.TemporaryDirectory() as name:
            try:
                kill(kind, runs, Path(name), random)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                kind.problems.append(f"{type(error).__name__}: {error}")
        print(f"{kind.name}: {kind.runs} runs", file=sys.stderr, flush=True)
        return kind

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda parts: run(*parts), work))


def table(kinds: Sequence[Kind]) -> str:
    """Return the table of results."""
    header = ("kind", "runs", "playable", "lost s (median)", "lost s (most)", "leftovers", "incomplete", "next run")
    rows = [header]
    for kind in kinds:
        row = kind.row()
        leftovers = ", ".join(f"{count} x {file}" for file, count in kind.leftovers.items()) or "none"
        lost = (row["lost_seconds_median"], row["lost_seconds_most"])
        next_run = "completes" if kind.resumed else "FAILS"
        rows.append((kind.name, kind.runs, kind.playable, *lost, leftovers, kind.incomplete_finals, next_run))
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(header))]
    return "\n".join("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> int:
    """Print the table. Return 1 if there are problems."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = int(os.environ.get("RTSEG_KILLS", "100"))
    parser.add_argument("--kills", type=int, default=default, help="number of kills of `video`, and of `live`")
    parser.add_argument("--jobs", type=int, default=2, help="number of concurrent kinds")
    options = parser.parse_args()
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    kinds = run_kills(options.kills, options.jobs)
    problems = [f"{kind.name}: {problem}" for kind in kinds for problem in kind.problems]
    print(table(kinds))
    print(*problems, sep="\n" if problems else "")
    figures = {
        "runs": sum(kind.runs for kind in kinds),
        "seconds": round(time.monotonic() - began),
        "kinds": [kind.row() for kind in kinds],
    }
    keep_proof("kills", f"python tests/kills.py --kills {options.kills}", figures)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
