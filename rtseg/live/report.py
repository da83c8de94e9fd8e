"""What is told of a live run: each second, and at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rtseg.live.camera import Camera
from rtseg.live.sink_thread import SinkThread
from rtseg.live.stats import LiveStats
from rtseg.pipeline.frame_queue import LatestFrameQueue


class LiveReport:
    """The numbers of a run: of each camera, and of all together."""

    def __init__(
        self,
        cameras: Sequence[Camera],
        shared: Sequence[SinkThread],
        newest: LatestFrameQueue,
        classes: tuple[str, ...],
        identity: Mapping[str, Any],
        more: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Sets all counts to zero.

        Args:
            cameras: of the run.
            shared: sinks that show all cameras.
            newest: what counts the frames that were read and dropped.
            classes: the model's class names.
            identity: what ran, put in front.
            more: gives what else is told beside it.
        """
        self._cameras, self._shared, self._newest, self._identity = cameras, shared, newest, identity
        self._more = more
        self._whole = LiveStats(classes)
        several = len(cameras) > 1
        self.of = [LiveStats(classes, self._whole) if several else self._whole for _ in cameras]
        """The clocks and counts of each camera."""

    def start(self) -> None:
        """Start the clocks: the time before was start-up, and its frames are not those of the first second."""
        for stats in {id(stats): stats for stats in (*self.of, self._whole)}.values():
            stats.stats.start()
        self.second()

    def second(self) -> dict[str, Any]:
        """The numbers as of now, with those since the last call under `now`: see `LiveNumbers`."""
        captured = list(self._newest.captured)
        dropped = [self._newest.counts(number)[1] for number in range(len(self._cameras))]
        now = self._whole.second(sum(captured), sum(dropped))
        several = len(self._cameras) > 1
        parts = [
            stats.second(captured[number], dropped[number]) if several else now for number, stats in enumerate(self.of)
        ]
        numbers = self.to_dict()
        numbers["now"] = now
        for item, part in zip(numbers.get("items", []), parts, strict=False):
            item["now"] = part
        return numbers

    def to_dict(self) -> dict[str, Any]:
        """The statistics as of now."""
        items = [self._camera_to_dict(number) for number in range(len(self._cameras))]
        shared = {sink.name: _sink_to_dict(sink) for sink in self._shared}
        if len(items) == 1:
            items[0]["sinks"] |= shared
            if shared and not self._cameras[0].sinks:
                items[0]["frames"]["written"] = self._shared[0].written
            return {**self._identity, **items[0], **self._more()}
        disconnects = [item["disconnects"] for item in items]
        frames = [item["frames"] for item in items]
        whole = self._whole.to_dict(0, 0, 0)
        whole["frames"] = {key: sum(f[key] for f in frames) for key in whole["frames"]}
        return {
            **self._identity,
            **whole,
            "input": ", ".join(item["input"] for item in items),
            "sinks": shared,
            "disconnects": {
                "count": sum(disconnect["count"] for disconnect in disconnects),
                "seconds": round(sum(disconnect["seconds"] for disconnect in disconnects), 3),
                "connected": any(disconnect["connected"] for disconnect in disconnects),
            },
            **self._more(),
            "items": items,
        }

    def _camera_to_dict(self, number: int) -> dict[str, Any]:
        camera, source = self._cameras[number], self._cameras[number].source
        written = camera.sinks[0].written if camera.sinks else None  # before the counts: never more than segmented
        told = self.of[number].to_dict(*self._newest.counts(number), source.corrupt)
        if written is not None:
            told["frames"]["written"] = written
        return {
            "camera": camera.name,
            "input": source.info.name,
            "decoder": source.info.codec,
            **told,
            "sinks": {sink.name: _sink_to_dict(sink) for sink in camera.sinks},
            "disconnects": source.disconnects.to_dict(),
            "warnings": list(source.warnings),
        }


def _sink_to_dict(sink: SinkThread) -> dict[str, Any]:
    mean_ms = sink.busy_seconds / sink.written * 1e3 if sink.written else 0.0
    told: dict[str, Any] = {"written": sink.written, "dropped": sink.dropped, "mean_ms": round(mean_ms, 2)}
    if sink.warnings:
        told["warnings"] = list(sink.warnings)
    return told if sink.error is None else {**told, "error": sink.error}


def failures(sinks: Sequence[SinkThread]) -> list[str]:
    """One line for each sink that died, or that did not end in time."""
    hung = [sink for sink in sinks if sink.error is None and sink.late and not sink.join(0.0)]
    return [
        *(f"{sink.name}: {sink.error}" for sink in sinks if sink.error is not None),
        *(f"{sink.name}: {sink.late}" for sink in hung),
    ]
