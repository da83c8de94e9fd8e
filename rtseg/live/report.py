"""Reports of a live run: once per second and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rtseg.core.live_report import CameraReport, DisconnectReport, LiveReport
from rtseg.core.report import FrameCounts, RunIdentity, TelemetryReport
from rtseg.core.stats import Stats
from rtseg.live.camera import Camera
from rtseg.live.load_shedding import LoadShedder
from rtseg.live.sink_thread import SinkThread


class LiveReporter:
    """Statistics of a run, of each camera and of all cameras together, and the reports made of them."""

    telemetry: TelemetryReport | None = None
    """Latest readings of the machine's sensors."""

    def __init__(
        self,
        cameras: Sequence[Camera],
        shared_sinks: Sequence[SinkThread],
        classes: tuple[str, ...],
        identity: RunIdentity,
        *,
        encoder: str | None = None,
        load_shedder: LoadShedder | None = None,
    ) -> None:
        """Set all counts to zero.

        Args:
            cameras: cameras of the run.
            shared_sinks: sinks that show all cameras.
            classes: class names of the model.
            identity: input, output, model and device of the run.
            encoder: encoder of recordings.
            load_shedder: its load level is reported.
        """
        self._cameras, self._shared_sinks, self._identity = cameras, shared_sinks, identity
        self._encoder, self._load_shedder = encoder, load_shedder
        self.total = Stats(classes)
        """Clocks and counts of all cameras together."""
        several = len(cameras) > 1
        self.camera_stats = [Stats(classes, self.total) if several else self.total for _ in cameras]
        """Clocks and counts of each camera."""

    def start(self) -> None:
        """Start the clocks, without the start-up time and the frames read in it."""
        for stats in (self.total, *self.camera_stats):
            stats.start()

    def end(self) -> None:
        """End the counting: frames that are queued or in work are dropped."""
        for stats in (*self.camera_stats, self.total):
            stats.frames.end()

    def interval_report(self) -> LiveReport:
        """Return the current report, with the measurements since the last call in `now`."""
        now = self.total.interval()
        report = self.report()
        items = (
            replace(item, now=stats.interval()) for item, stats in zip(report.items, self.camera_stats, strict=False)
        )
        return replace(report, totals=replace(report.totals, now=now), items=tuple(items))

    def report(self) -> LiveReport:
        """Return the measurements since the start."""
        items = tuple(map(self._camera_report, self._cameras, self.camera_stats))
        shared = {sink.name: sink.report() for sink in self._shared_sinks}
        smoothings = [smoothing for camera in self._cameras if (smoothing := camera.processor.smoothing)]
        if len(items) == 1:
            totals = replace(items[0], sinks={**items[0].sinks, **shared})
        else:
            self.total.stop()
            pipeline = replace(
                self.total.report(live=True), frames=FrameCounts.total([item.pipeline.frames for item in items])
            )
            totals = CameraReport(
                input=", ".join(item.input for item in items),
                pipeline=pipeline,
                sinks=shared,
                disconnects=DisconnectReport(
                    count=sum(item.disconnects.count for item in items),
                    seconds=round(sum(item.disconnects.seconds for item in items), 3),
                    connected=any(item.disconnects.connected for item in items),
                ),
            )
        return LiveReport(
            identity=self._identity,
            encoder=self._encoder,
            totals=totals,
            telemetry=self.telemetry,
            temporal_smoothing=replace(smoothings[0].report(), cuts=sum(smoothing.cuts for smoothing in smoothings))
            if smoothings
            else None,
            adaptive=self._load_shedder.report() if self._load_shedder else None,
            items=items if len(items) > 1 else (),
        )

    def _camera_report(self, camera: Camera, stats: Stats) -> CameraReport:
        sinks = camera.sinks or (self._shared_sinks if len(self._cameras) == 1 else ())
        written = sinks[0].written if sinks else None  # read first: never larger than segmented
        stats.frames.set_corrupt(camera.source.corrupt)
        stats.stop()
        info = camera.source.info
        aspect = float(info.sample_aspect_ratio)
        return CameraReport(
            camera=camera.name,
            input=info.name,
            input_size=camera.processor.model.input_size_for(info.width, info.height, aspect) if info.width else None,
            decoder=info.codec,
            pipeline=stats.report(written=written, live=True),
            sinks={sink.name: sink.report() for sink in camera.sinks},
            disconnects=camera.source.disconnects.report(),
            warnings=tuple(camera.source.warnings),
        )
