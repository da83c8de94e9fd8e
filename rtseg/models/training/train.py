"""Training: from a data set to a model that runs, in one loop.

    samples in memory ── random batch ── augment ── network ── loss ── Muon, AdamW ── averaged weights
                                                                            now and then: validate, keep the best

What a run is at any moment stands in `State`; it is written to `last.pt` every minute, and the batch of a step depends on the
step's number alone, so a run that was killed goes on as if nothing had been.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rtseg.core.errors import BackendError, OptionError, printable_name
from rtseg.core.model_info import ModelInfo
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.models.evaluation.datasets import open_dataset
from rtseg.models.evaluation.label_report import LabelCounts, check_counts, label_table
from rtseg.models.export.to_onnx import export_onnx
from rtseg.models.training.curves import write_curves, write_log
from rtseg.models.training.data import crop_at, default_size, load, make_batch, synthetic_samples
from rtseg.models.training.loss import class_weights, total_loss
from rtseg.models.training.state import State
from rtseg.models.training.validate import seconds_to_validate, validate
from rtseg.nn import checkpoint
from rtseg.nn.unet import STRIDE, UNet

METRICS = ("miou", "pixel_accuracy")
"""What can pick the best weights."""

DEFAULT_EPOCHS = 200.0
WARMUP_STEPS = 200
GRADIENT_NORM = 5.0
SAVE_SECONDS = 60.0
SYNTHETIC_FRAMES = 320

Progress = Callable[[float, str], None]
"""Called with the share of the run that is done, 0 to 1, and a line to show."""


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves behind."""

    weights: Path
    """`model.safetensors`: the best averaged weights, FP32."""

    onnx: Path
    """`model.onnx`: the same, FP16, ready to run."""

    log: Path
    """`log.csv`: one line an evaluation."""

    curves: Path
    """`curves.png`: the log as a picture."""

    metrics: dict[str, float]
    """`pixel_accuracy` and `miou` on `val` of the weights that were kept."""

    steps: int

    warnings: tuple[str, ...] = ()
    """What is odd about the labels."""


EXPORT_SECONDS = 15.0
"""What starting and exporting take of `--minutes`, or a tenth of it where that is less."""


