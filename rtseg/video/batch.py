"""Many videos through one loaded model, one after the other or several at a time, and their sums.

Each has its own source, overlay, sinks, statistics and fidelity report; what is shared is the model. One that can't be done
does not stop the others.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rtseg._version import __version__
from rtseg.core.cpu import usable_cores
from rtseg.core.errors import OptionError, RtsegError, SinkError
from rtseg.core.progress import Board
from rtseg.core.stats import peak_rss_mib
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.render.style import Style
from rtseg.video.completed import NO_OUTPUT, DoneList, State, state_of
from rtseg.video.output_names import Task
from rtseg.video.process import process

CORES_A_VIDEO = 4
"""Decoding and encoding of one video keep about as many cores busy; `--jobs auto` begins another one for each."""

_MOST_AT_ONCE = 8
_JOIN_SECONDS = 20.0
"""How long the videos in work may take to close their files after Ctrl-C."""

Item = dict[str, Any]
"""An input's statistics, with `error` where it failed and `skipped` where it was already done."""


class _Stopped(BaseException):
    """The whole run ends: raised between two frames of a video in work."""


@dataclass(frozen=True)
class Run:
    """What all videos of a run share."""

    segmenter: Segmenter
    style: Style
    encoding: OutputOptions
    reading: InputOptions
    quiet: bool = False

    def made_with(self) -> dict[str, Any]:
        """All that decides how an output looks; see `rtseg.video.completed`."""
        overlay = self.style.overlay(self.segmenter.description)
        palette = [list(color) for color in overlay.palette.colors]  # a palette's file may change under its name
        encoding = {name: value for name, value in asdict(self.encoding).items() if name != "overwrite"}
        part: dict[str, Any] = {
            "start": self.reading.start,
            "duration": self.reading.duration,
            "strict": self.reading.strict,
        }
        if self.reading.stream is not None:  # left out otherwise, so that lists of earlier versions still count
            part["stream"] = self.reading.stream
        return {**asdict(self.style), "palette": palette, **encoding, **part, **self.segmenter.settings()}


