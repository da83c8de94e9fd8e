"""`rtseg video`: a file, or many, through the road; each checked against what went in before it gets its name."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtseg import __version__
from rtseg.errors import OptionError, RtsegError, SinkError, SourceError
from rtseg.fidelity import Recorder, compare
from rtseg.overlay import Overlay
from rtseg.palette import load_palette
from rtseg.pipeline import run
from rtseg.progress import Progress
from rtseg.segmenter import Segmenter
from rtseg.sinks import Sink
from rtseg.sinks.masks import open_mask_sink
from rtseg.sinks.video import VideoSink
from rtseg.sources import open_source
from rtseg.stats import Stats

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".gif", ".h264", ".264"}
)
"""What a folder is searched for."""


@dataclass(frozen=True)
class Look:
    """How the result is shown."""

    view: str = "overlay"
    """`overlay`, `mask` or `side-by-side`."""

    alpha: float = 0.5
    """Opacity of the colours, 0 to 1."""

    palette: str = "street"
    """Name or file, as `load_palette` takes it."""

    only: tuple[str, ...] | None = None
    """Class names to colour; None: all."""

    legend: bool = False
    """Draw class names and colours."""

    hud: bool = False
    """Burn in frames per second and latency."""

    def overlay(self, segmenter: Segmenter) -> Overlay:
        """The overlay that looks like this, for a model's classes.

        Raises:
            OptionError: no such palette, class or view.
        """
        palette = load_palette(self.palette, segmenter.classes, segmenter.description.colours)
        only = palette.indices(self.only) if self.only is not None else None
        return Overlay(palette, view=self.view, alpha=self.alpha, only=only, legend=self.legend, hud=self.hud)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Encoding:
    """How the result is written."""

    codec: str | None = None
    """An FFmpeg encoder's name; None: what suits the container."""

    crf: int | None = None
    """Constant rate factor; None: 23."""

    preset: str | None = None
    """The encoder's preset; None: `veryfast`."""

    audio: bool = True
    """Copy the input's audio, subtitles and data."""

    overwrite: bool = True
    """Replace an existing output (only once the new one is complete and checked)."""


def find_inputs(patterns: Sequence[str]) -> list[str]:
    """Files that the command line names: files as they are, folders searched for videos, globs expanded, `-` for stdin.

    Raises:
        SourceError: nothing matches one of them.
    """
    found: list[str] = []
    for pattern in patterns:
        path = Path(pattern)
        if "://" in pattern:
            address = re.sub(r"(?<=://)[^/@\s]*@", "", pattern)
            raise SourceError(f"'{address}' is a stream, which has no end: use `rtseg live --url {address}`")
        if pattern == "-" or path.is_file():
            found.append(pattern)
        elif path.is_dir():
            inside = sorted(
                str(p)
                for p in path.iterdir()
                if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file() and ".partial." not in p.name
            )
            if not inside:
                raise SourceError(
                    f"no videos in the folder '{pattern}' ({', '.join(sorted(VIDEO_SUFFIXES))} are looked for)"
                )
            found += inside
        elif glob.has_magic(pattern):
            matches = sorted(match for match in glob.glob(pattern, recursive=True) if Path(match).is_file())
            if not matches:
                raise SourceError(f"nothing matches '{pattern}'")
            found += matches
        else:
            found.append(pattern)  # the source says what is wrong with it
    return list(dict.fromkeys(found))


def name_outputs(inputs: Sequence[str], output: str | None, suffix: str | None = None) -> list[str]:
    """One output for each input: `output` itself for one input, files in the folder `output` for several.

    Raises:
        SinkError: several inputs but no folder to put them in, or two inputs that would get the same name.
    """
    if output is None:
        return [_beside(path, suffix) for path in inputs]
    is_folder = Path(output).is_dir() or output.endswith(("/", os.sep))
    if len(inputs) == 1 and not is_folder:
        return [output]
    if not is_folder and Path(output).suffix:
        raise SinkError(
            f"{len(inputs)} inputs but one output file '{output}'; name a folder instead, such as {Path(output).stem}/"
        )
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"the output folder '{output}' can't be made: {error.strerror}") from error
    names = [str(Path(output) / (Path(path).stem + (suffix or _video_suffix(path)))) for path in inputs]
    for name in names:
        if names.count(name) > 1:
            clash = [path for path, other in zip(inputs, names, strict=True) if other == name]
            raise SinkError(
                f"{' and '.join(clash)} would both be written to {name}; process them into different folders"
            )
    return names


