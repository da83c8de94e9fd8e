"""Training of a U-Net on a data set, from images to an exported model.

    samples in memory ── random batch ── augment ── network ── loss ── Muon, AdamW ── averaged weights
                                                              periodically: validate, save the best weights

The state of a run is a `TrainingState`, written to `last.pt` every minute. The batch of a step depends only on the number of the
step, so a run that was killed can be resumed without any difference in the result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rtseg.core.errors import OptionError, printable_name
from rtseg.core.model_info import ModelInfo
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.core.progress import Progress, track_percent
from rtseg.models.evaluation.label_report import LabelCounts, check_counts, label_table
from rtseg.models.evaluation.layouts import open_dataset
from rtseg.models.export.to_onnx import export_onnx
from rtseg.models.training.curves import write_curves, write_log
from rtseg.models.training.data import crop_size, default_size, load, make_batch, synthetic_samples
from rtseg.models.training.loss import class_weights
from rtseg.models.training.options import TrainOptions, select_device
from rtseg.models.training.state import TrainingState
from rtseg.models.training.step import estimate_validation_seconds, schedule, train_step, use_bf16, validate
from rtseg.nn import checkpoint
from rtseg.nn.unet import HEAD_STRIDE, STRIDE, UNet

DEFAULT_EPOCHS = 200.0
SAVE_SECONDS = 60.0
SYNTHETIC_FRAMES = 320

DEFAULT_OPTIONS = TrainOptions()

EXPORT_SECONDS = 15.0
"""Part of `minutes` that is reserved for startup and export, but at most a tenth of it."""


@dataclass(frozen=True)
class TrainResult:
    """Files and metrics of a training run."""

    weights: Path
    """`model.safetensors`: the best averaged weights, FP32."""

    onnx: Path
    """`model.onnx`: the same weights in FP16, ready to run."""

    log: Path
    """`log.csv`: one line per evaluation."""

    curves: Path
    """`curves.png`: chart of the log."""

    metrics: dict[str, float]
    """`pixel_accuracy` and `miou` of the saved weights on `val`."""

    steps: int


def train(
    data: Path | str,
    out: Path | str,
    options: TrainOptions = DEFAULT_OPTIONS,
    *,
    resume: bool = False,
    log: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a U-Net and export it.

    Args:
        data: the data set's folder.
        out: folder for the results; created if missing.
        options: options of the network, the run and the optimization.
        resume: resume from `out/last.pt`.
        log: called with each line of the run's log.
        progress: receives the progress in percent.

    Raises:
        OptionError: a value is out of range, or options exclude each other.
        DataError: there is a problem with the data. Raised before training starts.
        ModelError: `from_` or the checkpoint of `resume` can't be used.
    """
    start = time.monotonic()
    options.check()
    torch_device = select_device(options.device)
    out = Path(out)
    last = out / "last.pt"
    if not resume and last.exists():
        raise OptionError(f"{last} exists: resume that run with --resume, or give another folder")

    dataset = open_dataset(data, options.layout)
    size = options.size or default_size(dataset.pairs("train")[0].image)
    log(f"reading {len(dataset.pairs('train'))} training and {len(dataset.pairs('val'))} validation images")
    counts = {"train": LabelCounts(len(dataset.classes)), "val": LabelCounts(len(dataset.classes))}
    counts["val"].palette = counts["train"].palette  # palette indices must have the same colors in both splits
    samples, held_out = (load(dataset, split, size, count).to(torch_device) for split, count in counts.items())
    warnings = check_counts(dataset, counts, training=True)
    log(label_table(dataset, counts))
    for warning in warnings:
        log(f"warning: {warning}")
    extra = None
    if options.synthetic > 0:
        if dataset.classes != CAMVID_CLASSES:
            raise OptionError(
                f"synthetic frames have CamVid's classes, this data set has others: {', '.join(dataset.classes[:5])} …"
            )
        extra = synthetic_samples(SYNTHETIC_FRAMES, size).to(torch_device)

    network = _initial_network(dataset.classes, options, (lambda line: None) if resume else log)
    state = TrainingState.start(network, options.lr, options.weight_decay, torch_device)
    description = ModelInfo(
        name=printable_name(options.name or f"{Path(data).resolve().name}-{state.model.variant}"),
        classes=dataset.classes,
        input_size=size,
        network=f"unet-{state.model.variant}",
        precision="fp32",
        trained_on=f"{len(samples)} images of {printable_name(Path(data).resolve().name)} ({dataset.layout})"
        + (", synthetic street frames" if extra else "")
        + (f"; from {printable_name(Path(options.from_).name)}" if options.from_ else ""),
        license=options.license,
        head_stride=HEAD_STRIDE,
    )
    epochs, minutes = state.resume(last, description) if resume else (DEFAULT_EPOCHS, None)
    if options.epochs is not None or options.minutes is not None:
        epochs, minutes = options.epochs, options.minutes
    out.mkdir(parents=True, exist_ok=True)

    crop = (max(STRIDE, size[1] // STRIDE * STRIDE), max(STRIDE, size[0] // STRIDE * STRIDE))
    weight = class_weights(samples.labels, len(dataset.classes), options.class_weighting).to(torch_device)
    steps_per_epoch = max(1, len(samples) // options.batch)
    elapsed_before = state.elapsed  # by the earlier parts of a resumed run
    validation_seconds = estimate_validation_seconds(state.ema, held_out)  # part of --minutes

    def share_done() -> float:
        state.elapsed = elapsed_before + time.monotonic() - start
        if epochs is not None:
            return min(1.0, state.step / max(1.0, epochs * steps_per_epoch))
        total_seconds = (minutes or 0.0) * 60.0
        reserved_seconds = validation_seconds + min(EXPORT_SECONDS, total_seconds / 10)
        return min(1.0, (state.elapsed + reserved_seconds) / total_seconds)

    def next_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return make_batch(samples, extra, options, step, crop_size(done, crop), crop)

    done = share_done()
    if done < 1.0:
        bf16 = use_bf16(options, state, weight, next_batch(0))
        precision = "bf16" if bf16 else "fp32"
        network_and_classes = f"{description.network}, {len(dataset.classes)} classes"
        log(f"{network_and_classes}, {size[0]}x{size[1]}, {precision} on {torch_device}")
    saved_at = time.monotonic()
    with track_percent(progress, "training") as update:
        while done < 1.0:
            rate = schedule(done, state.step)
            state.loss_sum += train_step(state, next_batch(state.step), weight, rate, options, bf16)
            state.loss_count += 1
            if not math.isfinite(state.loss_sum):
                raise OptionError(
                    f"the loss is not finite at step {state.step}: try a learning rate below {options.lr:g}"
                )
            previous, done = done, share_done()
            update(done)
            if int(done * options.evaluations) > int(previous * options.evaluations) or done >= 1.0:
                row = {"step": state.step, "epoch": state.step / steps_per_epoch, "minutes": state.elapsed / 60}
                row |= {"loss": state.loss_sum / state.loss_count, **validate(state.ema, held_out)}
                state.loss_sum, state.loss_count = 0.0, 0
                state.log.append(row)
                write_log(state.log, out / "log.csv")
                if row[options.metric] > state.best:
                    state.best = row[options.metric]
                    metrics = {"val/pixel_accuracy": row["pixel_accuracy"], "val/miou": row["miou"]}
                    checkpoint.save_weights(state.ema, replace(description, metrics=metrics), out / "model.safetensors")
                log("  ".join(f"{key} {value:.4g}" for key, value in row.items()))
                saved_at = -math.inf
            if time.monotonic() - saved_at > SAVE_SECONDS:
                share_done()  # updates `elapsed`
                checkpoint.save_checkpoint(last, state.snapshot(description, epochs, minutes))
                saved_at = time.monotonic()
                if state.loss_count:
                    log(f"step {state.step}: loss {state.loss_sum / state.loss_count:.3f}")

    weights = out / "model.safetensors"
    if minutes is not None and not weights.exists():
        needed = (state.elapsed + validation_seconds) / 60
        raise OptionError(f"--minutes {minutes:g} is too short: reading and evaluation take {needed:.1f}")
    best, description = checkpoint.load_weights(weights)
    export_onnx(best, description, out / "model.onnx")
    write_curves(state.log, out / "curves.png", description.name)
    best_metrics = {key.removeprefix("val/"): value for key, value in description.metrics.items()}
    return TrainResult(weights, out / "model.onnx", out / "log.csv", out / "curves.png", best_metrics, state.step)


def _initial_network(classes: tuple[str, ...], options: TrainOptions, log: Callable[[str], None]) -> UNet:
    """Return a new network or that of `from_`, with new heads if its classes differ. Logs the choice."""
    variant, from_ = options.variant, options.from_
    torch.manual_seed(options.seed)
    if from_ is None:
        return UNet(len(classes), variant or "small")
    model, description = checkpoint.load_weights(from_)
    if variant not in (None, model.variant):
        raise OptionError(f"{from_} is a {description.network}; omit --variant or give this variant")
    if description.classes == classes:
        log(f"starting from {description.name} with all weights: it has the same {len(classes)} classes")
        return model
    reordered = sorted(description.classes) == sorted(classes)
    differ = "are in another order" if reordered else f"are not these {len(classes)}"
    log(
        f"starting from {description.name} with new last layers: its {len(description.classes)} classes {differ}, "
        "and classes are not matched by name"
    )
    network = UNet(len(classes), model.variant)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if "head" not in name}
    network.load_state_dict(tensors, strict=False)
    return network
