"""`rtseg build`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, print_line

_ENGINE, _SOURCE, _VERIFICATION = "TensorRT", "What the file does not say", "Verification"


class Target(str, Enum):
    """What is made."""

    auto = "auto"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"
    openvino = "openvino"
    onnx = "onnx"


class Precision(str, Enum):
    """What it computes in."""

    fp16 = "fp16"
    fp32 = "fp32"
    int8 = "int8"


class Layout(str, Enum):
    """Where an ONNX input has its channels."""

    nchw = "nchw"
    nhwc = "nhwc"


class OutputKind(str, Enum):
    """What an ONNX output holds."""

    logits = "logits"
    probabilities = "probabilities"
    multilabel = "multilabel"
    classes = "classes"
    mask = "mask"


def build(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Bundled model, checkpoint (.safetensors, .pt, .pth, folder) or .onnx.",
            show_default="small",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the built file.",
            show_default="engines/, or the user's cache",
        ),
    ] = None,
    target: Annotated[
        Target, typer.Option("--target", "-t", help="auto: tensorrt or tensorrt-rtx, whichever is installed.")
    ] = Target.auto,
    precision: Annotated[
        Precision, typer.Option("--precision", help="Precision of weights and arithmetic.")
    ] = Precision.fp16,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate", metavar="DATA|VIDEO", help="Real pictures for int8: a data set (its train), or a video."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="Size of the network's input.", show_default="the model's own"),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, max=256, help="Pictures in one run.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Build even if nothing has changed.")] = False,
    workspace: Annotated[
        int | None,
        typer.Option(
            "--workspace",
            min=1,
            metavar="MIB",
            help="Memory for one layer.",
            show_default="all",
            rich_help_panel=_ENGINE,
        ),
    ] = None,
    optimization_level: Annotated[
        int | None,
        typer.Option(
            "--optimization-level", min=0, max=5, help="5 searches longest.", show_default="3", rich_help_panel=_ENGINE
        ),
    ] = None,
    hardware_compatible: Annotated[
        bool,
        typer.Option("--hardware-compatible", help="For every GPU from Ampere on (tensorrt).", rich_help_panel=_ENGINE),
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="For later versions too (tensorrt).", rich_help_panel=_ENGINE)
    ] = False,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            "--compute-capability",
            metavar="X.Y",
            help="For this one alone (tensorrt-rtx).",
            show_default="portable",
            rich_help_panel=_ENGINE,
        ),
    ] = None,
    dla: Annotated[
        int | None,
        typer.Option(
            "--dla",
            min=0,
            metavar="CORE",
            help="On this accelerator of a Jetson, the rest on its GPU.",
            rich_help_panel=_ENGINE,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes", metavar="NAMES", help="Class names in order, such as road,car.", rich_help_panel=_SOURCE
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            "--mean", metavar="R,G,B", help="Subtracted from RGB of 0 to 1 (0 to 255).", rich_help_panel=_SOURCE
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(
            "--std",
            metavar="R,G,B",
            help="What that is divided by; 1/255 where the network takes 0 to 255.",
            rich_help_panel=_SOURCE,
        ),
    ] = None,
    layout: Annotated[
        Layout | None,
        typer.Option(
            "--layout",
            help="Where an ONNX input has its channels.",
            show_default="told by its shape",
            rich_help_panel=_SOURCE,
        ),
    ] = None,
    onnx_output: Annotated[
        str | None,
        typer.Option(
            "--onnx-output",
            metavar="NAME",
            help="Which ONNX output to use.",
            show_default="the largest map",
            rich_help_panel=_SOURCE,
        ),
    ] = None,
    output_kind: Annotated[
        OutputKind | None,
        typer.Option(
            "--output-kind",
            help="What it holds.",
            show_default="found in its graph",
            rich_help_panel=_SOURCE,
        ),
    ] = None,
    output_layout: Annotated[
        Layout | None,
        typer.Option(
            "--output-layout",
            help="Where it has its classes.",
            show_default="found in its graph",
            rich_help_panel=_SOURCE,
        ),
    ] = None,
    blur: Annotated[
        bool, typer.Option("--blur", help="A fastai network was trained with blur=True.", rich_help_panel=_SOURCE)
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Compare with the original, and time it.", rich_help_panel=_VERIFICATION),
    ] = True,
    verify_on: Annotated[
        Path | None,
        typer.Option(
            "--verify-on",
            metavar="DATA|VIDEO",
            help="Frames for that.",
            show_default="the val of --calibrate, or synthetic drives",
            rich_help_panel=_VERIFICATION,
        ),
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            "--min-agreement",
            min=0.0,
            max=1.0,
            help="Share of pixels that must keep their class.",
            show_default="0.995; int8: 0.98",
            rich_help_panel=_VERIFICATION,
        ),
    ] = None,
    json: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the sidecar's content as JSON; - for stdout. Replaces only JSON."
        ),
    ] = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Make the file that runs in real time from a trained U-Net, and prove it right.

    Builds only what is missing or has changed. Each built file has a JSON sidecar that says what it is.

    Examples:

        rtseg build

        rtseg build unet.pth --size 480x360 --classes sky,building,road,car

        rtseg build model.onnx --target tensorrt-rtx --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    """
    with error_handler(verbose):
        import json as json_module

        from rtseg.models.export.requirements import require

        require("onnx")
        from rtseg.core.path_conflicts import check_paths, model_inputs, option_inputs, side_outputs
        from rtseg.models.export.build import TARGETS, best_target
        from rtseg.models.export.build import build as build_model
        from rtseg.models.export.tensorrt import EngineOptions
        from rtseg.nn.preprocessing import Preprocessing

        check_paths(
            [*model_inputs(model, "the model"), *option_inputs(calibrate=calibrate, verify_on=verify_on)],
            side_outputs(json=json),
        )
        chosen = best_target() if target is Target.auto else target.value
        assert chosen in TARGETS
        built = build_model(
            model,
            target=chosen,
            out=out,
            size=o.parse_size(size),
            batch=batch,
            precision=precision.value,
            calibrate=calibrate,
            options=EngineOptions(
                workspace, optimization_level, hardware_compatible, version_compatible, compute_capability, dla
            ),
            preprocessing=Preprocessing(
                o.parse_names(classes),
                _triple(mean, "--mean"),
                _triple(std, "--std"),
                layout.value if layout else None,
                onnx_output,
                output_kind.value if output_kind else None,
                output_layout.value if output_layout else None,
                blur,
            ),
            verify_on=verify_on,
            min_agreement=min_agreement,
            verify=verify,
            force=force,
            quiet=quiet,
            log=(lambda line: None) if quiet else print_line,
        )
        if json:
            from rtseg.core.files import write_json

            write_json(
                {"file": str(built.path), "reasons": list(built.reasons), **json_module.loads(built.sidecar.to_json())},
                json,
            )
        if not quiet:
            for note in built.notes:
                print_line(f"note: {note}")
            state = "built" if built.reasons else "nothing has changed:"
            parts = [built.path] + [built.path.with_suffix(".bin")] * (built.path.suffix == ".xml")
            print_line(f"{state} {built.path} ({sum(part.stat().st_size for part in parts) / 2**20:.1f} MiB)")


def _triple(text: str | None, option: str) -> tuple[float, float, float] | None:
    """`0.5,0.4,0.3` as three numbers; None stays None. Raises OptionError for anything else."""
    from rtseg.core.errors import OptionError

    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(
            f"{option} is '{text}'; write three numbers for red, green and blue, such as 0.5,0.5,0.5"
        ) from None
    return red, green, blue
