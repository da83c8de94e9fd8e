"""Mutates small video files of every container and takes each through source, sink and fidelity report.

    python tests/fuzz_media.py --cases 2000 --seed 1

Every case must end as a video that passes its own report, or as one line, and leave no memory behind. Cases run in batches,
each in a process of its own, so that a crash in a native library is seen as one and the case that did it is kept in `--keep`.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from proofs import keep_proof, resident_mib  # noqa: E402

from rtseg.memory import keep_memory_flat  # noqa: E402
from rtseg.stats import peak_rss_mib  # noqa: E402

SECONDS_PER_CASE = 30
BATCH = 200
MEMORY_MIB = 1024
SETTLED_CASES = 30
"""Cases after which a process has loaded and allocated what it keeps: codecs, tables, pools."""

GROWTH_MIB = 16
"""What may come on top of that until the end of a batch. A picture or codec lost in one case of ten makes more."""

LARGEST = 1 << 22
"""Pixels of a picture that are still opened: a header that lies must not fill the memory of the test machine."""


def seeds(folder: Path) -> list[Path]:
    """One small file of each kind."""
    from media import Audio, Text, write_video

    subtitles = Text([(0.1, 0.3, "left"), (0.4, 0.6, "right")])
    quick = {"preset": "ultrafast"}
    vpx = {"deadline": "realtime", "cpu-used": "8"}
    made = [
        write_video(folder / "a.mp4", frames=30, gop=10, after=[Audio()], options=quick),
        write_video(folder / "b.mp4", frames=30, gop=10, b_frames=2, container_options={"movflags": "faststart"}),
        write_video(folder / "c.mp4", frames=30, gop=10, container_options={"movflags": "frag_keyframe+empty_moov"}),
        write_video(folder / "a.mov", frames=20, codec="mjpeg", pix_fmt="yuvj420p", full_range=True),
        write_video(folder / "a.mkv", frames=30, gop=10, before=[Audio("flac")], after=[subtitles], options=quick),
        write_video(folder / "a.webm", frames=20, codec="libvpx-vp9", options=vpx, after=[Audio("libopus")]),
        write_video(folder / "a.ts", frames=30, gop=10, after=[Audio()], options=quick),
        write_video(folder / "a.avi", frames=30, gop=10, codec="mpeg4", after=[Audio("libmp3lame")]),
        write_video(folder / "a.mpg", frames=30, gop=10, codec="mpeg2video", after=[Audio("mp2")]),
        write_video(folder / "a.h264", frames=30, gop=10, options=quick),
        write_video(folder / "a.gif", frames=10, codec="gif", pix_fmt="rgb8", rate=10),
    ]
    return sorted(made)


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """A few random changes: flipped bits, written-over, lost, doubled, inserted or zeroed pieces, a cut end."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 6))):
        if not changed:
            break
        # Headers are small and matter most: half of the changes hit the first kilobyte or the last two.
        near = int(random.integers(0, min(1024, len(changed))))
        places = (
            near,
            len(changed) - 1 - min(2 * near, len(changed) - 1),
            *random.integers(0, len(changed), 2).tolist(),
        )
        at = int(places[int(random.integers(0, 4))])
        length = int(random.choice([1, 2, 4, 16, 188, 1000]))
        match int(random.integers(0, 8)):
            case 0 | 1:
                changed[at] ^= 1 << int(random.integers(0, 8))
            case 2:
                changed[at : at + length] = random.bytes(length)
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                changed[at:at] = random.bytes(length)
            case 6:
                changed[at : at + length] = (b"\0" if random.integers(0, 2) else b"\xff") * length
            case _:
                if random.integers(0, 3) == 0:
                    del changed[max(1, at) :]
    return bytes(changed)


def case_bytes(files: list[Path], seed: int, number: int) -> tuple[Path, bytes]:
    """The same for the same seed and number, whoever asks."""
    random = np.random.default_rng([seed, number])
    source = files[number % len(files)]
    return source, mutate(source.read_bytes(), random)


class Hang(Exception):
    """A case took longer than it may."""


def run_batch(files: list[Path], seed: int, first: int, count: int) -> None:
    """Runs in the child: one JSON line before each case, one after."""
    from media import through

    from rtseg.errors import RtsegError

    def too_long(_signal: int, _frame: FrameType | None) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, too_long)
    keep_memory_flat()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(first, first + count):
            source, data = case_bytes(files, seed, number)
            path = folder / f"in{source.suffix}"
            path.write_bytes(data)
            print(json.dumps({"begin": number}), flush=True)
            signal.alarm(SECONDS_PER_CASE)
            # The alarm is heard between two lines of Python; this ends a process that hangs inside a native library.
            faulthandler.dump_traceback_later(2 * SECONDS_PER_CASE, exit=True)
            try:
                target = folder / ("out.mp4", "out.mkv")[number % 2]
                result = through(path, target, sink={"preset": "ultrafast"}, max_pixels=LARGEST)
                kind = "ok" if result.report.ok else "broken"
                line = result.report.line()
            except Hang:
                kind, line = "hang", f"longer than {SECONDS_PER_CASE} s"
            except RtsegError as error:
                kind, line = ("refused" if "\n" not in str(error) else "two lines"), str(error)
            except Exception as error:
                kind, line = "traceback", f"{type(error).__name__}: {error}"
            finally:
                signal.alarm(0)
                faulthandler.cancel_dump_traceback_later()
            for left in folder.iterdir():
                left.unlink()
            memory = {"resident_mib": round(resident_mib(), 1), "peak_mib": round(peak_rss_mib())}
            print(json.dumps({"end": number, "kind": kind, "line": line, **memory}), flush=True)


