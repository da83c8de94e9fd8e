"""Kills runs of `rtseg video` or `rtseg live --record` and checks the remaining files and the next run."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

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
    moments: dict[str, int] = field(default_factory=dict)
    playable: int = 0
    """Number of runs whose remaining file is playable, or that had not completed a frame."""

    lost: list[float] = field(default_factory=list)
    """Duration in seconds of the frames that were reported as complete and are not playable, for each run."""

    leftovers: dict[str, int] = field(default_factory=dict)
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


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", DRIVER, *map(str, arguments)]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _run_and_kill(command: Sequence[str], target: int, delay: float, total: int) -> tuple[int, str]:
    """Run a command until it reports frame `target`, wait for `delay` seconds, and kill it.

    Returns:
        Number of reported frames, and description of the moment.

    Raises:
        RuntimeError: the command stopped reporting, or failed, before it was killed.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=_environment())
        lines: queue.Queue[bytes | None] = queue.Queue()
        reader = threading.Thread(target=_forward, args=(process, lines), daemon=True)
        reader.start()
        reported = 0
        try:
            while reported < target:
                line = lines.get(timeout=LIMIT_SECONDS)
                if line is None:
                    break
                reported += 1
            if reported >= target and delay:
                time.sleep(delay)
        except queue.Empty:
            pass
        finally:
            process.kill()
            process.wait(LIMIT_SECONDS)
        reader.join(LIMIT_SECONDS)
        while not lines.empty():
            reported += lines.get() is not None
        if reported < target:
            errors.seek(0)
            raise RuntimeError(f"reported {reported} of {target} frames: {errors.read().decode()[-500:]}")
    return reported, "while it encodes" if reported < total else "after the last frame"


