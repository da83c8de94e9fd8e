"""Options shared by several commands, and parsers of option values."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rtseg.cli.errors import print_line
from rtseg.core.choices import Decoder, Encoder, Fit, View
from rtseg.core.errors import BackendError, OptionError

_MAX_SECONDS = 1e9
"""Maximum duration, more than thirty years. Fits into 64 bits in nanoseconds."""

INPUT, OUTPUT, MODEL, APPEARANCE = "Input", "Output", "Model", "Appearance"
"""Panels of the help."""


Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of a labeled data set.", show_default=False)]
LayoutOption = Annotated[
    str,
    typer.Option(
        "--layout",
        help="Layout of DATA: auto, folders, camvid, notebook, cityscapes or bdd100k.",
        rich_help_panel="Data",
    ),
]
StreamOption = Annotated[
    int | None,
    typer.Option(
        "--stream",
        metavar="N",
        min=0,
        help="Video stream to segment, from 0 (v:N in FFmpeg).",
        show_default="the largest; among equals the default stream",
        rich_help_panel=INPUT,
    ),
]
DecoderOption = Annotated[
    Decoder,
    typer.Option("--decoder", help="Video decoder. nvdec: NVIDIA GPU; gstreamer: Jetson.", rich_help_panel=INPUT),
]
EncoderOption = Annotated[
    Encoder,
    typer.Option("--encoder", help="Video encoder. nvenc: NVIDIA GPU; gstreamer: Jetson.", rich_help_panel=OUTPUT),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Bundled model (small, nano) or a model file.",
        show_default="small",
        rich_help_panel=MODEL,
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        "-b",
        help="Inference backend: auto, tensorrt, tensorrt-rtx, openvino or torch. auto prints its choice.",
        rich_help_panel=MODEL,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="Device of the backend: CPU, GPU.0, cuda:0 ...",
        show_default="the backend's default",
        rich_help_panel=MODEL,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="WxH",
        help="Network input size.",
        show_default="the model's default",
        rich_help_panel=MODEL,
    ),
]
FitOption = Annotated[
    Fit,
    typer.Option(
        "--fit", help="Fit of frames into the network input. letterbox keeps the aspect ratio.", rich_help_panel=MODEL
    ),
]
ViewOption = Annotated[View, typer.Option("--view", help="Rendered view.", rich_help_panel=APPEARANCE)]
Alpha = Annotated[
    float, typer.Option("--alpha", min=0.0, max=1.0, help="Opacity of the class colors.", rich_help_panel=APPEARANCE)
]
PaletteOption = Annotated[
    str,
    typer.Option(
        "--palette",
        metavar="NAME|FILE",
        help="Class colors: street, camvid, cityscapes, model, or a JSON file.",
        rich_help_panel=APPEARANCE,
    ),
]
Only = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="CLASSES",
        help="Color only these classes, such as road,car.",
        show_default="all",
        rich_help_panel=APPEARANCE,
    ),
]
Smooth = Annotated[
    float,
    typer.Option(
        "--smooth",
        metavar="0..0.9",
        help="Temporal smoothing: momentum of the class scores; 0 is off.",
        rich_help_panel=APPEARANCE,
    ),
]
Legend = Annotated[bool, typer.Option("--legend", help="Draw the class names and colors.", rich_help_panel=APPEARANCE)]
Masks = Annotated[
    str | None,
    typer.Option(
        "--masks",
        metavar="PATH",
        help="Also write class indices: a folder of PNGs, or a lossless .mkv. Replaces only earlier masks.",
        rich_help_panel=OUTPUT,
    ),
]
StatsFile = Annotated[
    str | None,
    typer.Option(
        "--stats",
        metavar="FILE.json",
        help="Write statistics as JSON; - for stdout. Replaces only JSON files.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print debug messages and the causes of errors.")]


def require_module(module: str, extra: str) -> None:
    """Check that a module is installed.

    Args:
        module: name of the module.
        extra: extra of rtseg that installs it.

    Raises:
        BackendError: the module is missing. The message names the extra.
    """
    if importlib.util.find_spec(module) is None:
        raise BackendError(f"this needs {module}, which is not installed: `pip install 'rtseg[{extra}]'`")


class TrainingProgress:
    """Progress of a training run: a bar with the remaining time on a terminal, else one line per message."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None

    def __enter__(self) -> TrainingProgress:
        if sys.stderr.isatty() and not self._quiet:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            columns = TextColumn("training"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
            self._bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=2)
            self._task = self._bar.add_task("training", total=1.0)
            self._bar.start()
        return self

    def show(self, done: float, line: str) -> None:
        """Update the progress.

        Args:
            done: completed share of the run, 0 to 1.
            line: message to print; empty for none.
        """
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
        if line and not self._quiet:
            if self._bar is not None:
                self._bar.console.print(line, highlight=False)
            else:
                print(f"{done:4.0%}  {line}", file=sys.stderr, flush=True)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Parse `640x480` as (640, 480). None returns None.

    Raises:
        OptionError: the text has another form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if not match or not (int(match[1]) and int(match[2])):
        raise OptionError(f"a size is '{text}'; write it WIDTHxHEIGHT, such as 640x480")
    return int(match[1]), int(match[2])


def parse_seconds(text: str | None, option: str) -> float | None:
    """Parse `90`, `1:30` or `0:01:30.5` as seconds. None returns None.

    Raises:
        OptionError: the text has another form, or the time is too long.
    """
    if text is None:
        return None
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?", text.strip()):
        raise OptionError(f"{option} is '{text}'; write seconds (90), or minutes and seconds (1:30)")
    seconds = 0.0
    for part in text.strip().split(":"):
        seconds = seconds * 60 + float(part)
    if seconds > _MAX_SECONDS:
        raise OptionError(f"{option} is '{text}'; the maximum is {_MAX_SECONDS:g} seconds")
    return seconds


def parse_names(text: str | None) -> tuple[str, ...] | None:
    """Parse `road, car` as ("road", "car"). None returns None.

    Raises:
        OptionError: the text contains no name.
    """
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise OptionError(f"a list of class names is '{text}'; write at least one, such as road,car")
    return names


def parse_pixels(text: str | None) -> int | None:
    """Parse `8192x8192`, `67000000` or `67M` as a number of pixels. None returns None.

    Raises:
        OptionError: the text has another form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,17})(?:[xX]([1-9][0-9]{0,8})|([kKmMgG]))?", text.strip())
    if not match:
        raise OptionError(f"--max-pixels is '{text}'; write WIDTHxHEIGHT (8192x8192) or a number (67000000, 67M)")
    unit = {"k": 10**3, "m": 10**6, "g": 10**9}.get((match[3] or "").lower(), 1)
    return min(int(match[1]) * int(match[2] or 1) * unit, 2**31 - 1)


def parse_protocols(text: str | None) -> tuple[str, ...]:
    """Parse `file, http` as ("file", "http"). None returns an empty tuple.

    Raises:
        OptionError: a protocol is unknown, or the text contains none.
    """
    if text is None:
        return ()
    from rtseg.io.inputs.playlist import check_protocols

    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    if not names:
        raise OptionError(f"--allow-protocols is '{text}'; name at least one, such as file,http")
    check_protocols(names)
    return names


def build_missing(model: Path, backend: str, size: tuple[int, int] | None) -> Path:
    """Return the file that a backend runs, building it if it does not exist, and print each step of the build."""
    from rtseg.models.export.auto_build import auto_build

    return auto_build(model, backend, size, log=print_line)
