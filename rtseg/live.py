"""The live loop: of each camera the newest frame through the model and to every sink, with an age that stays bounded.

    capture thread (one a camera)      this loop's thread                     a thread for each sink
    decode every packet ──newest──▶ segment, colour ──newest (files: a few)──▶ encode, show, send

Nobody waits for what comes after: what can't be taken in time is dropped there, and counted.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rtseg.controls import Controls, LiveNumbers, Wanted
from rtseg.errors import SourceError
from rtseg.frame import ClassMap, Frame, Passthrough, StreamInfo
from rtseg.livestats import LiveStats
from rtseg.mosaic import Mosaic
from rtseg.newest import Captured, Newest
from rtseg.overlay import Overlay
from rtseg.shown import Shown
from rtseg.sinks.apart import Apart
from rtseg.sources.reconnect import Outages

STOP_SECONDS = 1.5
"""How long files may take to be completed after q or a signal; what is not complete then stays under its partial name."""

DRAIN_SECONDS = 60.0
"""The same where the last input came to its end."""

WINDOW_SECONDS = 0.02
"""How often a window looks for keys."""


class LiveSource(Protocol):
    """A source that lasts: one that reconnects, or a file at its own pace."""

    @property
    def info(self) -> StreamInfo:
        """Of the newest frame's stream."""

    @property
    def corrupt(self) -> int:
        """Frames so far that could not be decoded."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was met and mended so far."""

    @property
    def decode_seconds(self) -> float:
        """What the newest frame took to decode."""

    @property
    def outages(self) -> Outages:
        """Times without pictures."""

    @property
    def tried(self) -> threading.Event:
        """Set once the first frame is there or the first try has failed."""

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        """Frames with rising `pts`."""

    def close(self) -> None:
        """Ends the reading, from any thread."""


@dataclass
class Camera:
    """One camera of a run, with the sinks that are its alone."""

    name: str
    """`camera0`, `url1`: in file names, logs and statistics."""

    source: LiveSource
    sinks: list[Apart] = field(default_factory=list)
    """Recording, masks, lines: the recording first."""


