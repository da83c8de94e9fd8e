"""Options shared by several commands, and parsers of option values."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.errors import print_line
from rtseg.core.choices import Decoder, Encoder, Fit, View
from rtseg.core.errors import BackendError, OptionError

if TYPE_CHECKING:
    from rtseg.inference.segmenter import Segmenter

_MAX_SECONDS = 1e9
"""Maximum duration, more than thirty years. Fits into 64 bits in nanoseconds."""

INPUT, OUTPUT, MODEL, APPEARANCE = "Input", "Output", "Model", "Appearance"
"""Panels of the help."""


def option(panel: str | None, text: str, *names: str, **settings: Any) -> Any:
    """Return an option of a command.

    Args:
        panel: panel of the help; None: `Options`.
        text: description.
        *names: names; none: that of the parameter.
        **settings: other arguments of `typer.Option`.
    """
    return typer.Option(*names, help=text, rich_help_panel=panel, **settings)


def output(text: str, default: str) -> Any:
    """Return the option of the main output, with its description and default name."""
    return option(None, text, "--output", "-o", metavar="OUT", show_default=default)


def chart(text: str) -> Any:
    """Return the option of an image with results."""
    return option(OUTPUT, f"{text} Replaces only charts of rtseg.", metavar="FILE.png")


Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of a labeled data set.", show_default=False)]
LayoutOption = Annotated[
    str, option("Data", "Layout of DATA: auto, folders, camvid, notebook, cityscapes or bdd100k.", "--layout")
]
StreamOption = Annotated[
    int | None,
    option(
        INPUT,
        "Video stream to segment, from 0 (v:N in FFmpeg).",
        "--stream",
        metavar="N",
        min=0,
        show_default="the largest; among equals the default stream",
    ),
]
DecoderOption = Annotated[Decoder, option(INPUT, "Video decoder. nvdec: NVIDIA GPU; gstreamer: Jetson.", "--decoder")]
EncoderOption = Annotated[Encoder, option(OUTPUT, "Video encoder. nvenc: NVIDIA GPU; gstreamer: Jetson.", "--encoder")]
Model = Annotated[
    str | None, option(MODEL, "Bundled model (small, nano) or a model file.", "--model", "-m", show_default="small")
]
Backend = Annotated[
    str,
    option(
        MODEL,
        "Inference backend: auto, tensorrt, tensorrt-rtx, openvino or torch. auto prints its choice.",
        "--backend",
        "-b",
    ),
]
Device = Annotated[
    str | None,
    option(MODEL, "Device of the backend: CPU, GPU.0, cuda:0 ...", "--device", show_default="the backend's default"),
]
Size = Annotated[
    str | None, option(MODEL, "Network input size.", "--size", metavar="WxH", show_default="the model's default")
]
FitOption = Annotated[
    Fit, option(MODEL, "Fit of frames into the network input. letterbox keeps the aspect ratio.", "--fit")
]
ViewOption = Annotated[View, option(APPEARANCE, "Rendered view.", "--view")]
Alpha = Annotated[float, option(APPEARANCE, "Opacity of the class colors.", "--alpha", min=0.0, max=1.0)]
PaletteOption = Annotated[
    str,
    option(
        APPEARANCE, "Class colors: street, camvid, cityscapes, model, or a JSON file.", "--palette", metavar="NAME|FILE"
    ),
]
Only = Annotated[
    str | None,
    option(APPEARANCE, "Color only these classes, such as road,car.", "--only", metavar="CLASSES", show_default="all"),
]
Smooth = Annotated[
    float,
    option(APPEARANCE, "Temporal smoothing: momentum of the class scores; 0 is off.", "--smooth", metavar="0..0.9"),
]
Legend = Annotated[bool, option(APPEARANCE, "Draw the class names and colors.", "--legend")]
Masks = Annotated[
    str | None,
    option(
        OUTPUT,
        "Also write class indices: a folder of PNGs, or a lossless .mkv. Replaces only earlier masks.",
        "--masks",
        metavar="PATH",
    ),
]
StatsFile = Annotated[
    str | None,
    option(OUTPUT, "Write statistics as JSON; - for stdout. Replaces only JSON files.", "--stats", metavar="FILE.json"),
]
ResultsFile = Annotated[
    str | None,
    option(OUTPUT, "Write the results as JSON; - for stdout. Replaces only JSON files.", "--json", metavar="FILE"),
]
Overwrite = Annotated[bool, option(OUTPUT, "Replace existing files.", "--overwrite/--no-overwrite")]
Crf = Annotated[
    int | None,
    option(OUTPUT, "Quality; lower is better and larger.", "--crf", min=0, max=63, show_default="23"),
]
Quiet = Annotated[bool, option(None, "Print only errors to stderr.", "--quiet", "-q")]
Verbose = Annotated[bool, option(None, "Print debug messages and the causes of errors.", "--verbose", "-v")]


def require_module(module: str, extra: str) -> None:
    """Raise BackendError if a module is not installed. The message names the extra of rtseg that installs it."""
    if importlib.util.find_spec(module) is None:
        raise BackendError(f"this needs {module}, which is not installed: `pip install 'rtseg[{extra}]'`")


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Parse `640x480` as (640, 480). None returns None. Raises OptionError for another form."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if not match or not (int(match[1]) and int(match[2])):
        raise OptionError(f"a size is '{text}'; write it WIDTHxHEIGHT, such as 640x480")
    return int(match[1]), int(match[2])


def parse_seconds(text: str | None, option: str) -> float | None:
    """Parse `90`, `1:30` or `0:01:30.5` as seconds. None returns None. Raises OptionError for another form or too long a time."""
    if text is None:
        return None
    if not re.fullmatch(r"(\d+:){0,2}(\d+\.?\d*|\.\d+)", text.strip()):
        raise OptionError(f"{option} is '{text}'; write seconds (90), or minutes and seconds (1:30)")
    seconds = 0.0
    for part in text.strip().split(":"):
        seconds = seconds * 60 + float(part)
    if seconds > _MAX_SECONDS:
        raise OptionError(f"{option} is '{text}'; the maximum is {_MAX_SECONDS:g} seconds")
    return seconds


def parse_names(text: str | None) -> tuple[str, ...] | None:
    """Parse `road, car` as ("road", "car"). None returns None. Raises OptionError if there is no name."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise OptionError(f"a list of class names is '{text}'; write at least one, such as road,car")
    return names


