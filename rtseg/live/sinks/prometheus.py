"""The numbers of a live run as Prometheus reads them.

Text exposition format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/. Units are seconds and counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_HELP = {
    "rtseg_info": ("gauge", "What runs; always 1."),
    "rtseg_uptime_seconds": ("counter", "Time since the run began, without start-up."),
    "rtseg_frames_total": ("counter", "Frames by what became of them."),
    "rtseg_capture_fps": ("gauge", "Frames decoded in the last second."),
    "rtseg_shown_fps": ("gauge", "Frames that left the last sink in the last second."),
    "rtseg_age_seconds": ("gauge", "From capture to the last sink's output, in the last second."),
    "rtseg_engine_seconds": ("gauge", "Mean time of one inference in the last second."),
    "rtseg_stage_busy_ratio": ("gauge", "Share of the run in which a stage worked."),
    "rtseg_class_ratio": ("gauge", "Share of the newest picture by class."),
    "rtseg_disconnects_total": ("counter", "Times that a camera was lost."),
    "rtseg_disconnect_seconds_total": ("counter", "Time without a camera."),
    "rtseg_connected": ("gauge", "Whether the camera delivers."),
    "rtseg_sink_frames_total": ("counter", "Frames of each sink by what became of them."),
    "rtseg_device": ("gauge", "Temperature (celsius), power (watts), load (ratio) and clocks (hertz) of the device."),
    "rtseg_peak_memory_bytes": ("gauge", "Largest resident memory so far."),
}

Sample = tuple[str, Mapping[str, str], float]


def exposition(numbers: Mapping[str, Any]) -> str:
    """The metrics of one run.

    Args:
        numbers: as `rtseg.live.controls.LiveNumbers` describes them; what is missing is left out.
    """
    samples: dict[str, list[Sample]] = {}
    for sample in _samples(numbers):
        samples.setdefault(sample[0], []).append(sample)
    lines = []
    for name, (kind, text) in _HELP.items():
        if name in samples:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [_line(*sample) for sample in samples[name]]
    return "\n".join(lines) + "\n"


def _samples(numbers: Mapping[str, Any]) -> Iterator[Sample]:
    identity = {key: str(numbers[key]) for key in ("model", "backend", "precision", "device") if numbers.get(key)}
    if "rtseg" in numbers:
        yield "rtseg_info", {"version": str(numbers["rtseg"]), **identity}, 1
    items = numbers.get("items") or [numbers]
    for number, item in enumerate(items):
        yield from _of_camera(item, {"camera": str(item.get("camera") or item.get("input") or number)})
    if "seconds" in numbers:
        yield "rtseg_uptime_seconds", {}, numbers["seconds"]
    if "peak_rss_mib" in numbers:
        yield "rtseg_peak_memory_bytes", {}, numbers["peak_rss_mib"] * 2**20
    for stage, values in numbers.get("stages", {}).items():
        if "busy" in values:
            yield "rtseg_stage_busy_ratio", {"stage": stage}, values["busy"]
    for sink, counts in numbers.get("sinks", {}).items():
        for what in ("written", "dropped"):
            if what in counts:
                yield "rtseg_sink_frames_total", {"sink": sink, "result": what}, counts[what]
    for name, value in _numbers_in(numbers.get("telemetry", {})):
        yield "rtseg_device", {"reading": name}, value


def _of_camera(item: Mapping[str, Any], camera: Mapping[str, str]) -> Iterator[Sample]:
    for what, count in item.get("frames", {}).items():
        yield "rtseg_frames_total", {**camera, "result": what}, count
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


def _numbers_in(readings: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in readings.items():
        if isinstance(value, (bool, int, float)):
            yield name, float(value)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {float(value):.10g}" if inside else f"{name} {float(value):.10g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
