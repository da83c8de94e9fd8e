"""Command `rtseg image`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, one_line, print_line


def image(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Images, folders or glob patterns.", show_default=False)
    ],
    output: Annotated[Path | None, o.output("Output file, or folder for several images.", "INPUT.rtseg.jpg")] = None,
    model: o.Model = None,
    backend: o.Backend = "auto",
    device: o.Device = None,
    size: o.Size = None,
    fit: o.FitOption = "letterbox",
    view: o.ViewOption = "overlay",
    alpha: o.Alpha = 0.5,
    palette: o.PaletteOption = "street",
    only: o.Only = None,
    legend: o.Legend = False,
    masks: Annotated[
        Path | None,
        o.option(
            "Output", "Also write class indices as one-channel PNGs. Replaces only earlier masks.", metavar="FOLDER"
        ),
    ] = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Segment images: color each pixel by its class.

    Reads JPEG, PNG, WebP, BMP, TIFF and other formats of OpenCV, and applies EXIF orientation. Writes JPEG, PNG and WebP; images in
    other formats are written as PNG.

    Examples:

        rtseg image street.jpg -o street-colored.png --legend

        rtseg image photos/ -o colored/ --masks masks/
    """
    with error_handler(verbose):
        from rtseg.cli.progress import ProgressDisplay
        from rtseg.core.errors import RtsegError, printable_name
        from rtseg.core.path_conflicts import Input, Output, check_paths, model_inputs, option_inputs
        from rtseg.core.progress import track
        from rtseg.render.style import Style
        from rtseg.video.image import check_suffix, find_images, name_images, name_masks, process_image

        results = [str(folder) for folder in (output, masks) if folder]
        paths = find_images(inputs, results=results, log=(lambda line: None) if quiet else print_line)
        outputs = name_images(paths, output)
        mask_paths = name_masks(paths, masks) if masks else []
        check_paths(
            [*(Input(str(path)) for path in paths), *model_inputs(model), *option_inputs(palette=palette)],
            [
                *(Output(str(path), "-o") for path in outputs),
                *(Output(str(path), "--masks", "image") for path in mask_paths),
            ],
        )
        for path in outputs:
            check_suffix(path)
        failures = 0
        with o.open_segmenter(model, backend, device, size, fit=fit) as segmenter:
            overlay = Style(view, alpha, palette, o.parse_names(only), legend).overlay(segmenter.description)
            if not quiet:
                print_line(segmenter.describe())
            display = ProgressDisplay("images", quiet=quiet or len(paths) == 1)
            with track(display.task(), "images", len(paths)) as advance:
                for path, target in zip(paths, outputs, strict=True):
                    try:
                        process_image(path, target, segmenter, overlay, masks=masks)
                    except RtsegError as error:
                        if len(paths) == 1:
                            raise
                        print_line(f"rtseg: {one_line(str(error))}")
                        failures += 1
                    advance()
        if not quiet:
            folders = {path.parent for path in outputs}
            result = str(outputs[0] if len(paths) == 1 else outputs[0].parent)
            name = printable_name(result) if len(folders) == 1 else f"{len(folders)} folders"
            print_line(f"{name}: {len(paths) - failures} of {len(paths)} images done")
        if failures:
            raise typer.Exit(1)
