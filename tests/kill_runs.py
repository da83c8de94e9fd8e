"""Kills runs of `rtseg video` or `rtseg live --record` and checks the remaining files and the next run."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, Any

import numpy as np
from command import MODEL

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import av  # noqa: E402
from fuzz_reading import read  # noqa: E402
from media import Audio, write_video  # noqa: E402

FRAMES = 500
RATE = 25
LIVE_FRAMES, LIVE_RATE = 300, 100
LIMIT_SECONDS = 600
"""Time limit of a process, generous for busy machines."""

LOST_SECONDS = 2.0
"""Maximum duration of video that a kill may lose; live: in stream time, the length of a segment."""

REORDERED = 8
"""Number of frames at the end of a truncated file among which B-frames may be missing."""

OLDER = b"an older file of this name"

# Runs the command line, and prints the number of each completed frame when the progress advances.
DRIVER = """
import os, sys
from rtseg.cli.progress import TaskProgress
advance, done = TaskProgress.advance, 0
def report(self):
    global done
    advance(self)
    done += 1
    os.write(1, b"%d\\n" % done)
TaskProgress.advance = report
from rtseg.cli.app import main
sys.argv = ["rtseg", *sys.argv[1:]]
main()
"""


@dataclass
class Kind:
    """Results of one kind of runs."""

    name: str
    suffix: str
    audio: bool = False
    segments: bool = False
    runs: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    playable: int = 0
    """Number of runs whose remaining file is playable, or that had not completed a frame."""

    lost: list[float] = field(default_factory=list)
    """Duration in seconds of the frames that were reported as complete and are not playable, for each run."""

    leftovers: Counter[str] = field(default_factory=Counter)
    """Number of runs that left a file other than complete ones, by its description."""

    incomplete_finals: int = 0
    resumed: bool = False
    """True if the next run completed all files."""

    problems: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Return the figures for the table."""
        return {
            "kind": self.name,
            "runs": self.runs,
            "moments": self.moments,
            "playable": self.playable,
            "lost_seconds_median": round(median(self.lost), 2) if self.lost else None,
            "lost_seconds_most": round(max(self.lost), 2) if self.lost else None,
            "leftovers": self.leftovers,
            "incomplete_final_names": self.incomplete_finals,
            "next_run_completes": self.resumed,
            "problems": self.problems,
        }

    def kill(
        self, number: int, command: Sequence[str], target: int, delay: float, total: int
    ) -> tuple[int, str] | None:
        """Run a command until it reports frame `target`, wait for `delay` seconds, and kill it.

        Returns:
            Number of reported frames, and description of the moment. None if the command ended before, which is a problem.
        """
        with tempfile.TemporaryFile() as errors, _running(command, errors) as (process, lines):
            reported = sum(1 for _ in itertools.islice(lines, target))
            if reported == target:
                time.sleep(delay)
            process.kill()
            reported += sum(1 for _ in lines)
            if reported < target:
                errors.seek(0)
                error = errors.read().decode()[-500:]
                self.problems.append(f"run {number}: reported {reported} of {target} frames: {error}")
                return None
        self.runs += 1
        return reported, "while it encodes" if reported < total else "after the last frame"

    def add_incomplete(self, problem: str) -> None:
        """Add an incomplete file with a final name."""
        self.incomplete_finals += 1
        self.problems.append(problem)

    def add_playable(self, number: int, reported: int, playable: Sequence[int | None], rate: int) -> None:
        """Add the frames of the files that run `number` left."""
        wrong = _wrong_frame(playable, ignore_last=REORDERED)
        lost = max(0, reported - len(playable)) / rate
        self.lost.append(lost)
        if wrong is not None:
            self.problems.append(f"run {number}: frame {wrong} of the remaining file is wrong")
        elif lost > LOST_SECONDS:
            frames = f"{reported} frames reported, {len(playable)} playable"
            self.problems.append(f"run {number}: {lost:.2f} s lost: {frames}")
        else:
            self.playable += 1

    def finish(self, command: Sequence[str], seconds: float, check: Callable[[], str]) -> None:
        """Run the command to its end and set `resumed`; `check` returns what it did not do, or nothing."""
        try:
            done = subprocess.run(command, capture_output=True, timeout=seconds, check=False, env=_environment())
        except subprocess.TimeoutExpired:
            self.problems.append("the next run did not end")
            return
        missing = check()
        self.resumed = done.returncode == 0 and not missing
        if not self.resumed:
            self.problems.append(f"the next run: code {done.returncode}, {missing}: {done.stderr.decode()[-300:]}")


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", DRIVER, *map(str, arguments)]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def _running(command: Sequence[str], errors: IO[bytes] | None) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Run a command, for `LIMIT_SECONDS` at most. Yield the process and its standard output."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=_environment()) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(LIMIT_SECONDS, process.kill)
        watchdog.start()
        try:
            yield process, process.stdout
        finally:
            watchdog.cancel()
            process.kill()


