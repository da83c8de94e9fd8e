"""Live loop: run the latest frame of each camera through the model and pass it to all sinks, with a bounded age.

    capture thread (one per camera)     inference threads (one or more)      one thread per sink
    decode every packet ──latest──▶ segment, render overlay ──latest (files: a few)──▶ encode, display, send

No stage waits for the next one: a frame that the next stage can't take in time is dropped and counted.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from rtseg.core.errors import SourceError
from rtseg.core.frame import Frame, StreamInfo
from rtseg.core.live_report import LiveReport
from rtseg.inference.segmenter import Segmenter
from rtseg.live.camera import Camera, FrameCompletion
from rtseg.live.controls import Controls, DisplaySettings
from rtseg.live.load_shedding import LoadShedder
from rtseg.live.mosaic import Mosaic
from rtseg.live.options import LiveOptions
from rtseg.live.outputs import SharedSinks
from rtseg.live.report import LiveReporter
from rtseg.pipeline.frame_queue import CameraQueues
from rtseg.pipeline.processor import FrameProcessor
from rtseg.render.overlay import Overlay
from rtseg.render.style import Style

MAX_WAITING_FRAMES = 32
"""Frames of one camera that wait with `every_frame` before its capture blocks: one second of video, 45 MB at 720p."""

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
        models: Sequence[Segmenter],
        style: Style,
        reporter: LiveReporter,
        controls: Controls,
        *,
        sinks: SharedSinks,
        options: LiveOptions,
        ready: threading.Event,
        load_shedder: LoadShedder | None = None,
        on_report: Callable[[LiveReport], None] = lambda _: None,
    ) -> None:
        """Create the threads without starting them.

        Args:
            cameras: sources, processors, and the sinks of each.
            models: the model, and the smaller one of `load_shedder` if there is one.
            style: display style; view, opacity and legend follow `controls`.
            reporter: statistics of the run.
            controls: settings of the user; `quit` ends the run.
            sinks: sinks that show all cameras.
            options: options of the run.
            load_shedder: selects the model and the frames to segment; None: all that the model can take.
            ready: set when the model is ready, and at the end. Files start playing then, so that none of their frames is
                dropped while the model loads.
            on_report: called with the report once per second.
        """
        self._cameras, self._models, self._style = cameras, models, style
        self._reporter, self._controls, self._sinks, self._options = reporter, controls, sinks, options
        self._load_shedder, self._ready, self._on_report = load_shedder, ready, on_report
        self._mosaic = Mosaic([camera.name for camera in cameras]) if len(cameras) > 1 else None
        self._queues: CameraQueues[tuple[Frame, StreamInfo]] = CameraQueues(
            len(cameras),
            MAX_WAITING_FRAMES if options.every_frame else 1,
            "block" if options.every_frame else "latest",
            on_drop=lambda camera, _: reporter.camera_stats[camera].frames.drop(),
        )
        self._failure: BaseException | None = None
        self._hud_lines: tuple[str, ...] = ()
        self._settings: DisplaySettings | None = None
        self._overlay: Overlay | None = None
        self._capture_threads = [
            threading.Thread(target=self._capture, args=(number,), name=f"rtseg-{camera.name}", daemon=True)
            for number, camera in enumerate(cameras)
        ]
        self._processing_threads = [
            threading.Thread(target=self._process_all, name="rtseg-process", daemon=True)
            for _ in range(max(1, min(models[0].streams, len(cameras))))
        ]
        self._display_lock = threading.Lock()

    def run(self) -> None:
        """Run until `controls.quit` is called or all inputs have ended.

        Raises:
            SourceError: no camera could be opened.
            RtsegError: the model failed. All files are completed first.
        """
        gc.freeze()  # keeps the collections after each closed container short: they skip all present objects
        for thread in self._capture_threads:
            thread.start()
        try:
            self._wait_for_cameras()
            self._warm_up()
            self._reporter.start()
            self._ready.set()
            for thread in self._processing_threads:
                thread.start()
            self._serve()
        finally:
            self._stop()
            gc.unfreeze()
        if self._failure is not None:
            raise self._failure

    def _warm_up(self) -> None:
        """Prepare the model for the connected cameras. Frames that can't wait meanwhile are dropped and counted."""
        for info in (camera.source.info for camera in self._cameras):
            for model in self._models if info.width else ():
                model.prepare(info.width, info.height, float(info.sample_aspect_ratio))

    # Threads

    def _capture(self, number: int) -> None:
        """Decode all frames of one camera and put them into its queue."""
        source, stats = self._cameras[number].source, self._reporter.camera_stats[number]
        try:
            for item in source:
                if not isinstance(item, Frame):
                    continue
                stats.add_stage("decode", source.decode_seconds)
                stats.frames.add()
                if self._load_shedder is not None and item.index % self._load_shedder.level.frame_interval:
                    stats.frames.drop()
                elif not self._queues.put(number, (item, source.info)):
                    stats.frames.drop()
                    break
        except BaseException as failure:  # raised again by `run`
            self._fail(failure)
        finally:
            source.connect_attempted.set()
            self._queues.close(number)

    def _process_all(self) -> None:
        """Process frames from the queues until they end."""
        try:
            while (taken := self._queues.take()) is not None:
                number, (frame, info) = taken
                try:
                    self._process(number, frame, info)
                finally:
                    self._queues.done(number)
        except BaseException as failure:  # raised again by `run`
            self._fail(failure)

    def _fail(self, failure: BaseException) -> None:
        if self._failure is None:
            self._failure = failure
        self._controls.quit()

    # One frame

    def _process(self, number: int, frame: Frame, info: StreamInfo) -> None:
        """Process a frame and offer it to the sinks. A frame that is not segmented at the end of the run is dropped."""
        camera, stats = self._cameras[number], self._reporter.camera_stats[number]
        stats.frames.begin()
        if self._is_stale(frame):
            stats.frames.finish(segmented=False)
            stats.add_stale(segmented=False)
            return
        settings = self._update(camera.processor)
        item = camera.processor.process(frame, info, self._hud_lines)
        if not stats.frames.finish():
            return
        if self._is_stale(frame):
            stats.add_stale(segmented=True)
            stats.add_processed(item)
            return
        shared_sinks = [] if settings.paused else self._sinks.all
        sink_count = len(camera.sinks) + len(shared_sinks)
        completion = FrameCompletion(max(1, sink_count), frame.captured_ns, stats)
        with self._display_lock:  # shared sinks get the mosaics in the order in which they are composed
            begin, displayed = time.perf_counter(), item
            if self._mosaic is not None and self._sinks.all:
                displayed = self._mosaic.update(number, item)
            mosaic_seconds = time.perf_counter() - begin
            stats.add_processed(replace(item, render_seconds=item.render_seconds + mosaic_seconds))
            if not sink_count and not settings.paused:
                completion.sink_done(0.0)  # no sink: the frame is done here
            for sink in shared_sinks:
                sink.offer(displayed, completion.sink_done)
            if self._sinks.snapshots is not None and self._controls.take_snapshot_request():
                self._sinks.snapshots.offer(displayed, lambda _: None)
        for sink in camera.sinks:
            sink.offer(item, completion.sink_done)

    def _is_stale(self, frame: Frame) -> bool:
        max_age_ms = self._options.max_age_ms
        return max_age_ms is not None and time.monotonic_ns() - frame.captured_ns > max_age_ms * 1e6

    def _update(self, processor: FrameProcessor) -> DisplaySettings:
        """Set the overlay and the model of a processor for its next frame, and return the display settings."""
        settings = self._controls.settings
        with self._display_lock:
            if self._overlay is None or settings != self._settings:
                style = replace(self._style, view=settings.view, alpha=settings.alpha, legend=settings.legend)
                self._overlay, self._settings = style.overlay(self._models[0].description), settings
            processor.overlay = self._overlay
        if self._load_shedder is not None:
            processor.model = self._models[self._load_shedder.level.model]
        return settings

    # Thread of the caller

    def _wait_for_cameras(self) -> None:
        sources = [camera.source for camera in self._cameras]
        while not self._controls.wait_quit(0.02):
            if any(stats.frames.decoded for stats in self._reporter.camera_stats):
                return
            if any(source.connect_attempted.is_set() and source.disconnects.connected for source in sources):
                return
            if not self._options.wait and all(source.connect_attempted.is_set() for source in sources):
                raise SourceError("; ".join(source.disconnects.reason for source in sources))

    def _serve(self) -> None:
        """Report once per second and run the window in between."""
        next_report, window = time.monotonic() + 1.0, self._sinks.window
        while not self._controls.quitting and any(thread.is_alive() for thread in self._processing_threads):
            if window is not None and window.run_once(WINDOW_SECONDS):
                self._sinks.poll_window()
            else:
                self._controls.wait_quit(min(0.2, max(0.0, next_report - time.monotonic())))
            if time.monotonic() >= next_report:
                next_report = max(next_report + 1.0, time.monotonic())
                self._publish_report()

    def _publish_report(self) -> None:
        report = self._reporter.interval_report()
        now = report.totals.now
        assert now is not None
        self._hud_lines = (
            f"{now.shown_fps:.0f} fps",
            f"model {now.engine_ms:.1f} ms",
            f"age {now.age_ms.p50:.0f} ms",
        )
        if self._mosaic is not None:
            for number, camera in enumerate(self._cameras):
                since = camera.source.disconnects.since
                if since is not None:
                    self._mosaic.mark_disconnected(number, f"no frames for {time.monotonic() - since:.0f} s")
        if self._load_shedder is not None:
            self._load_shedder.update(now)
        self._on_report(report)

    def _stop(self) -> None:
        """End all threads: soon after q or a signal, with time to drain after the end of the last input."""
        limit_seconds = STOP_SECONDS if self._controls.quitting else DRAIN_SECONDS
        begin = time.monotonic()
        self._queues.close(discard=True)
        for camera in self._cameras:
            camera.source.close()
        self._ready.set()  # ends files that still wait for it
        sinks = [*(sink for camera in self._cameras for sink in camera.sinks), *self._sinks.all]
        sinks += [self._sinks.snapshots] if self._sinks.snapshots else []
        for thread in self._processing_threads:
            # A frame in progress still reaches the sinks. `finish` below releases an `offer` that blocks.
            if thread.ident is not None:
                thread.join(max(0.0, begin + limit_seconds * 2 / 3 - time.monotonic()))
        self._reporter.end()
        for sink in sinks:
            sink.finish()
        while self._sinks.window is not None and self._sinks.window.run_once(0.0):
            pass
        for sink in sinks:
            while not sink.join(0.05) and time.monotonic() - begin < max(limit_seconds, sink.closing_seconds):
                if self._controls.quitting:
                    limit_seconds = min(limit_seconds, time.monotonic() - begin + STOP_SECONDS)
        for thread in self._capture_threads:
            thread.join(max(0.0, begin + STOP_SECONDS - time.monotonic()))


def has_running_threads() -> bool:
    """Return True if a thread of a run is still blocked in a read or write that can't be interrupted."""
    return any(thread.name.startswith("rtseg-") for thread in threading.enumerate())
