"""Metrics of a live run for Prometheus.

Text exposition format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/. Units are seconds and counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rtseg.core.live_report import CameraReport, LiveReport

_HELP = {
    "rtseg_info": ("gauge", "Version, model, backend and device as labels; the value is 1."),
    "rtseg_uptime_seconds": ("counter", "Duration of the run, excluding start-up."),
    "rtseg_frames_total": ("counter", "Frames by result: read, segmented, written, dropped, corrupt, stale."),
    "rtseg_capture_fps": ("gauge", "Frames decoded in the last second."),
    "rtseg_shown_fps": ("gauge", "Frames written by their last sink in the last second."),
    "rtseg_age_seconds": ("gauge", "Time from capture to the output of the last sink, in the last second."),
    "rtseg_engine_seconds": ("gauge", "Mean duration of one inference in the last second."),
    "rtseg_stage_busy_ratio": ("gauge", "Share of the run in which a stage was busy."),
    "rtseg_class_ratio": ("gauge", "Share of the pixels of the latest frame by class."),
    "rtseg_disconnects_total": ("counter", "Number of disconnects of a camera."),
    "rtseg_disconnect_seconds_total": ("counter", "Total length of the disconnects of a camera."),
    "rtseg_connected": ("gauge", "1 if the camera is connected, else 0."),
    "rtseg_sink_frames_total": ("counter", "Frames of each sink by result: written, dropped."),
    "rtseg_device": ("gauge", "Temperature (celsius), power (watts), load (ratio) and clocks (hertz) of the device."),
    "rtseg_peak_memory_bytes": ("gauge", "Peak resident memory."),
}

Sample = tuple[str, Mapping[str, str], float]


def exposition(report: LiveReport) -> str:
    """Return the metrics of a run in the text exposition format."""
    samples = list(_samples(report))
    lines = []
    for name, (metric_type, text) in _HELP.items():
        values = [_line(*sample) for sample in samples if sample[0] == name]
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {metric_type}", *values] if values else []
    return "\n".join(lines) + "\n"


def _samples(report: LiveReport) -> Iterator[Sample]:
    run, pipeline = report.identity, report.totals.pipeline
    identity = {"model": run.model, "backend": run.backend, "precision": run.precision, "device": run.device}
    yield "rtseg_info", {"version": run.rtseg, **identity}, 1
    yield "rtseg_uptime_seconds", {}, pipeline.seconds
    if pipeline.peak_rss_mib is not None:
        yield "rtseg_peak_memory_bytes", {}, pipeline.peak_rss_mib * 2**20
    for stage, times in pipeline.stages.items():
        yield "rtseg_stage_busy_ratio", {"stage": stage}, times.busy
    for sink, counts in report.totals.sinks.items():
        yield "rtseg_sink_frames_total", {"sink": sink, "result": "written"}, counts.written
        yield "rtseg_sink_frames_total", {"sink": sink, "result": "dropped"}, counts.dropped
    for name, value in (report.telemetry.to_dict() if report.telemetry else {}).items():
        if isinstance(value, int | float):
            yield "rtseg_device", {"reading": name}, value
    for camera in report.cameras:
        yield from _camera_samples(camera, {"camera": camera.camera or camera.input})


def _camera_samples(report: CameraReport, camera: Mapping[str, str]) -> Iterator[Sample]:
    for result, count in report.pipeline.frames.to_dict().items():
        yield "rtseg_frames_total", {**camera, "result": result}, count
    if now := report.now:
        yield "rtseg_capture_fps", camera, now.capture_fps
        yield "rtseg_shown_fps", camera, now.shown_fps
        for quantile, age_ms in (("0.5", now.age_ms.p50), ("0.99", now.age_ms.p99), ("1", now.age_ms.max or 0.0)):
            yield "rtseg_age_seconds", {**camera, "quantile": quantile}, age_ms / 1e3
        yield "rtseg_engine_seconds", camera, now.engine_ms / 1e3
        for name, share in now.classes.items():
            yield "rtseg_class_ratio", {**camera, "class": name}, share
    yield "rtseg_disconnects_total", camera, report.disconnects.count
    yield "rtseg_disconnect_seconds_total", camera, report.disconnects.seconds
    yield "rtseg_connected", camera, report.disconnects.connected


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    label_text = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{label_text}}} {float(value):.10g}" if label_text else f"{name} {float(value):.10g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
