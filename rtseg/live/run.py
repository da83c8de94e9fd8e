"""Live run: connect inputs, model and outputs, run them and report."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from rtseg.core.choices import Fit
from rtseg.core.frame import ClassMap, Frame, StreamInfo
from rtseg.core.run_report import run_identity
from rtseg.core.secrets import redact
from rtseg.gpu.telemetry import TelemetryMonitor
from rtseg.inference.runnable_file import BuildMissing
from rtseg.inference.segmenter import Segmenter
from rtseg.inference.temporal_smoothing import TemporalSmoothing
from rtseg.io.gstreamer.pipelines import command_line, encoder, to_file, to_srt
from rtseg.io.inputs.gstreamer import dry_run as source_command
from rtseg.live.camera import Camera
from rtseg.live.controls import Controls, DisplaySettings, LiveMetrics
from rtseg.live.inputs import Input
from rtseg.live.load_shedding import LoadShedder
from rtseg.live.loop import LiveLoop
from rtseg.live.outputs import Outputs, camera_sinks, open_snapshots, open_window, shared_sinks
from rtseg.live.report import sink_failures
from rtseg.live.sink_thread import SinkThread
from rtseg.live.sinks.jsonl import JsonLinesFile
from rtseg.live.stats import status_line
from rtseg.live.systemd import Watchdog, notify
from rtseg.render.overlay import Overlay
from rtseg.render.style import Style

_log = logging.getLogger("rtseg.live")

SMALLEST = "nano"
"""Fastest bundled model."""


def run_live(
    inputs: Sequence[Input],
    outputs: Outputs,
    segmenter: Segmenter,
    style: Style,
    controls: Controls,
    *,
    metrics: LiveMetrics | None = None,
    max_age_ms: float | None = None,
    every_frame: bool = False,
    adaptive: bool = False,
    smaller: Segmenter | None = None,
    reconnect_max_seconds: float = 30.0,
    wait: bool = False,
    show_status: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run until `controls.quit` is called or all inputs have ended.

    Args:
        inputs: cameras, streams, files at their own frame rate.
        outputs: output options.
        segmenter: loaded model.
        style: initial display style; view, opacity and legend follow `controls`.
        controls: settings of the user; `quit` ends the run.
        metrics: receives a report once per second, for other readers; None: no other readers.
        max_age_ms: maximum age of a displayed frame; older frames are not displayed.
        every_frame: drop nothing and accept delay.
        adaptive: reduce the work if the machine can't keep up: see `rtseg.live.load_shedding.LoadShedder`.
        smaller: faster model with the same classes, for `adaptive`.
        reconnect_max_seconds: longest pause between two attempts to connect; 0: a disconnect ends that input.
        wait: keep waiting if no camera can be opened at first.
        show_status: called once per second with the metrics of that second as one line.

    Returns:
        The statistics, as written by `--stats`. `failed` lists failed sinks and, without reconnecting, lost inputs.

    Raises:
        RtsegError: no camera could be opened, an output can't be created, or the model failed.
    """
    metrics = metrics or LiveMetrics()
    overlay = style.overlay(segmenter.description)
    models = [segmenter, *([smaller] if smaller else [])]
    load_shedder = LoadShedder([model.description.name for model in models], _log.warning) if adaptive else None
    telemetry = TelemetryMonitor()
    ready = threading.Event()
    opened_sinks: list[SinkThread] = []
    smoothings: list[TemporalSmoothing] = []

    def on_error(name: str, failure: BaseException) -> None:
        _log.warning("%s has failed and gets no more frames: %s", name, redact(" ".join(str(failure).split())))

    def segment(frame: Frame, pixel_aspect: float, smoothing: TemporalSmoothing | None = None) -> ClassMap:
        return models[load_shedder.level.model if load_shedder else 0].segment(frame, pixel_aspect, smoothing)

    def prepare(info: StreamInfo) -> None:
        for model in models:
            model.prepare(info.width, info.height, float(info.sample_aspect_ratio))

    def extra_report() -> dict[str, Any]:
        warning = telemetry.poll()
        if warning:
            _log.warning(warning)
        report: dict[str, Any] = {"telemetry": telemetry.latest} if telemetry.latest else {}
        if smoothings:
            cuts = sum(smoothing.cuts for smoothing in smoothings)
            report["temporal_smoothing"] = {"momentum": smoothings[0].momentum, "cuts": cuts}
        return {**report, "adaptive": load_shedder.to_dict()} if load_shedder else report

    try:
        several = len(inputs) > 1
        lines = JsonLinesFile(outputs.jsonl) if outputs.jsonl is not None else None
        only = overlay.only if style.only is not None else None
        cameras = []
        for entry in inputs:
            sinks = camera_sinks(
                outputs, entry.name if several else None, lines, segmenter.classes, only, every_frame, on_error
            )
            opened_sinks += sinks
            source = entry.source(reconnect_max_seconds, _log.warning, ready)
            smoothing = segmenter.new_smoothing()
            smoothings += [smoothing] if smoothing else []
            cameras.append(Camera(entry.name, source, sinks, partial(segment, smoothing=smoothing)))
        shared = shared_sinks(outputs, controls, metrics, overlay.palette, on_error)
        opened_sinks += shared
        window = open_window(outputs, controls, on_error)
        snapshots = open_snapshots(outputs, _log.warning, on_error)
        opened_sinks += [snapshots, *([window[0]] if window else [])]
        loop = LiveLoop(
            cameras,
            segment,
            partial(_make_overlay, style, segmenter),
            segmenter.classes,
            controls=controls,
            metrics=metrics,
            shared_sinks=shared,
            window=window[0] if window else None,
            poll_window=window[1].poll if window else lambda: None,
            snapshots=snapshots,
            max_age_ms=max_age_ms,
            every_frame=every_frame,
            streams=segmenter.streams,
            load_shedder=load_shedder,
            prepare=prepare,
            ready=ready,
            extra_report=extra_report,
            identity=_identity(inputs, outputs, segmenter),
            on_report=partial(_report_status, show_status, Watchdog()),
        )
        _log_start(inputs, outputs, segmenter, opened_sinks)
        result = loop.run(wait=wait)
    finally:
        notify("STOPPING=1")
        for sink in opened_sinks:
            sink.finish()
    result["warmup_ms"] = round(segmenter.warmup_ms, 1)
    result["failed"] = sink_failures(opened_sinks)
    if not controls.quitting:
        lost = [camera.source.disconnects for camera in cameras if not camera.source.disconnects.connected]
        result["failed"] += [
            disconnects.reason for disconnects in lost if disconnects.given_up or not reconnect_max_seconds
        ]
    _log_summary(result)
    return result


