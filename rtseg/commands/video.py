"""`rtseg video`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rtseg.commands import options as o
from rtseg.commands.told import one_line, say, told


def video(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Videos, folders or globs; - reads stdin.", show_default=False),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="File, or folder for several inputs; - writes stdout.",
            show_default="INPUT.rtseg.mp4",
        ),
    ] = None,
    model: o.Model = None,
    backend: o.Backend = "auto",
    device: o.Device = None,
    size: o.Size = None,
    fit: o.FitOption = o.Fit.letterbox,
    view: o.ViewOption = o.View.overlay,
    alpha: o.Alpha = 0.5,
    palette: o.PaletteOption = "street",
    only: o.Only = None,
    legend: o.Legend = False,
    hud: Annotated[
        bool, typer.Option("--hud", help="Burn in frames per second and latency.", rich_help_panel="Look")
    ] = False,
    start: Annotated[
        str | None,
        typer.Option("--start", metavar="TIME", help="Begin here: seconds or 1:30.", rich_help_panel="Input"),
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--duration", metavar="TIME", help="Process this long.", rich_help_panel="Input")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End at the first damage in the input.", rich_help_panel="Input")
    ] = False,
    codec: Annotated[
        str | None,
        typer.Option(
            "--codec", help="FFmpeg encoder.", show_default="what suits the container, H.264", rich_help_panel="Output"
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(
            "--crf",
            min=0,
            max=63,
            help="Quality: lower is better and larger.",
            show_default="23",
            rich_help_panel="Output",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="Encoder's effort.", show_default="veryfast", rich_help_panel="Output"),
    ] = None,
    audio: Annotated[
        bool, typer.Option("--audio/--no-audio", help="Copy audio and other streams.", rich_help_panel="Output")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--no-overwrite", help="Replace an existing output.", rich_help_panel="Output")
    ] = True,
    masks: o.Masks = None,
    stats: o.StatsFile = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Colour every pixel of a video by what it shows; sound and timing stay as they are.

    Decodes, segments, colours and encodes at the same time, then compares the result with the input before it gets its name.

    Examples:

        rtseg video drive.mp4 -o out.mp4

        rtseg video drives/ -o coloured/ --legend --hud

        rtseg video drive.mp4 -o road.mp4 --only road,pavement --masks masks.mkv --stats run.json
    """
    with told(verbose):
        from rtseg.errors import OptionError, RtsegError
        from rtseg.files import write_json
        from rtseg.segmenter import Segmenter
        from rtseg.video import Encoding, Look, failed, find_inputs, name_outputs, process, totals

        look = Look(view.value, alpha, palette, o.parse_names(only), legend, hud)
        encoding = Encoding(codec, crf, preset, audio, overwrite)
        begin, length = o.parse_seconds(start, "--start"), o.parse_seconds(duration, "--duration")
        found = find_inputs(inputs)
        outputs = name_outputs(found, output)
        if masks is not None and len(found) > 1:
            raise OptionError(f"--masks takes one place, but there are {len(found)} inputs; process them one by one")
        items: list[dict[str, Any]] = []
        with Segmenter(
            model, backend=backend, device=device, size=o.parse_size(size), fit=fit.value, streams=0
        ) as segmenter:
            look.overlay(segmenter)  # a wrong palette or class is told before any file is opened
            if not quiet:
                say(describe(segmenter))
            for source, target in zip(found, outputs, strict=True):
                try:
                    result = process(
                        source,
                        target,
                        segmenter,
                        look,
                        encoding,
                        start=begin,
                        duration=length,
                        masks=masks,
                        strict=strict,
                        quiet=quiet,
                    )
                except RtsegError as error:
                    if len(found) == 1:
                        raise
                    say(f"rtseg: {one_line(str(error))}")
                    items.append(failed(source, target, error))
                else:
                    items.append(result)
                    if not quiet:
                        tell(result)
        if stats:
            write_json(items[0] if len(items) == 1 else totals(items), stats)
        broken = [item for item in items if "error" in item]
        if len(found) > 1 and not quiet:
            say(
                f"{len(items) - len(broken)} of {len(items)} videos done"
                + "".join(f"\n  failed: {item['input']}" for item in broken)
            )
        if broken:
            raise typer.Exit(1)


def describe(segmenter: Any) -> str:
    """One line: which model runs where, and why there."""
    width, height = segmenter.input_size
    return (
        f"model {segmenter.description.name} at {width}x{height} on {segmenter.backend} "
        f"({segmenter.device}, {segmenter.precision}): {segmenter.reason}"
    )


def tell(result: dict[str, Any]) -> None:
    """The result of one video, for people."""
    frames, latency = result["frames"], result["latency_ms"]
    for note in result["notes"]:
        say(f"note: {note}")
    if "fidelity" in result:
        say(result["fidelity"]["line"])
    say(
        f"{result['output']}: {frames['written']} frames in {result['seconds']:.1f} s, {result['fps']:.1f} fps; "
        f"latency p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms; limited by {result['bottleneck']}"
    )
