"""Kills one run of `rtseg video` or `rtseg live --record` after the other, looks at what is left, and does it again."""

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

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import av  # noqa: E402
from fuzz_reading import read  # noqa: E402
from media import Audio, write_video  # noqa: E402

MODEL = ROOT / "tests" / "data" / "nearest-color.onnx"
FRAMES = 500
RATE = 25
LIVE_FRAMES, LIVE_RATE = 300, 100
LIMIT_SECONDS = 600
"""For one process; a busy machine is slow."""

LOST_SECONDS = 2.0
"""What a kill may cost at most; live: of the stream's own time, and one segment is as long as that."""

REORDERED = 8
"""At the very end of a file that was cut off, B-frames may be missing between others."""

OLDER = b"an older file of this name"

# The command line itself; only where it tells a person about its progress it also tells us.
DRIVER = """
import os, sys
from rtseg.core.progress import Progress
advance, done = Progress.advance, 0
def told(self, *values, **named):
    global done
    advance(self, *values, **named)
    done += 1
    os.write(1, b"%d\\n" % done)
Progress.advance = told
from rtseg.cli.app import main
sys.argv = ["rtseg", *sys.argv[1:]]
main()
"""


@dataclass
class Kind:
    """One kind of runs, and how they ended."""

    name: str
    suffix: str
    audio: bool = False
    segments: bool = False
    runs: int = 0
    moments: dict[str, int] = field(default_factory=dict)
    playable: int = 0
    """Runs whose rest plays, or that had not told a frame yet."""

    lost: list[float] = field(default_factory=list)
    """Seconds of the video that were told as done and do not play."""

    leftovers: dict[str, int] = field(default_factory=dict)
    """What lay in the folder beside complete files: how many runs had left it."""

    incomplete_finals: int = 0
    resumed: bool = False
    """Whether the next run completed all of them."""

    problems: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """For the table."""
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


