"""Live source that reconnects after each disconnect, with timestamps that never run backwards."""

from __future__ import annotations

import gc
import random
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

from rtseg.core.errors import SourceError
from rtseg.core.frame import Color, Frame, StreamInfo
from rtseg.io.inputs import Source
from rtseg.io.inputs.live_clock import TIME_BASE, LiveClock
from rtseg.io.inputs.pacing import Pacer
from rtseg.live.disconnects import Disconnects

FIRST_PAUSE_SECONDS = 0.5
"""Pause before the first attempt to reconnect, doubled after each failed attempt."""

GAP_SECONDS = 1.0
"""A gap longer than this and than three times the usual frame interval is a disconnect, even if the connection stays open."""

_MAX_ATTEMPTS_PER_POSITION = 4
"""Number of connections to a file without a new frame after which the file is given up."""

_PLAYLIST_DELAY_SECONDS = 0.05
"""Largest delay of a frame of a live playlist that later frames make up for."""

_REPEATED_SECONDS = 60.0
"""Longest time that is played again after a reconnection to a live playlist. A clock that is set back further is another one."""

_INTERVAL_COUNT = 9
"""Number of frame intervals whose median is the usual interval."""


class ReconnectingSource(Source):
    """Source that is opened again whenever it ends or fails. Implements `rtseg.live.camera.LiveSource`.

    Any end of a live stream is a disconnect; the end of a file behind a URL ends the source. The pause between two attempts
    starts at half a second and doubles, minus random jitter so that many clients do not reconnect at the same time. No frames
    are invented for the gap.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Source],
        *,
        longest_pause_seconds: float = 30.0,
        log: Callable[[str], None] = lambda _: None,
        ready: threading.Event | None = None,
    ) -> None:
        """Create the source without opening it; iteration opens it.

        Args:
            name: name in messages and statistics, without passwords.
            connect: opens the source; raises SourceError on failure. Blocks for a bounded time.
            longest_pause_seconds: longest pause between two attempts; 0: the first disconnect ends the stream.
            log: called with one line per event.
            ready: a file starts playing when it is set; None: immediately.
        """
        self._name, self._connect, self._log = name, connect, log
        self._longest_pause, self._ready = longest_pause_seconds, ready
        self._closing = threading.Event()
        self._source: Source | None = None
        self.info = StreamInfo(name, 0, 0, "yuv420p", Color("bt709", False), TIME_BASE)  # until the first frame
        self._corrupt_before = 0
        self._warnings_before: tuple[str, ...] = ()
        self._logged_warnings: set[str] = set()
        self._clock = LiveClock()
        self._index = 0
        self._last_frame_seconds: float | None = None
        self._intervals: deque[float] = deque(maxlen=_INTERVAL_COUNT)
        self._played: Fraction | None = None
        self._played_live: Fraction | None = None
        self._finished = False
        self._file_opened = False
        self._attempts = 0
        self.disconnects = Disconnects()
        self.connect_attempted = threading.Event()

    @property
    def corrupt(self) -> int:
        """Number of frames so far that could not be decoded, in all connections."""
        source = self._source
        return self._corrupt_before + (source.corrupt if source else 0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems that were detected and handled, in this connection and the previous one."""
        source, jumps = self._source, self._clock.jumps
        clock_warnings: tuple[str, ...] = ()
        if jumps:
            times = "once" if len(jumps) == 1 else f"{len(jumps)} times"
            sizes = ", ".join(f"{size:+.1f} s" for size in jumps[:3]) + (", ..." if len(jumps) > 3 else "")
            clock_warnings = (f"the stream's clock jumped {times} ({sizes}): continued by the time that passed",)
        return (*self._warnings_before, *(source.warnings if source else ()), *clock_warnings)

    def close(self) -> None:
        """End the iteration and all waiting. May be called from any thread."""
        self._closing.set()
        source = self._source
        if source is not None:
            source.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames with rising `pts` until `close`, or with `longest_pause_seconds=0` until the first disconnect."""
        pause = FIRST_PAUSE_SECONDS
        while not self._closing.is_set():
            index_before = self._index
            try:
                yield from self._read_connection()
                reason = "the stream ended"
            except SourceError as error:
                reason = " ".join(str(error).split())
            finally:
                self._release_source()
            if self._closing.is_set() or self._finished:
                return
            if self._index > index_before:
                pause, self._attempts = FIRST_PAUSE_SECONDS, 0
            self._attempts += self._file_opened
            self._record_disconnect(reason)
            if not self._longest_pause:
                return
            if self._attempts >= _MAX_ATTEMPTS_PER_POSITION:
                self.disconnects.given_up = True
                self._log(f"{self.disconnects.reason}: given up after {self._attempts} attempts at the same position")
                return
            self._closing.wait(min(pause, self._longest_pause) * random.uniform(0.5, 1.0))
            pause = min(pause * 2, self._longest_pause)

    def _read_connection(self) -> Iterator[Frame]:
        self._file_opened = False
        source = self._connect()
        self._source = source
        if self._closing.is_set():
            source.close()
            return
        self._clock.restart(source.wrap_seconds)
        if source.file_seconds is not None:
            yield from self._play_file(source, source.file_seconds)
            return
        # A part that comes late moves the timeline. Otherwise its frames would come too fast to process all of them.
        pacer = Pacer(self._closing, _PLAYLIST_DELAY_SECONDS) if source.is_live_playlist else None
        skipping = pacer is not None
        for item in source:
            if isinstance(item, Frame):
                if pacer is not None:
                    skipping = skipping and self._was_played(item)
                    if skipping:
                        continue
                    self._played_live = item.pts * item.time_base
                self.decode_seconds = source.decode_seconds
                self._log_warnings(source.warnings)
                yield self._timestamped(item, source.info, pacer)
            if self._closing.is_set():
                return

    def _was_played(self, frame: Frame) -> bool:
        """Return whether a frame of a live playlist was played before the reconnection: it begins some parts before its end."""
        played = self._played_live
        return played is not None and 0 <= played - frame.pts * frame.time_base < _REPEATED_SECONDS

    def _log_warnings(self, warnings: tuple[str, ...]) -> None:
        """Log each new warning once."""
        for warning in warnings:
            if warning not in self._logged_warnings:
                self._logged_warnings.add(warning)
                self._log(f"{self._name}: {warning}")

    def _play_file(self, source: Source, seconds: float) -> Iterator[Frame]:
        """Play a file behind a URL once at its own frame rate; after a disconnect continue at the same position."""
        if self._index and self._played is None:
            self._log(f"{self._name}: the live stream has ended: its playlist is complete")
            self._finished = True
            return
        if self._played is None:
            length = f" of {seconds:.1f} s" if seconds else ""
            self._log(f"{self._name} is a file{length}: played once at its own frame rate")
        if self._ready is not None:
            self.info = replace(source.info, name=self._name, time_base=TIME_BASE)
            self.disconnects.connected = True
            self.connect_attempted.set()
            self._ready.wait()
        self._file_opened = True
        pacer = Pacer(self._closing)
        played = self._played
        for item in source:
            if not isinstance(item, Frame):
                continue
            position = item.pts * item.time_base
            if played is not None and position <= played:
                continue
            due_ns = pacer.wait(position)
            if due_ns is None:
                return
            self._played = position
            self.decode_seconds = source.decode_seconds
            yield self._timestamped(replace(item, captured_ns=due_ns), source.info)
        self._finished = not self._closing.is_set()

    def _release_source(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()
            self._corrupt_before += source.corrupt
            self._warnings_before = tuple(source.warnings)
            del source
            gc.collect()  # PyAV's containers and streams are reference cycles: without this they would stay in memory

    def _timestamped(self, frame: Frame, info: StreamInfo, pacer: Pacer | None = None) -> Frame:
        self._update_info(info)
        frame = on_clock(self._clock, frame, frame.pts * frame.time_base, self._index)
        if pacer is not None and (due_ns := pacer.wait(frame.pts * frame.time_base)) is not None:
            frame = replace(frame, captured_ns=due_ns)
        self._record_frame(frame.captured_ns / 1e9)
        self._index += 1
        return frame

    def _update_info(self, info: StreamInfo) -> None:
        old, self.info = self.info, replace(info, name=self._name, time_base=TIME_BASE)
        before = (old.width, old.height, old.pixel_format)
        now = (info.width, info.height, info.pixel_format)
        if self._index and before != now:
            self._log(
                f"{self._name}: frames are now {now[0]}x{now[1]} {now[2]}, were {before[0]}x{before[1]} {before[2]}"
            )

    def _record_frame(self, seconds: float) -> None:
        """Record the arrival of a frame, which ends a current disconnect."""
        disconnects, last = self.disconnects, self._last_frame_seconds
        if last is not None:
            seconds = max(seconds, last)  # with B-frames the decoder may return a frame from before a gap behind it
        if disconnects.since is None and last is not None:
            # A camera may send one frame every few seconds: the first interval has no reference.
            interval = seconds - last
            if self._intervals and interval > max(GAP_SECONDS, 3 * statistics.median(self._intervals)):
                disconnects.count += 1
                disconnects.since = last
            self._intervals.append(interval)
        if disconnects.since is not None:
            length = max(0.0, seconds - disconnects.since)
            disconnects.seconds += length
            disconnects.since = None
            self._log(f"{self._name}: frames again after {length:.1f} s without")
        self._last_frame_seconds = seconds
        disconnects.connected = True
        self.connect_attempted.set()

    def _record_disconnect(self, reason: str) -> None:
        disconnects = self.disconnects
        first = disconnects.since is None
        disconnects.reason = reason if self._name in reason else f"{self._name}: {reason}"
        disconnects.connected = False
        if first:
            disconnects.count += 1
            last = self._last_frame_seconds
            disconnects.since = time.monotonic() if last is None else last
        if first or not self._intervals:
            suffix = "; reconnecting" if self._longest_pause else ""
            self._log(f"{disconnects.reason}{suffix}")
        self.connect_attempted.set()


def on_clock(clock: LiveClock, frame: Frame, position_seconds: Fraction, index: int) -> Frame:
    """Return the frame at a position of a stream with its time on `clock`, in units of `TIME_BASE`, and its index."""
    pts = clock.place(position_seconds, frame.captured_ns)
    duration = round(frame.duration * frame.time_base / TIME_BASE)
    return replace(frame, pts=pts, time_base=TIME_BASE, duration=duration, index=index)
