"""`rtseg train` and `rtseg eval`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, print_line

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of labeled pictures.", show_default=False)]
Layout = Annotated[
    str,
    typer.Option("--layout", help="auto, folders, camvid, notebook, cityscapes or bdd100k.", rich_help_panel="Data"),
]


RUN_FILES = ("model.onnx", "model.safetensors", "log.csv", "curves.png", "last.pt")
"""What `rtseg train` writes into its folder."""


def train(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="What the run leaves behind goes here.")],
    variant: Annotated[
        str | None,
        typer.Option("--variant", help="nano, small or medium.", show_default="small", rich_help_panel="Model"),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Start from these weights: small, nano, or a .safetensors file.",
            rich_help_panel="Model",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="WxH", help="Size to train at.", show_default="the data's", rich_help_panel="Model"
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="The model's name.", show_default="DATA-VARIANT", rich_help_panel="Model"),
    ] = None,
    license: Annotated[
        str,
        typer.Option("--license", help="What the weights may be used for; kept in the model.", rich_help_panel="Model"),
    ] = "",
    layout: Layout = "auto",
    synthetic: Annotated[
        float,
        typer.Option(
            "--synthetic", min=0, max=1, help="Share of drawn streets (CamVid's classes).", rich_help_panel="Data"
        ),
    ] = 0.0,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Length in passes.", show_default="200", rich_help_panel="Length")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="Length in minutes instead.", show_default=False, rich_help_panel="Length"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in FOLDER, also after a kill.", rich_help_panel="Length"),
    ] = False,
    evaluations: Annotated[
        int, typer.Option("--evaluations", min=1, help="How often to evaluate on val.", rich_help_panel="Length")
    ] = 20,
    metric: Annotated[
        str,
        typer.Option("--metric", help="What picks the best weights: miou or pixel_accuracy.", rich_help_panel="Recipe"),
    ] = "miou",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures a step.", rich_help_panel="Recipe")] = 8,
    lr: Annotated[float, typer.Option("--lr", help="Peak learning rate.", rich_help_panel="Recipe")] = 1e-2,
    weight_decay: Annotated[
        float, typer.Option("--weight-decay", help="Of convolutions.", rich_help_panel="Recipe")
    ] = 0.02,
    class_weighting: Annotated[
        float,
        typer.Option(
            "--class-weighting", help="How much more rare classes count; 0: not at all.", rich_help_panel="Recipe"
        ),
    ] = 0.7,
    label_smoothing: Annotated[
        float, typer.Option("--label-smoothing", min=0, max=1, help="0: none.", rich_help_panel="Recipe")
    ] = 0.0,
    ohem: Annotated[
        float,
        typer.Option("--ohem", help="Share of pixels that counts, the hardest; 1: all.", rich_help_panel="Recipe"),
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Another seed is another run.", rich_help_panel="Recipe")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.", rich_help_panel="Machine")] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="auto, fp32 or bf16.", rich_help_panel="Machine")
    ] = "auto",
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Train a U-Net on your own labeled pictures and leave it ready to run.

    FOLDER gets `model.onnx` (to run), `model.safetensors` (to go on from), `log.csv`, `curves.png` and `last.pt` (to resume).

    Examples:

        rtseg train path/to/data --out runs/mine --minutes 120

        rtseg train path/to/data --out runs/mine --resume

        rtseg train my-classes/ --out runs/mine --from small --epochs 50
    """
    with error_handler(verbose):
        o.need("torch", "train")
        from rtseg.core.errors import OptionError
        from rtseg.core.path_conflicts import Output, check_paths, model_inputs
        from rtseg.inference.bundled_models import find_weights
        from rtseg.models.evaluation.layouts import open_dataset
        from rtseg.models.training.train import train as run

        results = [out / result for result in RUN_FILES]
        if not resume and not (out / "last.pt").exists():
            kept = next((path for path in results if path.exists()), None)
            if kept is not None:
                raise OptionError(
                    f"{kept} is there, but no last.pt of a training run: name a new or an empty folder with --out"
                )
        read = dataset_inputs(open_dataset(data, layout))
        if any(out.resolve() == Path(file.path).resolve().parent for file in read if Path(file.path).suffix != ".txt"):
            raise OptionError(f"--out {out} holds images or labels of the data set; name another folder")
        check_paths(
            [*read, *model_inputs(from_, "--from")],
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
            measured = ", ".join(f"{key} {value:.4f}" for key, value in result.metrics.items())
            print_line(f"{result.onnx}: {measured} after {result.steps} steps; log and curves beside it")


def evaluate(
    data: Data,
    split: Annotated[str, typer.Option("--split", help="train, val or test.", rich_help_panel="Data")] = "val",
    layout: Layout = "auto",
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, help="Only so many pictures, evenly spread.", show_default="all", rich_help_panel="Data"
        ),
    ] = None,
    flicker: Annotated[
        bool, typer.Option("--flicker", help="DATA is a video, or a folder of consecutive pictures: measure flicker.")
    ] = False,
    smooth: Annotated[
        float,
        typer.Option(
            "--smooth",
            metavar="0..0.9",
            help="As in video; the split's pictures must then be consecutive frames of one video.",
        ),
    ] = 0.0,
    model: o.Model = None,
    backend: o.Backend = "auto",
    device: o.Device = None,
    size: o.Size = None,
    json: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="The figures as JSON; - for stdout. Replaces only JSON.",
            rich_help_panel="Output",
        ),
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option(
            "--chart",
            metavar="FILE.png",
            help="The confusion matrix as an image. Replaces only rtseg's own.",
            rich_help_panel="Output",
        ),
    ] = None,
    worst: Annotated[
        Path | None,
        typer.Option(
            "--worst",
            metavar="FILE.png",
            help="The worst images next to truth and prediction. Replaces only rtseg's own.",
            rich_help_panel="Output",
        ),
    ] = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Measure a model on labeled pictures: pixel accuracy without Void, IoU of each class, confusion.

    Any model file on any backend, compared at the labels' resolution. Classes are matched by name, spelling and known synonyms;
    those without a counterpart are listed and not scored. The mean IoU is over the classes that occur in the labels.

    Examples:

        rtseg eval path/to/camvid --split val --json val.json --worst worst.png

        rtseg eval drive.mp4 --flicker
    """
    with error_handler(verbose):
        from rtseg.cli.video import describe
        from rtseg.core.errors import OptionError
        from rtseg.core.path_conflicts import check_paths, model_inputs, side_outputs
        from rtseg.inference.segmenter import Segmenter
        from rtseg.models.evaluation.layouts import open_dataset

        if data.is_file() and not flicker:
            raise OptionError(f"{data} is a file: labeled pictures are a folder; of a video --flicker can be measured")
        if smooth and worst:
            raise OptionError("--worst shows single images, --smooth is about a row of them; leave one out")
        read = flicker_inputs(data) if flicker else dataset_inputs(open_dataset(data, layout))
        check_paths([*read, *model_inputs(model)], side_outputs(json=json, chart=chart, worst=worst))

        with Segmenter(
            model, backend=backend, device=device, size=o.parse_size(size), smooth=smooth, build_missing=o.build_missing
        ) as segmenter:
            if not quiet:
                print_line(describe(segmenter))
            if flicker:
                _flicker(data, segmenter, json, quiet)
            else:
                _evaluate(data, split, layout, limit, segmenter, json, chart, worst, quiet)


def dataset_inputs(dataset: Any) -> list[Any]:
    """All files of a data set, as `rtseg.core.path_conflicts.Input`."""
    from rtseg.core.path_conflicts import Input

    pairs = [pair for split in dataset.splits.values() for pair in split]
    lists = [dataset.root / name for name in ("classes.txt", "codes.txt", "valid.txt")]
    files = [*lists, *(pair.image for pair in pairs), *(pair.label for pair in pairs)]
    return [Input(str(path), "the data set's") for path in files]


def flicker_inputs(data: Path) -> list[Any]:
    """What `--flicker` reads: a video, or the images in a folder, as `rtseg.core.path_conflicts.Input`."""
    from rtseg.core.path_conflicts import Input

    return [Input(str(path)) for path in (sorted(data.iterdir()) if data.is_dir() else [data])]


def _evaluate(
    data: Path,
    split: str,
    layout: str,
    limit: int | None,
    segmenter: Any,
    json: str | None,
    chart: Path | None,
    worst: Path | None,
    quiet: bool,
) -> None:
    from rtseg.core.files import write_json
    from rtseg.core.progress import Progress
    from rtseg.models.evaluation.layouts import open_dataset
    from rtseg.models.evaluation.evaluate import evaluate as run
    from rtseg.models.evaluation.report_images import draw_confusion_matrix, draw_worst_images

    dataset = open_dataset(data, layout)
    with Progress("evaluating", len(dataset.pairs(split)), unit="pictures", quiet=quiet) as progress:
        result = run(
            partial(segmenter, smoothing=segmenter.new_smoothing()),
            dataset,
            split,
            classes=segmenter.classes,
            limit=limit,
            progress=lambda done, of: progress.advance(),
        )
    if chart is not None:
        draw_confusion_matrix(result, chart)
    if worst is not None:
        draw_worst_images(result, segmenter, dataset, segmenter.palette, worst)
    if json:
        about = {"model": segmenter.description.name, "backend": segmenter.backend, "precision": segmenter.precision}
        write_json({**about, **result.to_json()}, json)
    if not quiet:
        for mine, theirs, how in result.match.renamed():
            note = " (similar, not the same)" if how == "similar" else ""
            print_line(f"'{theirs}' of the labels is '{mine}' of the model{note}")
        for line in result.match.ambiguous:
            print_line(f"warning: {line}; not matched")
        if result.match.model_only:
            print_line(
                f"classes of the model that the labels do not have: {', '.join(result.match.model_only)}; wrong where predicted"
            )
        for line in result.warnings:
            print_line(f"warning: {line}")
    if json != "-":
        _print_figures(result)


def _print_figures(result: Any) -> None:
    from rtseg.models.evaluation.label_report import percent

    width = max(14, *(len(name) for name in result.classes))
    for name, iou in result.iou.items():
        print(f"  {name:<{width}} IoU {iou:.4f}")
    for name, why in result.not_scored.items():
        print(f"  {name:<{width}} not scored: {why}")
    print(confusion_table(result.classes, result.confusion.tolist()))
    print(f"pixel accuracy {result.pixel_accuracy:.4f}")
    print(f"mean IoU       {result.miou:.4f} over {len(result.iou)} of {len(result.classes)} classes")
    if result.match.data_only:
        print(f"               {result.miou_all_classes:.4f} with 0 for the classes that the model does not have")
        print(
            f"not scored     {percent(result.not_scored_share)} of the labeled pixels: classes that the model does not have"
        )
    print(f"Void           {percent(result.labels.void_share)} of all pixels, counted nowhere")


def confusion_table(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    """Each true class in a row, what it was taken for in percent of its pixels; what rounds to 0 is left blank."""
    short = [name[:5] for name in classes]
    lines = ["of each true class (row), percent taken for:", " " * 16 + "".join(f"{name:>6}" for name in short)]
    for name, row in zip(classes, confusion, strict=True):
        shares = [100 * count / max(1, sum(row)) for count in row[: len(classes)]]
        lines.append(f"  {name:<14}" + "".join(f"{share:6.0f}" if share >= 0.5 else " " * 6 for share in shares))
    return "\n".join(lines)


def _flicker(data: Path, segmenter: Any, json: str | None, quiet: bool) -> None:
    from rtseg.core.files import write_json
    from rtseg.core.progress import Progress
    from rtseg.models.evaluation.evaluate import flicker as measure
    from rtseg.video.image import frame_images

    smoothing = segmenter.new_smoothing()
    with Progress("frames", None, quiet=quiet) as progress:

        def each() -> Any:
            for rgb in frame_images(data):
                yield rgb, segmenter(rgb, smoothing)
                progress.advance()

        result = measure(each())
    if json:
        write_json({"flicker": result.share, "still": result.still, "frames": result.frames}, json)
    if json != "-":
        print(f"flicker        {result.share:.4f} of the still pixels change class from frame to frame")
        print(f"still pixels   {result.still:.4f} of all, over {result.frames} frames")
