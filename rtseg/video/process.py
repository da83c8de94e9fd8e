"""Processing of one video file: decode, segment, render and encode, then verify the output against the input."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rtseg.pipeline.gpu_path import FramePath, open_gpu_source, unused_gpu_decoder_note

from rtseg.core.errors import printable_name
from rtseg.core.frame import ProcessedFrame, StreamInfo
from rtseg.core.path_conflicts import Input, Output, check_paths, mask_output
from rtseg.core.progress import Progress, track
from rtseg.core.run_report import run_identity
from rtseg.core.stats import Stats
from rtseg.gpu.telemetry import TelemetryMonitor
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.io.outputs import Sink
from rtseg.io.outputs.gstreamer import GStreamerSink
from rtseg.io.outputs.masks import open_mask_sink
from rtseg.io.outputs.video import VideoSink
from rtseg.pipeline.pipeline import run
from rtseg.render.style import Style
from rtseg.video.verify import InputFile, Recorder, compare

_log = logging.getLogger("rtseg.video")


def process(
    source_name: str,
    output: str,
    segmenter: Segmenter,
    style: Style,
    output_options: OutputOptions,
    input_options: InputOptions | None = None,
    *,
    masks: str | None = None,
    threads: bool = True,
    extra_sinks: Sequence[Sink] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Process one video and verify the output against the input.

    The output has its final name only if it passes the verification.

    Args:
        source_name: file, or `-` for stdin.
        output: file, or `-` for stdout.
        segmenter: the loaded model.
        style: rendering options.
        output_options: encoding options.
        input_options: decoding options; None: the defaults, which read the whole file.
        masks: file or folder of the class indices; None: not written.
        threads: whether to run the stages concurrently; False runs them one after the other.
        extra_sinks: additional sinks of the frames.
        progress: receives the progress, after each frame; an exception from it ends the run.

    Returns:
        The statistics, as `--stats` writes them.

    Raises:
        SourceError: the input can't be opened or read.
        SinkError: an output can't be written, or would replace a file that it must not replace.
        BackendError: inference failed.
        OptionError: an option is invalid or does not apply to the model.
        FidelityError: the output does not match the input; it keeps its `.partial` name.
    """
    mask_outputs = [] if masks is None else [mask_output(masks)]
    check_paths([Input(source_name)], [Output(output, "-o"), *mask_outputs], overwrite=output_options.overwrite)
    overlay = style.overlay(segmenter.description)
    stats = Stats(segmenter.classes)
    input_options = input_options or InputOptions()
    source, cpu_reason = open_gpu_source(source_name, segmenter, overlay, **asdict(input_options))
    frame_path: FramePath | None = None
    sinks: list[Sink] = []
    telemetry = TelemetryMonitor()
    recorder = Recorder(source.info)
    try:
        size = overlay.output_size(source.info.width, source.info.height)
        video = open_output(output, source.info, size, output_options, input_options.strict)
        _log.info("decoding %s with %s, encoding with %s", source.info.name, source.info.codec, video.encoder)
        _log.debug("streams copied: %d; time base %s", len(source.info.streams), source.info.time_base)
        sinks.append(video)
        if masks is not None:
            sinks.append(
                open_mask_sink(
                    masks, source.info, only=overlay.only, classes=segmenter.classes, overwrite=output_options.overwrite
                )
            )
        sinks += extra_sinks
        pixel_aspect = float(source.info.sample_aspect_ratio)
        smoothing = segmenter.new_smoothing()
        segmenter.prepare(source.info.width, source.info.height, pixel_aspect)
        frame_path = FramePath(source.info, segmenter, overlay, smoothing=smoothing, cpu_reason=cpu_reason)
        stats.warmup_ms = segmenter.warmup_ms
        with track(progress, Path(source_name).name, source.info.frame_count) as advance:

            def after_frame(_: ProcessedFrame) -> None:
                advance()
                telemetry.poll()

            run(
                source,
                frame_path.segment,
                overlay,
                sinks,
                stats,
                observer=recorder,
                on_frame=after_frame,
                threads=threads,
                streams=frame_path.streams,
            )
        written = video.finish()
        stats.stop()  # after the encoder is flushed, which is part of the run
        input_file = InputFile(source_name, input_options.start, input_options.duration, input_options.allow_protocols)
        report = compare(recorder, written, corrupt=source.corrupt, source=input_file)
        report.raise_if_broken()
        for sink in sinks:
            sink.close()
    except BaseException as error:
        for sink in sinks:
            sink.abort()
            partial_path = getattr(sink, "partial_path", None)
            if partial_path is not None and Path(partial_path).exists() and str(partial_path) not in str(error):
                _log.warning("the unfinished output is kept as %s", printable_name(str(partial_path)))
        raise
    finally:
        source.close()
        if frame_path is not None:
            frame_path.close()
    return {
        **run_identity("video", source_name, output, segmenter),
        "input_size": list(segmenter.input_size_for(source.info.width, source.info.height, pixel_aspect)),
        **({"temporal_smoothing": {"momentum": smoothing.momentum, "cuts": smoothing.cuts}} if smoothing else {}),
        "path": frame_path.kind,
        "decoder": source.info.codec,
        "encoder": video.encoder,
        **stats.to_dict(),
        "fidelity": report.to_dict(),
        **({"telemetry": telemetry.latest} if telemetry.latest else {}),
        "notes": [
            *frame_path.notes,
            *unused_gpu_decoder_note(segmenter, overlay, input_options.decoder),
            *source.info.notes,
            *source.warnings,
            *video.warnings,
            *telemetry.notes,
        ],
    }


def open_output(
    output: str, info: StreamInfo, size: tuple[int, int], output_options: OutputOptions, strict: bool = False
) -> VideoSink | GStreamerSink:
    """Open the sink that encodes a video.

    Args:
        output: file, or `-` for stdout.
        info: description of the source's streams.
        size: (width, height) of the rendered frames.
        output_options: encoding options.
        strict: whether to raise for a stream that can't be copied.

    Raises:
        SinkError: the output can't be opened, or with `strict` a stream can't be copied.
        OptionError: the codec or one of its options is invalid.
    """
    if output_options.codec == "gstreamer":
        return GStreamerSink(output, info, size=size, crf=output_options.crf, overwrite=output_options.overwrite)
    return VideoSink(
        output,
        info,
        size=size,
        codec=output_options.codec,
        crf=output_options.crf,
        preset=output_options.preset,
        audio=output_options.audio,
        overwrite=output_options.overwrite,
        strict=strict,
    )