@dataclass
class Outcome:
    """How the cases ended."""

    kinds: Counter[str] = field(default_factory=Counter)
    """How many ended as `ok` (a video that passes its report), `refused` (one line), or as none may."""

    failures: list[str] = field(default_factory=list)
    """A line for each that ended as none may."""

    peak_mib: int = 0
    """The most memory that a process had at any time."""

    growth_mib: list[float] = field(default_factory=list)
    """For each batch that is long enough: see `growth`."""


def growth(resident: list[float]) -> float | None:
    """What came on top of the settled memory until the end, MiB: the medians of ten cases each. None: too few cases."""
    if len(resident) < SETTLED_CASES + 20:
        return None
    return float(np.median(resident[-10:]) - np.median(resident[SETTLED_CASES : SETTLED_CASES + 10]))


def fuzz(cases: int, seed: int, keep: Path | None, first: int = 0, show: bool = False) -> Outcome:
    """Runs all cases."""
    outcome = Outcome()
    # One heap for all threads, so that what grows is what was not given back, and not the holes of many heaps.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name:
        files = seeds(Path(name))
        number = first
        while number < first + cases:
            count = min(BATCH, first + cases - number)
            command = [sys.executable, __file__, "--child", name, str(seed), str(number), str(count)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
            lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            resident = []
            for line in lines:
                if "kind" in line:
                    resident.append(line["resident_mib"])
                    outcome.peak_mib = max(outcome.peak_mib, line["peak_mib"])
                    if line["peak_mib"] > MEMORY_MIB:
                        line["kind"], line["line"] = "memory", f"{line['peak_mib']} MiB, more than {MEMORY_MIB}"
                    outcome.kinds[line["kind"]] += 1
                    if line["kind"] not in ("ok", "refused"):
                        outcome.failures.append(f"case {line['end']}: {line['kind']}: {line['line']}")
                        _keep(keep, files, seed, line["end"])
            more = growth(resident)
            if more is not None:
                outcome.growth_mib.append(round(more, 1))
                if more > GROWTH_MIB:
                    outcome.kinds["growth"] += 1
                    outcome.failures.append(
                        f"cases {number} to {number + len(resident)}: memory grew by {more:.0f} MiB"
                    )
            number += count
            if done.returncode != 0:
                begun = lines[-1].get("begin", lines[-1].get("end")) if lines else number - count
                what = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
                outcome.kinds["crash"] += 1
                outcome.failures.append(f"case {begun}: the process ended by {what}")
                _keep(keep, files, seed, begun)
                number = begun + 1
            if show:
                print(f"{number - first} of {cases} cases: {dict(outcome.kinds)}", file=sys.stderr, flush=True)
    return outcome


def _keep(folder: Path | None, files: list[Path], seed: int, number: int) -> None:
    if folder is not None:
        source, data = case_bytes(files, seed, number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed}-{number}{source.suffix}").write_bytes(data)


def main() -> int:
    """Prints the result; 1 where a case ended as none may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to repeat one")
    parser.add_argument("--keep", type=Path, default=None, help="folder for the files that failed")
    options = parser.parse_args()
    began = time.monotonic()
    outcome = fuzz(options.cases, options.seed, options.keep, options.first, show=True)
    seconds = round(time.monotonic() - began)
    for failure in outcome.failures:
        print(failure)
    most = max(outcome.growth_mib, default=None)
    figures = {
        "cases": options.cases,
        "seconds": seconds,
        "ended": dict(outcome.kinds),
        "failures": outcome.failures,
        "peak_mib": outcome.peak_mib,
        "batch_cases": BATCH,
        "largest_growth_in_a_batch_mib": most,
    }
    keep_proof("fuzz", f"python tests/fuzz_media.py --cases {options.cases} --seed {options.seed}", figures)
    print(
        f"{options.cases} cases in {seconds} s: {dict(outcome.kinds)}; at most {outcome.peak_mib} MiB, grew by {most} MiB"
    )
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        folder, *numbers = sys.argv[2:]
        known = sorted(path for path in Path(folder).iterdir() if path.is_file())
        run_batch(known, *(int(value) for value in numbers))
    else:
        raise SystemExit(main())