def train(
    data: Path | str,
    *,
    out: Path | str,
    layout: str = "auto",
    variant: str | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    resume: bool = False,
    from_: Path | str | None = None,
    size: tuple[int, int] | None = None,
    batch: int = 8,
    lr: float = 1e-2,
    weight_decay: float = 0.02,
    class_weighting: float = 0.7,
    label_smoothing: float = 0.0,
    ohem: float = 1.0,
    synthetic: float = 0.0,
    metric: str = "miou",
    evaluations: int = 20,
    device: str = "auto",
    precision: str = "auto",
    name: str | None = None,
    license: str = "",
    seed: int = 0,
    progress: Progress | None = None,
) -> TrainResult:
    """Trains a U-Net and leaves it ready to run.

    Args:
        data: the data set's folder.
        out: folder for what the run leaves behind; made if need be.
        layout: a name in `layouts.LAYOUTS`, or `auto`.
        variant: a name in `unet.VARIANTS`; `small`, or what `from_` is, where not given.
        epochs: length of the run in passes over the training pictures.
        minutes: length of the run in minutes, reading, the last evaluation and the export included; either this or `epochs`.
            Neither: what `resume` finds, else 200 epochs.
        resume: go on from `out/last.pt`.
        from_: weights to start from, `.safetensors` or `.pt`. Where the classes differ the heads start anew.
        size: (width, height) the pictures are scaled to, and the model's own input size; the data's, at most 480x360 pixels' worth,
            where not given.
        batch: pictures a step.
        lr: Muon's peak learning rate; AdamW's is a quarter.
        weight_decay: of convolutions.
        class_weighting: how much rare classes count for more, as an exponent; 0 not at all.
        label_smoothing: 0 to 1.
        ohem: share of the pixels that counts, the hardest; 1 for all.
        synthetic: share of the training pictures taken from synthetic drives, 0 to 1; for CamVid's classes alone.
        metric: one of `METRICS`, on `val`: picks the weights that are kept.
        evaluations: how often to evaluate on `val`, evenly over the run.
        device: `cpu`, `cuda`, or `auto`.
        precision: `fp32`, `bf16`, or `auto`: bf16 on a GPU, and what is faster on this CPU.
        name: the model's name; the data folder's and the variant's where not given.
        license: what the weights may be used for, in words; goes into the model's description.
        seed: of weights, batches and augmentation.
        progress: told how far the run is.

    Raises:
        OptionError: a value out of range, or options that exclude each other.
        DataError: anything is wrong with the data; told before training starts.
        ModelError: `from_` or the checkpoint of `resume` can't be used.
    """
    begun = time.monotonic()
    _check_options(batch, lr, class_weighting, label_smoothing, ohem, synthetic, metric, evaluations, epochs, minutes)
    log = progress or (lambda done, line: None)
    place = _device(device)
    out = Path(out)
    last = out / "last.pt"
    if not resume and last.exists():
        raise OptionError(f"{last} is there: go on with --resume, or give another folder")

    dataset = open_dataset(data, layout)
    size = size or default_size(dataset.pairs("train")[0])
    log(0.0, f"reading {len(dataset.pairs('train'))} training and {len(dataset.pairs('val'))} validation pictures")
    counts = {"train": LabelCounts(len(dataset.classes)), "val": LabelCounts(len(dataset.classes))}
    counts["val"].palette = counts["train"].palette  # an index has one color in both
    samples, held_out = (load(dataset, split, size, count).to(place) for split, count in counts.items())
    warnings = check_counts(dataset, counts, training=True)
    log(0.0, label_table(dataset, counts))
    for warning in warnings:
        log(0.0, f"warning: {warning}")
    extra = None
    if synthetic > 0:
        if dataset.classes != CAMVID_CLASSES:
            raise OptionError(
                f"synthetic frames have CamVid's classes, this data set has others: {', '.join(dataset.classes[:5])} …"
            )
        extra = synthetic_samples(SYNTHETIC_FRAMES, size).to(place)

    network = _starting_network(dataset.classes, variant, from_, seed, lambda line: None if resume else log(0.0, line))
    state = State.start(network, lr, weight_decay, place)
    description = ModelInfo(
        name=printable_name(name or f"{Path(data).resolve().name}-{state.model.variant}"),
        classes=dataset.classes,
        input_size=size,
        network=f"unet-{state.model.variant}",
        precision="fp32",
        trained_on=f"{len(samples)} pictures of {printable_name(Path(data).resolve().name)} ({dataset.layout})"
        + (", synthetic street frames" if extra else "")
        + (f"; from {printable_name(Path(from_).name)}" if from_ else ""),
        license=license,
    )
    if resume:
        epochs, minutes = state.resume(last, description, epochs, minutes)
    elif epochs is None and minutes is None:
        epochs = DEFAULT_EPOCHS
    out.mkdir(parents=True, exist_ok=True)

    crop = (max(STRIDE, size[1] // STRIDE * STRIDE), max(STRIDE, size[0] // STRIDE * STRIDE))
    weight = class_weights(samples.labels, len(dataset.classes), class_weighting).to(place)
    steps_an_epoch = max(1, len(samples) // batch)
    before = state.elapsed  # in the earlier parts of a resumed run
    ending = seconds_to_validate(state.ema, held_out)  # --minutes includes the last evaluation

    def share_done() -> float:
        state.elapsed = before + time.monotonic() - begun
        if epochs is not None:
            return min(1.0, state.step / max(1.0, epochs * steps_an_epoch))
        length = (minutes or 0.0) * 60.0
        return min(1.0, (state.elapsed + ending + min(EXPORT_SECONDS, length / 10)) / length)

    done = share_done()
    if done < 1.0:
        bf16 = _is_bf16(
            precision, state, weight, make_batch(samples, extra, synthetic, 0, batch, crop_at(done, crop), crop, seed)
        )
        log(
            done,
            f"{description.network}, {len(dataset.classes)} classes, {size[0]}x{size[1]}, {'bf16' if bf16 else 'fp32'} on {place}",
        )
    saved_at = time.monotonic()
    while done < 1.0:
        x, y = make_batch(samples, extra, synthetic, state.step, batch, crop_at(done, crop), crop, seed)
        state.loss_sum += _step(state, x, y, weight, schedule(done, state.step), label_smoothing, ohem, bf16)
        state.loss_count += 1
        if not math.isfinite(state.loss_sum):
            raise OptionError(f"the loss is not finite any more at step {state.step}: try a learning rate below {lr:g}")
        before_step, done = done, share_done()
        if int(done * evaluations) > int(before_step * evaluations) or done >= 1.0:
            row = {"step": state.step, "epoch": state.step / steps_an_epoch, "minutes": state.elapsed / 60}
            row |= {"loss": state.loss_sum / state.loss_count, **validate(state.ema, held_out)}
            state.loss_sum, state.loss_count = 0.0, 0
            state.log.append(row)
            write_log(state.log, out / "log.csv")
            if row[metric] > state.best:
                state.best = row[metric]
                measured = {"val/pixel_accuracy": row["pixel_accuracy"], "val/miou": row["miou"]}
                checkpoint.save_weights(state.ema, replace(description, metrics=measured), out / "model.safetensors")
            log(done, "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
            saved_at = -math.inf
        if time.monotonic() - saved_at > SAVE_SECONDS:
            share_done()  # brings the clock up to date
            checkpoint.save_checkpoint(last, state.snapshot(description, epochs, minutes))
            saved_at = time.monotonic()
            if state.loss_count:
                log(done, f"step {state.step}: loss {state.loss_sum / state.loss_count:.3f}")

    weights = out / "model.safetensors"
    if minutes is not None and not weights.exists():
        least = (state.elapsed + ending) / 60
        raise OptionError(f"--minutes {minutes:g} is too short: reading and evaluating alone take {least:.1f}")
    best, description = checkpoint.load_weights(weights)
    export_onnx(best, description, out / "model.onnx")
    write_curves(state.log, out / "curves.png", description.name)
    kept = {key.removeprefix("val/"): value for key, value in description.metrics.items()}
    return TrainResult(
        weights, out / "model.onnx", out / "log.csv", out / "curves.png", kept, state.step, tuple(warnings)
    )


def schedule(done: float, step: int) -> float:
    """The learning rate's share of its peak: a short warm-up, then poly with power 0.9 to zero (DeepLab's)."""
    warm = min(1.0, max((step + 1) / WARMUP_STEPS, done / 0.05))
    return float(warm * (1.0 - done) ** 0.9)


def _check_options(
    batch: int, lr: float, class_weighting: float, label_smoothing: float, ohem: float, synthetic: float, metric: str,
    evaluations: int, epochs: float | None, minutes: float | None,
) -> None:  # fmt: skip
    if epochs is not None and minutes is not None:
        raise OptionError("give either --epochs or --minutes: each says how long the run is")
    for name, value, low, high in (
        ("--batch", batch, 2, 4096), ("--lr", lr, 1e-7, 1.0), ("--class-weighting", class_weighting, 0.0, 5.0),
        ("--label-smoothing", label_smoothing, 0.0, 0.9), ("--ohem", ohem, 0.001, 1.0), ("--synthetic", synthetic, 0.0, 1.0),
        ("--evaluations", evaluations, 1, 100_000), ("--epochs", epochs, 0.001, 1e6), ("--minutes", minutes, 0.01, 1e6),
    ):  # fmt: skip
        if value is not None and not low <= value <= high:
            raise OptionError(f"{name} is {value}; {low:g} to {high:g} makes sense")
    if metric not in METRICS:
        raise OptionError(f"no metric '{metric}'; there are {', '.join(METRICS)}")


def _step(
    state: State, x: Tensor, y: Tensor, weight: Tensor, factor: float, smoothing: float, ohem: float, bf16: bool
) -> float:
    """One step of training; the main head's loss.

    Args:
        state: changed.
        x: normalized pictures, float32 `[N, 3, h, w]`.
        y: labels, int64 `[N, h / 2, w / 2]`.
        weight: of each class.
        factor: the learning rate's share of its peak.
        smoothing: of labels.
        ohem: share of the pixels that counts.
        bf16: mixed precision instead of FP32.
    """
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
    state.model.train()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        scores, aux = state.model.forward_with_aux(x)
    total, main = total_loss(scores, aux, y, weight, smoothing, ohem)
    state.model.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), GRADIENT_NORM)
    for optimizer in state.optimizers:
        optimizer.step()
    state.update_ema()
    state.step += 1
    return float(main.detach())


def _is_bf16(precision: str, state: State, weight: Tensor, batch: tuple[Tensor, Tensor]) -> bool:
    """Whether to train in mixed precision. CPUs differ: with AMX bf16 is twice as fast, without it can be slower; so try it."""
    x, y = batch
    if precision != "auto" or x.device.type == "cuda":
        return precision != "fp32"
    seconds = {}
    for bf16 in (False, True):
        for _ in range(2):  # the first is warm-up
            trial = State.start(copy.deepcopy(state.model), 0.0, 0.0, x.device)
            begun = time.perf_counter()
            _step(trial, x, y, weight, 0.0, 0.0, 1.0, bf16)
            seconds[bf16] = time.perf_counter() - begun
    return seconds[True] < seconds[False]


def _starting_network(
    classes: tuple[str, ...], variant: str | None, from_: Path | str | None, seed: int, log: Callable[[str], None]
) -> UNet:
    """A new network, or that of `from_` with new heads where its classes are others; says which."""
    torch.manual_seed(seed)
    if from_ is None:
        return UNet(len(classes), variant or "small")
    model, description = checkpoint.load_weights(from_)
    if variant not in (None, model.variant):
        raise OptionError(f"{from_} is a {description.network}; leave --variant out or name it so")
    if description.classes == classes:
        log(f"starting from {description.name}, all of it: it has the same {len(classes)} classes")
        return model
    differ = (
        "stand in another order" if sorted(description.classes) == sorted(classes) else f"are not these {len(classes)}"
    )
    log(
        f"starting from {description.name}, but its last layers start anew: its {len(description.classes)} classes {differ}, "
        "and none is taken over by name"
    )
    fresh = UNet(len(classes), model.variant)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if "head" not in name}
    fresh.load_state_dict(tensors, strict=False)
    return fresh


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise OptionError(f"no device '{name}' to train on; there are auto, cpu and cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise BackendError("torch finds no CUDA device; leave --device out, or install torch for CUDA")
    return torch.device(name)
