"""Runs a stretch of the fuzzer's cases in one process: a line of JSON before each case and one after."""

from __future__ import annotations

import faulthandler
import json
import re
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import av  # noqa: E402
from fuzz_cases import Case, case  # noqa: E402
from fuzz_check import differences  # noqa: E402
from fuzz_reading import read  # noqa: E402
from media import through  # noqa: E402
from proofs import resident_mib  # noqa: E402

from rtseg.core.errors import RtsegError, SinkError  # noqa: E402
from rtseg.core.process_setup import keep_memory_flat  # noqa: E402
from rtseg.core.stats import peak_rss_mib  # noqa: E402

SECONDS_PER_CASE = 30
"""Of CPU; a case that waits for ever is ended after ten times as many of the clock, which a busy machine may need."""

MEMORY_MIB = 1024

GOOD = {"ok", "repaired", "refused"}
"""How a case may end."""

LARGEST = 1 << 22
"""Pixels of a picture that are still opened: a header that lies must not fill the memory of the test machine."""

UNRELATED = re.compile(
    r"reduced to|converted to|turned by|mirrored|tone-mapped|transparen|stretched to|interlaced|rounded up|4:2:0|"
    r"no multiple of 90|can't hold|changed its size|gets a tag|tagged|matrix|range"
)
"""Notes that say nothing of frames, times or damage."""

LEFT_OUT = re.compile(r"left out|encoded anew|re-encoded|transcoded|not copied|dropped|at its next key frame|is empty")


class Hang(Exception):
    """A case took longer than it may."""


def run_case(made: Case, folder: Path, number: int) -> tuple[str, str, list[str]]:
    """How a case ends, its line, and in what the output differs from the input."""
    path = folder / f"in{made.suffix}"
    path.write_bytes(made.data)
    target = folder / ("out.mp4", "out.mkv", "out.mp4", "out.mkv", "out.mov", "out.ts")[number % 6]
    try:
        result = through(path, target, sink={"preset": "ultrafast"}, max_pixels=LARGEST)
    except RtsegError as error:
        if "\n" in str(error):
            return "two lines", str(error), []
        return ("unwritten" if isinstance(error, SinkError) and _shows_something(path) else "refused"), str(error), []
    if not result.report.ok:
        return "broken", result.report.line(), []
    repairs = [
        str(item.describe()) if hasattr(item, "describe") else str(item)
        for item in getattr(result.report, "repairs", ())
    ]
    notes = [note for note in result.notes if not UNRELATED.search(note)]
    said = bool(repairs or notes or result.report.corrupt)
    left_out = any(LEFT_OUT.search(note) for note in result.notes)
    try:
        before, after = read(path, largest=True), read(target, largest=False)
    except (av.FFmpegError, OSError, ValueError) as error:
        return "wrong", f"{target.suffix} can't be read: {type(error).__name__}: {error}", ["unreadable"]
    problems = differences(before, after, said=said, left_out=left_out, damaged=result.report.corrupt > 0)
    if any(problem.startswith("frames: in place") for problem in problems):
        # Where a damaged picture has holes, decoders show what their memory held: only what two readings agree on counts.
        for once, again in zip(before.frames, read(path, largest=True, threads=True).frames, strict=False):
            once.number = once.number if once.number == again.number else None
        problems = differences(before, after, said=said, left_out=left_out, damaged=result.report.corrupt > 0)
    if problems:
        words = "; ".join([*repairs, *notes]) or result.report.line()
        differs = [re.split(r"[ :]", problem)[0] for problem in problems]
        return "wrong", f"{target.suffix}: {'; '.join(problems)} | rtseg: {words}", differs
    return ("repaired" if said else "ok"), result.report.line(), []


def _shows_something(path: Path) -> bool:
    try:
        return bool(read(path, largest=True).frames)
    except (av.FFmpegError, OSError, ValueError):
        return False


def run(files: list[Path], now: Path, keep: Path | None, seed: int, first: int, count: int) -> None:
    """All cases of a stretch; each is in the folder `now` while it runs, and in `keep` where it ended as it may not."""

    def too_long(_signal: int, _frame: FrameType | None) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, too_long)
    keep_memory_flat()
    av.logging.set_level(None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(first, first + count):
            for left in now.iterdir():
                left.unlink()
            _say(make=number)  # FFmpeg's muxers abort the process at some packets: no fault of what is tried here
            made = case(files, seed, number)
            (now / f"{seed}-{number}{made.suffix}").write_bytes(made.data)
            _say(begin=number, family=made.family, told=made.told)
            signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_CASE)
            # The alarm is heard between two lines of Python; this ends a process that hangs inside a native library.
            faulthandler.dump_traceback_later(10 * SECONDS_PER_CASE, exit=True)
            differs: list[str] = []
            try:
                kind, line, differs = run_case(made, folder, number)
            except Hang:
                kind, line = "hang", f"more than {SECONDS_PER_CASE} s of CPU"
            except Exception as error:
                place = error.__traceback__
                while place is not None and place.tb_next is not None:
                    place = place.tb_next
                where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
                kind, line = "traceback", f"{type(error).__name__}: {error} ({where})"
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                faulthandler.cancel_dump_traceback_later()
            if kind not in GOOD and keep is not None:
                (keep / f"{seed}-{number}{made.suffix}").write_bytes(made.data)
            for left in folder.iterdir():
                left.unlink()
            _say(
                end=number,
                kind=kind,
                line=line,
                differs=differs,
                family=made.family,
                told=made.told,
                cpu_seconds=round(time.process_time(), 2),
                resident_mib=round(resident_mib(), 1),
                peak_mib=round(peak_rss_mib()),
            )


def _say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    folder, now, keep, *numbers = sys.argv[1:]
    run(
        sorted(path for path in Path(folder).iterdir() if path.is_file()),
        Path(now),
        Path(keep) if keep else None,
        *(int(value) for value in numbers),
    )
