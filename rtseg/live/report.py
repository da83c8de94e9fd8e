"""Report of a live run: once per second and at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rtseg.live.camera import Camera
from rtseg.live.sink_thread import SinkThread
from rtseg.live.stats import LiveStats
from rtseg.pipeline.frame_queue import LatestFrameQueue


class LiveReport:
    """Statistics of a run: of each camera and of all cameras together."""

    def __init__(
        self,
        cameras: Sequence[Camera],
        shared_sinks: Sequence[SinkThread],
        queue: LatestFrameQueue,
        classes: tuple[str, ...],
        identity: Mapping[str, Any],
        extra_report: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Set all counts to zero.

        Args:
            cameras: cameras of the run.
            shared_sinks: sinks that show all cameras.
            queue: counts the frames that were read and dropped.
            classes: class names of the model.
            identity: constant fields, placed first: model, backend, device.
            extra_report: returns additional fields.
        """
        self._cameras, self._shared_sinks, self._queue, self._identity = cameras, shared_sinks, queue, identity
        self._extra_report = extra_report
        self._total = LiveStats(classes)
        several = len(cameras) > 1
        self.camera_stats = [LiveStats(classes, self._total) if several else self._total for _ in cameras]
        """Clocks and counts of each camera."""

    def start(self) -> None:
        """Start the clocks, without the start-up time and the frames read in it."""
        for stats in {id(stats): stats for stats in (*self.camera_stats, self._total)}.values():
            stats.stats.start()
        self.interval_report()

    def interval_report(self) -> dict[str, Any]:
        """Return the current report, with the values since the last call under `now`: see `LiveMetrics`."""
        captured = list(self._queue.captured)
        dropped = [self._queue.counts(number)[1] for number in range(len(self._cameras))]
        now = self._total.interval_report(sum(captured), sum(dropped))
        several = len(self._cameras) > 1
        camera_reports = [
            stats.interval_report(captured[number], dropped[number]) if several else now
            for number, stats in enumerate(self.camera_stats)
        ]
        report = self.to_dict()
        report["now"] = now
        for item, camera_report in zip(report.get("items", []), camera_reports, strict=False):
            item["now"] = camera_report
        return report

    def to_dict(self) -> dict[str, Any]:
        """Return the current statistics since the start."""
        items = [self._camera_to_dict(number) for number in range(len(self._cameras))]
        shared = {sink.name: _sink_to_dict(sink) for sink in self._shared_sinks}
        if len(items) == 1:
            items[0]["sinks"] |= shared
            if shared and not self._cameras[0].sinks:
                items[0]["frames"]["written"] = self._shared_sinks[0].written
            return {**self._identity, **items[0], **self._extra_report()}
        disconnects = [item["disconnects"] for item in items]
        frames = [item["frames"] for item in items]
        total = self._total.to_dict(0, 0, 0)
        total["frames"] = {key: sum(f[key] for f in frames) for key in total["frames"]}
        return {
            **self._identity,
            **total,
            "input": ", ".join(item["input"] for item in items),
            "sinks": shared,
            "disconnects": {
                "count": sum(disconnect["count"] for disconnect in disconnects),
                "seconds": round(sum(disconnect["seconds"] for disconnect in disconnects), 3),
                "connected": any(disconnect["connected"] for disconnect in disconnects),
            },
            **self._extra_report(),
            "items": items,
        }

    def _camera_to_dict(self, number: int) -> dict[str, Any]:
        camera, source = self._cameras[number], self._cameras[number].source
        written = camera.sinks[0].written if camera.sinks else None  # read first: never larger than segmented
        report = self.camera_stats[number].to_dict(*self._queue.counts(number), source.corrupt)
        if written is not None:
            report["frames"]["written"] = written
        return {
            "camera": camera.name,
            "input": source.info.name,
            "decoder": source.info.codec,
            **report,
            "sinks": {sink.name: _sink_to_dict(sink) for sink in camera.sinks},
            "disconnects": source.disconnects.to_dict(),
            "warnings": list(source.warnings),
        }


def _sink_to_dict(sink: SinkThread) -> dict[str, Any]:
    mean_ms = sink.busy_seconds / sink.written * 1e3 if sink.written else 0.0
    report: dict[str, Any] = {"written": sink.written, "dropped": sink.dropped, "mean_ms": round(mean_ms, 2)}
    if sink.warnings:
        report["warnings"] = list(sink.warnings)
    return report if sink.error is None else {**report, "error": sink.error}


def sink_failures(sinks: Sequence[SinkThread]) -> list[str]:
    """Return one line for each sink that failed or did not end in time."""
    unfinished = [sink for sink in sinks if sink.error is None and sink.unfinished_message and not sink.join(0.0)]
    return [
        *(f"{sink.name}: {sink.error}" for sink in sinks if sink.error is not None),
        *(f"{sink.name}: {sink.unfinished_message}" for sink in unfinished),
    ]
