"""Processing of one video file: decode, segment, render and encode, then verify the output against the input."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rtseg.core.errors import printable_name
from rtseg.core.path_conflicts import Input, Output, check_paths, mask_output
from rtseg.core.progress import Progress, track
from rtseg.core.stats import Stats
from rtseg.core.video_report import VideoReport
from rtseg.gpu.telemetry import TelemetryMonitor
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import DEFAULT_INPUT, InputOptions, OutputOptions
from rtseg.io.outputs import Sink
from rtseg.io.outputs.masks import open_mask_sink
from rtseg.io.outputs.video import open_video
from rtseg.pipeline.gpu_processor import open_gpu_source, open_processor, unused_gpu_decoder_note
from rtseg.pipeline.pipeline import run
from rtseg.render.style import Style
from rtseg.video.verify import Recorder, compare

_log = logging.getLogger("rtseg.video")


def process(
    source_name: str,
    output: str,
    segmenter: Segmenter,
    style: Style,
    output_options: OutputOptions,
    input_options: InputOptions = DEFAULT_INPUT,
    *,
    masks: str | None = None,
    extra_sinks: Sequence[Sink] = (),
    progress: Progress | None = None,
) -> VideoReport:
    """Process one video and verify the output against the input.

    The output has its final name only if it passes the verification.

    Args:
        source_name: file, or `-` for stdin.
        output: file, or `-` for stdout.
        segmenter: the loaded model.
        style: rendering options.
        output_options: encoding options.
        input_options: decoding options; the defaults read the whole file.
        masks: file or folder of the class indices; None: not written.
        extra_sinks: additional sinks of the frames.
        progress: receives the progress, after each frame; an exception from it ends the run.

    Returns:
        The report, which `--stats` writes.

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
    stats, telemetry = Stats(segmenter.classes), TelemetryMonitor()
    source, cpu_reason = open_gpu_source(source_name, segmenter, overlay, input_options)
    info, sinks = source.info, list[Sink]()
    recorder = Recorder(info)
    try:
        size = overlay.output_size(info.width, info.height)
        video = open_video(output, info, size, output_options, strict=input_options.strict)
        sinks.append(video)
        _log.info("decoding %s with %s, encoding with %s", info.name, info.codec, video.encoder)
        _log.debug("streams copied: %d; time base %s", len(info.streams), info.time_base)
        if masks is not None:
            sinks.append(
                open_mask_sink(
                    masks, info, only=overlay.only, classes=segmenter.classes, overwrite=output_options.overwrite
                )
            )
        sinks += extra_sinks
        segmenter.prepare(info.width, info.height, float(info.sample_aspect_ratio))
        stats.warmup_ms = segmenter.warmup_ms
        with (
            closing(open_processor(info, segmenter, overlay, cpu_reason)) as processor,
            track(progress, Path(source_name).name, info.frame_count) as advance,
        ):

            def after_frame() -> None:
                advance()
                telemetry.poll()

            run(source, processor, sinks, stats, observe=recorder.observe, on_frame=after_frame)
        written = video.finish()
        stats.stop()  # after the encoder is flushed, which is part of the run
        fidelity = compare(recorder, written, corrupt=source.corrupt, source=source_name, options=input_options)
        fidelity.raise_if_broken()
        for sink in sinks:
            sink.close()
    except BaseException as error:
        for sink in sinks:
            sink.abort()
            if sink.partial_path and sink.partial_path.exists() and str(sink.partial_path) not in str(error):
                _log.warning("the unfinished output is kept as %s", printable_name(str(sink.partial_path)))
        raise
    finally:
        source.close()
    input_size = segmenter.input_size_for(info.width, info.height, float(info.sample_aspect_ratio))
    return VideoReport(
        identity=segmenter.run_identity("video", source_name, output, input_size),
        temporal_smoothing=processor.smoothing.report() if processor.smoothing else None,
        path=processor.path,
        decoder=info.codec,
        encoder=video.encoder,
        pipeline=stats.report(),
        fidelity=fidelity,
        telemetry=telemetry.latest,
        notes=(
            *processor.notes,
            *unused_gpu_decoder_note(segmenter, overlay, input_options.decoder),
            *source.info.notes,
            *source.warnings,
            *video.warnings,
            *telemetry.notes,
        ),
    )
