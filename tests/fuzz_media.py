"""Fuzzer: modifies small video files of every container and processes each with source, sink and fidelity report.

    python tests/fuzz_media.py --cases 20000 --seed 1 --jobs 2

The result of every case must be a video with the content of its input, according to a reading without rtseg
(`fuzz_reading.py`), or an error message of one line, without a memory leak. Cases run in batches, each in a separate process,
so that a crash in a native library is detected. The results of complete batches are stored in the folder of `--keep`: a stopped
run continues from there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fuzz_child import GOOD, MEMORY_MIB, SECONDS_PER_CASE  # noqa: E402
from fuzz_seeds import seeds  # noqa: E402
from proofs import keep_proof  # noqa: E402

from rtseg.core.files import write_whole  # noqa: E402

BATCH_CASES = 200
WARM_UP_CASES = 60
"""Number of cases after which a process has allocated its permanent memory: codecs, tables, pools."""

GROWTH_MIB = 16
"""Maximum further growth until the end of a batch. A leak of a frame or codec in one case of ten exceeds it."""

REPORTED_FAILURES = {"broken", "unwritten"}
"""Results without an output, which are reported as such, although plain FFmpeg reads the input. They are listed separately."""

MAX_LISTED = 200
"""Maximum number of lines of each list in the stored figures; all lines are printed."""


@dataclass
class Outcome:
    """Results of the cases."""

    kinds: Counter[str] = field(default_factory=Counter)
    """Number of cases by result. `ok`: the output matches the input. `repaired`: it matches and the repairs are reported.
    `refused`: one line about the input. `not made`: FFmpeg's muxer could not create the case. `broken`: the report contains a
    failure. `unwritten`: one line about the output. Not permitted: `wrong`, `hang`, `two lines`, `traceback`, `crash`,
    `memory`, `growth`."""

    families: Counter[str] = field(default_factory=Counter)
    """Number of cases by family of changes and result: `stamps wrong`."""

    differs: Counter[str] = field(default_factory=Counter)
    """Number of wrong cases by difference: `frames`, `times`, `offset`, `audio`, `video`, `order`, `default`."""

    failures: list[str] = field(default_factory=list)
    """One line for each result that is not permitted."""

    honest: list[str] = field(default_factory=list)
    """One line for each of `REPORTED_FAILURES`."""

    peak_mib: int = 0
    """Peak memory of a process."""

    growth_mib: list[float] = field(default_factory=list)
    """Result of `growth` for each batch that is long enough."""

    cpu_seconds: float = 0.0

    def add(self, other: Outcome) -> None:
        """Add the results of a batch."""
        self.kinds.update(other.kinds)
        self.families.update(other.families)
        self.differs.update(other.differs)
        self.failures += other.failures
        self.honest += other.honest
        self.peak_mib = max(self.peak_mib, other.peak_mib)
        self.growth_mib += other.growth_mib
        self.cpu_seconds += other.cpu_seconds


def growth(resident: list[float]) -> float | None:
    """Return the memory growth after the warm-up in MiB, from medians of ten cases each; None if there are too few cases.

    The largest step is ignored: one case with a higher peak leaves a larger heap, but a leak has many steps.
    """
    if len(resident) < WARM_UP_CASES + 20:
        return None
    medians = [float(np.median(resident[end - 10 : end])) for end in range(WARM_UP_CASES + 10, len(resident) + 1)]
    steps = [later - earlier for earlier, later in zip(medians, medians[10:], strict=False)]
    return medians[-1] - medians[0] - max(0.0, *steps)


def run_batch(folder: Path, seed: int, first: int, count: int, keep: Path | None) -> Outcome:
    """Run a batch in a separate process, and continue in another one after a crash."""
    outcome = Outcome()
    # One heap for all threads, so that growth means a leak and not fragmentation of many heaps.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    number, after = first, first + count
    while number < after:
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryDirectory() as current:
            command = [sys.executable, str(ROOT / "tests" / "fuzz_child.py"), str(folder), current, str(keep or "")]
            command += [str(seed), str(number), str(after - number)]
            try:
                limit = (after - number) * SECONDS_PER_CASE
                code = subprocess.run(command, stdout=output, env=environment, timeout=limit, check=False).returncode
            except subprocess.TimeoutExpired:
                code = -signal.SIGKILL
            output.seek(0)
            lines = [json.loads(line) for line in output if line.startswith("{") and line.endswith("}\n")]
            results = [line for line in lines if "kind" in line]
            _add_results(outcome, results)
            number += len(results)
            if code != 0:
                _add_crash(outcome, number, code, lines[-1] if lines else {})
                if keep is not None:
                    for path in Path(current).iterdir():
                        shutil.copy(path, keep)
                number += 1
    return outcome


def _add_crash(outcome: Outcome, number: int, code: int, last: dict[str, Any]) -> None:
    if "make" in last:
        outcome.kinds["not made"] += 1
        return
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    family = last.get("family", "start")
    outcome.kinds["crash"] += 1
    outcome.families[f"{family} crash"] += 1
    outcome.failures.append(f"case {number}: crash: the process ended by {cause}: {family} {last.get('change', '')}")


def _add_results(outcome: Outcome, results: list[dict[str, Any]]) -> None:
    for line in results:
        outcome.peak_mib = max(outcome.peak_mib, line["peak_mib"])
        if line["peak_mib"] > MEMORY_MIB:
            line["kind"], line["line"] = "memory", f"{line['peak_mib']} MiB, more than {MEMORY_MIB}"
        outcome.kinds[line["kind"]] += 1
        outcome.families[f"{line['family']} {line['kind']}"] += 1
        outcome.differs.update(set(line["differs"]))
        if line["kind"] not in GOOD:
            (outcome.honest if line["kind"] in REPORTED_FAILURES else outcome.failures).append(
                f"case {line['end']}: {line['kind']}: {line['line']} ({line['family']} {line['change']})"
            )
    if results:
        outcome.cpu_seconds += results[-1]["cpu_seconds"]
    grown = growth([line["resident_mib"] for line in results])
    if grown is not None:
        outcome.growth_mib.append(round(grown, 1))
        if grown > GROWTH_MIB:
            outcome.kinds["growth"] += 1
            outcome.failures.append(
                f"cases {results[0]['end']} to {results[-1]['end']}: memory grew by {grown:.0f} MiB"
            )


def fuzz(
    cases: int, seed: int, keep: Path | None, first: int = 0, jobs: int = 1, show: bool = False, fresh: bool = False
) -> Outcome:
    """Run all cases that no earlier run of this seed has completed.

    Args:
        cases: number of cases.
        seed: random seed of the cases.
        keep: folder for the seed files, the complete batches and the files that failed; None: store nothing.
        first: number of the first case.
        jobs: number of concurrent processes.
        show: print the progress.
        fresh: ignore the results of earlier runs.
    """
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as name:
        folder = _seed_folder(Path(name), keep, fresh)
        done_file = keep / f"done-{seed}.json" if keep else None
        done: dict[str, Any] = {"code": code_hash()}
        if done_file is not None and done_file.exists() and not fresh:
            before = json.loads(done_file.read_text())
            done = before if before.get("code") == done["code"] else done
        waiting = []
        for begin in range(first, first + cases, BATCH_CASES):
            count = min(BATCH_CASES, first + cases - begin)
            if finished := done.get(f"{begin}+{count}"):
                outcome.add(Outcome(**finished))
            else:
                waiting.append((begin, count))
        with ThreadPoolExecutor(jobs) as pool:
            running = {pool.submit(run_batch, folder, seed, *part, keep): part for part in waiting}
            try:
                for future in as_completed(running):
                    outcome.add(future.result())
                    begin, count = running[future]
                    done[f"{begin}+{count}"] = vars(future.result())
                    if done_file is not None:
                        write_whole(done_file, json.dumps(done).encode())
                    if show:
                        total = sum(outcome.kinds.values())
                        print(f"{total} of {cases} cases: {dict(outcome.kinds)}", file=sys.stderr, flush=True)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return outcome


def code_hash() -> str:
    """Return a hash of all code that affects the results. Results of other code are not reused."""
    digest = hashlib.blake2b(av.__version__.encode(), digest_size=16)
    for path in sorted([*(ROOT / "rtseg").rglob("*.py"), *(ROOT / "tests").glob("fuzz_*.py"), ROOT / "tests/media.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _seed_folder(temporary: Path, keep: Path | None, fresh: bool) -> Path:
    """Return the folder of the seed files. A continued run uses the stored ones, so that its cases are the same."""
    if keep is None:
        seeds(temporary)
        return temporary
    folder = keep / "seeds"
    complete = folder / code_hash()
    if fresh or not complete.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        seeds(folder)
        complete.mkdir()
    return folder


def main() -> int:
    """Print the results. Return 1 if there are failures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to repeat one")
    parser.add_argument("--jobs", type=int, default=1, help="number of concurrent processes")
    parser.add_argument("--keep", type=Path, default=None, help="folder for complete batches and files that failed")
    parser.add_argument("--fresh", action="store_true", help="repeat complete batches")
    options = parser.parse_args()
    began = time.monotonic()
    outcome = fuzz(**vars(options), show=True)
    for line in (*outcome.honest, *outcome.failures):
        print(line)
    max_growth = max(outcome.growth_mib, default=None)
    families: dict[str, dict[str, int]] = {}
    for name, count in sorted(outcome.families.items()):
        family, _, kind = name.partition(" ")
        families.setdefault(family, {})[kind] = count
    figures = {
        "cases": options.cases,
        "seconds": round(time.monotonic() - began),
        "cpu_seconds": round(outcome.cpu_seconds),
        "ended": dict(outcome.kinds),
        "families": families,
        "wrong_in": dict(outcome.differs),
        "failures": outcome.failures[:MAX_LISTED],
        "broken_or_unwritten": outcome.honest[:MAX_LISTED],
        "peak_mib": outcome.peak_mib,
        "stretch_cases": BATCH_CASES,
        "largest_growth_in_a_stretch_mib": max_growth,
    }
    keep_proof("fuzz", f"python tests/fuzz_media.py --cases {options.cases} --seed {options.seed}", figures)
    for family, kinds in families.items():
        print(f"{family:8} {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}")
    print(
        f"{options.cases} cases, {figures['cpu_seconds']} s of CPU: {dict(outcome.kinds)}; "
        f"at most {outcome.peak_mib} MiB, grew by {max_growth} MiB"
    )
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
