"""Batch processing of videos with one loaded model, sequentially or several at a time, and the totals.

Each video has its own source, overlay, sinks, statistics and fidelity report; only the model is shared. A video that fails does
not stop the others.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rtseg.core.cpu import usable_cores
from rtseg.core.errors import OptionError, RtsegError, SinkError
from rtseg.core.progress import NoProgress, Progress
from rtseg.core.report import FrameCounts
from rtseg.core.stats import peak_rss_mib
from rtseg.core.video_report import BatchItem, BatchReport, UnprocessedVideo, VideoReport
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.render.style import Style
from rtseg.video.completed import NO_OUTPUT, DoneList, FileState, state_of
from rtseg.video.output_names import Task
from rtseg.video.process import process

_log = logging.getLogger("rtseg.video")

CORES_PER_VIDEO = 4
"""Number of cores that decoding and encoding of one video use; `--jobs auto` processes one video for each such group."""

_MAX_JOBS = 8
_JOIN_SECONDS = 20.0
"""Timeout for running videos to close their files after Ctrl-C."""


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
    on_item: Callable[[BatchItem], None] = lambda _: None,
    on_failure: Callable[[BatchItem | BatchReport], None] = lambda _: None,
    new_progress: Callable[[], Progress] = NoProgress,
) -> BatchItem | BatchReport:
    """Process all videos of a batch.

    Args:
        tasks: inputs with their outputs.
        options: model and options that all videos share.
        jobs: number of videos processed at the same time.
        resume: skip videos whose output is complete and verified.
        on_item: called in the calling thread with the item of each video when it ends.
        on_failure: called with the report before an exception is raised. Videos that are not done have an `error`.
        new_progress: returns the progress of one more video.

    Returns:
        The report of a single video, or that of several with `items` in the order of `tasks`.

    Raises:
        RtsegError: the only video failed. Of several videos, each failed one is an item with an `error`.
        KeyboardInterrupt: all running videos were stopped; their partial files are playable.
    """
    done = DoneList(options.output_settings())
    states_before: dict[Task, FileState | None] = {}
    ended: dict[Task, BatchItem] = {}
    stop = threading.Event()
    start_wall, start_cpu = time.perf_counter(), time.process_time()

    def work(task: Task) -> BatchItem:
        reason = None
        if resume:
            if "-" in (task.source, task.output):
                raise OptionError("--resume needs input and output files, not stdin or stdout")
            reason = done.reason_to_process(task.source, task.output, task.masks)
            if reason is None:
                return UnprocessedVideo(input=task.source, output=task.output, skipped="already done")
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
            result = replace(result, notes=(f"processed again: {reason}", *result.notes))
        return result

    def finish(task: Task, item: BatchItem) -> None:
        # In later runs a listed output is no input (`output_names.find_inputs`) and may be replaced
        # (`output_names.unused_name`). No list is written next to a single output that the user named.
        listed = resume or len(tasks) > 1 or task.auto_named
        files = "-" not in (task.source, task.output) and Path(task.output).is_file()
        if isinstance(item, VideoReport) and listed and files:
            try:
                done.add(task.source, states_before[task], task.output, task.masks)
            except SinkError as error:
                item = replace(item, notes=(*item.notes, str(error)))
        ended[task] = item
        on_item(item)

    def report(error: str | None = None) -> BatchItem | BatchReport:
        items = [ended.get(task) or _failed(task, error) for task in tasks]
        if len(tasks) == 1:
            return items[0]
        return _totals(items, jobs, time.perf_counter() - start_wall, time.process_time() - start_cpu)

    try:
        if len(tasks) == 1:
            finish(tasks[0], work(tasks[0]))
        elif jobs == 1:
            for task in tasks:
                finish(task, _attempt(work, task))
        else:
            _run_parallel(work, tasks, jobs, stop, finish)
    except BaseException as error:
        on_failure(report("interrupted" if isinstance(error, KeyboardInterrupt) else _reason(error)))
        raise
    return report()


def _totals(items: Sequence[BatchItem], jobs: int, wall_seconds: float, cpu_seconds: float) -> BatchReport:
    """Return the report of several videos: the sums, and the report of each one.

    The times are those of the whole run. They count if several videos were processed at the same time.
    """
    done = [item.pipeline for item in items if isinstance(item, VideoReport)]
    frames = FrameCounts.total([each.frames for each in done])
    if jobs == 1:
        wall_seconds = sum(each.seconds for each in done)
        cpu_seconds = sum(each.cpu_seconds or 0.0 for each in done)
    note = (
        f"{jobs} videos at a time: seconds and fps are those of the whole run, including opening and verification; "
        "cpu_seconds and peak_rss_mib are measured for the whole process and are null in items"
    )
    return BatchReport(
        jobs=jobs,
        frames=frames,
        seconds=round(wall_seconds, 4),
        fps=round(frames.written / wall_seconds, 3) if wall_seconds else 0.0,
        cpu_seconds=round(cpu_seconds, 4),
        peak_rss_mib=round(peak_rss_mib(), 1),
        items=tuple(items),
        notes=(note,) if jobs > 1 else (),
    )


def _run_parallel(
    work: Callable[[Task], BatchItem],
    tasks: Sequence[Task],
    jobs: int,
    stop: threading.Event,
    finish: Callable[[Task, BatchItem], None],
) -> None:
    """Process the tasks in `jobs` worker threads; `finish` is called in the calling thread."""
    pending = deque(tasks)
    results: queue.SimpleQueue[tuple[Task, BatchItem] | BaseException] = queue.SimpleQueue()

    def run_worker() -> None:
        try:
            while not stop.is_set():
                task = pending.popleft()
                results.put((task, _attempt(work, task)))
        except IndexError:  # no task is left
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
            task, item = result
            if isinstance(item, VideoReport):
                item = replace(item, pipeline=replace(item.pipeline, cpu_seconds=None, peak_rss_mib=None))
            finish(task, item)
    finally:
        stop.set()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _attempt(work: Callable[[Task], BatchItem], task: Task) -> BatchItem:
    try:
        return work(task)
    except Exception as error:
        if not isinstance(error, RtsegError):  # a bug: reported; the other videos are still processed
            _log.exception(_reason(error))
        return _failed(task, _reason(error))


def _failed(task: Task, error: str | None) -> UnprocessedVideo:
    return UnprocessedVideo(input=task.source, output=task.output, error=error)


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, RtsegError) else f"a bug in rtseg: {type(error).__name__}: {error}"


class _StoppableProgress:
    """Progress of a video that ends at the next frame after `stop` is set."""

    def __init__(self, progress: Progress, stop: threading.Event) -> None:
        self.start, self.stop = progress.start, progress.stop
        self._advance, self._stop = progress.advance, stop

    def advance(self) -> None:
        self._advance()
        if self._stop.is_set():
            raise _Stopped
