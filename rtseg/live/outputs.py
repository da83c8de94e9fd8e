"""Sinks of a live run, each in its own thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rtseg.core.frame import ProcessedFrame
from rtseg.core.palette import Palette
from rtseg.io.options import OutputOptions
from rtseg.io.outputs import Sink
from rtseg.io.outputs.masks import open_mask_sink
from rtseg.io.outputs.video import open_video
from rtseg.live.controls import Controls, LiveMetrics
from rtseg.live.options import Outputs
from rtseg.live.sink_thread import SinkThread
from rtseg.live.sinks.jsonl import JsonLinesFile, JsonLinesSink
from rtseg.live.sinks.push import PushSink
from rtseg.live.sinks.record import RecordingSink, path_for_camera
from rtseg.live.sinks.snapshot import SnapshotSink
from rtseg.live.sinks.web import WebSink
from rtseg.live.sinks.window import WindowSink

FILE_QUEUE_FRAMES = 8
"""Maximum number of frames that wait for a file while it starts a new segment or the disk is busy."""

CLOSING_SECONDS = 8.0
"""Time limit for completing a recording after q or a signal. A tenth of a second is usual; a busy machine needs more."""


def camera_sinks(
    outputs: Outputs,
    camera: str | None,
    lines: JsonLinesFile | None,
    classes: tuple[str, ...],
    only: tuple[int, ...] | None,
    every_frame: bool,
) -> list[SinkThread]:
    """Create the sinks of one camera: recording, masks, JSON lines.

    Args:
        outputs: output options.
        camera: name of the camera in file names; None: there is only one camera.
        lines: file of JSON lines shared by all cameras.
        classes: class names of the model.
        only: indices of the classes to keep in masks; None: all.
        every_frame: the loop waits for these sinks instead of dropping frames.

    Raises:
        SinkError: a folder is missing or can't be written.
    """
    sinks: list[Sink] = []
    if outputs.record is not None:
        sinks.append(
            RecordingSink(
                path_for_camera(outputs.record, camera),
                partial(_open_video, outputs=outputs),
                segment_seconds=outputs.segment_seconds,
                keep_bytes=outputs.keep_bytes,
                replace_first=camera is None and outputs.overwrite,
            )
        )
    if outputs.masks is not None:

        def open_masks(path: str, item: ProcessedFrame) -> Sink:
            return open_mask_sink(path, item.info, only=only, classes=classes, overwrite=outputs.overwrite)

        sinks.append(RecordingSink(path_for_camera(outputs.masks, camera), open_masks))
    if lines is not None:
        sinks.append(JsonLinesSink(lines, classes))
    return [
        SinkThread(
            sink,
            capacity=FILE_QUEUE_FRAMES,
            block_when_full=every_frame,
            closing_seconds=CLOSING_SECONDS if isinstance(sink, RecordingSink) else 0.0,
        )
        for sink in sinks
    ]


@dataclass(frozen=True)
class SharedSinks:
    """Sinks that show all cameras of a run."""

    shared: tuple[SinkThread, ...] = ()
    """Web page and pushed streams."""

    window: SinkThread | None = None
    """Window, whose `run_once` is called by the thread that runs the loop."""

    poll_window: Callable[[], None] = lambda: None
    """Called by that thread between two frames, to read keys."""

    snapshots: SinkThread | None = None
    """Sink for requested snapshots."""

    page_url: str | None = None
    """URL of the web page."""

    @property
    def all(self) -> tuple[SinkThread, ...]:
        """Sinks that get every frame."""
        return (*self.shared, self.window) if self.window else self.shared


def open_shared_sinks(outputs: Outputs, controls: Controls, metrics: LiveMetrics, palette: Palette) -> SharedSinks:
    """Create the sinks that show all cameras: web page, pushed streams, window and snapshots.

    Raises:
        SinkError: the address of the web page is in use, or there is no display.
    """
    displays = outputs.display_outputs()
    sinks: list[Sink] = []
    page_url = None
    if "web" in displays:
        page = WebSink(controls, metrics, palette, address=outputs.address, token=outputs.token)
        sinks, page_url = [page], page.url
    window = WindowSink(controls) if "window" in displays else None
    sinks += map(PushSink, outputs.push)
    return SharedSinks(
        tuple(SinkThread(sink) for sink in sinks),
        SinkThread(window, start_thread=False) if window else None,
        window.poll if window else lambda: None,
        SinkThread(SnapshotSink(outputs.snapshots), capacity=2),
        page_url,
    )


def _open_video(path: str, item: ProcessedFrame, outputs: Outputs) -> Sink:
    """Open one file of a recording. It replaces an existing file only under the name given by the user: see `RecordingSink`."""
    codec = outputs.codec or "libx264"
    has_preset = ("264" in codec or "265" in codec) and not codec.endswith("_nvenc")
    options = OutputOptions(
        codec=outputs.codec,
        crf=outputs.crf,
        preset="ultrafast" if has_preset else None,
        audio=False,
        overwrite=outputs.overwrite and Path(path) == Path(outputs.record or ""),
    )
    return open_video(path, item.info, (item.rendered.width, item.rendered.height), options, live=True)