def dry_run(inputs: Sequence[Input], outputs: Outputs) -> list[str]:
    """Return the output of `--dry-run`: the command lines of the GStreamer processes that a run would start.

    Raises:
        OptionError: a pipeline can't be parsed.
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
    return lines or ["no GStreamer process: FFmpeg reads and writes everything"]


def open_smaller(
    segmenter: Segmenter,
    *,
    device: str | None,
    size: tuple[int, int] | None,
    fit: Fit,
    smooth: float = 0.0,
    build_missing: BuildMissing | None = None,
) -> Segmenter | None:
    """Open the bundled model that `--adaptive` switches to: the fastest one, on the same backend.

    Args:
        segmenter: requested model.
        device: device of `Segmenter`.
        size: (width, height) of the network's input; None: the size of the model.
        fit: `letterbox` or `stretch`.
        smooth: momentum of the temporal smoothing.
        build_missing: `build_missing` of `Segmenter`.

    Returns:
        None if there is no such model: the requested model is the fastest, has other classes, or runs on torch.
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


def _make_overlay(style: Style, segmenter: Segmenter, settings: DisplaySettings) -> Overlay:
    style = replace(style, view=settings.view, alpha=settings.alpha, legend=settings.legend)
    return style.overlay(segmenter.description)


def _identity(inputs: Sequence[Input], outputs: Outputs, segmenter: Segmenter) -> dict[str, Any]:
    output = outputs.record or outputs.masks or outputs.jsonl or ", ".join(outputs.display_outputs())
    encoder_name = outputs.encoder_name()
    identity = run_identity("live", ", ".join(entry.title for entry in inputs), output, segmenter)
    return identity if encoder_name is None else {**identity, "encoder": encoder_name}


def _log_start(inputs: Sequence[Input], outputs: Outputs, segmenter: Segmenter, sinks: Sequence[SinkThread]) -> None:
    width, height = segmenter.input_size
    _log.info(
        f"model {segmenter.description.name} at {width}x{height} on {segmenter.backend} "
        f"({segmenter.device}, {segmenter.precision}): {segmenter.reason}"
    )
    for entry in inputs:
        _log.info(f"{entry.name}: {entry.title}")
    for sink in sinks:
        if sink.url is not None:
            url = sink.url.replace(f"?token={outputs.token}", "?token=***") if outputs.token else sink.url
            _log.info(f"page: {url}")
    _log.info("Ctrl-C ends the run and completes its files")


def _report_status(show_status: Callable[[str], None], watchdog: Watchdog, report: Mapping[str, Any]) -> None:
    prefix = "" if report["disconnects"]["connected"] else "NO FRAMES; "
    line = prefix + status_line(report["now"])
    show_status(line)
    watchdog.update(report, line)


def _log_summary(result: Mapping[str, Any]) -> None:
    frames, latency, disconnects = result["frames"], result["latency_ms"], result["disconnects"]
    _log.info(
        f"{result['seconds']:.0f} s: read {frames['read']}, segmented {frames['segmented']}, dropped {frames['dropped']}, "
        f"corrupt {frames['corrupt']}; age p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms, "
        f"max {latency['max']:.0f} ms; limited by {result['bottleneck']}"
    )
    if disconnects["count"]:
        _log.info(f"disconnects: {disconnects['count']}, {disconnects['seconds']:.1f} s in total")
    items = result.get("items", [result])
    sinks = [entry for item in (*items, *([result] if len(items) > 1 else [])) for entry in item["sinks"].items()]
    for name, sink in sinks:
        dropped = f", {sink['dropped']} dropped" if sink["dropped"] else ""
        _log.info(f"{name}: {sink['written']} frames{dropped}")
        for warning in sink.get("warnings", ()):
            _log.info(f"note: {warning}")
    for item in items:
        for warning in item["warnings"]:
            _log.info(f"note: {item['camera']}: {warning}" if len(items) > 1 else f"note: {warning}")
