"""`rtseg demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, print_line


def demo(
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="The colored video; without, demo.mp4, or demo-2.mp4 where that exists.",
        ),
    ] = None,
    frame_size: Annotated[
        str, typer.Option("--frame-size", metavar="WxH", help="Size of the drawn street.")
    ] = "960x540",
    frames: Annotated[
        int, typer.Option("--frames", min=1, max=1_000_000, help="Length; 30 frames are a second.")
    ] = 150,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed is another street.")] = 0,
    model: o.Model = None,
    backend: o.Backend = "auto",
    device: o.Device = None,
    size: o.Size = None,
    view: o.ViewOption = "side-by-side",
    alpha: o.Alpha = 0.5,
    palette: o.PaletteOption = "street",
    legend: Annotated[
        bool, typer.Option("--legend/--no-legend", help="Draw the class names.", rich_help_panel="Style")
    ] = True,
    stats: o.StatsFile = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Draw a street whose true classes are known, segment it, and compare: proof that this installation works.

    Needs no data and no camera. The drawn street is encoded to a video first, so that decoding, the model, the colors and
    encoding are all tried.
    """
    with error_handler(verbose):
        from rtseg.cli.demo_run import run_demo
        from rtseg.cli.video import describe, tell
        from rtseg.core.files import write_json
        from rtseg.core.path_conflicts import Output, check_paths, model_inputs, option_inputs, side_outputs
        from rtseg.core.process_setup import keep_memory_flat, keep_opencv_single
        from rtseg.inference.segmenter import Segmenter
        from rtseg.io.options import OutputOptions
        from rtseg.render.style import Style
        from rtseg.video.output_names import unused_name

        named = output is not None  # what the user names is replaced
        if output is None:
            output = str(unused_name(Path("demo.mp4")))
        check_paths(
            [*model_inputs(model), *option_inputs(palette=palette)],
            [Output(output, "-o"), *side_outputs(stats=stats)],
        )
        keep_memory_flat()
        keep_opencv_single()
        picture = o.parse_size(frame_size) or (960, 540)
        with Segmenter(
            model, backend=backend, device=device, size=o.parse_size(size), streams=0, build_missing=o.build_missing
        ) as segmenter:
            if not quiet:
                print_line(describe(segmenter))
            style = Style(view, alpha, palette, None, legend)
            encoding = OutputOptions(overwrite=named)
            result = run_demo(output, segmenter, style, encoding, size=picture, frames=frames, seed=seed, quiet=quiet)
        if stats:
            write_json(result, stats)
        if not quiet:
            tell(result)
            print_line(f"pixel accuracy against the drawn truth: {result['pixel_accuracy']:.4f}")
            print_line(f"the video lies at {Path(output).resolve()}" if output != "-" else "the video went to stdout")
