"""Outputs of a live run: options, and the sinks that they create, each in its own thread."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from rtseg.core.errors import OptionError
from rtseg.core.frame import Color, ProcessedFrame, StreamInfo
from rtseg.core.palette import Palette
from rtseg.core.path_conflicts import Output, mask_output
from rtseg.core.secrets import parse_url, redacted_url
from rtseg.io.gstreamer.pipelines import encoder, to_file
from rtseg.io.outputs import Sink
from rtseg.io.outputs.containers import container_for
from rtseg.io.outputs.gstreamer import GStreamerSink
from rtseg.io.outputs.mask_folder import check_mask_path
from rtseg.io.outputs.masks import open_mask_sink
from rtseg.io.outputs.video import VideoSink
from rtseg.live.controls import Controls, LiveMetrics
from rtseg.live.sink_thread import SinkThread
from rtseg.live.sinks.jsonl import JsonLinesFile, JsonLinesSink
from rtseg.live.sinks.push import PushSink
from rtseg.live.sinks.record import RecordingSink, path_for_camera
from rtseg.live.sinks.restart import RestartingSink
from rtseg.live.sinks.snapshot import SnapshotSink
from rtseg.live.sinks.web import WebSink
from rtseg.live.sinks.window import WindowSink, has_display

FILE_QUEUE_FRAMES = 8
"""Maximum number of frames that wait for a file while it starts a new segment or the disk is busy."""

DISPLAYS = ("window", "web", "none")
"""Values of `--show`."""

CLOSING_SECONDS = 8.0
"""Time limit for completing a recording after q or a signal. A tenth of a second is usual; a busy machine needs more."""

OnError = Callable[[str, BaseException], None]


@dataclass(frozen=True)
class Outputs:
    """Output options of a live run."""

    show: tuple[str, ...] = ()
    """`window`, `web`, `none`; empty: window or web page, unless there is another output."""

    record: str | None = None
    """Video file; with several cameras, one per camera."""

    segment_seconds: float | None = None
    """Length of each segment of the recording; None: one file."""

    keep_bytes: int | None = None
    """Maximum total size of the segments of each recording."""

    codec: str | None = None
    """Encoder of the recording, as returned by `rtseg.io.codecs.choose_encoder`; None: the default of the container."""

    crf: int | None = None
    """Constant rate factor of the recording; None: 23."""

    preset: str = "ultrafast"
    """Preset of the encoder."""

    masks: str | None = None
    """Class indices: a folder or an .mkv file."""

    jsonl: str | None = None
    """File with one JSON line per frame; `-`: standard output."""

    push: tuple[str, ...] = ()
    """URLs to which the rendered video is sent."""

    snapshots: Path = Path()
    """Folder for snapshots."""

    address: str = "127.0.0.1:8080"
    """Address of the web page."""

    token: str | None = None
    """Access token of the web page; None: created if other machines can reach the page."""

    overwrite: bool = True
    """Replace existing files."""

    def check(self) -> None:
        """Raise OptionError if the options are invalid or contradict each other. Opens nothing."""
        for option, file in (("--record", self.record), ("--masks", self.masks), ("--jsonl", self.jsonl)):
            if file is not None and "://" in file:
                raise OptionError(f"{option} writes a file, not {redacted_url(file)}; --push sends to a URL")
        for url in self.push:
            parse_url(url, "--push")
        for show in self.show:
            if show not in DISPLAYS:
                raise OptionError(f"--show is '{show}'; choose from {', '.join(DISPLAYS)}")
        if (self.segment_seconds is not None or self.keep_bytes is not None) and self.record is None:
            raise OptionError("--split-every and --keep need a recording: give --record out.mp4")
        if self.keep_bytes is not None and self.segment_seconds is None:
            raise OptionError("--keep removes old segments: give their length with --split-every 60")
        if self.segment_seconds is not None and self.segment_seconds < 1:
            raise OptionError(f"--split-every is {self.segment_seconds:g} s; give 1 or more")
        if self.record is not None and self.codec == "gstreamer":
            to_file(self.record, encoder(Fraction(25)))  # reports a missing container or encoder now
        if self.record == "-" and self.segment_seconds is not None:
            raise OptionError("--split-every writes files: give one with --record, such as out.mp4")
        if self.masks == "-":
            raise OptionError("--masks can't go to standard output; give a folder or an .mkv file")
        if self.snapshots.exists() and not self.snapshots.is_dir():
            raise OptionError(f"--snapshots {self.snapshots} is a file; give a folder")

    def files(self, camera: str | None) -> list[Output]:
        """Return the first files of the recording and the masks of a camera; see `camera_sinks`."""
        record = [] if self.record is None else [Output(path_for_camera(self.record, camera), "--record")]
        masks = [] if self.masks is None else [mask_output(path_for_camera(self.masks, camera))]
        return [*record, *masks]

    def check_masks(self, camera: str | None) -> None:
        """Raise SinkError or OptionError if the masks of a camera can't be written."""
        if self.masks is not None:
            check_mask_path(path_for_camera(self.masks, camera), overwrite=self.overwrite)

    def encoder_name(self) -> str | None:
        """Return the encoder of the recording, for statistics; None: no recording."""
        if self.record is None:
            return None
        if self.codec == "gstreamer":
            return encoder(Fraction(25)).name
        return self.codec or container_for(self.record).video_codec

    def display_outputs(self) -> tuple[str, ...]:
        """Return `--show`; by default a window if there is a display, else the web page."""
        if self.show:
            return tuple(show for show in dict.fromkeys(self.show) if show != "none")
        if self.record or self.masks or self.jsonl or self.push:
            return ()
        return ("window",) if has_display() else ("web",)


