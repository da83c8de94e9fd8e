"""`rtseg video`: one file through the road, checked against what went in before it gets its name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rtseg import __version__
from rtseg.errors import printable, printable_name
from rtseg.fidelity import InputFile, Recorder, compare
from rtseg.frame import Segmented, StreamInfo
from rtseg.heat import HeatWatch
from rtseg.overlay import Overlay
from rtseg.palette import load_palette
from rtseg.path_conflicts import Input, Output, check_paths, mask_output
from rtseg.pipeline import run
from rtseg.progress import Board, Progress
from rtseg.road import Road, idle_decoder, open_on_road
from rtseg.segmenter import Segmenter
from rtseg.sinks import Sink
from rtseg.sinks.gstreamer import GStreamerSink
from rtseg.sinks.masks import open_mask_sink
from rtseg.sinks.video import VideoSink
from rtseg.stats import Stats


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
    """The encoder, as `rtseg.hardware.choose_encoder` gives it; None: what suits the container."""

    crf: int | None = None
    """Constant rate factor; None: 23."""

    preset: str | None = None
    """The encoder's preset; None: `veryfast`."""

    audio: bool = True
    """Copy the input's audio, subtitles and data."""

    overwrite: bool = True
    """Replace an existing output (only once the new one is complete and checked)."""


@dataclass(frozen=True)
class Reading:
    """How the input is read."""

    start: float | None = None
    """Seconds from its beginning to begin at; None: 0."""

    duration: float | None = None
    """Seconds to process; None: to the end."""

    strict: bool = False
    """The first damage ends the run, and so does a stream that can't be copied as it is."""

    max_pixels: int | None = None
    """Larger pictures are refused; None: more than 8192x8192."""

    allow_protocols: tuple[str, ...] = ()
    """`file`, `http`, `https`: by which a playlist may open what it names; none: playlists are refused."""

    decoder: str = "software"
    """What decodes, as `rtseg.hardware.choose_decoder` gives it."""

    stream: int | None = None
    """Number of the video stream, as `open_source` takes it; None: the largest."""


def process(
    source_name: str,
    output: str,
    segmenter: Segmenter,
    look: Look,
    encoding: Encoding,
    reading: Reading | None = None,
    *,
    masks: str | None = None,
    quiet: bool = False,
    threads: bool = True,
    extra_sinks: Sequence[Sink] = (),
    board: Board | None = None,
    on_frame: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Takes one video through the road and checks the result against what went in.

    Args:
        source_name: file, or `-` for stdin.
        output: file, or `-` for stdout.
        segmenter: the loaded model.
        look: how it is shown.
        encoding: how it is written.
        reading: how the input is read; None: all of it.
        masks: where class indices go, if anywhere.
        quiet: no progress.
        threads: False runs all stages one after the other.
        extra_sinks: take the frames too.
        board: where progress is shown beside that of others.
        on_frame: called after each frame; what it raises ends the run.

    Returns:
        The statistics, as `--stats` writes them.

    Raises:
        SourceError, SinkError, BackendError, OptionError: as they say.
        FidelityError: what came out is not what went in; it stays under its `.partial` name.
    """
    side = [] if masks is None else [mask_output(masks)]
    check_paths([Input(source_name)], [Output(output, "-o"), *side], overwrite=encoding.overwrite)
    overlay = look.overlay(segmenter)
    stats = Stats(segmenter.classes)
    reading = reading or Reading()
    source, why_not = open_on_road(source_name, segmenter, overlay, **asdict(reading))
    road: Road | None = None
    sinks: list[Sink] = []
    heat = HeatWatch()
    recorder = Recorder(source.info)
    try:
        size = overlay.shown_size(source.info.width, source.info.height)
        video = open_output(output, source.info, size, encoding, reading.strict)
        sinks.append(video)
        if masks is not None:
            sinks.append(
                open_mask_sink(
                    masks, source.info, only=overlay.only, classes=segmenter.classes, overwrite=encoding.overwrite
                )
            )
        sinks += extra_sinks
        pixel_aspect = float(source.info.sample_aspect_ratio)
        steady = segmenter.steady()
        segmenter.prepare(source.info.width, source.info.height, pixel_aspect)
        road = Road(source.info, segmenter, overlay, steady=steady, why_not=why_not)
        stats.warmup_ms = segmenter.warmup_ms
        with Progress(Path(source_name).name, source.info.frame_count, quiet=quiet, board=board) as progress:

            def left(_: Segmented) -> None:
                progress.advance()
                heat.look()
                if on_frame:
                    on_frame()

            run(
                source,
                road.segment,
                overlay,
                sinks,
                stats,
                observer=recorder,
                on_frame=left,
                threads=threads,
                streams=road.streams,
            )
        written = video.finish()
        stats.stop()  # the encoder's last frames are out: they belong to the run
        asked = InputFile(source_name, reading.start, reading.duration, reading.allow_protocols)
        report = compare(recorder, written, corrupt=source.corrupt, source=asked)
        report.raise_if_broken()
        for sink in sinks:
            sink.close()
    except BaseException as error:
        for sink in sinks:
            sink.abort()
            kept = getattr(sink, "partial_path", None)
            if kept is not None and Path(kept).exists() and str(kept) not in str(error):
                print(
                    printable(f"rtseg: what was written until then is kept as {printable_name(str(kept))}"),
                    file=sys.stderr,
                )
        raise
    finally:
        source.close()
        if road is not None:
            road.close()
    return {
        **identity("video", source_name, output, segmenter),
        "input_size": list(segmenter.input_size_for(source.info.width, source.info.height, pixel_aspect)),
        **({"smooth": {"keep": steady.smooth, "cuts": steady.cuts}} if steady else {}),
        "road": road.taken,
        "decoder": source.info.codec,
        "encoder": video.encoder,
        **stats.to_dict(),
        "fidelity": report.to_dict(),
        **({"heat": heat.latest} if heat.latest else {}),
        "notes": [
            *road.notes,
            *idle_decoder(segmenter, overlay, reading.decoder),
            *source.info.notes,
            *source.warnings,
            *video.warnings,
            *heat.notes,
        ],
    }


def open_output(
    output: str, info: StreamInfo, size: tuple[int, int], encoding: Encoding, strict: bool = False
) -> VideoSink | GStreamerSink:
    """The sink that a video is written by.

    Args:
        output: file, or `-` for stdout.
        info: of the source.
        size: (width, height) of what is shown.
        encoding: how it is written.
        strict: a stream that can't be copied as it is raises.

    Raises:
        SinkError, OptionError: as the sinks say.
    """
    if encoding.codec == "gstreamer":
        return GStreamerSink(output, info, size=size, crf=encoding.crf, overwrite=encoding.overwrite)
    return VideoSink(
        output,
        info,
        size=size,
        codec=encoding.codec,
        crf=encoding.crf,
        preset=encoding.preset,
        audio=encoding.audio,
        overwrite=encoding.overwrite,
        strict=strict,
    )


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