def _numbers(path: Path) -> list[int | None]:
    try:
        return [frame.number for frame in read(path, largest=True).frames]
    except (av.FFmpegError, OSError, ValueError):
        return []


def _wrong_frame(numbers: Sequence[int | None], begin: int = 0, ignore_last: int = 0) -> int | None:
    """Return the index of the first frame with an unexpected number, without the last `ignore_last` frames."""
    for index, number in enumerate(numbers[: len(numbers) - ignore_last]):
        if number is not None and number != (begin + index) % 256:
            return index
    return None


def kill_video(kind: Kind, runs: int, folder: Path, random: np.random.Generator) -> None:
    """Kill runs of `rtseg video`, each with its own input, and then run it with `--resume` on all inputs."""
    inputs, outputs = folder / "in", folder / "out"
    inputs.mkdir()
    outputs.mkdir()
    first = inputs / f"0{kind.suffix}"
    audio = [Audio(seconds=FRAMES / RATE)] if kind.audio else []
    write_video(first, frames=FRAMES, gop=25, options={"preset": "ultrafast"}, after=audio)
    options = ("--model", MODEL, "--alpha", 0, "--preset", "ultrafast", "--quiet", "--resume")
    for number in range(1, runs):
        (inputs / f"{number}{kind.suffix}").write_bytes(first.read_bytes())
    reference = _command("video", first, "-o", folder / f"reference{kind.suffix}", *options)
    completion_seconds = _completion_seconds(reference)
    for number in range(runs):
        out = outputs / f"{number}{kind.suffix}"
        if number % 2:
            out.write_bytes(OLDER)
        late = number % 5 in (1, 3)
        target = FRAMES if late else int(random.integers(5, FRAMES - 20))
        delay = float(random.uniform(0, 1.2 * completion_seconds)) if late else 0.0
        killed = kind.kill(number, _command("video", inputs / out.name, "-o", out, *options), target, delay, FRAMES)
        if killed is None:
            continue
        reported, moment = killed
        partial = out.with_name(f"{number}.partial{kind.suffix}")
        playable = _numbers(partial)
        if out.exists() and out.read_bytes() != OLDER:
            moment, playable = "after the rename", _numbers(out)
            if len(playable) != FRAMES or _wrong_frame(playable) is not None:
                kind.add_incomplete(f"run {number}: {out.name} contains {len(playable)} of {FRAMES} frames")
        kind.moments[moment] += 1
        kind.add_playable(number, reported, playable, RATE)
        for path in outputs.glob(f"{number}.*"):
            if path != out:
                kind.leftovers["a partial file" if path == partial else path.name] += 1
    partials = set(outputs.glob("*.partial*"))

    def incomplete() -> str:
        complete = sum(len(_numbers(outputs / path.name)) == FRAMES for path in inputs.iterdir())
        new = [path.name for path in set(outputs.glob("*.partial*")) - partials]
        return f"{complete} of {runs} complete, {new}" if complete < runs or new else ""

    kind.finish(_command("video", inputs, "-o", outputs, *options), LIMIT_SECONDS + 20 * runs, incomplete)


