"""Options of a live run: how frames are processed, and which outputs are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from rtseg.core.errors import OptionError
from rtseg.core.path_conflicts import Output, mask_output
from rtseg.core.secrets import parse_url, redacted_url
from rtseg.io.gstreamer.pipelines import encoder, to_file
from rtseg.io.outputs.containers import container_for
from rtseg.io.outputs.masks import check_mask_path
from rtseg.live.sinks.record import path_for_camera
from rtseg.live.sinks.window import has_display

DISPLAYS = ("window", "web", "none")
"""Values of `--show`."""


@dataclass(frozen=True)
class LiveOptions:
    """Options of a live run."""

    max_age_ms: float | None = None
    """Maximum age of a displayed frame; older frames are not displayed. None: no limit."""

    every_frame: bool = False
    """Drop nothing and accept delay."""

    adaptive: bool = False
    """Reduce the work if the machine can't keep up: see `rtseg.live.load_shedding.LoadShedder`."""

    reconnect_max_seconds: float = 30.0
    """Longest pause between two attempts to connect; 0: a disconnect ends that input."""

    wait: bool = False
    """Keep waiting if no camera can be opened at first."""


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


def parse_bytes(text: str) -> int:
    """Return a size such as `10GB`, `500 MB` or `1.5T` in bytes (decimal units).

    Raises:
        OptionError: the text is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT])?B?", text.strip())
    if not match:
        raise OptionError(f"'{text}' is not a size; write it like 500MB or 10GB")
    return int(float(match[1]) * 1000 ** " KMGT".index((match[2] or " ").upper()))
