"""Options that mean the same in every command, and the readers of their values."""

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

_LONGEST_SECONDS = 1e9
"""More than thirty years; a container's 64 bits hold it in nanoseconds."""

_MODEL, _STYLE, _OUTPUT = "Model", "Look", "Output"


StreamOption = Annotated[
    int | None,
    typer.Option(
        "--stream",
        metavar="N",
        min=0,
        help="Video stream to segment, counted from 0 (v:N in FFmpeg).",
        show_default="the largest; the default one among equals",
        rich_help_panel="Input",
    ),
]
DecoderOption = Annotated[
    Decoder,
    typer.Option("--decoder", help="nvdec: an NVIDIA card's; gstreamer: a Jetson's.", rich_help_panel="Input"),
]
EncoderOption = Annotated[
    Encoder,
    typer.Option("--encoder", help="nvenc: an NVIDIA card's; gstreamer: a Jetson's.", rich_help_panel="Output"),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Bundled model (small, nano) or a model file.",
        show_default="small",
        rich_help_panel=_MODEL,
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        "-b",
        help="auto, tensorrt, tensorrt-rtx, openvino or torch. auto says what it picked and why.",
        rich_help_panel=_MODEL,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", help="Device of the backend: CPU, GPU.0, cuda:0 ...", show_default="its own", rich_help_panel=_MODEL
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="WxH",
        help="Size of the network's input.",
        show_default="the model's own",
        rich_help_panel=_MODEL,
    ),
]
FitOption = Annotated[
    Fit,
    typer.Option(
        "--fit", help="letterbox keeps the picture's aspect; stretch fills the network's input.", rich_help_panel=_MODEL
    ),
]
ViewOption = Annotated[View, typer.Option("--view", help="What to show.", rich_help_panel=_STYLE)]
Alpha = Annotated[
    float, typer.Option("--alpha", min=0.0, max=1.0, help="Opacity of the colors.", rich_help_panel=_STYLE)
]
PaletteOption = Annotated[
    str,
    typer.Option(
        "--palette",
        metavar="NAME|FILE",
        help="street, camvid, cityscapes, model, or a JSON file of class colors.",
        rich_help_panel=_STYLE,
    ),
]
Only = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="CLASSES",
        help="Color these classes alone, such as road,car.",
        show_default="all",
        rich_help_panel=_STYLE,
    ),
]
Smooth = Annotated[
    float,
    typer.Option(
        "--smooth",
        metavar="0..0.9",
        help="Steadier classes: share kept of the frames before; 0 is off.",
        rich_help_panel=_STYLE,
    ),
]
Legend = Annotated[
    bool, typer.Option("--legend", help="Draw the class names and their colors.", rich_help_panel=_STYLE)
]
Masks = Annotated[
    str | None,
    typer.Option(
        "--masks",
        metavar="PATH",
        help="Also write class indices: a folder of PNGs, or a lossless .mkv. Replaces only earlier masks.",
        rich_help_panel=_OUTPUT,
    ),
]
StatsFile = Annotated[
    str | None,
    typer.Option(
        "--stats",
        metavar="FILE.json",
        help="Write the run's statistics as JSON; - for stdout. Replaces only JSON.",
        rich_help_panel=_OUTPUT,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more; show the cause of an error.")]


def need(module: str, extra: str) -> None:
    """Says which extra to install where a module is missing.

    Raises:
        BackendError: it is missing.
    """
    if importlib.util.find_spec(module) is None:
        raise BackendError(f"this needs {module}, which is not installed: `pip install 'rtseg[{extra}]'`")


class TrainingProgress:
    """Shows how far a training run is: a bar with time left on a terminal, each line as it comes elsewhere."""

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
        """`done`: share of the run, 0 to 1. `line`: what happened, empty for nothing to tell."""
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
    """`640x480` as (640, 480); None stays None.

    Raises:
        OptionError: not of that form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if not match or not (int(match[1]) and int(match[2])):
        raise OptionError(f"a size is '{text}'; write it WIDTHxHEIGHT, such as 640x480")
    return int(match[1]), int(match[2])


def parse_seconds(text: str | None, option: str) -> float | None:
    """`90`, `1:30` or `0:01:30.5` as seconds; None stays None.

    Raises:
        OptionError: not of that form.
    """
    if text is None:
        return None
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?", text.strip()):
        raise OptionError(f"{option} is '{text}'; write seconds (90), or minutes and seconds (1:30)")
    seconds = 0.0
    for part in text.strip().split(":"):
        seconds = seconds * 60 + float(part)
    if seconds > _LONGEST_SECONDS:
        raise OptionError(f"{option} is '{text}'; no video is so long")
    return seconds


def parse_names(text: str | None) -> tuple[str, ...] | None:
    """`road, car` as ("road", "car"); None stays None.

    Raises:
        OptionError: no name in it.
    """
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise OptionError(f"a list of class names is '{text}'; write at least one, such as road,car")
    return names


def parse_pixels(text: str | None) -> int | None:
    """`8192x8192`, `67000000` or `67M` as a number of pixels; None stays None.

    Raises:
        OptionError: not of that form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,17})(?:[xX]([1-9][0-9]{0,8})|([kKmMgG]))?", text.strip())
    if not match:
        raise OptionError(f"--max-pixels is '{text}'; write WIDTHxHEIGHT (8192x8192) or a number (67000000, 67M)")
    unit = {"k": 10**3, "m": 10**6, "g": 10**9}.get((match[3] or "").lower(), 1)
    return min(int(match[1]) * int(match[2] or 1) * unit, 2**31 - 1)


def parse_protocols(text: str | None) -> tuple[str, ...]:
    """`file, http` as ("file", "http"); None is none.

    Raises:
        OptionError: no such protocol, or none named.
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
