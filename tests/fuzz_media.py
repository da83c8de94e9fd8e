"""Changes small video files of every container and takes each through source, sink and fidelity report.

    python tests/fuzz_media.py --cases 20000 --seed 1 --jobs 2

Every case must end as a video that shows what its input shows, by a reading that knows nothing of rtseg (`fuzz_reading.py`),
or as one line, and leave no memory behind. Cases run in stretches, each in a process of its own, so that a crash in a native
library is seen as one. What a finished stretch found is kept in the folder of `--keep`: a run that was stopped goes on there.
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

STRETCH = 200
SETTLED_CASES = 60
"""Cases after which a process has loaded and allocated what it keeps: codecs, tables, pools."""

GROWTH_MIB = 16
"""What may come on top of that until the end of a stretch. A picture or codec lost in one case of ten makes more."""

HONEST = {"broken", "unwritten"}
"""No result, and it says so, although plain FFmpeg reads the input: listed apart, as something to look at."""


LISTED = 200
"""Lines of each list that are kept with the figures; all are printed."""


@dataclass
class Outcome:
    """How the cases ended."""

    kinds: Counter[str] = field(default_factory=Counter)
    """How many ended as `ok` (the output shows what the input shows), as `repaired` (and it said what it repaired), as
    `refused` (one line); as `not made` (FFmpeg's muxer could not make the case); as `broken` (the report says so) or
    `unwritten` (one line about the output); or as none may: `wrong`, `hang`, `two lines`, `traceback`, `crash`, `memory`,
    `growth`."""

    families: Counter[str] = field(default_factory=Counter)
    """The same for each family of changes: `stamps wrong`."""

    differs: Counter[str] = field(default_factory=Counter)
    """In what the wrong ones differ: `frames`, `times`, `offset`, `audio`, `video`, `order`, `default`."""

    failures: list[str] = field(default_factory=list)
    """A line for each that ended as none may."""

    honest: list[str] = field(default_factory=list)
    """A line for each that gave no result, and said so."""

    peak_mib: int = 0
    """The most memory that a process had at any time."""

    growth_mib: list[float] = field(default_factory=list)
    """For each stretch that is long enough: see `growth`."""

    cpu_seconds: float = 0.0

    def add(self, other: dict[str, Any]) -> None:
        """Takes what a stretch found."""
        self.kinds.update(other["kinds"])
        self.families.update(other["families"])
        self.differs.update(other["differs"])
        self.failures += other["failures"]
        self.honest += other["honest"]
        self.peak_mib = max(self.peak_mib, other["peak_mib"])
        self.growth_mib += other["growth_mib"]
        self.cpu_seconds += other["cpu_seconds"]

    def to_dict(self) -> dict[str, Any]:
        """For the file of finished stretches."""
        return {
            "kinds": dict(self.kinds),
            "families": dict(self.families),
            "differs": dict(self.differs),
            "failures": self.failures,
            "honest": self.honest,
            "peak_mib": self.peak_mib,
            "growth_mib": self.growth_mib,
            "cpu_seconds": self.cpu_seconds,
        }


def growth(resident: list[float]) -> float | None:
    """What came on top of the settled memory until the end, MiB: the medians of ten cases each. None: too few cases.

    Without the largest step: a case that needs more than all before it leaves a larger heap, once; a leak has many steps.
    """
    if len(resident) < SETTLED_CASES + 20:
        return None
    medians = [float(np.median(resident[end - 10 : end])) for end in range(SETTLED_CASES + 10, len(resident) + 1)]
    steps = [later - earlier for earlier, later in zip(medians, medians[10:], strict=False)]
    return medians[-1] - medians[0] - max(0.0, *steps)


def run_stretch(folder: Path, seed: int, first: int, count: int, keep: Path | None) -> Outcome:
    """Runs a stretch in processes of its own: more than one only where one crashes."""
    outcome = Outcome()
    # One heap for all threads, so that what grows is what was not given back, and not the holes of many heaps.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    number, after = first, first + count
    while number < after:
        with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryDirectory() as now:
            command = [sys.executable, str(ROOT / "tests" / "fuzz_child.py"), str(folder), now, str(keep or "")]
            command += [str(seed), str(number), str(after - number)]
            try:
                limit = (after - number) * SECONDS_PER_CASE
                code = subprocess.run(command, stdout=told, env=environment, timeout=limit, check=False).returncode
            except subprocess.TimeoutExpired:
                code = -signal.SIGKILL
            told.seek(0)
            lines = [json.loads(line) for line in told if line.startswith("{") and line.endswith("}\n")]
            ended = [line for line in lines if "kind" in line]
            _take(outcome, ended)
            number += len(ended)
            if code != 0:
                _take_crash(outcome, number, code, lines[-1] if lines else {})
                if keep is not None:
                    for path in Path(now).iterdir():
                        shutil.copy(path, keep)
                number += 1
    return outcome


def _take_crash(outcome: Outcome, number: int, code: int, last: dict[str, Any]) -> None:
    if "make" in last:
        outcome.kinds["not made"] += 1
        return
    what = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    family = last.get("family", "start")
    outcome.kinds["crash"] += 1
    outcome.families[f"{family} crash"] += 1
    outcome.failures.append(f"case {number}: crash: the process ended by {what}: {family} {last.get('told', '')}")


def _take(outcome: Outcome, ended: list[dict[str, Any]]) -> None:
    for line in ended:
        outcome.peak_mib = max(outcome.peak_mib, line["peak_mib"])
        if line["peak_mib"] > MEMORY_MIB:
            line["kind"], line["line"] = "memory", f"{line['peak_mib']} MiB, more than {MEMORY_MIB}"
        outcome.kinds[line["kind"]] += 1
        outcome.families[f"{line['family']} {line['kind']}"] += 1
        outcome.differs.update(set(line["differs"]))
        if line["kind"] not in GOOD:
            (outcome.honest if line["kind"] in HONEST else outcome.failures).append(
                f"case {line['end']}: {line['kind']}: {line['line']} ({line['family']} {line['told']})"
            )
    if ended:
        outcome.cpu_seconds += ended[-1]["cpu_seconds"]
    more = growth([line["resident_mib"] for line in ended])
    if more is not None:
        outcome.growth_mib.append(round(more, 1))
        if more > GROWTH_MIB:
            outcome.kinds["growth"] += 1
            outcome.failures.append(f"cases {ended[0]['end']} to {ended[-1]['end']}: memory grew by {more:.0f} MiB")


def fuzz(
    cases: int, seed: int, keep: Path | None, first: int = 0, jobs: int = 1, show: bool = False, fresh: bool = False
) -> Outcome:
    """Runs all cases that no earlier run of this seed has finished.

    Args:
        cases: how many.
        seed: another seed makes other cases.
        keep: folder for the seeds, the finished stretches and the files that failed; None: nothing is kept.
        first: number of the first case.
        jobs: processes at the same time.
        show: print how far it is.
        fresh: forget what an earlier run has finished.
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
        for begin in range(first, first + cases, STRETCH):
            count = min(STRETCH, first + cases - begin)
            finished = done.get(f"{begin}+{count}")
            if finished:
                outcome.add(finished)
            else:
                waiting.append((begin, count))
        with ThreadPoolExecutor(jobs) as pool:
            running = {pool.submit(run_stretch, folder, seed, *part, keep): part for part in waiting}
            try:
                for future in as_completed(running):
                    found = future.result().to_dict()
                    outcome.add(found)
                    begin, count = running[future]
                    done[f"{begin}+{count}"] = found
                    if done_file is not None:
                        beside = done_file.with_suffix(".new")
                        beside.write_text(json.dumps(done))
                        beside.replace(done_file)
                    if show:
                        total = sum(outcome.kinds.values())
                        print(f"{total} of {cases} cases: {dict(outcome.kinds)}", file=sys.stderr, flush=True)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return outcome


def code_hash() -> str:
    """Of all code that decides how a case ends: what other code finished is done again."""
    digest = hashlib.blake2b(av.__version__.encode(), digest_size=16)
    for path in sorted([*(ROOT / "rtseg").rglob("*.py"), *(ROOT / "tests").glob("fuzz_*.py"), ROOT / "tests/media.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _seed_folder(temporary: Path, keep: Path | None, fresh: bool) -> Path:
    """Where the healthy files are: kept ones where a run goes on, so that its cases are the same."""
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
    """Prints the result; 1 where a case ended as none may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to repeat one")
    parser.add_argument("--jobs", type=int, default=1, help="processes at the same time")
    parser.add_argument("--keep", type=Path, default=None, help="folder for finished stretches and files that failed")
    parser.add_argument("--fresh", action="store_true", help="do finished stretches again")
    options = parser.parse_args()
    began = time.monotonic()
    outcome = fuzz(
        options.cases, options.seed, options.keep, options.first, options.jobs, show=True, fresh=options.fresh
    )
    for line in (*outcome.honest, *outcome.failures):
        print(line)
    most = max(outcome.growth_mib, default=None)
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
        "failures": outcome.failures[:LISTED],
        "broken_or_unwritten": outcome.honest[:LISTED],
        "peak_mib": outcome.peak_mib,
        "stretch_cases": STRETCH,
        "largest_growth_in_a_stretch_mib": most,
    }
    keep_proof("fuzz", f"python tests/fuzz_media.py --cases {options.cases} --seed {options.seed}", figures)
    for family, kinds in families.items():
        print(f"{family:8} {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}")
    print(
        f"{options.cases} cases, {figures['cpu_seconds']} s of CPU: {dict(outcome.kinds)}; "
        f"at most {outcome.peak_mib} MiB, grew by {most} MiB"
    )
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
