"""`rtseg live`: inputs, model and outputs put together, run, and told about."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from rtseg.core.choices import Fit
from rtseg.core.frame import ClassMap, Frame, StreamInfo
from rtseg.core.progress import Status
from rtseg.core.run_report import run_identity
from rtseg.core.secrets import redact
from rtseg.gpu.telemetry import TelemetryMonitor
from rtseg.inference.segmenter import BuildMissing, Segmenter
from rtseg.inference.temporal_smoothing import TemporalSmoothing
from rtseg.io.gstreamer.pipelines import command_line, encoder, to_file, to_srt
from rtseg.io.inputs.gstreamer import dry_run as source_command
from rtseg.live.camera import Camera
from rtseg.live.controls import Controls, LiveNumbers, Wanted
from rtseg.live.inputs import Input
from rtseg.live.load_shedding import Pace
from rtseg.live.loop import Live
from rtseg.live.outputs import Outputs, camera_sinks, open_snapshots, open_window, shared_sinks
from rtseg.live.report import failures
from rtseg.live.sink_thread import SinkThread
from rtseg.live.sinks.jsonl import LinesFile
from rtseg.live.stats import status_line
from rtseg.live.systemd import heartbeat
from rtseg.render.overlay import Overlay
from rtseg.render.style import Style

SMALLEST = "nano"
"""The bundled model that costs least."""


def run_live(
    inputs: Sequence[Input],
    outputs: Outputs,
    segmenter: Segmenter,
    style: Style,
    controls: Controls,
    *,
    numbers: LiveNumbers | None = None,
    max_age_ms: float | None = None,
    every_frame: bool = False,
    adaptive: bool = False,
    smaller: Segmenter | None = None,
    reconnect_max_seconds: float = 30.0,
    wait: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Runs until `controls.quit`, or until all inputs have ended.

    Args:
        inputs: cameras, streams, files at their own pace.
        outputs: where it goes.
        segmenter: the loaded model.
        look: how it is shown at first; view, opacity and legend follow `controls`.
        controls: what the person wants; `quit` ends the run.
        numbers: given the numbers each second, for who wants to read them.
        max_age_ms: frames older than this are not shown.
        every_frame: drop nothing, accept delay.
        adaptive: do less where the machine can't keep up: see `rtseg.live.load_shedding.Pace`.
        smaller: a faster model with the same classes, for `adaptive`.
        reconnect_max_seconds: longest pause between two tries to connect; 0: a disconnection ends that input.
        wait: go on waiting where no camera can be opened at first.
        quiet: say nothing but what went wrong.

    Returns:
        The statistics, as `--stats` writes them; `failed` lists sinks that died and, without reconnection, inputs that went away.

    Raises:
        RtsegError: no camera could be opened, an output can't be made, or the model failed.
    """
    numbers = numbers or LiveNumbers()
    status = Status(quiet=quiet)
    overlay = style.overlay(segmenter.description)
    models = [segmenter, *([smaller] if smaller else [])]
    pace = Pace([model.description.name for model in models], status.log) if adaptive else None
    telemetry = TelemetryMonitor()
    ready = threading.Event()
    opened: list[SinkThread] = []
    kept: list[TemporalSmoothing] = []

    def died(name: str, failure: BaseException) -> None:
        status.log(f"rtseg: {name} has failed and gets no more frames: {redact(' '.join(str(failure).split()))}")

    def segment(frame: Frame, pixel_aspect: float, smoothing: TemporalSmoothing | None = None) -> ClassMap:
        return models[pace.step.model if pace else 0].segment(frame, pixel_aspect, smoothing)

    def prepare(info: StreamInfo) -> None:
        for model in models:
            model.prepare(info.width, info.height, float(info.sample_aspect_ratio))

    def more() -> dict[str, Any]:
        warning = telemetry.poll()
        if warning:
            status.log(f"rtseg: {warning}")
        told: dict[str, Any] = {"telemetry": telemetry.latest} if telemetry.latest else {}
        if kept:
            told["temporal_smoothing"] = {"momentum": kept[0].smooth, "cuts": sum(smoothing.cuts for smoothing in kept)}
        return {**told, "adaptive": pace.to_dict()} if pace else told

    try:
        several = len(inputs) > 1
        lines = LinesFile(outputs.jsonl) if outputs.jsonl is not None else None
        only = overlay.only if style.only is not None else None
        cameras = []
        for entry in inputs:
            own = camera_sinks(
                outputs, entry.name if several else None, lines, segmenter.classes, only, every_frame, died
            )
            opened += own
            source = entry.source(reconnect_max_seconds, status.log, ready)
            smoothing = segmenter.smoothing()
            kept += [smoothing] if smoothing else []
            cameras.append(Camera(entry.name, source, own, partial(segment, smoothing=smoothing)))
        shared = shared_sinks(outputs, controls, numbers, overlay.palette, died)
        opened += shared
        window = open_window(outputs, controls, died)
        snapshots = open_snapshots(outputs, status.log, died)
        opened += [snapshots, *([window[0]] if window else [])]
        run = Live(
            cameras,
            segment,
            partial(_look, style, segmenter),
            segmenter.classes,
            controls=controls,
            numbers=numbers,
            shared=shared,
            window=window[0] if window else None,
            poll_window=window[1].poll if window else lambda: None,
            snapshots=snapshots,
            max_age_ms=max_age_ms,
            every_frame=every_frame,
            streams=segmenter.streams,
            pace=pace,
            prepare=prepare,
            ready=ready,
            more=more,
            identity=_identity(inputs, outputs, segmenter),
            on_second=partial(_tell_second, status),
        )
        if not quiet:
            _introduce(status, inputs, outputs, segmenter, opened)
        with heartbeat(numbers):
            result = run.run(wait=wait)
    finally:
        status.end()
        for sink in opened:
            sink.finish()
    result["warmup_ms"] = round(segmenter.warmup_ms, 1)
    result["failed"] = failures(opened)
    if not controls.quitting:
        lost = [camera.source.disconnects for camera in cameras if not camera.source.disconnects.connected]
        result["failed"] += [
            disconnects.reason for disconnects in lost if disconnects.given_up or not reconnect_max_seconds
        ]
    if not quiet:
        _tell(status, result)
    return result