def _killed(command: Sequence[str], target: int, delay: float, total: int) -> tuple[int, str]:
    """Runs until it tells of the frame `target`, waits, and kills it: the frames that it told, and the moment.

    Raises:
        RuntimeError: it fell silent, or broke, before it was killed.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=_environment())
        lines: queue.Queue[bytes | None] = queue.Queue()
        reader = threading.Thread(target=_forward, args=(process, lines), daemon=True)
        reader.start()
        told = 0
        try:
            while told < target:
                line = lines.get(timeout=LIMIT_SECONDS)
                if line is None:
                    break
                told += 1
            if told >= target and delay:
                time.sleep(delay)
        except queue.Empty:
            pass
        finally:
            process.kill()
            process.wait(LIMIT_SECONDS)
        reader.join(LIMIT_SECONDS)
        while not lines.empty():
            told += lines.get() is not None
        if told < target:
            errors.seek(0)
            raise RuntimeError(f"told {told} of {target} frames: {errors.read().decode()[-500:]}")
    return told, "while it encodes" if told < total else "after the last frame"


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


def _wrong_frame(numbers: Sequence[int | None], begin: int = 0, loose: int = 0) -> int | None:
    """The place of the first frame that is not the one that belongs there; `loose`: without so many at the end."""
    for place, number in enumerate(numbers[: len(numbers) - loose]):
        if number is not None and number != (begin + place) % 256:
            return place
    return None


def kill_video(kind: Kind, runs: int, folder: Path, random: np.random.Generator) -> None:
    """`rtseg video`: a run each on its own input, then one run with `--resume` over all."""
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
    completing = _completing(_command("video", first, "-o", folder / f"reference{kind.suffix}", *options))
    for number in range(runs):
        out = outputs / f"{number}{kind.suffix}"
        if number % 2:
            out.write_bytes(OLDER)
        late = number % 5 in (1, 3)
        target = FRAMES if late else int(random.integers(5, FRAMES - 20))
        delay = float(random.uniform(0, 1.2 * completing)) if late else 0.0
        command = _command("video", inputs / out.name, "-o", out, *options)
        try:
            told, moment = _killed(command, target, delay, FRAMES)
        except RuntimeError as error:
            kind.problems.append(f"run {number}: {error}")
            continue
        kind.runs += 1
        partial = out.with_name(f"{number}.partial{kind.suffix}")
        if out.exists() and out.read_bytes() != OLDER:
            moment = "after it got its name"
            if len(_numbers(out)) != FRAMES or _wrong_frame(_numbers(out)) is not None:
                kind.incomplete_finals += 1
                kind.problems.append(f"run {number}: {out.name} holds {len(_numbers(out))} of {FRAMES} frames")
            rendered = _numbers(out)
        else:
            rendered = _numbers(partial)
        kind.moments[moment] = kind.moments.get(moment, 0) + 1
        _lost(kind, number, told, rendered, RATE)
        if partial.exists():
            kind.leftovers["a partial file"] = kind.leftovers.get("a partial file", 0) + 1
        allowed = {out.name, partial.name, ".rtseg-done.jsonl"}
        for path in outputs.iterdir():
            if path.name not in allowed and path.stem.split(".")[0] == str(number):
                kind.leftovers[path.name] = kind.leftovers.get(path.name, 0) + 1
    _resume(kind, _command("video", inputs, "-o", outputs, *options), inputs, outputs, runs)


def _completing(command: Sequence[str]) -> float:
    """Seconds from the last frame to the end of a run that nobody kills."""
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


def _lost(kind: Kind, number: int, told: int, rendered: Sequence[int | None], rate: int) -> None:
    wrong = _wrong_frame(rendered, loose=REORDERED)
    lost = max(0, told - len(rendered)) / rate
    kind.lost.append(lost)
    if wrong is not None:
        kind.problems.append(f"run {number}: frame {wrong} of the rest is another one")
    elif lost > LOST_SECONDS:
        kind.problems.append(f"run {number}: {lost:.2f} s lost: {told} frames told, {len(rendered)} play")
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
    whole = [len(_numbers(outputs / path.name)) == FRAMES for path in inputs.iterdir()]
    rests = [path.name for path in outputs.iterdir() if ".partial" in path.name and path.name not in before]
    kind.resumed = done.returncode == 0 and all(whole) and not rests
    if not kind.resumed:
        told = done.stderr.decode()[-300:]
        kind.problems.append(f"the next run: code {done.returncode}, {sum(whole)} of {runs} whole, {rests}: {told}")


def kill_live(kind: Kind, runs: int, folder: Path, random: np.random.Generator) -> None:
    """`rtseg live --record` of a file at its own pace; the next run records beside what is there."""
    source = write_video(folder / "in.mkv", frames=LIVE_FRAMES, rate=LIVE_RATE, gop=25, options={"preset": "ultrafast"})
    for number in range(runs):
        place = folder / str(number)
        place.mkdir()
        command = _live(kind, source, place)
        # At the end of the file a run ends by itself: completing the last file is a moment too.
        late = number % 5 == 4
        target = LIVE_FRAMES if late else int(random.integers(5, LIVE_FRAMES - 20))
        delay = float(random.uniform(0, 0.3)) if late else float(random.uniform(0, 0.02))
        try:
            told, moment = _killed(command, target, delay, LIVE_FRAMES)
        except RuntimeError as error:
            kind.problems.append(f"run {number}: {error}")
            continue
        kind.runs += 1
        kind.moments[moment] = kind.moments.get(moment, 0) + 1
        # Names tell the second; in a second with two files the number behind it tells the order.
        files = sorted((path for path in place.iterdir() if path.suffix == kind.suffix), key=segment_order)
        rendered: list[int | None] = []
        for path in files:
            numbers = _numbers(path)
            whole = ".partial" not in path.name
            if not whole:
                kind.leftovers["a partial file"] = kind.leftovers.get("a partial file", 0) + 1
            if whole and (not numbers or _wrong_frame(numbers, len(rendered)) is not None or not _has_end(path)):
                kind.incomplete_finals += 1
                kind.problems.append(f"run {number}: {path.name} is not complete: {len(numbers)} frames")
            rendered += numbers
        _lost(kind, number, told, rendered, LIVE_RATE)
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
    kept = all(path.read_bytes() == data for path, data in before.items()) if kind.segments else True
    new = [path for path in (folder / "0").iterdir() if path not in before and ".partial" not in path.name]
    new = new or [path for path in before if not kind.segments]
    recorded = sum(len(_numbers(path)) for path in new)
    kind.resumed = done.returncode == 0 and kept and recorded == LIVE_FRAMES
    if not kind.resumed:
        told_ = done.stderr.decode()[-300:]
        kind.problems.append(f"the next run: code {done.returncode}, earlier kept {kept}, {recorded} frames: {told_}")


def segment_order(path: Path) -> tuple[str, int, int]:
    """`out-20261122T144012Z-2.partial.mp4` lies behind `out-20261122T144012Z.mp4`."""
    stem = path.name.removesuffix(path.suffix).removesuffix(".partial")
    _, _, rest = stem.partition("-")
    stamp, _, number = rest.partition("-")
    return stamp, int(number or 1), ".partial" in path.name


def _live(kind: Kind, source: Path, folder: Path) -> list[str]:
    command = [sys.executable, "-m", "rtseg", "live", "--url", source, "--realtime", "--every-frame", "--show", "none"]
    command += ["--record", folder / f"out{kind.suffix}", "--jsonl", "-", "--model", MODEL, "--alpha", "0", "--quiet"]
    return [str(part) for part in (*command, *(("--split-every", "1") if kind.segments else ()))]


def _has_end(path: Path) -> bool:
    """Whether a file has what its container writes last: an index without fragments, or where to seek to."""
    if path.suffix in (".mp4", ".mov"):
        data, at, boxes = path.read_bytes(), 0, []
        while at + 16 <= len(data):
            size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            boxes.append(name)
            at += (int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size) or len(data)
        return b"moov" in boxes and b"moof" not in boxes
    return path.suffix != ".mkv" or b"\x1c\x53\xbb\x6b" in path.read_bytes()  # Cues