def parse_pixels(text: str | None) -> int | None:
    """Parse `8192x8192`, `67000000` or `67M` as a number of pixels. None returns None. Raises OptionError for another form."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,17})(?:[xX]([1-9][0-9]{0,8})|([kKmMgG]))?", text.strip())
    if not match:
        raise OptionError(f"--max-pixels is '{text}'; write WIDTHxHEIGHT (8192x8192) or a number (67000000, 67M)")
    unit = {"k": 10**3, "m": 10**6, "g": 10**9}.get((match[3] or "").lower(), 1)
    return min(int(match[1]) * int(match[2] or 1) * unit, 2**31 - 1)


def parse_protocols(text: str | None) -> tuple[str, ...]:
    """Parse `file, http` as ("file", "http"). None returns (). Raises OptionError if one is unknown or there is none."""
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
    from rtseg.cli.progress import ProgressDisplay
    from rtseg.models.export.auto_build import auto_build

    return auto_build(model, backend, size, log=print_line, progress=ProgressDisplay("%").task())


def open_segmenter(
    model: str | None,
    backend: str,
    device: str | None,
    size: str | None,
    *,
    fit: Fit = "letterbox",
    streams: int = 1,
    smooth: float = 0.0,
) -> Segmenter:
    """Load a model by the options of a command, and build the file that the backend runs if it does not exist."""
    from rtseg.inference.segmenter import Segmenter

    return Segmenter(
        model,
        backend=backend,
        device=device,
        size=parse_size(size),
        fit=fit,
        streams=streams,
        smooth=smooth,
        build_missing=build_missing,
    )
