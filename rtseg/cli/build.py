"""Command `rtseg build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, print_line
from rtseg.core.errors import OptionError
from rtseg.core.files import write_json

_ENGINE, _METADATA, _VERIFICATION = "TensorRT", "Model metadata", "Verification"


Target = Literal["auto", "tensorrt", "tensorrt-rtx", "openvino", "onnx"]
Precision = Literal["fp16", "fp32", "int8"]
Layout = Literal["nchw", "nhwc"]
OutputKind = Literal["logits", "probabilities", "multilabel", "classes", "mask"]


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
        o.option(None, "Output folder.", "--output", "-o", metavar="DIR", show_default="engines/, or the user cache"),
    ] = None,
    target: Annotated[
        Target,
        o.option(None, "Target runtime. auto: the installed one of tensorrt and tensorrt-rtx.", "--target", "-t"),
    ] = "auto",
    precision: Annotated[Precision, o.option(None, "Precision of weights and computation.")] = "fp16",
    calibrate: Annotated[
        Path | None,
        o.option(None, "Calibration images for int8: a data set (split train) or a video.", metavar="DATA|VIDEO"),
    ] = None,
    size: Annotated[
        str | None, o.option(None, "Network input size.", metavar="WxH", show_default="the model's default")
    ] = None,
    batch: Annotated[int, o.option(None, "Batch size.", min=1, max=256)] = 1,
    force: Annotated[bool, o.option(None, "Build even if nothing has changed.", "--force")] = False,
    workspace: Annotated[
        int | None, o.option(_ENGINE, "Workspace memory limit of a layer.", min=1, metavar="MIB", show_default="all")
    ] = None,
    optimization_level: Annotated[
        int | None, o.option(_ENGINE, "Builder optimization level; 5 takes longest.", min=0, max=5, show_default="3")
    ] = None,
    hardware_compatible: Annotated[
        bool, o.option(_ENGINE, "Build for all GPUs since Ampere (tensorrt).", "--hardware-compatible")
    ] = False,
    version_compatible: Annotated[
        bool, o.option(_ENGINE, "Build for later TensorRT versions too (tensorrt).", "--version-compatible")
    ] = False,
    compute_capability: Annotated[
        str | None,
        o.option(
            _ENGINE, "Build only for this compute capability (tensorrt-rtx).", metavar="X.Y", show_default="portable"
        ),
    ] = None,
    dla: Annotated[
        int | None,
        o.option(
            _ENGINE, "Run supported layers on this DLA core of a Jetson, the others on the GPU.", min=0, metavar="CORE"
        ),
    ] = None,
    classes: Annotated[
        str | None, o.option(_METADATA, "Class names in index order, such as road,car.", metavar="NAMES")
    ] = None,
    mean: Annotated[
        str | None,
        o.option(_METADATA, "Mean, subtracted from RGB of 0 to 1 (0 to 255 if a value is above 1).", metavar="R,G,B"),
    ] = None,
    std: Annotated[
        str | None,
        o.option(
            _METADATA,
            "Standard deviation, on the same scale; 1/255 for a network with input 0 to 255.",
            metavar="R,G,B",
        ),
    ] = None,
    layout: Annotated[
        Layout | None, o.option(_METADATA, "Layout of the ONNX input.", show_default="detected by its shape")
    ] = None,
    onnx_output: Annotated[
        str | None,
        o.option(_METADATA, "Name of the ONNX output to use.", metavar="NAME", show_default="the largest map"),
    ] = None,
    output_kind: Annotated[
        OutputKind | None, o.option(_METADATA, "Content of the ONNX output.", show_default="detected from the graph")
    ] = None,
    output_layout: Annotated[
        Layout | None, o.option(_METADATA, "Layout of the ONNX output.", show_default="detected from the graph")
    ] = None,
    blur: Annotated[bool, o.option(_METADATA, "The fastai network was trained with blur=True.", "--blur")] = False,
    verify: Annotated[
        bool,
        o.option(
            _VERIFICATION, "Compare the result with the original model, and measure its speed.", "--verify/--no-verify"
        ),
    ] = True,
    verify_on: Annotated[
        Path | None,
        o.option(
            _VERIFICATION,
            "Frames for the verification.",
            metavar="DATA|VIDEO",
            show_default="the val of --calibrate, or synthetic scenes",
        ),
    ] = None,
    min_agreement: Annotated[
        float | None,
        o.option(
            _VERIFICATION,
            "Required share of pixels with the same class.",
            min=0.0,
            max=1.0,
            show_default="0.995; int8: 0.98",
        ),
    ] = None,
    json: o.ResultsFile = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Build an optimized model file from a trained U-Net, and verify it.

    Builds only if the file is missing or its inputs have changed. Each built file has a JSON sidecar with its metadata.

    Examples:

        rtseg build

        rtseg build unet.pth --size 480x360 --classes sky,building,road,car

        rtseg build model.onnx --target tensorrt-rtx --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    """
    with error_handler(verbose):
        import json as json_module

        from rtseg.models.export.requirements import require

        require("onnx")
        from rtseg.cli.progress import ProgressDisplay
        from rtseg.core.path_conflicts import check_paths, model_inputs, option_inputs, side_outputs
        from rtseg.models.export.build import best_target
        from rtseg.models.export.build import build as build_model
        from rtseg.models.export.build_options import BuildOptions, Verification
        from rtseg.models.export.tensorrt import EngineOptions
        from rtseg.nn.preprocessing import Preprocessing

        check_paths(
            [*model_inputs(model, "the model"), *option_inputs(calibrate=calibrate, verify_on=verify_on)],
            side_outputs(json=json),
        )
        selected = best_target() if target == "auto" else target
        options = BuildOptions(
            selected,
            o.parse_size(size),
            batch,
            precision,
            calibrate,
            EngineOptions(
                workspace, optimization_level, hardware_compatible, version_compatible, compute_capability, dla
            ),
            Preprocessing(
                o.parse_names(classes),
                _triple(mean, "--mean"),
                _triple(std, "--std"),
                layout,
                onnx_output,
                output_kind,
                output_layout,
                blur,
            ),
        )
        built = build_model(
            model,
            options,
            out=out,
            verification=Verification(verify_on, min_agreement) if verify else None,
            force=force,
            progress=ProgressDisplay("%", quiet=quiet).task(),
            log=(lambda line: None) if quiet else print_line,
        )
        if json:
            write_json(
                {"file": str(built.path), "reasons": list(built.reasons), **json_module.loads(built.sidecar.to_json())},
                json,
            )
        if not quiet:
            for note in built.notes:
                print_line(f"note: {note}")
            state = "built" if built.reasons else "nothing has changed:"
            files = [built.path] + [built.path.with_suffix(".bin")] * (built.path.suffix == ".xml")
            print_line(f"{state} {built.path} ({sum(part.stat().st_size for part in files) / 2**20:.1f} MiB)")


def _triple(text: str | None, option: str) -> tuple[float, float, float] | None:
    """Parse `0.5,0.4,0.3` as three numbers. None returns None. Raises OptionError for any other text."""
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(
            f"{option} is '{text}'; write three numbers for red, green and blue, such as 0.5,0.5,0.5"
        ) from None
    return red, green, blue
