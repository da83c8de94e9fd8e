"""A live source that comes back: opened again whenever it goes away, with a clock that never runs backwards."""

from __future__ import annotations

import gc
import random
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from rtseg.core.errors import SourceError
from rtseg.core.frame import Color, Frame, StreamInfo
from rtseg.io.inputs import Source
from rtseg.io.inputs.live_clock import TIME_BASE, TS_WRAP_SECONDS, LiveClock
from rtseg.io.inputs.pacing import Pacer

FIRST_PAUSE_SECONDS = 0.5
"""Pause before the first new try, doubled with each that fails."""

GAP_SECONDS = 1.0
"""A silence longer than this, and than three times the usual distance of frames, is a disconnect even where the connection held."""

_TRIES_AT_ONE_PLACE = 4
"""A file that breaks off so often without another frame is given up."""

_PACE_FRAMES = 9
"""So many distances of frames tell what is usual: their median."""


@dataclass
class Disconnects:
    """Times without pictures, of one camera."""

    count: int = 0
    """Those that have begun so far."""

    seconds: float = 0.0
    """Length of those that are over."""

    connected: bool = False
    """Whether there are pictures now."""

    given_up: bool = False
    """Whether it is not tried again though reconnecting is wanted."""

    reason: str = ""
    """Why there were none the last time, in one line."""

    since: float | None = None
    """`time.monotonic()` of the last picture before the present disconnect; None while there are pictures."""

    def to_dict(self) -> dict[str, Any]:
        """For statistics. A disconnect that lasts is counted with its length so far."""
        since = self.since
        lasting = 0.0 if since is None else time.monotonic() - since
        return {
            "count": self.count,
            "seconds": round(self.seconds + lasting, 3),
            "connected": self.connected,
            **({"reason": self.reason} if self.reason else {}),
        }