def _forward(process: subprocess.Popen[bytes], lines: queue.Queue[bytes | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


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
    write_video(
        first,
        frames=FRAMES,
        gop=25,
        options={"preset": "ultrafast"},
        after=[Audio(seconds=FRAMES / RATE)] if kind.audio else [],
    )
    options = ("--model", MODEL, "--alpha", 0, "--preset", "ultrafast", "--quiet", "--resume")
    for number in range(1, runs):
        (inputs / f"{number}{kind.suffix}").write_bytes(first.read_bytes())
    completion_seconds = _completion_seconds(
        _command("video", first, "-o", folder / f"reference{kind.suffix}", *options)
    )
    for number in range(runs):
        out = outputs / f"{number}{kind.suffix}"
        if number % 2:
            out.write_bytes(OLDER)
        late = number % 5 in (1, 3)
        target = FRAMES if late else int(random.integers(5, FRAMES - 20))
        delay = float(random.uniform(0, 1.2 * completion_seconds)) if late else 0.0
        command = _command("video", inputs / out.name, "-o", out, *options)
        try:
            reported, moment = _run_and_kill(command, target, delay, FRAMES)
        except RuntimeError as error:
            kind.problems.append(f"run {number}: {error}")
            continue
        kind.runs += 1
        partial = out.with_name(f"{number}.partial{kind.suffix}")
        if out.exists() and out.read_bytes() != OLDER:
            moment = "after the rename"
            if len(_numbers(out)) != FRAMES or _wrong_frame(_numbers(out)) is not None:
                kind.incomplete_finals += 1
                kind.problems.append(f"run {number}: {out.name} contains {len(_numbers(out))} of {FRAMES} frames")
            playable = _numbers(out)
        else:
            playable = _numbers(partial)
        kind.moments[moment] = kind.moments.get(moment, 0) + 1
        _count_lost(kind, number, reported, playable, RATE)
        if partial.exists():
            kind.leftovers["a partial file"] = kind.leftovers.get("a partial file", 0) + 1
        allowed = {out.name, partial.name, ".rtseg-done.jsonl"}
        for path in outputs.iterdir():
            if path.name not in allowed and path.stem.split(".")[0] == str(number):
                kind.leftovers[path.name] = kind.leftovers.get(path.name, 0) + 1
    _resume(kind, _command("video", inputs, "-o", outputs, *options), inputs, outputs, runs)


def _completion_seconds(command: Sequence[str]) -> float:
    """Return the time from the last frame to the end of a run that is not killed."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=_environment())
    watchdog = threading.Timer(LIMIT_SECONDS, process.kill)
    watchdog.start()
    assert process.stdout is not None
    last = time.monotonic()
    for _ in process.stdout:
        last = time.monotonic()
    code = process.wait(LIMIT_SECONDS)
    watchdog.cancel()
    if code != 0:
        raise RuntimeError(f"the reference run ended with {code}")
    return time.monotonic() - last


def _count_lost(kind: Kind, number: int, reported: int, playable: Sequence[int | None], rate: int) -> None:
    wrong = _wrong_frame(playable, ignore_last=REORDERED)
    lost = max(0, reported - len(playable)) / rate
    kind.lost.append(lost)
    if wrong is not None:
        kind.problems.append(f"run {number}: frame {wrong} of the remaining file is wrong")
    elif lost > LOST_SECONDS:
        kind.problems.append(f"run {number}: {lost:.2f} s lost: {reported} frames reported, {len(playable)} playable")
    else:
        kind.playable += 1


def _resume(kind: Kind, command: Sequence[str], inputs: Path, outputs: Path, runs: int) -> None:
    before = {path.name for path in outputs.iterdir() if ".partial" in path.name}
    try:
        limit = LIMIT_SECONDS + 20 * runs
        done = subprocess.run(command, capture_output=True, timeout=limit, check=False, env=_environment())
    except subprocess.TimeoutExpired:
        kind.problems.append("the next run did not end")
        return
    complete = [len(_numbers(outputs / path.name)) == FRAMES for path in inputs.iterdir()]
    partial = [path.name for path in outputs.iterdir() if ".partial" in path.name and path.name not in before]
    kind.resumed = done.returncode == 0 and all(complete) and not partial
    if not kind.resumed:
        error = done.stderr.decode()[-300:]
        kind.problems.append(
            f"the next run: code {done.returncode}, {sum(complete)} of {runs} complete, {partial}: {error}"
        )


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
        try:
            reported, moment = _run_and_kill(command, target, delay, LIVE_FRAMES)
        except RuntimeError as error:
            kind.problems.append(f"run {number}: {error}")
            continue
        kind.runs += 1
        kind.moments[moment] = kind.moments.get(moment, 0) + 1
        # Names contain the second, and a number if there are several files in one second.
        files = sorted((path for path in run_folder.iterdir() if path.suffix == kind.suffix), key=segment_order)
        playable: list[int | None] = []
        for path in files:
            numbers = _numbers(path)
            final = ".partial" not in path.name
            if not final:
                kind.leftovers["a partial file"] = kind.leftovers.get("a partial file", 0) + 1
            if final and (not numbers or _wrong_frame(numbers, len(playable)) is not None or not _has_index(path)):
                kind.incomplete_finals += 1
                kind.problems.append(f"run {number}: {path.name} is not complete: {len(numbers)} frames")
            playable += numbers
        _count_lost(kind, number, reported, playable, LIVE_RATE)
    before = {path: path.read_bytes() for path in (folder / "0").iterdir() if ".partial" not in path.name}
    try:
        done = subprocess.run(
            _live(kind, source, folder / "0"),
            capture_output=True,
            timeout=LIMIT_SECONDS,
            check=False,
            env=_environment(),
        )
    except subprocess.TimeoutExpired:
        kind.problems.append("the next run did not end")
        return
    unchanged = all(path.read_bytes() == data for path, data in before.items()) if kind.segments else True
    new = [path for path in (folder / "0").iterdir() if path not in before and ".partial" not in path.name]
    new = new or [path for path in before if not kind.segments]
    recorded = sum(len(_numbers(path)) for path in new)
    kind.resumed = done.returncode == 0 and unchanged and recorded == LIVE_FRAMES
    if not kind.resumed:
        error = done.stderr.decode()[-300:]
        kind.problems.append(
            f"the next run: code {done.returncode}, earlier files unchanged {unchanged}, {recorded} frames: {error}"
        )


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
