"""Batch processing of videos with one loaded model, sequentially or several at a time, and the totals.

Each video has its own source, overlay, sinks, statistics and fidelity report; only the model is shared. A video that fails does
not stop the others.
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
from rtseg.core.progress import NoProgress, Progress
from rtseg.core.stats import peak_rss_mib
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.render.style import Style
from rtseg.video.completed import NO_OUTPUT, DoneList, FileState, state_of
from rtseg.video.output_names import Task
from rtseg.video.process import process

CORES_PER_VIDEO = 4
"""Number of cores that decoding and encoding of one video use; `--jobs auto` processes one video for each such group."""

_MAX_JOBS = 8
_JOIN_SECONDS = 20.0
"""Timeout for running videos to close their files after Ctrl-C."""

Item = dict[str, Any]
"""Statistics of one input, with `error` where it failed and `skipped` where it was already done."""


class _Stopped(BaseException):
    """End of the whole run; raised between two frames of a running video."""


@dataclass(frozen=True)
class BatchOptions:
    """Model and options that all videos of a batch share."""

    segmenter: Segmenter
    style: Style
    output_options: OutputOptions
    input_options: InputOptions

    def output_settings(self) -> dict[str, Any]:
        """Return all settings that affect the content of an output; see `rtseg.video.completed.DoneList`."""
        overlay = self.style.overlay(self.segmenter.description)
        palette = [list(color) for color in overlay.palette.colors]  # the content: a palette file may change
        options = asdict(self.style) | asdict(self.output_options) | asdict(self.input_options)
        for name in ("overwrite", "max_pixels", "allow_protocols", "decoder"):
            del options[name]  # these decide whether there is an output, not its content
        return {**options, "palette": palette, **self.segmenter.settings()}


def parse_jobs(text: str, tasks: int) -> int:
    """Return the number of videos to process at the same time for `--jobs N|auto`, at most `tasks`.

    Raises:
        OptionError: `text` is neither an integer of 1 or more nor `auto`.
    """
    if text == "auto":
        jobs = min(_MAX_JOBS, usable_cores() // CORES_PER_VIDEO)
    elif text.isascii() and text.isdecimal() and int(text) >= 1:
        jobs = int(text)
    else:
        raise OptionError(f"--jobs is '{text}'; give the number of videos to process at the same time, or auto")
    return max(1, min(jobs, tasks))


def process_all(
    tasks: Sequence[Task],
    options: BatchOptions,
    *,
    jobs: int = 1,
    resume: bool = False,
    on_item: Callable[[Item], None] = lambda _: None,
    new_progress: Callable[[], Progress] = NoProgress,
) -> Item:
    """Process all videos of a batch.

    Args:
        tasks: inputs with their outputs.
        options: model and options that all videos share.
        jobs: number of videos processed at the same time.
        resume: skip videos whose output is complete and verified.
        on_item: called in the calling thread with the item of each video when it ends.
        new_progress: returns the progress of one more video.

    Returns:
        The statistics of a single video, or the totals of several with `items` in the order of `tasks`.

    Raises:
        RtsegError: the only video failed. Of several videos, each failed one is an item with an `error`.
        KeyboardInterrupt: all running videos were stopped; their partial files are playable.
    """
    done = DoneList(options.output_settings())
    states_before: dict[Task, FileState | None] = {}
    stop = threading.Event()
    start_wall, start_cpu = time.perf_counter(), time.process_time()

    def work(task: Task) -> Item:
        reason = None
        if resume:
            if "-" in (task.source, task.output):
                raise OptionError("--resume needs input and output files, not stdin or stdout")
            reason = done.reason_to_process(task.source, task.output, task.masks)
            if reason is None:
                return {**_identity(task), "skipped": "already done"}
        states_before[task] = state_of(task.source)
        result = process(
            task.source,
            task.output,
            options.segmenter,
            options.style,
            options.output_options,
            options.input_options,
            masks=task.masks,
            progress=_StoppableProgress(new_progress(), stop),
        )
        if reason not in (None, NO_OUTPUT):
            result["notes"].insert(0, f"processed again: {reason}")
        return result

    def finish(task: Task, item: Item) -> None:
        # In later runs a listed output is no input (`output_names.find_inputs`) and may be replaced
        # (`output_names.unused_name`). No list is written next to a single output that the user named.
        listed = resume or len(tasks) > 1 or task.auto_named
        if "fidelity" in item and listed and "-" not in (task.source, task.output) and Path(task.output).is_file():
            try:
                done.add(task.source, states_before[task], task.output, task.masks)
            except SinkError as error:
                item["notes"].append(str(error))
        on_item(item)

    if len(tasks) == 1:
        item = work(tasks[0])
        finish(tasks[0], item)
        return item
    items = _run_parallel(work, tasks, jobs, stop, finish) if jobs > 1 else _run_sequential(work, tasks, finish)
    if jobs == 1:
        return totals(items)
    return totals(items, jobs, time.perf_counter() - start_wall, time.process_time() - start_cpu)


def totals(
    items: Sequence[Item], jobs: int = 1, wall_seconds: float | None = None, cpu_seconds: float | None = None
) -> Item:
    """Return the statistics of several inputs as one object: the sums, and the object of each input under `items`.

    Args:
        items: statistics of the inputs.
        jobs: number of videos that were processed at the same time.
        wall_seconds: wall time of the whole run; None: the sum over `items`.
        cpu_seconds: CPU time of the whole run; None: the sum over `items`.
    """
    done = [item for item in items if "frames" in item]
    frames = {
        key: sum(item["frames"][key] for item in done) for key in ("read", "segmented", "written", "dropped", "corrupt")
    }
    seconds = sum(item["seconds"] for item in done) if wall_seconds is None else wall_seconds
    cpu = sum(item["cpu_seconds"] for item in done) if cpu_seconds is None else cpu_seconds
    result: Item = {
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
        result["notes"] = [
            f"{jobs} videos at a time: seconds and fps are those of the whole run, including opening and verification; "
            "cpu_seconds and peak_rss_mib are measured for the whole process and are null in items"
        ]
    return result


def _run_sequential(
    work: Callable[[Task], Item], tasks: Sequence[Task], finish: Callable[[Task, Item], None]
) -> list[Item]:
    items = []
    for task in tasks:
        items.append(_attempt(work, task))
        finish(task, items[-1])
    return items


def _run_parallel(
    work: Callable[[Task], Item],
    tasks: Sequence[Task],
    jobs: int,
    stop: threading.Event,
    finish: Callable[[Task, Item], None],
) -> list[Item]:
    """Process the tasks in `jobs` worker threads; `finish` is called in the calling thread."""
    items: list[Item] = [{} for _ in tasks]
    pending: queue.SimpleQueue[int] = queue.SimpleQueue()
    results: queue.SimpleQueue[tuple[int, Item] | BaseException] = queue.SimpleQueue()
    for index in range(len(tasks)):
        pending.put(index)

    def run_worker() -> None:
        try:
            while not stop.is_set():
                index = pending.get_nowait()
                results.put((index, _attempt(work, tasks[index])))
        except queue.Empty:
            return
        except BaseException as error:  # raised again in the calling thread
            results.put(error)

    threads = [threading.Thread(target=run_worker, name=f"rtseg-video-{job}", daemon=True) for job in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        for _ in tasks:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            index, item = result
            items[index] = item | {name: None for name in ("cpu_seconds", "peak_rss_mib") if name in item}
            finish(tasks[index], items[index])
    finally:
        stop.set()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    return items


def _attempt(work: Callable[[Task], Item], task: Task) -> Item:
    try:
        return work(task)
    except RtsegError as error:
        return {**_identity(task), "error": str(error)}
    except Exception as error:  # a bug: reported; the other videos are still processed
        traceback.print_exc(file=sys.stderr)
        return {**_identity(task), "error": f"a bug in rtseg: {type(error).__name__}: {error}"}


def _identity(task: Task) -> Item:
    return {"rtseg": __version__, "command": "video", "input": task.source, "output": task.output}


class _StoppableProgress:
    """Progress of a video that ends at the next frame after `stop` is set."""

    def __init__(self, progress: Progress, stop: threading.Event) -> None:
        self.start, self.stop = progress.start, progress.stop
        self._advance, self._stop = progress.advance, stop

    def advance(self) -> None:
        self._advance()
        if self._stop.is_set():
            raise _Stopped