def process(
    source_name: str,
    output: str,
    segmenter: Segmenter,
    look: Look,
    encoding: Encoding,
    *,
    start: float | None = None,
    duration: float | None = None,
    masks: str | None = None,
    strict: bool = False,
    quiet: bool = False,
    threads: bool = True,
    extra_sinks: Sequence[Sink] = (),
) -> dict[str, Any]:
    """Takes one video through the road and checks the result against what went in.

    Args:
        source_name: file, or `-` for stdin.
        output: file, or `-` for stdout.
        segmenter: the loaded model.
        look: how it is shown.
        encoding: how it is written.
        start: seconds into the input to begin at.
        duration: seconds to process.
        masks: where class indices go, if anywhere.
        strict: the first damage in the input ends the run.
        quiet: no progress.
        threads: False runs all stages one after the other.
        extra_sinks: take the frames too.

    Returns:
        The statistics, as `--stats` writes them.

    Raises:
        SourceError, SinkError, BackendError, OptionError: as they say.
        FidelityError: what came out is not what went in; it stays under its `.partial` name.
    """
    if masks is not None and output != "-" and Path(masks).resolve() == Path(output).resolve():
        raise OptionError(f"--masks and --output are the same file '{output}'; name two")
    overlay = look.overlay(segmenter)
    stats = Stats(segmenter.classes)
    source = open_source(source_name, start=start, duration=duration, strict=strict)
    sinks: list[Sink] = []
    recorder = Recorder(source.info)
    try:
        video = VideoSink(
            output,
            source.info,
            size=overlay.shown_size(source.info.width, source.info.height),
            codec=encoding.codec,
            crf=encoding.crf,
            preset=encoding.preset,
            audio=encoding.audio,
            overwrite=encoding.overwrite,
            strict=strict,
        )
        sinks.append(video)
        if masks is not None:
            sinks.append(
                open_mask_sink(
                    masks, source.info, only=overlay.only, classes=segmenter.classes, overwrite=encoding.overwrite
                )
            )
        sinks += extra_sinks
        pixel_aspect = float(source.info.sample_aspect_ratio)
        segmenter.prepare(source.info.width, source.info.height, pixel_aspect)
        stats.warmup_ms = segmenter.warmup_ms
        with Progress(Path(source_name).name, source.info.frame_count, quiet=quiet) as progress:
            run(
                source,
                lambda frame: segmenter.segment(frame, pixel_aspect),
                overlay,
                sinks,
                stats,
                observer=recorder,
                on_frame=lambda _: progress.advance(),
                threads=threads,
                streams=segmenter.streams,
            )
        written = video.finish()
        stats.stop()  # the encoder's last frames are out: they belong to the run
        report = compare(recorder, written, corrupt=source.corrupt)
        report.raise_if_broken()
        for sink in sinks:
            sink.close()
    except BaseException as error:
        for sink in sinks:
            sink.abort()
            kept = getattr(sink, "partial_path", None)
            if kept is not None and Path(kept).exists() and str(kept) not in str(error):
                print(f"rtseg: what was written until then is kept as {kept}", file=sys.stderr)
        raise
    finally:
        source.close()
    return {
        **identity("video", source_name, output, segmenter),
        "input_size": list(segmenter.input_size_for(source.info.width, source.info.height, pixel_aspect)),
        **stats.to_dict(),
        "fidelity": report.to_dict(),
        "notes": [*source.info.notes, *source.warnings, *video.warnings],
    }


def identity(command: str, source_name: str, output: str, segmenter: Segmenter) -> dict[str, Any]:
    """The part of the statistics that says what ran."""
    return {
        "rtseg": __version__,
        "command": command,
        "input": source_name,
        "output": output,
        "model": segmenter.description.name,
        "backend": segmenter.backend,
        "precision": segmenter.precision,
        "device": segmenter.device,
        "input_size": list(segmenter.input_size),
    }


def totals(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several inputs' statistics as one object: sums, and each input's own object under `items`."""
    done = [item for item in items if "frames" in item]
    frames = {
        key: sum(item["frames"][key] for item in done) for key in ("read", "segmented", "written", "dropped", "corrupt")
    }
    seconds = sum(item["seconds"] for item in done)
    return {
        "rtseg": __version__,
        "command": "video",
        "frames": frames,
        "seconds": round(seconds, 4),
        "fps": round(frames["written"] / seconds, 3) if seconds else 0.0,
        "cpu_seconds": round(sum(item["cpu_seconds"] for item in done), 4),
        "items": list(items),
    }


def failed(source_name: str, output: str, error: RtsegError) -> dict[str, Any]:
    """What stands in the statistics for an input that could not be done."""
    return {"rtseg": __version__, "command": "video", "input": source_name, "output": output, "error": str(error)}


def _beside(path: str, suffix: str | None) -> str:
    if path == "-":
        raise OptionError("input from stdin has no name to call the output after; name it with -o")
    return str(Path(path).with_suffix("")) + ".rtseg" + (suffix or _video_suffix(path))


def _video_suffix(path: str) -> str:
    """The input's container where rtseg writes it, else MP4."""
    suffix = Path(path).suffix.lower()
    return suffix if suffix in {".mp4", ".mkv", ".mov", ".webm", ".ts", ".avi"} else ".mp4"
