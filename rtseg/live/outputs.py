"""The sinks of a live run, each in a thread of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from rtseg.core.errors import OptionError
from rtseg.core.frame import Color, StreamInfo
from rtseg.core.palette import Palette
from rtseg.core.path_conflicts import Output, mask_output
from rtseg.core.secrets import parse_url, redacted_url
from rtseg.io.gstreamer.pipelines import encoder, to_file
from rtseg.io.outputs import Sink
from rtseg.io.outputs.containers import container_for
from rtseg.io.outputs.masks import check_mask_path, open_mask_sink
from rtseg.io.outputs.video import VideoSink
from rtseg.live.controls import Controls, LiveNumbers
from rtseg.live.live_frame import LiveFrame
from rtseg.live.sink_thread import SinkThread
from rtseg.live.sinks.jsonl import JsonLines, LinesFile
from rtseg.live.sinks.record import Record, numbered_folder_or_file
from rtseg.live.sinks.restart import Restarting
from rtseg.live.sinks.snapshot import Snapshots
from rtseg.live.sinks.window import Window, has_display

FILE_WAITS = 8
"""Frames that may wait for a file, while it begins a new segment or the disk is busy."""

SHOWS = ("window", "web", "none")
"""What `--show` takes."""

CLOSING_SECONDS = 8.0
"""How long a recording may take to be completed after q or a signal. A tenth of a second is usual; a busy machine needs more."""

OnError = Callable[[str, BaseException], None]


@dataclass(frozen=True)
class Outputs:
    """Where a live run goes."""

    show: tuple[str, ...] = ()
    """`window`, `web`, `none`; empty: what suits the machine, unless it goes somewhere else."""

    record: str | None = None
    """A video file; with several cameras, one each."""

    segment_seconds: float | None = None
    """Length of each file of the recording; None: one file."""

    keep_bytes: int | None = None
    """The segments of each recording are at most this large together."""

    codec: str | None = None
    """The recording's encoder, as `rtseg.io.codecs.choose_encoder` gives it; None: what suits the container."""

    crf: int | None = None
    """Constant rate factor of the recording; None: 23."""

    preset: str = "ultrafast"
    """The encoder's preset."""

    masks: str | None = None
    """Class indices: a folder, or an .mkv."""

    jsonl: str | None = None
    """A file of one line for each frame; `-`: standard output."""

    push: tuple[str, ...] = ()
    """URLs that the picture is sent to."""

    snapshots: Path = Path()
    """Folder of single pictures."""

    address: str = "127.0.0.1:8080"
    """Of the web page."""

    token: str | None = None
    """Of the web page, where it is reached from other machines."""

    overwrite: bool = True
    """Replace existing files."""

    def check(self) -> None:
        """Raises OptionError for what makes no sense, before anything is opened."""
        for option, file in (("--record", self.record), ("--masks", self.masks), ("--jsonl", self.jsonl)):
            if file is not None and "://" in file:
                raise OptionError(f"{option} writes a file, not {redacted_url(file)}; --push sends to a URL")
        for url in self.push:
            parse_url(url, "--push")
        for show in self.show:
            if show not in SHOWS:
                raise OptionError(f"--show is '{show}'; there are {', '.join(SHOWS)}")
        if (self.segment_seconds is not None or self.keep_bytes is not None) and self.record is None:
            raise OptionError("--split-every and --keep are about a recording: name it with --record out.mp4")
        if self.keep_bytes is not None and self.segment_seconds is None:
            raise OptionError("--keep removes old segments: give their length with --split-every 60")
        if self.segment_seconds is not None and self.segment_seconds < 1:
            raise OptionError(f"--split-every is {self.segment_seconds:g} s; give 1 or more")
        if self.record is not None and self.codec == "gstreamer":
            to_file(self.record, encoder(Fraction(25)))  # a container or an encoder that is not there is told now
        if self.record == "-" and self.segment_seconds is not None:
            raise OptionError("--split-every makes files: name one with --record, such as out.mp4")
        if self.masks == "-":
            raise OptionError("--masks can't go to standard output; name a folder or an .mkv file")
        if self.snapshots.exists() and not self.snapshots.is_dir():
            raise OptionError(f"--snapshots {self.snapshots} is a file; name a folder")

    def files(self, camera: str | None) -> list[Output]:
        """The recording and the masks of a camera, by the names of their first files; see `camera_sinks`."""
        record = [] if self.record is None else [Output(numbered_folder_or_file(self.record, camera), "--record")]
        masks = [] if self.masks is None else [mask_output(numbered_folder_or_file(self.masks, camera))]
        return [*record, *masks]

    def check_masks(self, camera: str | None) -> None:
        """Raises SinkError or OptionError where the masks of a camera can't go to their folder."""
        if self.masks is not None:
            check_mask_path(numbered_folder_or_file(self.masks, camera), overwrite=self.overwrite)

    def encoder_name(self) -> str | None:
        """What encodes the recording, for statistics; None: nothing is recorded."""
        if self.record is None:
            return None
        if self.codec == "gstreamer":
            return encoder(Fraction(25)).name
        return self.codec or container_for(self.record).video_codec

    def shown_on(self) -> tuple[str, ...]:
        """`--show`, or where none is named: a window where there is a display, else the web page."""
        if self.show:
            return tuple(show for show in dict.fromkeys(self.show) if show != "none")
        if self.record or self.masks or self.jsonl or self.push:
            return ()
        return ("window",) if has_display() else ("web",)