def _completion_seconds(command: Sequence[str]) -> float:
    """Return the time from the last frame to the end of a run that is not killed."""
    with _running(command, None) as (process, lines):
        last = time.monotonic()
        for _ in lines:
            last = time.monotonic()
        if code := process.wait():
            raise RuntimeError(f"the reference run ended with {code}")
        return time.monotonic() - last


def kill_live(kind: Kind, runs: int, folder: Path, random: np.random.Generator) -> None:
    """Kill runs of `rtseg live --record` on a file in real time, and then record again into the same folder."""
    source = write_video(folder / "in.mkv", frames=LIVE_FRAMES, rate=LIVE_RATE, gop=25, options={"preset": "ultrafast"})
    for number in range(runs):
        run_folder = folder / str(number)
        run_folder.mkdir()
        command = _live(kind, source, run_folder)
        # A run ends at the end of its file. The completion of the last segment is one of the moments.
        late = number % 5 == 4
        target = LIVE_FRAMES if late else int(random.integers(5, LIVE_FRAMES - 20))
        delay = float(random.uniform(0, 0.3)) if late else float(random.uniform(0, 0.02))
        killed = kind.kill(number, command, target, delay, LIVE_FRAMES)
        if killed is None:
            continue
        reported, moment = killed
        kind.moments[moment] += 1
        # Names contain the second, and a number if there are several files in one second.
        files = sorted((path for path in run_folder.iterdir() if path.suffix == kind.suffix), key=segment_order)
        playable: list[int | None] = []
        for path in files:
            numbers = _numbers(path)
            if ".partial" in path.name:
                kind.leftovers["a partial file"] += 1
            elif not numbers or _wrong_frame(numbers, len(playable)) is not None or not _has_index(path):
                kind.add_incomplete(f"run {number}: {path.name} is not complete: {len(numbers)} frames")
            playable += numbers
        kind.add_playable(number, reported, playable, LIVE_RATE)
    before = {path: path.read_bytes() for path in _final_files(folder / "0")}

    def incomplete() -> str:
        files = set(_final_files(folder / "0"))
        unchanged = not kind.segments or all(path.read_bytes() == data for path, data in before.items())
        new = files - before.keys() if kind.segments else files
        recorded = sum(len(_numbers(path)) for path in new)
        complete = unchanged and recorded == LIVE_FRAMES
        return "" if complete else f"earlier files unchanged {unchanged}, {recorded} frames"

    kind.finish(_live(kind, source, folder / "0"), LIMIT_SECONDS, incomplete)


def _final_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if ".partial" not in path.name]


def segment_order(path: Path) -> tuple[str, int, int]:
    """Return a sort key: `out-20261122T144012Z-2.partial.mp4` follows `out-20261122T144012Z.mp4`."""
    stem = path.name.removesuffix(path.suffix).removesuffix(".partial")
    _, _, rest = stem.partition("-")
    stamp, _, number = rest.partition("-")
    return stamp, int(number or 1), ".partial" in path.name


def _live(kind: Kind, source: Path, folder: Path) -> list[str]:
    command = [sys.executable, "-m", "rtseg", "live", "--url", source, "--realtime", "--every-frame", "--show", "none"]
    command += ["--record", folder / f"out{kind.suffix}", "--jsonl", "-", "--model", MODEL, "--alpha", "0", "--quiet"]
    return [str(part) for part in (*command, *(("--split-every", "1") if kind.segments else ()))]


def _has_index(path: Path) -> bool:
    """Return whether a file has the index that its container writes at the end: moov without fragments, or Cues."""
    if path.suffix in (".mp4", ".mov"):
        data, at, boxes = path.read_bytes(), 0, []
        while at + 16 <= len(data):
            size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            boxes.append(name)
            at += (int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size) or len(data)
        return b"moov" in boxes and b"moof" not in boxes
    return path.suffix != ".mkv" or b"\x1c\x53\xbb\x6b" in path.read_bytes()  # Cues
