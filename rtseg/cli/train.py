"""Command `rtseg train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, print_line
from rtseg.cli.evaluate import dataset_inputs

_RUN_FILES = ("model.onnx", "model.safetensors", "log.csv", "curves.png", "last.pt")
"""Files that `rtseg train` writes."""


def train(
    data: o.Data,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Output folder.")],
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant", help="Network size: nano, small or medium.", show_default="small", rich_help_panel="Model"
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Initial weights: small, nano, or a .safetensors file.",
            rich_help_panel="Model",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="WxH",
            help="Network input size.",
            show_default="the size of the images",
            rich_help_panel="Model",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the model.", show_default="DATA-VARIANT", rich_help_panel="Model"),
    ] = None,
    license: Annotated[
        str,
        typer.Option("--license", help="License of the weights, stored in the model.", rich_help_panel="Model"),
    ] = "",
    layout: o.LayoutOption = "auto",
    synthetic: Annotated[
        float,
        typer.Option(
            "--synthetic", min=0, max=1, help="Share of synthetic images (CamVid's classes).", rich_help_panel="Data"
        ),
    ] = 0.0,
    epochs: Annotated[
        float | None,
        typer.Option("--epochs", help="Duration in epochs.", show_default="200", rich_help_panel="Duration"),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            help="Duration in minutes, instead of --epochs.",
            show_default=False,
            rich_help_panel="Duration",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume the run in FOLDER.", rich_help_panel="Duration"),
    ] = False,
    evaluations: Annotated[
        int, typer.Option("--evaluations", min=1, help="Number of evaluations on val.", rich_help_panel="Duration")
    ] = 20,
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            help="Metric that selects the best weights: miou or pixel_accuracy.",
            rich_help_panel="Optimization",
        ),
    ] = "miou",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Batch size.", rich_help_panel="Optimization")] = 8,
    lr: Annotated[float, typer.Option("--lr", help="Peak learning rate.", rich_help_panel="Optimization")] = 1e-2,
    weight_decay: Annotated[
        float, typer.Option("--weight-decay", help="Weight decay of convolutions.", rich_help_panel="Optimization")
    ] = 0.02,
    class_weighting: Annotated[
        float,
        typer.Option(
            "--class-weighting",
            help="Exponent of the weights of rare classes; 0: equal weights.",
            rich_help_panel="Optimization",
        ),
    ] = 0.7,
    label_smoothing: Annotated[
        float,
        typer.Option(
            "--label-smoothing", min=0, max=1, help="Label smoothing; 0: none.", rich_help_panel="Optimization"
        ),
    ] = 0.0,
    ohem: Annotated[
        float,
        typer.Option(
            "--ohem",
            help="Share of pixels in the loss, those with the largest loss; 1: all.",
            rich_help_panel="Optimization",
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Random seed.", rich_help_panel="Optimization")] = 0,
    device: Annotated[
        str, typer.Option("--device", help="Device: auto, cpu or cuda.", rich_help_panel="Hardware")
    ] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="Precision: auto, fp32 or bf16.", rich_help_panel="Hardware")
    ] = "auto",
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Train a U-Net on a labeled data set and export it.

    Writes `model.onnx` (to run), `model.safetensors` (to fine-tune), `log.csv`, `curves.png` and `last.pt` (to resume) to FOLDER.

    Examples:

        rtseg train path/to/data --out runs/mine --minutes 120

        rtseg train path/to/data --out runs/mine --resume

        rtseg train my-classes/ --out runs/mine --from small --epochs 50
    """
    with error_handler(verbose):
        o.require_module("torch", "train")
        from rtseg.core.errors import OptionError
        from rtseg.core.path_conflicts import Output, check_paths, model_inputs
        from rtseg.inference.bundled_models import find_weights
        from rtseg.models.evaluation.layouts import open_dataset
        from rtseg.models.training.train import train as run

        results = [out / result for result in _RUN_FILES]
        if not resume and not (out / "last.pt").exists():
            existing = next((path for path in results if path.exists()), None)
            if existing is not None:
                raise OptionError(
                    f"{existing} exists, but there is no last.pt of a training run: give a new or empty folder with --out"
                )
        data_files = dataset_inputs(open_dataset(data, layout))
        if any(
            out.resolve() == Path(file.path).resolve().parent for file in data_files if Path(file.path).suffix != ".txt"
        ):
            raise OptionError(f"--out {out} contains images or labels of the data set; give another folder")
        check_paths(
            [*data_files, *model_inputs(from_, "--from")],
            [Output(str(path), "--out") for path in results],
        )
        with o.TrainingProgress(quiet) as progress:
            result = run(
                data,
                out=out,
                layout=layout,
                variant=variant,
                epochs=epochs,
                minutes=minutes,
                resume=resume,
                from_=None if from_ is None else find_weights(from_),
                size=o.parse_size(size),
                batch=batch,
                lr=lr,
                weight_decay=weight_decay,
                class_weighting=class_weighting,
                label_smoothing=label_smoothing,
                ohem=ohem,
                synthetic=synthetic,
                metric=metric,
                evaluations=evaluations,
                device=device,
                precision=precision,
                name=name,
                license=license,
                seed=seed,
                progress=progress.show,
            )
        if not quiet:
            metrics = ", ".join(f"{key} {value:.4f}" for key, value in result.metrics.items())
            print_line(f"{result.onnx}: {metrics} after {result.steps} steps; log and curves are in the same folder")