class Live:
    """A run of one or several cameras through one model."""

    def __init__(
        self,
        cameras: Sequence[Camera],
        segment: Callable[[Frame, float], ClassMap],
        look: Callable[[Wanted], Overlay],
        classes: tuple[str, ...],
        *,
        controls: Controls,
        numbers: LiveNumbers,
        shared: Sequence[Apart] = (),
        window: Apart | None = None,
        poll_window: Callable[[], None] = lambda: None,
        snapshots: Apart | None = None,
        max_age_ms: float | None = None,
        every_frame: bool = False,
        identity: Mapping[str, Any] | None = None,
        on_second: Callable[[Mapping[str, Any]], None] | None = None,
        on_left: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Puts the parts together; nothing runs yet.

        Args:
            cameras: where frames come from, and the sinks of each.
            segment: class map of a frame, given the width of its pixels divided by their height.
            look: the overlay for what is wanted at the moment.
            classes: the model's class names.
            controls: what the person wants; `quit` ends the run.
            numbers: given new numbers each second.
            shared: sinks that show all cameras: web page, push.
            window: one more of these, whose `turn` is called by the thread that called `run`.
            poll_window: called by that thread between two pictures, for keys.
            snapshots: takes a frame for each snapshot that is asked for.
            max_age_ms: frames older than this are not shown.
            every_frame: drop nothing, accept delay.
            identity: what ran, for the numbers.
            on_second: told the numbers each second.
            on_left: told each frame's age in milliseconds when it has left its last sink, in that sink's thread.
        """
        self._cameras = cameras
        self._segment, self._look = segment, look
        self._controls, self._numbers = controls, numbers
        self._window, self._poll_window, self._snapshots = window, poll_window, snapshots
        self._shared = [*shared, *([window] if window else [])]
        self._max_age_ns = None if max_age_ms is None else round(max_age_ms * 1e6)
        self._identity = dict(identity or {})
        self._on_second, self._on_left = on_second, on_left
        self._whole = LiveStats(classes)
        several = len(cameras) > 1
        self._stats = [LiveStats(classes, self._whole) if several else self._whole for _ in cameras]
        self._mosaic = Mosaic([camera.name for camera in cameras]) if several else None
        self._newest = Newest(len(cameras), every_frame=every_frame)
        self._failure: BaseException | None = None
        self._hud_lines: tuple[str, ...] = ()
        self._wanted: Wanted | None = None
        self._overlay: Overlay | None = None
        self._captures = [
            threading.Thread(target=self._capture, args=(number,), name=f"rtseg-{camera.name}", daemon=True)
            for number, camera in enumerate(cameras)
        ]
        self._road = threading.Thread(target=self._run_road, name="rtseg-road", daemon=True)

    def run(self, *, wait: bool = False) -> dict[str, Any]:
        """Runs until `controls.quit`, or until all inputs have ended.

        Args:
            wait: go on waiting where no camera can be opened at first.

        Returns:
            The statistics, as `--stats` writes them.

        Raises:
            SourceError: no camera could be opened.
            RtsegError: the model failed. Files are completed before.
        """
        gc.freeze()  # what is there now stays: the collections behind each closed container look at the rest alone
        for capture in self._captures:
            capture.start()
        try:
            self._wait_for_cameras(wait)
            for stats in {id(stats): stats for stats in (*self._stats, self._whole)}.values():
                stats.stats.start()
            self._road.start()
            self._serve()
        finally:
            self._stop()
            gc.unfreeze()
        if self._failure is not None:
            raise self._failure
        return self.to_dict()

    # The threads

    def _capture(self, number: int) -> None:
        """One camera's thread: decodes all, hands over each frame."""
        source, stats = self._cameras[number].source, self._stats[number]
        try:
            for item in source:
                if isinstance(item, Frame):
                    stats.spent("decode", source.decode_seconds)
                    if not self._newest.put(Captured(number, item, source.info)):
                        break
        except BaseException as failure:  # raised again by `run`
            self._fail(failure)
        finally:
            source.tried.set()
            self._newest.end(number)

    def _run_road(self) -> None:
        """The loop's own thread."""
        try:
            while (item := self._newest.take()) is not None:
                self._take(item)
        except BaseException as failure:  # raised again by `run`
            self._fail(failure)

    def _fail(self, failure: BaseException) -> None:
        if self._failure is None:
            self._failure = failure
        self._controls.quit()

    # One frame

    def _take(self, item: Captured) -> None:
        frame, stats = item.frame, self._stats[item.camera]
        if self._too_old(frame):
            stats.refused(segmented=False)
            return
        taken_ns, begin = time.monotonic_ns(), time.perf_counter()
        classes = self._segment(frame, float(item.info.sample_aspect_ratio))
        inferred = time.perf_counter()
        stats.spent("infer", inferred - begin)
        stats.saw(classes)
        if self._too_old(frame):
            stats.refused(segmented=True)
            return
        wanted, overlay = self._current_look()
        shown = overlay.apply(frame, classes, self._hud_lines)
        camera = self._cameras[item.camera]
        result = Shown(frame, classes, shown, camera.name, item.info, taken_ns, (inferred - begin) * 1e3)
        everyone = result
        if self._mosaic is not None and self._shared:
            everyone = self._mosaic.put(item.camera, result)
        stats.spent("overlay", time.perf_counter() - inferred)
        shared = [] if wanted.paused else self._shared
        sinks = len(camera.sinks) + len(shared)
        leaving = _Leaving(max(1, sinks), frame.captured_ns, stats, self._on_left)
        if not sinks and not wanted.paused:
            leaving.one(0.0)  # nobody wants the picture: it has left here
        for sink in camera.sinks:
            sink.offer(result, leaving.one)
        for sink in shared:
            sink.offer(everyone, leaving.one)
        if self._snapshots is not None and self._controls.take_snapshot_request():
            self._snapshots.offer(everyone, lambda _: None)

    def _too_old(self, frame: Frame) -> bool:
        return self._max_age_ns is not None and time.monotonic_ns() - frame.captured_ns > self._max_age_ns

    def _current_look(self) -> tuple[Wanted, Overlay]:
        wanted = self._controls.wanted
        if self._overlay is None or wanted != self._wanted:
            self._overlay, self._wanted = self._look(wanted), wanted
        return wanted, self._overlay

    # The caller's thread

    def _wait_for_cameras(self, wait: bool) -> None:
        while not self._controls.wait_quit(0.02):
            sources = [camera.source for camera in self._cameras]
            if any(self._newest.read) or any(s.tried.is_set() and s.outages.connected for s in sources):
                return
            if not wait and all(source.tried.is_set() for source in sources):
                raise SourceError("; ".join(source.outages.reason for source in sources))

    def _serve(self) -> None:
        """Once a second the numbers, in between the window."""
        following = time.monotonic() + 1.0
        while not self._controls.quitting and self._road.is_alive():
            if self._window is not None and self._window.turn(WINDOW_SECONDS):
                self._poll_window()
            else:
                self._controls.wait_quit(min(0.2, max(0.0, following - time.monotonic())))
            if time.monotonic() >= following:
                following = max(following + 1.0, time.monotonic())
                self._tick()

    def _tick(self) -> None:
        now = self._whole.second(sum(self._newest.read), self._dropped())
        several = len(self._cameras) > 1
        parts = [
            stats.second(self._newest.read[number], self._dropped(number)) if several else now
            for number, stats in enumerate(self._stats)
        ]
        numbers = self.to_dict()
        numbers["now"] = now
        for item, part in zip(numbers.get("items", []), parts, strict=False):
            item["now"] = part
        self._hud_lines = (
            f"{now['shown_fps']:.0f} fps",
            f"model {now['engine_ms']:.1f} ms",
            f"age {now['age_ms']['p50']:.0f} ms",
        )
        if self._mosaic is not None:
            for number, camera in enumerate(self._cameras):
                since = camera.source.outages.since
                if since is not None:
                    self._mosaic.silent(number, f"no pictures for {time.monotonic() - since:.0f} s")
        self._numbers.publish(numbers)
        if self._on_second:
            self._on_second(numbers)

    def _stop(self) -> None:
        """Ends all threads: at once after q or a signal, patiently after the end of the last input."""
        patience = STOP_SECONDS if self._controls.quitting else DRAIN_SECONDS
        deadline = time.monotonic() + patience
        self._newest.close()
        for camera in self._cameras:
            camera.source.close()
        sinks = [*(sink for camera in self._cameras for sink in camera.sinks), *self._shared]
        sinks += [self._snapshots] if self._snapshots else []
        if self._road.ident is not None:
            # A frame that is on its way still reaches the sinks; patient ones stop being waited for a little later.
            self._road.join(patience * 2 / 3)
        for sink in sinks:
            sink.finish()
        while self._window is not None and self._window.turn(0.0):
            pass
        for sink in sinks:
            while not sink.join(min(0.05, deadline - time.monotonic())) and time.monotonic() < deadline:
                if self._controls.quitting:
                    deadline = min(deadline, time.monotonic() + STOP_SECONDS)

    # Numbers

    def _dropped(self, number: int | None = None) -> int:
        if number is None:
            return sum(self._dropped(number) for number in range(len(self._cameras)))
        return self._newest.dropped[number] + self._stats[number].too_old

    def to_dict(self) -> dict[str, Any]:
        """The statistics as of now."""
        items = [self._camera_to_dict(number) for number in range(len(self._cameras))]
        shared = {sink.name: _sink_to_dict(sink) for sink in self._shared}
        if len(items) == 1:
            items[0]["sinks"] |= shared
            if shared and not self._cameras[0].sinks:
                items[0]["frames"]["written"] = self._shared[0].written
            return {**self._identity, **items[0]}
        outages = [item["outages"] for item in items]
        frames = [item["frames"] for item in items]
        whole = self._whole.to_dict(sum(self._newest.read), self._dropped(), sum(f["corrupt"] for f in frames))
        whole["frames"] = {key: sum(f[key] for f in frames) for key in whole["frames"]}
        return {
            **self._identity,
            **whole,
            "input": ", ".join(item["input"] for item in items),
            "sinks": shared,
            "outages": {
                "count": sum(outage["count"] for outage in outages),
                "seconds": round(sum(outage["seconds"] for outage in outages), 3),
                "connected": any(outage["connected"] for outage in outages),
            },
            "items": items,
        }

    def _camera_to_dict(self, number: int) -> dict[str, Any]:
        camera, source = self._cameras[number], self._cameras[number].source
        told = self._stats[number].to_dict(self._newest.read[number], self._dropped(number), source.corrupt)
        if camera.sinks:
            told["frames"]["written"] = camera.sinks[0].written
        return {
            "camera": camera.name,
            "input": source.info.name,
            **told,
            "sinks": {sink.name: _sink_to_dict(sink) for sink in camera.sinks},
            "outages": source.outages.to_dict(),
            "warnings": list(source.warnings),
        }


class _Leaving:
    """Waits for the last sink of a frame; only then has it left."""

    def __init__(self, sinks: int, captured_ns: int, stats: LiveStats, on_left: Callable[[float], None]) -> None:
        self._sinks, self._captured_ns, self._stats, self._on_left = sinks, captured_ns, stats, on_left
        self._slowest: float | None = None
        self._lock = threading.Lock()

    def one(self, seconds: float | None) -> None:
        """One sink has written the frame in so many seconds, or dropped it (None)."""
        with self._lock:
            self._sinks -= 1
            if seconds is not None:
                self._slowest = max(seconds, self._slowest or 0.0)
            last = self._sinks == 0
        if last and self._slowest is not None:
            self._stats.spent("encode", self._slowest)
            self._stats.left(self._captured_ns)
            self._on_left((time.monotonic_ns() - self._captured_ns) / 1e6)


def _sink_to_dict(sink: Apart) -> dict[str, Any]:
    mean_ms = sink.busy_seconds / sink.written * 1e3 if sink.written else 0.0
    told: dict[str, Any] = {"written": sink.written, "dropped": sink.dropped, "mean_ms": round(mean_ms, 2)}
    return told if sink.error is None else {**told, "error": sink.error}


def failures(sinks: Sequence[Apart]) -> list[str]:
    """One line for each sink that died, or that did not end in time."""
    hung = [sink for sink in sinks if sink.error is None and not sink.join(0.0)]
    return [
        *(f"{sink.name}: {sink.error}" for sink in sinks if sink.error is not None),
        *(f"{sink.name}: not complete in time; what was written lies under its partial name" for sink in hung),
    ]


def left_behind() -> bool:
    """Whether a thread of a run still hangs, in a read or write that can't be interrupted."""
    return any(thread.name.startswith("rtseg-") for thread in threading.enumerate())
