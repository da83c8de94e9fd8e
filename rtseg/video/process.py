"""`rtseg video`: one file through the road, checked against what went in before it gets its name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rtseg.core.errors import printable_name
from rtseg.core.frame import SegmentedFrame, StreamInfo
from rtseg.core.path_conflicts import Input, Output, check_paths, mask_output
from rtseg.core.progress import Board, Progress
from rtseg.core.run_report import run_identity
from rtseg.core.stats import Stats
from rtseg.gpu.telemetry import TelemetryMonitor
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.io.outputs import Sink
from rtseg.io.outputs.gstreamer import GStreamerSink
from rtseg.io.outputs.masks import open_mask_sink
from rtseg.io.outputs.video import VideoSink
from rtseg.pipeline.gpu_path import FramePath, idle_decoder, open_gpu_source
from rtseg.pipeline.pipeline import run
from rtseg.render.style import Style
from rtseg.video.verify import InputFile, Recorder, compare

_log = logging.getLogger("rtseg.video")


def process(
    source_name: str,
    output: str,
    segmenter: Segmenter,
    style: Style,
    encoding: OutputOptions,
    reading: InputOptions | None = None,
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
    overlay = style.overlay(segmenter.description)
    stats = Stats(segmenter.classes)
    reading = reading or InputOptions()
    source, why_not = open_gpu_source(source_name, segmenter, overlay, **asdict(reading))
    frame_path: FramePath | None = None
    sinks: list[Sink] = []
    telemetry = TelemetryMonitor()
    recorder = Recorder(source.info)
    try:
        size = overlay.output_size(source.info.width, source.info.height)
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
        smoothing = segmenter.smoothing()
        segmenter.prepare(source.info.width, source.info.height, pixel_aspect)
        frame_path = FramePath(source.info, segmenter, overlay, smoothing=smoothing, why_not=why_not)
        stats.warmup_ms = segmenter.warmup_ms
        with Progress(Path(source_name).name, source.info.frame_count, quiet=quiet, board=board) as progress:

            def left(_: SegmentedFrame) -> None:
                progress.advance()
                telemetry.poll()
                if on_frame:
                    on_frame()

            run(
                source,
                frame_path.segment,
                overlay,
                sinks,
                stats,
                observer=recorder,
                on_frame=left,
                threads=threads,
                streams=frame_path.streams,
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
                _log.warning("the unfinished output is kept as %s", printable_name(str(kept)))
        raise
    finally:
        source.close()
        if frame_path is not None:
            frame_path.close()
    return {
        **run_identity("video", source_name, output, segmenter),
        "input_size": list(segmenter.input_size_for(source.info.width, source.info.height, pixel_aspect)),
        **({"temporal_smoothing": {"momentum": smoothing.smooth, "cuts": smoothing.cuts}} if smoothing else {}),
        "path": frame_path.taken,
        "decoder": source.info.codec,
        "encoder": video.encoder,
        **stats.to_dict(),
        "fidelity": report.to_dict(),
        **({"telemetry": telemetry.latest} if telemetry.latest else {}),
        "notes": [
            *frame_path.notes,
            *idle_decoder(segmenter, overlay, reading.decoder),
            *source.info.notes,
            *source.warnings,
            *video.warnings,
            *telemetry.notes,
        ],
    }


def open_output(
    output: str, info: StreamInfo, size: tuple[int, int], encoding: OutputOptions, strict: bool = False
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
