"""Command `rtseg train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, print_line
from rtseg.cli.evaluate import dataset_inputs

_RUN_FILES = ("model.onnx", "model.safetensors", "log.csv", "curves.png", "last.pt")
"""Files that `rtseg train` writes."""


def train(
    data: o.Data,
    out: Annotated[Path, o.option(None, "Output folder.", "--out", "-o", metavar="FOLDER")],
    variant: Annotated[
        str | None, o.option("Model", "Network size: nano, small or medium.", show_default="small")
    ] = None,
    from_: Annotated[
        str | None,
        o.option("Model", "Initial weights: small, nano, or a .safetensors file.", "--from", metavar="MODEL"),
    ] = None,
    size: Annotated[
        str | None, o.option("Model", "Network input size.", metavar="WxH", show_default="the size of the images")
    ] = None,
    name: Annotated[str | None, o.option("Model", "Name of the model.", show_default="DATA-VARIANT")] = None,
    license: Annotated[str, o.option("Model", "License of the weights, stored in the model.")] = "",
    layout: o.LayoutOption = "auto",
    synthetic: Annotated[float, o.option("Data", "Share of synthetic images (CamVid's classes).", min=0, max=1)] = 0.0,
    epochs: Annotated[float | None, o.option("Duration", "Duration in epochs.", show_default="200")] = None,
    minutes: Annotated[
        float | None, o.option("Duration", "Duration in minutes, instead of --epochs.", show_default=False)
    ] = None,
    resume: Annotated[bool, o.option("Duration", "Resume the run in FOLDER.", "--resume")] = False,
    evaluations: Annotated[int, o.option("Duration", "Number of evaluations on val.", min=1)] = 20,
    metric: Annotated[
        str, o.option("Optimization", "Metric that selects the best weights: miou or pixel_accuracy.")
    ] = "miou",
    batch: Annotated[int, o.option("Optimization", "Batch size.", min=1)] = 8,
    lr: Annotated[float, o.option("Optimization", "Peak learning rate.")] = 1e-2,
    weight_decay: Annotated[float, o.option("Optimization", "Weight decay of convolutions.")] = 0.02,
    class_weighting: Annotated[
        float, o.option("Optimization", "Exponent of the weights of rare classes; 0: equal weights.")
    ] = 0.7,
    label_smoothing: Annotated[float, o.option("Optimization", "Label smoothing; 0: none.", min=0, max=1)] = 0.0,
    ohem: Annotated[
        float, o.option("Optimization", "Share of pixels in the loss, those with the largest loss; 1: all.")
    ] = 1.0,
    seed: Annotated[int, o.option("Optimization", "Random seed.")] = 0,
    device: Annotated[str, o.option("Hardware", "Device: auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, o.option("Hardware", "Precision: auto, fp32 or bf16.")] = "auto",
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
        from rtseg.cli.progress import ProgressDisplay
        from rtseg.core.errors import OptionError
        from rtseg.core.path_conflicts import Output, check_paths, model_inputs
        from rtseg.inference.bundled_models import find_weights
        from rtseg.models.evaluation.layouts import open_dataset
        from rtseg.models.training.options import TrainOptions
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
        options = TrainOptions(
            variant=variant,
            from_=None if from_ is None else find_weights(from_),
            size=o.parse_size(size),
            name=name,
            license=license,
            layout=layout,
            synthetic=synthetic,
            epochs=epochs,
            minutes=minutes,
            evaluations=evaluations,
            metric=metric,
            batch=batch,
            lr=lr,
            weight_decay=weight_decay,
            class_weighting=class_weighting,
            label_smoothing=label_smoothing,
            ohem=ohem,
            seed=seed,
            device=device,
            precision=precision,
        )
        log = (lambda line: None) if quiet else print_line
        result = run(data, out, options, resume=resume, log=log, progress=ProgressDisplay("%", quiet=quiet).task())
        if not quiet:
            metrics = ", ".join(f"{key} {value:.4f}" for key, value in result.metrics.items())
            print_line(f"{result.onnx}: {metrics} after {result.steps} steps; log and curves are in the same folder")
