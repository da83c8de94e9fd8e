"""Command `rtseg bench`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, print_line

_WORKLOAD, _MEASUREMENT = "Workload", "Measurement"


def bench(
    videos: Annotated[
        list[str] | None,
        typer.Argument(metavar="[VIDEO...]", help="Video files to measure with.", show_default="a synthetic video"),
    ] = None,
    model: Annotated[
        list[str] | None,
        o.option(_WORKLOAD, "Bundled model or model file. Repeatable.", "--model", "-m", show_default="small"),
    ] = None,
    backend: Annotated[
        list[str] | None, o.option(_WORKLOAD, "Inference backend. Repeatable.", "--backend", "-b", show_default="auto")
    ] = None,
    device: o.Device = None,
    size: Annotated[
        list[str] | None,
        o.option(_WORKLOAD, "Network input size. Repeatable.", metavar="WxH", show_default="the model's default"),
    ] = None,
    frame_size: Annotated[str, o.option(_WORKLOAD, "Size of the synthetic video.", metavar="WxH")] = "1280x720",
    frames: Annotated[int, o.option(_WORKLOAD, "Number of frames of the synthetic video.", min=2)] = 300,
    preset: Annotated[str | None, o.option(_WORKLOAD, "Encoder preset.", show_default="veryfast")] = None,
    codec: Annotated[str | None, o.option(_WORKLOAD, "FFmpeg encoder name.", show_default="H.264")] = None,
    decoder: o.DecoderOption = "software",
    encoder: o.EncoderOption = "software",
    seconds: Annotated[float, o.option(_MEASUREMENT, "Duration of the measurement of each stage.", min=0.1)] = 3.0,
    rounds: Annotated[int, o.option(_MEASUREMENT, "Runs of the whole pipeline; the median is reported.", min=1)] = 3,
    compare: Annotated[
        bool, o.option(o.OUTPUT, "Compare two result files, given in place of VIDEO.", "--compare")
    ] = False,
    json_file: o.ResultsFile = None,
    chart: Annotated[Path | None, o.chart("Write a bar chart of stage times.")] = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Measure each stage, the whole pipeline, and its bottleneck.

    The bound is the highest rate that the CPU cores allow with these stages. The share of it that the pipeline reaches shows how
    well the stages overlap.

    Examples:

        rtseg bench

        rtseg bench drive.mp4 --model small --model nano --preset ultrafast --json now.json --chart now.png

        rtseg bench --compare before.json after.json
    """
    with error_handler(verbose):
        from rtseg.bench import report
        from rtseg.bench.measure import run_bench, write_synthetic_video
        from rtseg.cli.progress import ProgressDisplay
        from rtseg.core.errors import OptionError
        from rtseg.core.files import write_json
        from rtseg.core.path_conflicts import Input, check_paths, model_inputs, side_outputs
        from rtseg.core.process_setup import set_up_pipeline
        from rtseg.io.codecs import choose_decoder, choose_encoder
        from rtseg.io.options import InputOptions, OutputOptions

        model_files = [file for each in model or () for file in model_inputs(each)]
        check_paths([*map(Input, videos or ()), *model_files], side_outputs(json=json_file, chart=chart))
        if compare:
            if len(videos or ()) != 2:
                raise OptionError(f"--compare takes two files that --json wrote, not {len(videos or ())}")
            before, after = (report.load_results(Path(name)) for name in videos or ())
            rows = report.compare(before, after)
            print(report.compare_table(rows))
            if json_file:
                write_json({"rows": [row.to_dict() for row in rows]}, json_file)
            return
        if chart:
            report.require_chart()
        set_up_pipeline()
        output_options = OutputOptions(choose_encoder(encoder, codec), None, preset)
        input_options = InputOptions(decoder=choose_decoder(decoder))
        log = (lambda line: None) if quiet else print_line
        models: list[str | None] = list(model) if model else [None]
        with tempfile.TemporaryDirectory(prefix="rtseg-bench-") as folder:
            files = videos or [
                write_synthetic_video(
                    o.parse_size(frame_size) or (1280, 720), frames, folder, ProgressDisplay(quiet=quiet).task()
                )
            ]
            items = []
            for item in run_bench(
                files,
                models,
                backend or ["auto"],
                [o.parse_size(one) for one in size] if size else [None],
                output_options,
                input_options,
                device=device,
                seconds=seconds,
                rounds=rounds,
                log=log,
            ):
                print_line(report.table(item))
                items.append(item)
        if json_file:
            write_json(report.results_to_dict(items), json_file)
        if chart:
            report.write_chart(items, chart)