def dry_run(inputs: Sequence[Input], outputs: Outputs) -> list[str]:
    """What `--dry-run` prints: the GStreamer processes that a run would start, as one would type them.

    Raises:
        OptionError: a pipeline that can't be read.
        SourceError, SinkError: an element is missing.
    """
    lines = [f"{entry.name}: {source_command(entry.pipeline())}" for entry in inputs if entry.pipeline]
    if outputs.record is not None and outputs.codec == "gstreamer":
        quality = 23 if outputs.crf is None else outputs.crf
        lines.append(f"record: {command_line(to_file(outputs.record, encoder(Fraction(25), quality=quality)))}")
    lines += [
        f"push: {command_line(to_srt(url, encoder(Fraction(25))))}"
        for url in outputs.push
        if url.lower().startswith("srt://")
    ]
    return lines or ["no GStreamer process: FFmpeg reads and writes all of it"]


def open_smaller(
    segmenter: Segmenter,
    *,
    device: str | None,
    size: tuple[int, int] | None,
    fit: Fit,
    smooth: float = 0.0,
    build_missing: BuildMissing | None = None,
) -> Segmenter | None:
    """The bundled model that `--adaptive` changes to: the fastest, on the same backend.

    Args:
        segmenter: the model that was asked for.
        device: as `Segmenter` takes it, like the following.
        size: (width, height) of the network's input; None: the model's own.
        fit: `letterbox` or `stretch`.
        smooth: share of the class scores that is kept of the frames before.
        build_missing: as `Segmenter` takes it.

    Returns:
        None where there is none that could stand in: the model is that one, its classes are others, or torch runs it.
    """
    if segmenter.description.name == f"camvid-{SMALLEST}" or segmenter.backend == "torch":
        return None
    smaller = Segmenter(
        SMALLEST,
        backend=segmenter.backend,
        device=device,
        size=size,
        fit=fit,
        smooth=smooth,
        build_missing=build_missing,
    )
    if smaller.classes == segmenter.classes:
        return smaller
    smaller.close()
    return None


def _look(style: Style, segmenter: Segmenter, wanted: Wanted) -> Overlay:
    return replace(style, view=wanted.view, alpha=wanted.alpha, legend=wanted.legend).overlay(segmenter.description)


def _identity(inputs: Sequence[Input], outputs: Outputs, segmenter: Segmenter) -> dict[str, Any]:
    output = outputs.record or outputs.masks or outputs.jsonl or ", ".join(outputs.shown_on())
    encodes = outputs.encoder_name()
    told = run_identity("live", ", ".join(entry.title for entry in inputs), output, segmenter)
    return told if encodes is None else {**told, "encoder": encodes}


def _introduce(
    status: Status, inputs: Sequence[Input], outputs: Outputs, segmenter: Segmenter, sinks: Sequence[SinkThread]
) -> None:
    width, height = segmenter.input_size
    status.log(
        f"model {segmenter.description.name} at {width}x{height} on {segmenter.backend} "
        f"({segmenter.device}, {segmenter.precision}): {segmenter.reason}"
    )
    for entry in inputs:
        status.log(f"{entry.name}: {entry.title}")
    for sink in sinks:
        if sink.url is not None:
            url = sink.url.replace(f"?token={outputs.token}", "?token=the one you gave") if outputs.token else sink.url
            status.log(f"page: {url}")
    status.log("Ctrl-C ends it, files complete")


def _tell_second(status: Status, numbers: Mapping[str, Any]) -> None:
    lost = "" if numbers["disconnects"]["connected"] else "NO PICTURES; "
    status.numbers(lost + status_line(numbers["now"]))


def _tell(status: Status, result: Mapping[str, Any]) -> None:
    frames, latency, disconnects = result["frames"], result["latency_ms"], result["disconnects"]
    status.log(
        f"{result['seconds']:.0f} s: read {frames['read']}, segmented {frames['segmented']}, dropped {frames['dropped']}, "
        f"corrupt {frames['corrupt']}; age p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms, "
        f"max {latency['max']:.0f} ms; limited by {result['bottleneck']}"
    )
    if disconnects["count"]:
        status.log(f"{disconnects['count']} times without pictures, {disconnects['seconds']:.1f} s together")
    items = result.get("items", [result])
    sinks = [entry for item in (*items, *([result] if len(items) > 1 else [])) for entry in item["sinks"].items()]
    for name, sink in sinks:
        dropped = f", {sink['dropped']} dropped" if sink["dropped"] else ""
        status.log(f"{name}: {sink['written']} frames{dropped}")
        for warning in sink.get("warnings", ()):
            status.log(f"note: {warning}")
    for item in items:
        for warning in item["warnings"]:
            status.log(f"note: {item['camera']}: {warning}" if len(items) > 1 else f"note: {warning}")
