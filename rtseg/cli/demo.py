"""Command `rtseg demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, print_line


def demo(
    output: Annotated[
        str | None, o.output("Output video; - for stdout.", "demo.mp4, or demo-2.mp4 if it exists")
    ] = None,
    frame_size: Annotated[str, o.option(None, "Size of the synthetic video.", metavar="WxH")] = "960x540",
    frames: Annotated[int, o.option(None, "Number of frames, at 30 per second.", min=1, max=1_000_000)] = 150,
    seed: Annotated[int, o.option(None, "Seed of the synthetic scene.", min=0)] = 0,
    model: o.Model = None,
    backend: o.Backend = "auto",
    device: o.Device = None,
    size: o.Size = None,
    view: o.ViewOption = "side-by-side",
    alpha: o.Alpha = 0.5,
    palette: o.PaletteOption = "street",
    legend: Annotated[bool, o.option(o.APPEARANCE, "Draw the class names and colors.", "--legend/--no-legend")] = True,
    stats: o.StatsFile = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Segment a synthetic video and compare the result with its known classes, to test the installation.

    Needs no data and no camera. The synthetic scene is first encoded as a video, so decoding, the model, rendering and encoding
    are all tested.
    """
    with error_handler(verbose):
        from rtseg.cli.demo_run import run_demo
        from rtseg.cli.progress import ProgressDisplay
        from rtseg.cli.video_result import ResultPrinter
        from rtseg.core.files import write_json
        from rtseg.core.path_conflicts import Output, check_paths, model_inputs, option_inputs, side_outputs
        from rtseg.core.process_setup import set_up_pipeline
        from rtseg.io.options import OutputOptions
        from rtseg.render.style import Style
        from rtseg.video.output_names import unused_name

        overwrite = output is not None  # replace only a file that the user named
        if output is None:
            output = str(unused_name(Path("demo.mp4")))
        check_paths(
            [*model_inputs(model), *option_inputs(palette=palette)],
            [Output(output, "-o"), *side_outputs(stats=stats)],
        )
        set_up_pipeline()
        video_size = o.parse_size(frame_size) or (960, 540)
        with o.open_segmenter(model, backend, device, size, streams=0) as segmenter:
            if not quiet:
                print_line(segmenter.describe())
            result = run_demo(
                output,
                segmenter,
                Style(view, alpha, palette, None, legend),
                OutputOptions(overwrite=overwrite),
                size=video_size,
                frames=frames,
                seed=seed,
                progress=ProgressDisplay(quiet=quiet).task(),
            )
        if stats:
            write_json(result.to_dict(), stats)
        if not quiet:
            ResultPrinter(1, quiet).print_item(result.video)
            print_line(f"pixel accuracy against the known classes: {result.pixel_accuracy:.4f}")
            print_line(f"wrote {Path(output).resolve()}" if output != "-" else "wrote the video to stdout")
