"""Live loop: run the latest frame of each camera through the model and pass it to all sinks, with a bounded age.

    capture thread (one per camera)     inference threads (one or more)      one thread per sink
    decode every packet ──latest──▶ segment, render overlay ──latest (files: a few)──▶ encode, display, send

No stage waits for the next one: a frame that the next stage can't take in time is dropped and counted.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rtseg.core.errors import SourceError
from rtseg.core.frame import ClassMap, Frame, ProcessedFrame, StreamInfo
from rtseg.live.camera import Camera, FrameCompletion
from rtseg.live.controls import Controls, DisplaySettings, LiveMetrics
from rtseg.live.load_shedding import LoadShedder
from rtseg.live.mosaic import Mosaic
from rtseg.live.report import LiveReport
from rtseg.live.sink_thread import SinkThread
from rtseg.pipeline.frame_queue import CapturedFrame, LatestFrameQueue
from rtseg.render.overlay import Overlay

STOP_SECONDS = 1.5
"""Time limit for closing the sinks after q or a signal, unless `closing_seconds` of a sink is longer. Incomplete files keep their
partial names."""

DRAIN_SECONDS = 60.0
"""Time limit for closing the sinks after the end of the last input."""

WINDOW_SECONDS = 0.02
"""Interval at which a window polls for keys."""


class LiveLoop:
    """Run of one or more cameras through one model."""

    def __init__(
        self,
        cameras: Sequence[Camera],
        segment: Callable[[Frame, float], ClassMap],
        make_overlay: Callable[[DisplaySettings], Overlay],
        classes: tuple[str, ...],
        *,
        controls: Controls,
        metrics: LiveMetrics,
        shared_sinks: Sequence[SinkThread] = (),
        window: SinkThread | None = None,
        poll_window: Callable[[], None] = lambda: None,
        snapshots: SinkThread | None = None,
        max_age_ms: float | None = None,
        every_frame: bool = False,
        streams: int = 1,
        load_shedder: LoadShedder | None = None,
        prepare: Callable[[StreamInfo], None] | None = None,
        ready: threading.Event | None = None,
        identity: Mapping[str, Any] | None = None,
        extra_report: Callable[[], Mapping[str, Any]] = dict,
        on_report: Callable[[Mapping[str, Any]], None] | None = None,
        on_frame_done: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Create the threads without starting them.

        Args:
            cameras: sources, and the sinks of each.
            segment: returns the class map of a frame, given its pixel aspect ratio (width divided by height).
            make_overlay: returns the overlay for the current display settings.
            classes: class names of the model.
            controls: settings of the user; `quit` ends the run.
            metrics: receives a new report once per second.
            shared_sinks: sinks that show all cameras: web page, push.
            window: another shared sink, whose `run_once` is called by the thread that calls `run`.
            poll_window: called by that thread between two frames, to read keys.
            snapshots: sink for requested snapshots.
            max_age_ms: maximum age of a displayed frame; older frames are not displayed.
            every_frame: drop nothing and accept delay.
            streams: number of frames in `segment` at the same time, each of another camera.
            load_shedder: selects the frames to segment; None: all that the model can take.
            prepare: prepares the model for the frames of a stream; None: the model is ready.
            ready: set when the model is ready, and at the end. Files start playing then, so that none of their frames is
                dropped while the model loads.
            identity: constant fields of the report: model, backend, device.
            extra_report: returns additional fields of the report; called once per second.
            on_report: called with the report once per second.
            on_frame_done: called with the age of each frame in milliseconds when its last sink has written it, in the thread
                of that sink.
        """
        self._cameras = cameras
        self._segment, self._make_overlay, self._prepare = segment, make_overlay, prepare
        self._ready = ready or threading.Event()
        self._controls, self._metrics = controls, metrics
        self._window, self._poll_window, self._snapshots = window, poll_window, snapshots
        self._shared_sinks = [*shared_sinks, *([window] if window else [])]
        self._max_age_ns = None if max_age_ms is None else round(max_age_ms * 1e6)
        self._on_report, self._on_frame_done, self._load_shedder = on_report, on_frame_done, load_shedder
        self._mosaic = Mosaic([camera.name for camera in cameras]) if len(cameras) > 1 else None
        self._queue = LatestFrameQueue(len(cameras), every_frame=every_frame)
        self._report = LiveReport(cameras, self._shared_sinks, self._queue, classes, dict(identity or {}), extra_report)
        self._failure: BaseException | None = None
        self._hud_lines: tuple[str, ...] = ()
        self._settings: DisplaySettings | None = None
        self._overlay: Overlay | None = None
        self._capture_threads = [
            threading.Thread(target=self._capture, args=(number,), name=f"rtseg-{camera.name}", daemon=True)
            for number, camera in enumerate(cameras)
        ]
        self._inference_threads = [
            threading.Thread(target=self._infer, name="rtseg-infer", daemon=True)
            for _ in range(max(1, min(streams, len(cameras))))
        ]
        self._display_lock = threading.Lock()

    def run(self, *, wait: bool = False) -> dict[str, Any]:
        """Run until `controls.quit` is called or all inputs have ended.

        Args:
            wait: keep waiting if no camera can be opened at first.

        Returns:
            The statistics, as written by `--stats`.

        Raises:
            SourceError: no camera could be opened.
            RtsegError: the model failed. All files are completed first.
        """
        gc.freeze()  # keeps the collections after each closed container short: they skip all present objects
        for thread in self._capture_threads:
            thread.start()
        try:
            self._wait_for_cameras(wait)
            self._warm_up()
            self._report.start()
            self._ready.set()
            for thread in self._inference_threads:
                thread.start()
            self._serve()
        finally:
            self._stop()
            gc.unfreeze()
        if self._failure is not None:
            raise self._failure
        return self._report.to_dict()

    def _warm_up(self) -> None:
        """Prepare the model for the connected cameras. Frames that can't wait meanwhile are dropped and counted."""
        if self._prepare is None:
            return
        for camera in self._cameras:
            if camera.source.info.width:
                self._prepare(camera.source.info)

    # Threads

    def _capture(self, number: int) -> None:
        """Decode all frames of one camera and put them into the queue."""
        source, stats = self._cameras[number].source, self._report.camera_stats[number]
        try:
            for item in source:
                if isinstance(item, Frame):
                    stats.add_stage_time("decode", source.decode_seconds)
                    if self._load_shedder is not None and item.index % self._load_shedder.level.frame_interval:
                        self._queue.skip(number)
                    elif not self._queue.put(CapturedFrame(number, item, source.info)):
                        break
        except BaseException as failure:  # raised again by `run`
            self._fail(failure)
        finally:
            source.connect_attempted.set()
            self._queue.end(number)

    def _infer(self) -> None:
        """Process frames from the queue until it ends."""
        try:
            while (item := self._queue.take()) is not None:
                try:
                    self._process(item)
                finally:
                    self._queue.done(item)
        except BaseException as failure:  # raised again by `run`
            self._fail(failure)

    def _fail(self, failure: BaseException) -> None:
        if self._failure is None:
            self._failure = failure
        self._controls.quit()

    # One frame

    def _process(self, item: CapturedFrame) -> None:
        """Segment a frame, render it and offer it to the sinks."""
        frame, stats = item.frame, self._report.camera_stats[item.camera]
        if self._is_stale(frame):
            stats.add_stale(segmented=False)
            return  # counted as dropped
        start_ns, start_seconds = time.monotonic_ns(), time.perf_counter()
        camera = self._cameras[item.camera]
        classes = (camera.segment or self._segment)(frame, float(item.info.sample_aspect_ratio))
        inferred_seconds = time.perf_counter()
        if not self._queue.segmented(item):
            return  # the run has ended meanwhile and counted the frame as dropped
        infer_seconds = inferred_seconds - start_seconds
        stats.add_stage_time("infer", infer_seconds)
        stats.add_segmented(classes)
        if self._is_stale(frame):
            stats.add_stale(segmented=True)
            return
        settings, overlay = self._current_overlay()
        rendered = overlay.apply(frame, classes, self._hud_lines)
        result = ProcessedFrame(frame, classes, rendered, item.info, camera.name, start_ns, infer_seconds)
        shared_sinks = [] if settings.paused else self._shared_sinks
        sink_count = len(camera.sinks) + len(shared_sinks)
        completion = FrameCompletion(max(1, sink_count), frame.captured_ns, stats, self._on_frame_done)
        with self._display_lock:  # shared sinks get the mosaics in the order in which they are composed
            displayed = result
            if self._mosaic is not None and self._shared_sinks:
                displayed = self._mosaic.update(item.camera, result)
            stats.add_stage_time("overlay", time.perf_counter() - inferred_seconds)
            if not sink_count and not settings.paused:
                completion.sink_done(0.0)  # no sink: the frame is done here
            for sink in shared_sinks:
                sink.offer(displayed, completion.sink_done)
            if self._snapshots is not None and self._controls.take_snapshot_request():
                self._snapshots.offer(displayed, lambda _: None)
        for sink in camera.sinks:
            sink.offer(result, completion.sink_done)

    def _is_stale(self, frame: Frame) -> bool:
        return self._max_age_ns is not None and time.monotonic_ns() - frame.captured_ns > self._max_age_ns

    def _current_overlay(self) -> tuple[DisplaySettings, Overlay]:
        settings = self._controls.settings
        with self._display_lock:
            if self._overlay is None or settings != self._settings:
                self._overlay, self._settings = self._make_overlay(settings), settings
            return settings, self._overlay

    # Thread of the caller

    def _wait_for_cameras(self, wait: bool) -> None:
        sources = [camera.source for camera in self._cameras]
        while not self._controls.wait_quit(0.02):
            if any(self._queue.captured):
                return
            if any(source.connect_attempted.is_set() and source.disconnects.connected for source in sources):
                return
            if not wait and all(source.connect_attempted.is_set() for source in sources):
                raise SourceError("; ".join(source.disconnects.reason for source in sources))

    def _serve(self) -> None:
        """Publish a report once per second and run the window in between."""
        next_report = time.monotonic() + 1.0
        while not self._controls.quitting and any(thread.is_alive() for thread in self._inference_threads):
            if self._window is not None and self._window.run_once(WINDOW_SECONDS):
                self._poll_window()
            else:
                self._controls.wait_quit(min(0.2, max(0.0, next_report - time.monotonic())))
            if time.monotonic() >= next_report:
                next_report = max(next_report + 1.0, time.monotonic())
                self._publish_report()

    def _publish_report(self) -> None:
        report = self._report.interval_report()
        now = report["now"]
        self._hud_lines = (
            f"{now['shown_fps']:.0f} fps",
            f"model {now['engine_ms']:.1f} ms",
            f"age {now['age_ms']['p50']:.0f} ms",
        )
        if self._mosaic is not None:
            for number, camera in enumerate(self._cameras):
                since = camera.source.disconnects.since
                if since is not None:
                    self._mosaic.mark_disconnected(number, f"no frames for {time.monotonic() - since:.0f} s")
        if self._load_shedder is not None:
            self._load_shedder.update(now)
        self._metrics.publish(report)
        if self._on_report:
            self._on_report(report)

    def _stop(self) -> None:
        """End all threads: soon after q or a signal, with time to drain after the end of the last input."""
        limit_seconds = STOP_SECONDS if self._controls.quitting else DRAIN_SECONDS
        begin = time.monotonic()
        self._queue.close()
        for camera in self._cameras:
            camera.source.close()
        self._ready.set()  # ends files that still wait for it
        sinks = [*(sink for camera in self._cameras for sink in camera.sinks), *self._shared_sinks]
        sinks += [self._snapshots] if self._snapshots else []
        for thread in self._inference_threads:
            # A frame in progress still reaches the sinks. `finish` below releases an `offer` that blocks.
            if thread.ident is not None:
                thread.join(max(0.0, begin + limit_seconds * 2 / 3 - time.monotonic()))
        self._queue.abandon()
        for sink in sinks:
            sink.finish()
        while self._window is not None and self._window.run_once(0.0):
            pass
        for sink in sinks:
            while not sink.join(0.05) and time.monotonic() - begin < max(limit_seconds, sink.closing_seconds):
                if self._controls.quitting:
                    limit_seconds = min(limit_seconds, time.monotonic() - begin + STOP_SECONDS)


def has_running_threads() -> bool:
    """Return True if a thread of a run is still blocked in a read or write that can't be interrupted."""
    return any(thread.name.startswith("rtseg-") for thread in threading.enumerate())
