"""Metrics of a live run for Prometheus.

Text exposition format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/. Units are seconds and counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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


def exposition(report: Mapping[str, Any]) -> str:
    """Return the metrics of a run in the text exposition format.

    Args:
        report: report of the run, see `rtseg.live.controls.LiveMetrics`. Missing fields are omitted.
    """
    samples: dict[str, list[Sample]] = {}
    for sample in _samples(report):
        samples.setdefault(sample[0], []).append(sample)
    lines = []
    for name, (metric_type, text) in _HELP.items():
        if name in samples:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {metric_type}"]
            lines += [_line(*sample) for sample in samples[name]]
    return "\n".join(lines) + "\n"


def _samples(report: Mapping[str, Any]) -> Iterator[Sample]:
    identity = {key: str(report[key]) for key in ("model", "backend", "precision", "device") if report.get(key)}
    if "rtseg" in report:
        yield "rtseg_info", {"version": str(report["rtseg"]), **identity}, 1
    items = report.get("items") or [report]
    for number, item in enumerate(items):
        yield from _camera_samples(item, {"camera": str(item.get("camera") or item.get("input") or number)})
    if "seconds" in report:
        yield "rtseg_uptime_seconds", {}, report["seconds"]
    if "peak_rss_mib" in report:
        yield "rtseg_peak_memory_bytes", {}, report["peak_rss_mib"] * 2**20
    for stage, values in report.get("stages", {}).items():
        if "busy" in values:
            yield "rtseg_stage_busy_ratio", {"stage": stage}, values["busy"]
    for sink, counts in report.get("sinks", {}).items():
        for result in ("written", "dropped"):
            if result in counts:
                yield "rtseg_sink_frames_total", {"sink": sink, "result": result}, counts[result]
    for name, value in _numeric_readings(report.get("telemetry", {})):
        yield "rtseg_device", {"reading": name}, value


def _camera_samples(item: Mapping[str, Any], camera: Mapping[str, str]) -> Iterator[Sample]:
    for result, count in item.get("frames", {}).items():
        yield "rtseg_frames_total", {**camera, "result": result}, count
    now = item.get("now", {})
    for key in ("capture_fps", "shown_fps"):
        if key in now:
            yield f"rtseg_{key}", camera, now[key]
    for quantile, key in (("0.5", "p50"), ("0.99", "p99"), ("1", "max")):
        if key in now.get("age_ms", {}):
            yield "rtseg_age_seconds", {**camera, "quantile": quantile}, now["age_ms"][key] / 1e3
    if "engine_ms" in now:
        yield "rtseg_engine_seconds", camera, now["engine_ms"] / 1e3
    for name, share in now.get("classes", {}).items():
        yield "rtseg_class_ratio", {**camera, "class": name}, share
    disconnects = item.get("disconnects", {})
    if disconnects:
        yield "rtseg_disconnects_total", camera, disconnects.get("count", 0)
        yield "rtseg_disconnect_seconds_total", camera, disconnects.get("seconds", 0)
        yield "rtseg_connected", camera, float(bool(disconnects.get("connected", True)))


def _numeric_readings(readings: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in readings.items():
        if isinstance(value, (bool, int, float)):
            yield name, float(value)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    label_text = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{label_text}}} {float(value):.10g}" if label_text else f"{name} {float(value):.10g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