class Reconnecting:
    """Frames of a source that is opened again whenever it ends or fails. Implements `rtseg.live.camera.LiveSource`.

    Any end of a live source is a disconnection; the end of a file behind a URL is the end. Between tries it waits, half a
    second at first and twice as long each time, shortened by a random part so that many clients do not come back at once. No
    frame is made up for the time between.
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
        """Opens nothing yet: that happens when the first frame is asked for.

        Args:
            name: for messages and statistics, without passwords.
            connect: opens the source; raises SourceError where that fails. Blocks for a bounded time.
            longest_pause_seconds: between two tries; 0: the first disconnection ends the stream.
            log: told in one line what happened.
            ready: a file begins to play once it is set; None: at once.
        """
        self._name, self._connect, self._log = name, connect, log
        self._longest, self._ready = longest_pause_seconds, ready
        self._closing = threading.Event()
        self._source: Source | None = None
        self._info = StreamInfo(name, 0, 0, "yuv420p", Color("bt709", False), TIME_BASE)
        self._corrupt_before = 0
        self._warnings_before: tuple[str, ...] = ()
        self._told: set[str] = set()
        self._clock = LiveClock()
        self._index = 0
        self._last_seconds: float | None = None
        self._steps: deque[float] = deque(maxlen=_PACE_FRAMES)
        self._played: Fraction | None = None
        self._finished = False
        self._reached_the_file = False
        self._tries = 0
        self.decode_seconds = 0.0
        self.disconnects = Disconnects()
        self.tried = threading.Event()

    @property
    def info(self) -> StreamInfo:
        """Of the newest frame; 0x0 before the first."""
        return self._info

    @property
    def corrupt(self) -> int:
        """Frames so far that could not be decoded, of all connections."""
        source = self._source
        return self._corrupt_before + (source.corrupt if source else 0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was met and mended so far, in this connection and the one before."""
        source, jumps = self._source, self._clock.jumps
        own: tuple[str, ...] = ()
        if jumps:
            times = "once" if len(jumps) == 1 else f"{len(jumps)} times"
            sizes = ", ".join(f"{size:+.1f} s" for size in jumps[:3]) + (", ..." if len(jumps) > 3 else "")
            own = (f"the stream's clock jumped {times} ({sizes}): joined by the time that passed",)
        return (*self._warnings_before, *(source.warnings if source else ()), *own)

    def close(self) -> None:
        """Ends the reading and the waiting, from any thread."""
        self._closing.set()
        source = self._source
        if source is not None:
            source.close()

    def __iter__(self) -> Iterator[Frame]:
        """Frames from 0 on, whose `pts` always rise, until `close`, or with `longest_pause_seconds=0` the first disconnect."""
        pause = FIRST_PAUSE_SECONDS
        while not self._closing.is_set():
            before = self._index
            try:
                yield from self._one_connection()
                reason = "the stream ended"
            except SourceError as error:
                reason = " ".join(str(error).split())
            finally:
                self._let_go()
            if self._closing.is_set() or self._finished:
                return
            if self._index > before:
                pause, self._tries = FIRST_PAUSE_SECONDS, 0
            self._tries += self._reached_the_file
            self._went_away(reason)
            if not self._longest:
                return
            if self._tries >= _TRIES_AT_ONE_PLACE:
                self.disconnects.given_up = True
                self._log(f"{self.disconnects.reason}: for the {self._tries}th time at the same place, given up")
                return
            wait = min(pause, self._longest) * random.uniform(0.5, 1.0)
            self._closing.wait(wait)
            pause = min(pause * 2, self._longest)

    def _one_connection(self) -> Iterator[Frame]:
        self._reached_the_file = False
        source = self._connect()
        self._source = source
        if self._closing.is_set():
            source.close()
            return
        self._clock.restart(getattr(source, "wrap_seconds", TS_WRAP_SECONDS))
        seconds: float | None = getattr(source, "file_seconds", None)
        if seconds is not None:
            yield from self._play(source, seconds)
            return
        for item in source:
            if isinstance(item, Frame):
                self.decode_seconds = getattr(source, "decode_seconds", 0.0)
                self._tell(source.warnings)
                yield self._place(item, source.info)
            if self._closing.is_set():
                return

    def _tell(self, warnings: tuple[str, ...]) -> None:
        """Each warning at once, and once."""
        for warning in warnings:
            if warning not in self._told:
                self._told.add(warning)
                self._log(f"{self._name}: {warning}")

    def _play(self, source: Source, seconds: float) -> Iterator[Frame]:
        """A file behind a URL: once, at its own pace; after a disconnection, from where it was."""
        if self._index and self._played is None:
            self._log(f"{self._name}: the stream is over, its recording complete")
            self._finished = True
            return
        if self._played is None:
            length = f" of {seconds:.1f} s" if seconds else ""
            self._log(f"{self._name} is a file{length}: it is played once, at its own pace")
        if self._ready is not None:
            self._info = replace(source.info, name=self._name, time_base=TIME_BASE)
            self.disconnects.connected = True
            self.tried.set()
            self._ready.wait()
        self._reached_the_file = True
        pacer = Pacer(self._closing)
        played = self._played
        for item in source:
            if not isinstance(item, Frame):
                continue
            own = item.pts * item.time_base
            if played is not None and own <= played:
                continue
            due = pacer.wait(own)
            if due is None:
                return
            self._played = own
            self.decode_seconds = getattr(source, "decode_seconds", 0.0)
            yield self._place(replace(item, captured_ns=due), source.info)
        self._finished = not self._closing.is_set()

    def _let_go(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()
            self._corrupt_before += source.corrupt
            self._warnings_before = tuple(source.warnings)
            del source
            gc.collect()  # PyAV's containers and streams hold each other: without this each connection would stay

    def _place(self, frame: Frame, info: StreamInfo) -> Frame:
        self._note_change(frame, info)
        self._came(frame.captured_ns / 1e9)
        pts = self._clock.place(frame.pts * frame.time_base, frame.captured_ns)
        placed = replace(
            frame,
            pts=pts,
            time_base=TIME_BASE,
            index=self._index,
            duration=round(frame.duration * frame.time_base / TIME_BASE),
        )
        self._index += 1
        return placed

    def _note_change(self, frame: Frame, info: StreamInfo) -> None:
        old, self._info = self._info, replace(info, name=self._name, time_base=TIME_BASE)
        was = (old.width, old.height, old.pixel_format)
        now = (info.width, info.height, info.pixel_format)
        if self._index and was != now:
            self._log(f"{self._name}: pictures are now {now[0]}x{now[1]} {now[2]}, were {was[0]}x{was[1]} {was[2]}")

    def _came(self, seconds: float) -> None:
        """A frame is there: whatever disconnect there was is over."""
        disconnects, last = self.disconnects, self._last_seconds
        if disconnects.since is None and last is not None:
            # A camera may send a picture every few seconds: the first distance alone tells nothing.
            silence = seconds - last
            if self._steps and silence > max(GAP_SECONDS, 3 * statistics.median(self._steps)):
                disconnects.count += 1
                disconnects.since = last
            self._steps.append(silence)
        if disconnects.since is not None:
            length = max(0.0, seconds - disconnects.since)
            disconnects.seconds += length
            disconnects.since = None
            self._log(f"{self._name}: pictures again, after {length:.1f} s without")
        self._last_seconds = seconds
        disconnects.connected = True
        self.tried.set()

    def _went_away(self, reason: str) -> None:
        disconnects = self.disconnects
        first = disconnects.since is None
        disconnects.reason = reason if self._name in reason else f"{self._name}: {reason}"
        disconnects.connected = False
        if first:
            disconnects.count += 1
            disconnects.since = time.monotonic() if self._last_seconds is None else self._last_seconds
        if first or not self._steps:
            again = "" if not self._longest else "; trying again"
            self._log(f"{disconnects.reason}{again}")
        self.tried.set()
