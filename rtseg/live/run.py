"""Live run: connect inputs, model and outputs, run them and report."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from rtseg.core.live_report import LiveReport
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.core.report import RunIdentity
from rtseg.gpu.telemetry import TelemetryMonitor
from rtseg.inference.segmenter import Segmenter
from rtseg.io.gstreamer.pipelines import command_line, encoder, to_file, to_pipe, to_srt
from rtseg.live.camera import Camera
from rtseg.live.controls import Controls, LiveMetrics
from rtseg.live.inputs import Input
from rtseg.live.load_shedding import LoadShedder
from rtseg.live.loop import LiveLoop
from rtseg.live.options import LiveOptions, Outputs
from rtseg.live.outputs import camera_sinks, open_shared_sinks
from rtseg.live.report import LiveReporter
from rtseg.live.sink_thread import SinkThread
from rtseg.live.sinks.jsonl import JsonLinesFile
from rtseg.live.systemd import notify, notify_progress
from rtseg.pipeline.processor import FrameProcessor
from rtseg.render.style import Style

_log = logging.getLogger("rtseg.live")

DEFAULT_OPTIONS = LiveOptions()

SMALLEST = "nano"
"""Fastest bundled model."""


def run_live(
    inputs: Sequence[Input],
    outputs: Outputs,
    models: Sequence[Segmenter],
    style: Style,
    controls: Controls,
    options: LiveOptions = DEFAULT_OPTIONS,
    *,
    show_status: Callable[[str], None] = lambda line: None,
) -> LiveReport:
    """Run until `controls.quit` is called or all inputs have ended.

    Args:
        inputs: cameras, streams, files at their own frame rate.
        outputs: output options.
        models: loaded model, and a faster one with the same classes for `LiveOptions.adaptive` if there is one.
        style: initial display style; view, opacity and legend follow `controls`.
        controls: settings of the user; `quit` ends the run.
        options: further options.
        show_status: called once per second with the metrics of that second as one line.

    Returns:
        The report. `failed` lists failed sinks and, without reconnecting, lost inputs.

    Raises:
        RtsegError: no camera could be opened, an output can't be created, or the model failed.
    """
    metrics = LiveMetrics()
    segmenter, several = models[0], len(inputs) > 1
    overlay = style.overlay(segmenter.description)
    names = [model.description.name for model in models]
    load_shedder = LoadShedder(names, _log.warning) if options.adaptive else None
    telemetry = TelemetryMonitor()
    ready = threading.Event()
    opened: list[SinkThread] = []

    def on_report(report: LiveReport) -> None:
        if warning := telemetry.poll():
            _log.warning(warning)
        reporter.telemetry = telemetry.latest
        metrics.publish(report)
        line = status_line(report)
        show_status(line)
        notify_progress(report, line)

    try:
        lines = JsonLinesFile(outputs.jsonl, len(inputs)) if outputs.jsonl is not None else None
        only = overlay.only if style.only is not None else None
        cameras = []
        for entry in inputs:
            name = entry.name if several else None
            sinks = camera_sinks(outputs, name, lines, segmenter.classes, only, options.every_frame)
            opened += sinks
            source = entry.source(options.reconnect_max_seconds, _log.warning, ready)
            processor = FrameProcessor(segmenter, overlay, camera=entry.name)
            cameras.append(Camera(entry.name, source, processor, sinks))
        shared = open_shared_sinks(outputs, controls, metrics, overlay.palette)
        opened += [*shared.all, *([shared.snapshots] if shared.snapshots else [])]
        reporter = LiveReporter(
            cameras,
            shared.all,
            segmenter.classes,
            _identity(inputs, outputs, segmenter),
            encoder=outputs.encoder_name(),
            load_shedder=load_shedder,
        )
        loop = LiveLoop(
            cameras,
            models,
            style,
            reporter,
            controls,
            sinks=shared,
            options=options,
            load_shedder=load_shedder,
            ready=ready,
            on_report=on_report,
        )
        _log_start(inputs, outputs, segmenter, shared.page_url)
        loop.run()
    finally:
        notify("STOPPING=1")
        for sink in opened:
            sink.finish()
    failed = [sink.failure for sink in opened if sink.failure]
    if not controls.quitting:
        lost = [camera.source.disconnects for camera in cameras if not camera.source.disconnects.connected]
        failed += [
            disconnects.reason for disconnects in lost if disconnects.given_up or not options.reconnect_max_seconds
        ]
    reporter.total.warmup_ms = segmenter.warmup_ms
    report = replace(reporter.report(), failed=tuple(failed))
    _log_summary(report)
    return report


def dry_run(inputs: Sequence[Input], outputs: Outputs) -> list[str]:
    """Return the output of `--dry-run`: the command lines of the GStreamer processes that a run would start.

    Raises:
        OptionError: a pipeline can't be parsed.
        SourceError, SinkError: an element is missing.
    """
    lines = [f"{entry.name}: {command_line(to_pipe(entry.pipeline(), 1))}" for entry in inputs if entry.pipeline]
    if outputs.record is not None and outputs.codec == "gstreamer":
        quality = 23 if outputs.crf is None else outputs.crf
        lines.append(f"record: {command_line(to_file(outputs.record, encoder(Fraction(25), quality=quality)))}")
    lines += [
        f"push: {command_line(to_srt(url, encoder(Fraction(25))))}"
        for url in outputs.push
        if url.lower().startswith("srt://")
    ]
    return lines or ["no GStreamer process: FFmpeg reads and writes everything"]


def smaller_model(segmenter: Segmenter) -> str | None:
    """Return the bundled model that `--adaptive` switches to: the fastest one, on the same backend.

    None if there is no such model: the requested model is the fastest, has other classes, or runs on torch.
    """
    fastest = segmenter.description.name == f"camvid-{SMALLEST}"
    return None if fastest or segmenter.classes != CAMVID_CLASSES or segmenter.backend == "torch" else SMALLEST


def _identity(inputs: Sequence[Input], outputs: Outputs, segmenter: Segmenter) -> RunIdentity:
    output = outputs.record or outputs.masks or outputs.jsonl or ", ".join(outputs.display_outputs())
    return segmenter.run_identity("live", ", ".join(entry.title for entry in inputs), output)


def _log_start(inputs: Sequence[Input], outputs: Outputs, segmenter: Segmenter, page_url: str | None) -> None:
    _log.info(segmenter.describe())
    for entry in inputs:
        _log.info(f"{entry.name}: {entry.title}")
    if page_url is not None:
        _log.info(f"page: {page_url.replace(f'?token={outputs.token}', '?token=***') if outputs.token else page_url}")
    _log.info("Ctrl-C ends the run and completes its files")


def status_line(report: LiveReport) -> str:
    """Return the metrics of one second as a human-readable line."""
    now = report.totals.now
    assert now is not None
    return (
        f"{'' if report.totals.disconnects.connected else 'NO FRAMES; '}"
        f"capture {now.capture_fps:.0f} fps, shown {now.shown_fps:.0f} fps, dropped {now.dropped}, "
        f"age p50 {now.age_ms.p50:.0f} ms p99 {now.age_ms.p99:.0f} ms, engine {now.engine_ms:.1f} ms, "
        f"limited by {now.bottleneck}"
    )


def _log_summary(report: LiveReport) -> None:
    totals = report.totals
    frames, latency, disconnects = totals.pipeline.frames, totals.pipeline.latency_ms, totals.disconnects
    _log.info(
        f"{totals.pipeline.seconds:.0f} s: read {frames.read}, segmented {frames.segmented}, dropped {frames.dropped}, "
        f"corrupt {frames.corrupt}; age p50 {latency.p50:.0f} ms, p99 {latency.p99:.0f} ms, "
        f"max {latency.max:.0f} ms; limited by {totals.pipeline.bottleneck}"
    )
    if disconnects.count:
        _log.info(f"disconnects: {disconnects.count}, {disconnects.seconds:.1f} s in total")
    sinks = [entry for part in (*report.items, totals) for entry in part.sinks.items()]
    for name, sink in sinks:
        _log.info(f"{name}: {sink.written} frames" + (f", {sink.dropped} dropped" if sink.dropped else ""))
        for warning in sink.warnings:
            _log.info(f"note: {warning}")
    for camera in report.cameras:
        for warning in camera.warnings or ():
            _log.info(f"note: {camera.camera}: {warning}" if report.items else f"note: {warning}")
