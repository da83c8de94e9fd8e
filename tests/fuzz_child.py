"""Runs a batch of fuzzing cases in one process. Prints a line of JSON before and after each case."""

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
from media import copy_video  # noqa: E402
from proofs import resident_mib  # noqa: E402

from rtseg.core.errors import RtsegError, SinkError  # noqa: E402
from rtseg.core.process_setup import keep_memory_flat  # noqa: E402
from rtseg.core.stats import peak_rss_mib  # noqa: E402

SECONDS_PER_CASE = 30
"""Limit of CPU time. The limit of wall time is ten times higher, for busy machines."""

MEMORY_MIB = 1024

GOOD = {"ok", "repaired", "refused"}
"""Permitted results of a case."""

MAX_PIXELS = 1 << 22
"""Maximum number of pixels of a frame, because a wrong header must not fill the memory of the test machine."""

UNRELATED = re.compile(
    r"reduced to|converted to|turned by|mirrored|tone-mapped|transparen|stretched to|interlaced|rounded up|4:2:0|"
    r"no multiple of 90|can't hold|frame size changed|gets a tag|tagged|matrix|range"
)
"""Notes that are not about frames, times or damage."""

OMITTED = re.compile(r"left out|re-encoded|transcoded|not copied|dropped|at its next key frame|is empty")


class Hang(Exception):
    """A case exceeded its time limit."""


def run_case(modified: Case, folder: Path, number: int) -> tuple[str, str, list[str]]:
    """Run one case.

    Returns:
        Result, message, and the kinds of differences between output and input.
    """
    path = folder / f"in{modified.suffix}"
    path.write_bytes(modified.data)
    target = folder / ("out.mp4", "out.mkv", "out.mp4", "out.mkv", "out.mov", "out.ts")[number % 6]
    try:
        result = copy_video(path, target, sink={"preset": "ultrafast"}, verified=False, max_pixels=MAX_PIXELS)
    except RtsegError as error:
        if "\n" in str(error):
            return "two lines", str(error), []
        return ("unwritten" if isinstance(error, SinkError) and _has_frames(path) else "refused"), str(error), []
    if not result.report.ok:
        return "broken", result.report.line(), []
    repairs = [*(repair.what for repair in result.report.repairs), *result.report.not_compared]
    notes = [note for note in result.notes if not UNRELATED.search(note)]
    reported = bool(repairs or notes or result.report.corrupt)
    omitted = any(OMITTED.search(note) for note in result.notes)
    try:
        before, after = read(path, largest=True), read(target, largest=False)
    except (av.FFmpegError, OSError, ValueError) as error:
        return "wrong", f"{target.suffix} can't be read: {type(error).__name__}: {error}", ["unreadable"]
    problems = differences(before, after, reported=reported, omitted=omitted, damaged=result.report.corrupt > 0)
    if any(problem.startswith("frames: in place") for problem in problems):
        # The missing parts of damaged frames contain arbitrary memory: only numbers that two readings agree on count.
        for frame, other in zip(before.frames, read(path, largest=True, threads=True).frames, strict=False):
            frame.number = frame.number if frame.number == other.number else None
        problems = differences(before, after, reported=reported, omitted=omitted, damaged=result.report.corrupt > 0)
    if problems:
        message = "; ".join([*repairs, *notes]) or result.report.line()
        differs = [re.split(r"[ :]", problem)[0] for problem in problems]
        return "wrong", f"{target.suffix}: {'; '.join(problems)} | rtseg: {message}", differs
    return ("repaired" if reported else "ok"), result.report.line(), []


def _has_frames(path: Path) -> bool:
    try:
        return bool(read(path, largest=True).frames)
    except (av.FFmpegError, OSError, ValueError):
        return False


def run(files: list[Path], current: Path, keep: Path | None, seed: int, first: int, count: int) -> None:
    """Run a batch of cases: the running one has its file in `current`, and files of failed cases are copied to `keep`."""

    def too_long(_signal: int, _frame: FrameType | None) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, too_long)
    keep_memory_flat()
    av.logging.set_level(None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(first, first + count):
            for old in current.iterdir():
                old.unlink()
            # FFmpeg's muxers abort the process for some packets, which is not a failure of rtseg.
            _print_json(make=number)
            modified = case(files, seed, number)
            (current / f"{seed}-{number}{modified.suffix}").write_bytes(modified.data)
            _print_json(begin=number, family=modified.family, change=modified.change)
            signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_CASE)
            # Python handles the signal between bytecodes; this ends a process that hangs inside a native library.
            faulthandler.dump_traceback_later(10 * SECONDS_PER_CASE, exit=True)
            differs: list[str] = []
            try:
                kind, line, differs = run_case(modified, folder, number)
            except Hang:
                kind, line = "hang", f"more than {SECONDS_PER_CASE} s of CPU"
            except Exception as error:
                trace = error.__traceback__
                while trace is not None and trace.tb_next is not None:
                    trace = trace.tb_next
                location = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
                kind, line = "traceback", f"{type(error).__name__}: {error} ({location})"
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                faulthandler.cancel_dump_traceback_later()
            if kind not in GOOD and keep is not None:
                (keep / f"{seed}-{number}{modified.suffix}").write_bytes(modified.data)
            for old in folder.iterdir():
                old.unlink()
            _print_json(
                end=number,
                kind=kind,
                line=line,
                differs=differs,
                family=modified.family,
                change=modified.change,
                cpu_seconds=round(time.process_time(), 2),
                resident_mib=round(resident_mib(), 1),
                peak_mib=round(peak_rss_mib()),
            )


def _print_json(**values: Any) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    folder, current, keep, *numbers = sys.argv[1:]
    run(
        sorted(path for path in Path(folder).iterdir() if path.is_file()),
        Path(current),
        Path(keep) if keep else None,
        *(int(value) for value in numbers),
    )