def jobs_at_once(text: str, tasks: int) -> int:
    """How many videos are done at the same time for `--jobs N|auto`.

    Raises:
        OptionError: neither a number from 1 on nor `auto`.
    """
    if text == "auto":
        wanted = min(_MOST_AT_ONCE, usable_cores() // CORES_A_VIDEO)
    elif text.isascii() and text.isdecimal() and int(text) >= 1:
        wanted = int(text)
    else:
        raise OptionError(f"--jobs is '{text}'; give how many videos are done at the same time, or auto")
    return max(1, min(wanted, tasks))


def process_all(
    tasks: Sequence[Task],
    run: Run,
    *,
    jobs: int = 1,
    resume: bool = False,
    on_item: Callable[[Item], None] = lambda _: None,
) -> Item:
    """Does all videos of a run.

    Args:
        tasks: the inputs with their outputs.
        run: what they share.
        jobs: how many are in work at the same time.
        resume: leave out those whose output is already done and proven.
        on_item: told of each as it ends, by the caller's own thread.

    Returns:
        The statistics of a single video, or the totals of several with `items` in the order of `tasks`.

    Raises:
        RtsegError: a single video can't be done. Of several, each such is an item with an `error`.
        KeyboardInterrupt: all videos in work were ended, their partial files are playable.
    """
    done = DoneList(run.made_with())
    before: dict[Task, State | None] = {}
    stop = threading.Event()
    begin = time.perf_counter(), time.process_time()
    with Board(quiet=run.quiet) as board:

        def work(task: Task) -> Item:
            again = None
            if resume:
                if "-" in (task.source, task.output):
                    raise OptionError("--resume can't tell what went through stdin or stdout before; name files")
                again = done.why_again(task.source, task.output, task.masks)
                if again is None:
                    return {**_identity(task), "skipped": "already done"}
            before[task] = state_of(task.source)
            result = process(
                task.source,
                task.output,
                run.segmenter,
                run.style,
                run.encoding,
                run.reading,
                masks=task.masks,
                quiet=run.quiet,
                board=board,
                on_frame=lambda: _raise_if(stop),
            )
            if again not in (None, NO_OUTPUT):
                result["notes"].insert(0, f"done again: {again}")
            return result

        def ended(task: Task, item: Item) -> None:
            # The next run knows it: it is no input (`naming.find_inputs`) and may be replaced (`naming.unused_name`).
            # A single file that the user named is the user's: nothing else is left beside it.
            listed = resume or len(tasks) > 1 or task.made_up
            if "fidelity" in item and listed and "-" not in (task.source, task.output) and Path(task.output).is_file():
                try:
                    done.note(task.source, before[task], task.output, task.masks)
                except SinkError as error:
                    item["notes"].append(str(error))
            on_item(item)

        if len(tasks) == 1:
            item = work(tasks[0])
            ended(tasks[0], item)
            return item
        items = _overlapped(work, tasks, jobs, stop, ended) if jobs > 1 else _in_turn(work, tasks, ended)
    if jobs == 1:
        return totals(items)
    return totals(items, jobs, time.perf_counter() - begin[0], time.process_time() - begin[1])


def totals(
    items: Sequence[Item], jobs: int = 1, wall_seconds: float | None = None, cpu_seconds: float | None = None
) -> Item:
    """Several inputs' statistics as one object: sums, and each input's own object under `items`.

    Args:
        items: the inputs' own.
        jobs: how many were in work at the same time.
        wall_seconds: what the run took, where several were in work at the same time; None: the sum of what each took.
        cpu_seconds: the same for the processors' time.
    """
    done = [item for item in items if "frames" in item]
    frames = {
        key: sum(item["frames"][key] for item in done) for key in ("read", "segmented", "written", "dropped", "corrupt")
    }
    seconds = sum(item["seconds"] for item in done) if wall_seconds is None else wall_seconds
    cpu = sum(item["cpu_seconds"] for item in done) if cpu_seconds is None else cpu_seconds
    told: Item = {
        "rtseg": __version__,
        "command": "video",
        "jobs": jobs,
        "frames": frames,
        "seconds": round(seconds, 4),
        "fps": round(frames["written"] / seconds, 3) if seconds else 0.0,
        "cpu_seconds": round(cpu, 4),
        "peak_rss_mib": round(peak_rss_mib(), 1),
        "items": list(items),
    }
    if jobs > 1:
        told["notes"] = [
            f"{jobs} videos at a time: seconds and fps are those of the whole run, opening and checking included; "
            "cpu_seconds and peak_rss_mib can be told of the process alone and are null in items"
        ]
    return told


def _in_turn(work: Callable[[Task], Item], tasks: Sequence[Task], ended: Callable[[Task, Item], None]) -> list[Item]:
    items = []
    for task in tasks:
        items.append(_attempt(work, task))
        ended(task, items[-1])
    return items


def _overlapped(
    work: Callable[[Task], Item],
    tasks: Sequence[Task],
    jobs: int,
    stop: threading.Event,
    ended: Callable[[Task, Item], None],
) -> list[Item]:
    """Several at a time, each in a thread that takes the next when it has ended; `ended` is called by this thread alone."""
    items: list[Item] = [{} for _ in tasks]
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    results: queue.SimpleQueue[tuple[int, Item] | BaseException] = queue.SimpleQueue()
    for number in range(len(tasks)):
        todo.put(number)

    def take() -> None:
        try:
            while not stop.is_set():
                number = todo.get_nowait()
                results.put((number, _attempt(work, tasks[number])))
        except queue.Empty:
            return
        except BaseException as error:  # carried to the run's own thread, which raises it
            results.put(error)

    threads = [threading.Thread(target=take, name=f"rtseg-video-{job}", daemon=True) for job in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        for _ in tasks:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            number, item = result
            items[number] = item | {name: None for name in ("cpu_seconds", "peak_rss_mib") if name in item}
            ended(tasks[number], items[number])
    finally:
        stop.set()
        latest = time.monotonic() + _JOIN_SECONDS
        for thread in threads:
            thread.join(max(0.0, latest - time.monotonic()))
    return items


def _attempt(work: Callable[[Task], Item], task: Task) -> Item:
    try:
        return work(task)
    except RtsegError as error:
        return {**_identity(task), "error": str(error)}
    except Exception as error:  # a bug: shown as what it is; the other videos are done all the same
        traceback.print_exc(file=sys.stderr)
        return {**_identity(task), "error": f"a bug in rtseg: {type(error).__name__}: {error}"}


def _identity(task: Task) -> Item:
    return {"rtseg": __version__, "command": "video", "input": task.source, "output": task.output}


def _raise_if(stop: threading.Event) -> None:
    if stop.is_set():
        raise _Stopped
