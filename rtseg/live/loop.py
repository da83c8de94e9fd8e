"""The live loop: of each camera the newest frame through the model and to every sink, with an age that stays bounded.

    capture thread (one a camera)      the road: one thread, or several       a thread for each sink
    decode every packet ──newest──▶ segment, color ──newest (files: a few)──▶ encode, show, send

Nobody waits for what comes after: what can't be taken in time is dropped there, and counted.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rtseg.core.errors import SourceError
from rtseg.core.frame import ClassMap, Frame, StreamInfo
from rtseg.live.camera import Camera, FrameCompletion
from rtseg.live.controls import Controls, LiveNumbers, Wanted
from rtseg.live.live_frame import LiveFrame
from rtseg.live.load_shedding import Pace
from rtseg.live.mosaic import Mosaic
from rtseg.live.report import LiveReport
from rtseg.live.sink_thread import SinkThread
from rtseg.pipeline.frame_queue import Captured, LatestFrameQueue
from rtseg.render.overlay import Overlay

STOP_SECONDS = 1.5
"""How long sinks may take to end after q or a signal, unless their `closing_seconds` are more; what is not complete then stays
under its partial name."""

DRAIN_SECONDS = 60.0
"""The same where the last input came to its end."""

WINDOW_SECONDS = 0.02
"""How often a window looks for keys."""


class Live:
    """A run of one or several cameras through one model."""

    def __init__(
        self,
        cameras: Sequence[Camera],
        segment: Callable[[Frame, float], ClassMap],
        style: Callable[[Wanted], Overlay],
        classes: tuple[str, ...],
        *,
        controls: Controls,
        numbers: LiveNumbers,
        shared: Sequence[SinkThread] = (),
        window: SinkThread | None = None,
        poll_window: Callable[[], None] = lambda: None,
        snapshots: SinkThread | None = None,
        max_age_ms: float | None = None,
        every_frame: bool = False,
        streams: int = 1,
        pace: Pace | None = None,
        prepare: Callable[[StreamInfo], None] | None = None,
        ready: threading.Event | None = None,
        identity: Mapping[str, Any] | None = None,
        more: Callable[[], Mapping[str, Any]] = dict,
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
            streams: frames that are in `segment` at the same time, each of another camera.
            pace: says which frames are worked on; None: all that can be.
            prepare: makes the model ready for pictures of this kind; None: it is ready.
            ready: set once the model is ready, and at the end: files begin to play then, so that none of their frames is
                dropped while the model is loaded.
            identity: what ran, for the numbers.
            more: gives what else the numbers hold; called once a second.
            on_second: told the numbers each second.
            on_left: told each frame's age in milliseconds when it has left its last sink, in that sink's thread.
        """
        self._cameras = cameras
        self._segment, self._look, self._prepare = segment, style, prepare
        self._ready = ready or threading.Event()
        self._controls, self._numbers = controls, numbers
        self._window, self._poll_window, self._snapshots = window, poll_window, snapshots
        self._shared = [*shared, *([window] if window else [])]
        self._max_age_ns = None if max_age_ms is None else round(max_age_ms * 1e6)
        self._on_second, self._on_left, self._pace = on_second, on_left, pace
        self._mosaic = Mosaic([camera.name for camera in cameras]) if len(cameras) > 1 else None
        self._newest = LatestFrameQueue(len(cameras), every_frame=every_frame)
        self._report = LiveReport(cameras, self._shared, self._newest, classes, dict(identity or {}), more)
        self._failure: BaseException | None = None
        self._hud_lines: tuple[str, ...] = ()
        self._wanted: Wanted | None = None
        self._overlay: Overlay | None = None
        self._captures = [
            threading.Thread(target=self._capture, args=(number,), name=f"rtseg-{camera.name}", daemon=True)
            for number, camera in enumerate(cameras)
        ]
        self._paths = [
            threading.Thread(target=self._run_path, name="rtseg-road", daemon=True)
            for _ in range(max(1, min(streams, len(cameras))))
        ]
        self._showing = threading.Lock()

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
            self._warm_up()
            self._report.start()
            self._ready.set()
            for frame_path in self._paths:
                frame_path.start()
            self._serve()
        finally:
            self._stop()
            gc.unfreeze()
        if self._failure is not None:
            raise self._failure
        return self._report.to_dict()

    def _warm_up(self) -> None:
        """The model for the cameras that are there; what cannot wait meanwhile is dropped and counted as such."""
        if self._prepare is None:
            return
        for camera in self._cameras:
            if camera.source.info.width:
                self._prepare(camera.source.info)

    # The threads

    def _capture(self, number: int) -> None:
        """One camera's thread: decodes all, hands over each frame."""
        source, stats = self._cameras[number].source, self._report.of[number]
        try:
            for item in source:
                if isinstance(item, Frame):
                    stats.spent("decode", source.decode_seconds)
                    if self._pace is not None and item.index % self._pace.step.every:
                        self._newest.leave_out(number)
                    elif not self._newest.put(Captured(number, item, source.info)):
                        break
        except BaseException as failure:  # raised again by `run`
            self._fail(failure)
        finally:
            source.tried.set()
            self._newest.end(number)

    def _run_path(self) -> None:
        """A thread of the road: one camera's frame after another's."""
        try:
            while (item := self._newest.take()) is not None:
                try:
                    self._take(item)
                finally:
                    self._newest.done(item)
        except BaseException as failure:  # raised again by `run`
            self._fail(failure)

    def _fail(self, failure: BaseException) -> None:
        if self._failure is None:
            self._failure = failure
        self._controls.quit()

    # One frame

    def _take(self, item: Captured) -> None:
        frame, stats = item.frame, self._report.of[item.camera]
        if self._too_old(frame):
            stats.refused(segmented=False)
            return  # it ends as dropped
        taken_ns, begin = time.monotonic_ns(), time.perf_counter()
        camera = self._cameras[item.camera]
        classes = (camera.segment or self._segment)(frame, float(item.info.sample_aspect_ratio))
        inferred = time.perf_counter()
        if not self._newest.segmented(item):
            return  # the run has ended without it, and counted it as dropped
        stats.spent("infer", inferred - begin)
        stats.saw(classes)
        if self._too_old(frame):
            stats.refused(segmented=True)
            return
        wanted, overlay = self._current_look()
        rendered = overlay.apply(frame, classes, self._hud_lines)
        result = LiveFrame(frame, classes, rendered, camera.name, item.info, taken_ns, (inferred - begin) * 1e3)
        shared = [] if wanted.paused else self._shared
        sinks = len(camera.sinks) + len(shared)
        leaving = FrameCompletion(max(1, sinks), frame.captured_ns, stats, self._on_left)
        with self._showing:  # what all cameras share is given to the sinks in the order in which it was put together
            everyone = result
            if self._mosaic is not None and self._shared:
                everyone = self._mosaic.put(item.camera, result)
            stats.spent("overlay", time.perf_counter() - inferred)
            if not sinks and not wanted.paused:
                leaving.one(0.0)  # nobody wants the picture: it has left here
            for sink in shared:
                sink.offer(everyone, leaving.one)
            if self._snapshots is not None and self._controls.take_snapshot_request():
                self._snapshots.offer(everyone, lambda _: None)
        for sink in camera.sinks:
            sink.offer(result, leaving.one)

    def _too_old(self, frame: Frame) -> bool:
        return self._max_age_ns is not None and time.monotonic_ns() - frame.captured_ns > self._max_age_ns

    def _current_look(self) -> tuple[Wanted, Overlay]:
        wanted = self._controls.wanted
        with self._showing:
            if self._overlay is None or wanted != self._wanted:
                self._overlay, self._wanted = self._look(wanted), wanted
            return wanted, self._overlay

    # The caller's thread

    def _wait_for_cameras(self, wait: bool) -> None:
        while not self._controls.wait_quit(0.02):
            sources = [camera.source for camera in self._cameras]
            if any(self._newest.captured) or any(s.tried.is_set() and s.disconnects.connected for s in sources):
                return
            if not wait and all(source.tried.is_set() for source in sources):
                raise SourceError("; ".join(source.disconnects.reason for source in sources))

    def _serve(self) -> None:
        """Once a second the numbers, in between the window."""
        following = time.monotonic() + 1.0
        while not self._controls.quitting and any(frame_path.is_alive() for frame_path in self._paths):
            if self._window is not None and self._window.turn(WINDOW_SECONDS):
                self._poll_window()
            else:
                self._controls.wait_quit(min(0.2, max(0.0, following - time.monotonic())))
            if time.monotonic() >= following:
                following = max(following + 1.0, time.monotonic())
                self._tick()

    def _tick(self) -> None:
        numbers = self._report.second()
        now = numbers["now"]
        self._hud_lines = (
            f"{now['shown_fps']:.0f} fps",
            f"model {now['engine_ms']:.1f} ms",
            f"age {now['age_ms']['p50']:.0f} ms",
        )
        if self._mosaic is not None:
            for number, camera in enumerate(self._cameras):
                since = camera.source.disconnects.since
                if since is not None:
                    self._mosaic.silent(number, f"no pictures for {time.monotonic() - since:.0f} s")
        if self._pace is not None:
            self._pace.second(now)
        self._numbers.publish(numbers)
        if self._on_second:
            self._on_second(numbers)

    def _stop(self) -> None:
        """Ends all threads: at once after q or a signal, patiently after the end of the last input."""
        patience = STOP_SECONDS if self._controls.quitting else DRAIN_SECONDS
        begin = time.monotonic()
        self._newest.close()
        for camera in self._cameras:
            camera.source.close()
        self._ready.set()  # a file that still waits for it ends
        sinks = [*(sink for camera in self._cameras for sink in camera.sinks), *self._shared]
        sinks += [self._snapshots] if self._snapshots else []
        for frame_path in self._paths:
            # A frame that is on its way still reaches the sinks; patient ones stop being waited for a little later.
            if frame_path.ident is not None:
                frame_path.join(max(0.0, begin + patience * 2 / 3 - time.monotonic()))
        self._newest.abandon()
        for sink in sinks:
            sink.finish()
        while self._window is not None and self._window.turn(0.0):
            pass
        for sink in sinks:
            while not sink.join(0.05) and time.monotonic() - begin < max(patience, sink.closing_seconds):
                if self._controls.quitting:
                    patience = min(patience, time.monotonic() - begin + STOP_SECONDS)


def left_behind() -> bool:
    """Whether a thread of a run still hangs, in a read or write that can't be interrupted."""
    return any(thread.name.startswith("rtseg-") for thread in threading.enumerate())
