"""Command `rtseg video`."""

from __future__ import annotations

from typing import Annotated

import typer

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, one_line, print_line


def video(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Videos, folders or glob patterns; - for stdin.", show_default=False),
    ],
    output: Annotated[
        str | None, o.output("Output file, or folder for several inputs; - for stdout.", "INPUT.rtseg.mp4")
    ] = None,
    model: o.Model = None,
    backend: o.Backend = "auto",
    device: o.Device = None,
    size: o.Size = None,
    fit: o.FitOption = "letterbox",
    view: o.ViewOption = "overlay",
    alpha: o.Alpha = 0.5,
    palette: o.PaletteOption = "street",
    only: o.Only = None,
    smooth: o.Smooth = 0.0,
    legend: o.Legend = False,
    hud: Annotated[bool, o.option(o.APPEARANCE, "Draw the frame rate and latency.", "--hud")] = False,
    start: Annotated[str | None, o.option(o.INPUT, "Start time: seconds or 1:30.", metavar="TIME")] = None,
    duration: Annotated[str | None, o.option(o.INPUT, "Duration: seconds or 1:30.", metavar="TIME")] = None,
    stream: o.StreamOption = None,
    strict: Annotated[bool, o.option(o.INPUT, "Stop at the first damage in the input.", "--strict")] = False,
    max_pixels: Annotated[
        str | None,
        o.option(o.INPUT, "Maximum frame size: 8192x8192, 67000000, 67M.", metavar="N|WxH", show_default="8192x8192"),
    ] = None,
    allow_protocols: Annotated[
        str | None,
        o.option(
            o.INPUT,
            "Protocols that playlists can use: file, http, https.",
            metavar="NAMES",
            show_default="none: playlists are refused",
        ),
    ] = None,
    decoder: o.DecoderOption = "software",
    encoder: o.EncoderOption = "software",
    codec: Annotated[
        str | None, o.option(o.OUTPUT, "FFmpeg encoder name.", show_default="H.264, or by container")
    ] = None,
    crf: o.Crf = None,
    preset: Annotated[str | None, o.option(o.OUTPUT, "Encoder preset.", show_default="veryfast")] = None,
    audio: Annotated[bool, o.option(o.OUTPUT, "Copy audio and other streams.", "--audio/--no-audio")] = True,
    overwrite: o.Overwrite = True,
    masks: o.Masks = None,
    jobs: Annotated[
        str,
        o.option(
            "Multiple inputs",
            "Number of videos in parallel; auto: one per four cores.",
            "--jobs",
            "-j",
            metavar="N|auto",
        ),
    ] = "1",
    resume: Annotated[
        bool,
        o.option("Multiple inputs", "Skip inputs that are done and verified with the same appearance.", "--resume"),
    ] = False,
    stats: o.StatsFile = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Segment videos: color each pixel by its class. Audio and timing do not change.

    Decoding, inference, rendering and encoding run in parallel. The output is compared with the input before it is renamed.

    Examples:

        rtseg video drive.mp4 -o out.mp4

        rtseg video drives/ -o colored/ --legend --jobs 4 --resume

        rtseg video drive.mp4 -o road.mp4 --only road,pavement --masks masks.mkv --stats run.json
    """
    with error_handler(verbose):
        from rtseg.cli.progress import ProgressDisplay
        from rtseg.cli.video_result import ResultPrinter, summary
        from rtseg.core import path_conflicts as paths
        from rtseg.core.errors import SinkError
        from rtseg.core.files import write_json
        from rtseg.core.process_setup import set_up_pipeline
        from rtseg.core.video_report import BatchItem, BatchReport, UnprocessedVideo
        from rtseg.io.codecs import choose_decoder, choose_encoder
        from rtseg.io.options import InputOptions, OutputOptions
        from rtseg.render.style import Style
        from rtseg.video.batch import BatchOptions, parse_jobs, process_all
        from rtseg.video.output_names import name_tasks

        set_up_pipeline()
        style = Style(view, alpha, palette, o.parse_names(only), legend, hud)
        output_options = OutputOptions(choose_encoder(encoder, codec), crf, preset, audio, overwrite)
        input_options = InputOptions(
            o.parse_seconds(start, "--start"),
            o.parse_seconds(duration, "--duration"),
            strict,
            decoder=choose_decoder(decoder, with_audio=audio),
            allow_protocols=o.parse_protocols(allow_protocols),
            max_pixels=o.parse_pixels(max_pixels),
            stream=stream,
        )
        tasks = name_tasks(inputs, output, masks, (lambda line: None) if quiet else print_line)
        sources = [paths.Input(task.source) for task in tasks]
        paths.check_paths(
            [*sources, *paths.model_inputs(model), *paths.option_inputs(palette=palette)],
            [
                *(paths.Output(task.output, "-o") for task in tasks),
                *(paths.mask_output(task.masks) for task in tasks if task.masks),
                *paths.side_outputs(stats=stats),
            ],
            overwrite=overwrite,
        )
        parallel_jobs = parse_jobs(jobs, len(tasks))

        def write_stats(report: BatchItem | BatchReport) -> None:
            if stats:
                write_json(report.to_dict(), stats)

        def write_failed(report: BatchItem | BatchReport) -> None:
            try:
                write_stats(report)
            except SinkError as error:  # the reason of the failed run is printed after it
                print_line(f"rtseg: {one_line(str(error))}")

        with o.open_segmenter(model, backend, device, size, fit=fit, streams=0, smooth=smooth) as segmenter:
            style.overlay(segmenter.description)  # reports an invalid palette or class before any file is opened
            if not quiet:
                print_line(segmenter.describe())
            result = process_all(
                tasks,
                BatchOptions(segmenter, style, output_options, input_options),
                jobs=parallel_jobs,
                resume=resume,
                on_item=ResultPrinter(len(tasks), quiet).print_item,
                on_failure=write_failed,
                new_progress=ProgressDisplay(quiet=quiet).task,
            )
        write_stats(result)
        if isinstance(result, BatchReport):
            if not quiet:
                print_line(summary(result))
            if any(isinstance(item, UnprocessedVideo) and item.error is not None for item in result.items):
                raise typer.Exit(1)