def camera_sinks(
    outputs: Outputs,
    camera: str | None,
    lines: LinesFile | None,
    classes: tuple[str, ...],
    only: tuple[int, ...] | None,
    every_frame: bool,
    on_error: OnError,
) -> list[SinkThread]:
    """The sinks of one camera: recording, masks, lines.

    Args:
        outputs: where the run goes.
        camera: the camera's name where there are several, for file names.
        lines: the file of lines that all cameras share.
        classes: the model's class names.
        only: indices of the classes to keep in masks; None: all.
        every_frame: the loop waits for these sinks instead of dropping.
        on_error: told when one dies.

    Raises:
        SinkError: a folder is missing or can't be written.
    """
    sinks: list[Sink] = []
    if outputs.record is not None:

        def open_video(path: str, item: LiveFrame) -> Sink:
            return _open_video(path, item, outputs)

        path = numbered_folder_or_file(outputs.record, camera)
        sinks.append(
            Record(
                path,
                open_video,
                segment_seconds=outputs.segment_seconds,
                keep_bytes=outputs.keep_bytes,
                replace_first=camera is None,
            )
        )
    if outputs.masks is not None:

        def open_masks(path: str, item: LiveFrame) -> Sink:
            return open_mask_sink(path, item.info, only=only, classes=classes, overwrite=outputs.overwrite)

        sinks.append(Record(numbered_folder_or_file(outputs.masks, camera), open_masks))
    if lines is not None:
        sinks.append(JsonLines(lines, classes))
    return [
        SinkThread(
            sink,
            capacity=FILE_WAITS,
            patient=every_frame,
            closing_seconds=CLOSING_SECONDS if isinstance(sink, Record) else 0.0,
            on_error=on_error,
        )
        for sink in sinks
    ]


def shared_sinks(
    outputs: Outputs, controls: Controls, numbers: LiveNumbers, palette: Palette, on_error: OnError
) -> list[SinkThread]:
    """The sinks that show all cameras: web page, pushed streams. (A window is the main thread's: see `open_window`.)

    Raises:
        SinkError: the page's address is taken.
    """
    sinks: list[Sink] = []
    if "web" in outputs.shown_on():
        from rtseg.live.sinks.web import WebSink

        sinks.append(WebSink(controls, numbers, address=outputs.address, token=outputs.token, palette=palette))
    for url in outputs.push:
        sinks.append(_push(url))
    return [SinkThread(sink, on_error=on_error) for sink in sinks]


def open_window(outputs: Outputs, controls: Controls, on_error: OnError) -> tuple[SinkThread, Window] | None:
    """The window, if one is wanted. Raises SinkError where there is no display."""
    if "window" not in outputs.shown_on():
        return None
    window = Window(controls)
    return SinkThread(window, own_thread=False, on_error=on_error), window


def open_snapshots(outputs: Outputs, log: Callable[[str], None], on_error: OnError) -> SinkThread:
    """The sink for single pictures."""
    return SinkThread(Snapshots(outputs.snapshots, lambda path: log(f"saved {path}")), capacity=2, on_error=on_error)


def parse_bytes(text: str | None) -> int | None:
    """`10GB`, `500 MB`, `1.5T` as bytes, decimal; None stays None.

    Raises:
        OptionError: not of that form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT])?B?", text.strip())
    if not match:
        raise OptionError(f"a size is '{text}'; write it like 500MB or 10GB")
    return int(float(match[1]) * 1000 ** " KMGT".index((match[2] or " ").upper()))


def _push(url: str) -> Sink:
    """A stream to `url`, opened when the first frame says how large the pictures are. Wrong URLs are told now."""
    from rtseg.live.sinks.push import PushSink

    unknown = StreamInfo("", 64, 64, "yuv420p", Color("bt709", full_range=False), Fraction(1, 90_000))
    trial = PushSink(url, unknown, size=(64, 64))
    trial.abort()

    def open_push(item: LiveFrame) -> Sink:
        return PushSink(url, item.info, size=(item.rendered.width, item.rendered.height))

    return Restarting(trial.name, open_push)


def _open_video(path: str, item: LiveFrame, outputs: Outputs) -> Sink:
    """One file of a recording. Only the name that the user gave may replace a file: see `Record`."""
    size = (item.rendered.width, item.rendered.height)
    overwrite = outputs.overwrite and Path(path) == Path(outputs.record or "")
    if outputs.codec == "gstreamer":
        from rtseg.io.outputs.gstreamer import GStreamerSink

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