def camera_sinks(
    outputs: Outputs,
    camera: str | None,
    lines: JsonLinesFile | None,
    classes: tuple[str, ...],
    only: tuple[int, ...] | None,
    every_frame: bool,
    on_error: OnError,
) -> list[SinkThread]:
    """Create the sinks of one camera: recording, masks, JSON lines.

    Args:
        outputs: output options.
        camera: name of the camera in file names; None: there is only one camera.
        lines: file of JSON lines shared by all cameras.
        classes: class names of the model.
        only: indices of the classes to keep in masks; None: all.
        every_frame: the loop waits for these sinks instead of dropping frames.
        on_error: called with the name and the exception of a sink that fails.

    Raises:
        SinkError: a folder is missing or can't be written.
    """
    sinks: list[Sink] = []
    if outputs.record is not None:

        def open_video(path: str, item: ProcessedFrame) -> Sink:
            return _open_video(path, item, outputs)

        path = path_for_camera(outputs.record, camera)
        sinks.append(
            RecordingSink(
                path,
                open_video,
                segment_seconds=outputs.segment_seconds,
                keep_bytes=outputs.keep_bytes,
                replace_first=camera is None,
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
            on_error=on_error,
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


def open_shared_sinks(
    outputs: Outputs,
    controls: Controls,
    metrics: LiveMetrics,
    palette: Palette,
    log: Callable[[str], None],
    on_error: OnError,
) -> SharedSinks:
    """Create the sinks that show all cameras: web page, pushed streams, window and snapshots.

    Raises:
        SinkError: the address of the web page is in use, or there is no display.
    """
    displays = outputs.display_outputs()
    page = None
    if "web" in displays:
        page = WebSink(controls, metrics, address=outputs.address, token=outputs.token, palette=palette)
    window = WindowSink(controls) if "window" in displays else None
    pushed = [_push(url) for url in outputs.push]
    snapshots = SnapshotSink(outputs.snapshots, lambda path: log(f"saved {path}"))
    return SharedSinks(
        tuple(SinkThread(sink, on_error=on_error) for sink in [*([page] if page else []), *pushed]),
        SinkThread(window, start_thread=False, on_error=on_error) if window else None,
        window.poll if window else lambda: None,
        SinkThread(snapshots, capacity=2, on_error=on_error),
        page.url if page else None,
    )


def parse_bytes(text: str | None) -> int | None:
    """Return a size such as `10GB`, `500 MB` or `1.5T` in bytes (decimal units); None for None.

    Raises:
        OptionError: the text is not a size.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT])?B?", text.strip())
    if not match:
        raise OptionError(f"'{text}' is not a size; write it like 500MB or 10GB")
    return int(float(match[1]) * 1000 ** " KMGT".index((match[2] or " ").upper()))


def _push(url: str) -> Sink:
    """Return a sink that opens the stream at the first frame, whose size it needs. A wrong URL is reported now."""
    unknown = StreamInfo("", 64, 64, "yuv420p", Color("bt709", full_range=False), Fraction(1, 90_000))
    check = PushSink(url, unknown, size=(64, 64))
    check.abort()

    def open_push(item: ProcessedFrame) -> Sink:
        return PushSink(url, item.info, size=(item.rendered.width, item.rendered.height))

    return RestartingSink(check.name, open_push)


def _open_video(path: str, item: ProcessedFrame, outputs: Outputs) -> Sink:
    """Open one file of a recording. It replaces an existing file only under the name given by the user: see `RecordingSink`."""
    size = (item.rendered.width, item.rendered.height)
    overwrite = outputs.overwrite and Path(path) == Path(outputs.record or "")
    if outputs.codec == "gstreamer":
        return GStreamerSink(path, item.info, size=size, crf=outputs.crf, overwrite=overwrite, read_whole=False)
    codec = outputs.codec or "libx264"
    preset = tune = None
    if codec.endswith("_nvenc"):
        preset, tune = "p1", "ll"
    elif "264" in codec or "265" in codec:
        preset, tune = outputs.preset, "zerolatency"
    return VideoSink(
        path,
        item.info,
        size=size,
        codec=outputs.codec,
        crf=outputs.crf,
        preset=preset,
        tune=tune,
        audio=False,
        overwrite=overwrite,
        live=True,
    )
