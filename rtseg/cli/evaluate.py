"""Command `rtseg eval`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, print_line
from rtseg.core.errors import OptionError
from rtseg.core.files import write_json
from rtseg.core.path_conflicts import Input, check_paths, model_inputs, side_outputs
from rtseg.core.progress import track


def evaluate(
    data: o.Data,
    split: Annotated[str, o.option("Data", "Split: train, val or test.")] = "val",
    layout: o.LayoutOption = "auto",
    limit: Annotated[
        int | None, o.option("Data", "Maximum number of images, evenly spread.", min=1, show_default="all")
    ] = None,
    flicker: Annotated[
        bool, o.option(None, "Measure flicker instead. DATA is a video or a folder of consecutive frames.", "--flicker")
    ] = False,
    smooth: Annotated[
        float,
        o.option(None, "Temporal smoothing as in `video`. Requires consecutive frames of one video.", metavar="0..0.9"),
    ] = 0.0,
    model: o.Model = None,
    backend: o.Backend = "auto",
    device: o.Device = None,
    size: o.Size = None,
    json: o.ResultsFile = None,
    chart: Annotated[Path | None, o.chart("Write the confusion matrix as an image.")] = None,
    worst: Annotated[Path | None, o.chart("Write the worst images with truth and prediction.")] = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Evaluate a model on a labeled data set: pixel accuracy without Void, IoU of each class, confusion matrix.

    Works with every model file and backend, at the resolution of the labels. Classes are matched by name, spelling and known
    synonyms; classes without a counterpart are listed and not scored. The mean IoU is over the classes that occur in the labels.

    Examples:

        rtseg eval path/to/camvid --split val --json val.json --worst worst.png

        rtseg eval drive.mp4 --flicker
    """
    with error_handler(verbose):
        if data.is_file() and not flicker:
            raise OptionError(f"{data} is a file, not the folder of a data set; for a video give --flicker")
        if smooth and worst:
            raise OptionError("--worst shows single images, --smooth needs consecutive frames; give only one of them")
        from rtseg.cli.progress import ProgressDisplay
        from rtseg.models.evaluation import evaluate as evaluation
        from rtseg.models.evaluation.layouts import open_dataset
        from rtseg.models.evaluation.report_images import draw_confusion_matrix, draw_worst_images

        dataset = None if flicker else open_dataset(data, layout)
        data_files = dataset_inputs(dataset) if dataset else _flicker_inputs(data)
        check_paths([*data_files, *model_inputs(model)], side_outputs(json=json, chart=chart, worst=worst))
        with o.open_segmenter(model, backend, device, size, smooth=smooth) as segmenter:
            if not quiet:
                print_line(segmenter.describe())
            if dataset is None:
                _flicker(data, segmenter, json, quiet)
                return
            result = evaluation.evaluate(
                partial(segmenter, smoothing=segmenter.new_smoothing()),
                dataset,
                split,
                classes=segmenter.classes,
                limit=limit,
                progress=ProgressDisplay("images", quiet=quiet).task(),
            )
            if chart is not None:
                draw_confusion_matrix(result, chart)
            if worst is not None:
                draw_worst_images(result, segmenter, dataset, segmenter.palette, worst)
            if json:
                run = {
                    "model": segmenter.description.name,
                    "backend": segmenter.backend,
                    "precision": segmenter.precision,
                }
                write_json({**run, **result.to_dict()}, json)
            if not quiet:
                _print_notes(result)
            if json != "-":
                _print_results(result)


def dataset_inputs(dataset: Any) -> list[Input]:
    """Return all files of a data set."""
    pairs = [pair for split in dataset.splits.values() for pair in split]
    lists = [dataset.root / name for name in ("classes.txt", "codes.txt", "valid.txt")]
    files = [*lists, *(pair.image for pair in pairs), *(pair.label for pair in pairs)]
    return [Input(str(path), "the data set's") for path in files]


def _flicker_inputs(data: Path) -> list[Input]:
    """Return the files that `--flicker` reads: a video, or the images in a folder."""
    return [Input(str(path)) for path in (sorted(data.iterdir()) if data.is_dir() else [data])]


def _print_notes(result: Any) -> None:
    """Print how classes were matched, and warnings, to stderr."""
    for mine, theirs, kind in result.match.renamed():
        note = " (similar, not the same)" if kind == "similar" else ""
        print_line(f"'{theirs}' of the labels is '{mine}' of the model{note}")
    for line in result.match.ambiguous:
        print_line(f"warning: {line}; not matched")
    if result.match.model_only:
        print_line(
            f"classes of the model that the labels do not have: {', '.join(result.match.model_only)}; "
            "predictions of them are errors"
        )
    for line in result.warnings:
        print_line(f"warning: {line}")


def _print_results(result: Any) -> None:
    from rtseg.models.evaluation.label_report import percent

    width = max(14, *(len(name) for name in result.classes))
    for name, iou in result.iou.items():
        print(f"  {name:<{width}} IoU {iou:.4f}")
    for name, reason in result.not_scored.items():
        print(f"  {name:<{width}} not scored: {reason}")
    print(_confusion_table(result.classes, result.confusion.tolist()))
    print(f"pixel accuracy {result.pixel_accuracy:.4f}")
    print(f"mean IoU       {result.miou:.4f} over {len(result.iou)} of {len(result.classes)} classes")
    if result.match.data_only:
        print(f"               {result.miou_all_classes:.4f} with 0 for the classes that the model does not have")
        print(
            f"not scored     {percent(result.not_scored_share)} of the labeled pixels: classes that the model does not have"
        )
    print(f"Void           {percent(result.labels.void_share)} of all pixels, not counted")


def _confusion_table(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    """Format the confusion matrix: a row for each true class, in percent of its pixels. Values that round to 0 are blank."""
    short = [name[:5] for name in classes]
    lines = [
        "confusion: true class (row), predicted class (column), percent:",
        " " * 16 + "".join(f"{name:>6}" for name in short),
    ]
    for name, row in zip(classes, confusion, strict=True):
        shares = [100 * count / max(1, sum(row)) for count in row[: len(classes)]]
        lines.append(f"  {name:<14}" + "".join(f"{share:6.0f}" if share >= 0.5 else " " * 6 for share in shares))
    return "\n".join(lines)


def _flicker(data: Path, segmenter: Any, json: str | None, quiet: bool) -> None:
    from rtseg.cli.progress import ProgressDisplay
    from rtseg.models.evaluation.evaluate import flicker as measure_flicker
    from rtseg.video.image import frame_images

    smoothing = segmenter.new_smoothing()
    with track(ProgressDisplay(quiet=quiet).task(), "frames", None) as advance:

        def predictions() -> Any:
            for rgb in frame_images(data):
                yield rgb, segmenter(rgb, smoothing)
                advance()

        result = measure_flicker(predictions())
    if json:
        write_json(result.to_dict(), json)
    if json != "-":
        print(f"flicker        {result.flicker:.4f} of the still pixels change class from frame to frame")
        print(f"still pixels   {result.still:.4f} of all, over {result.frames} frames")
