"""A file that plays at its own pace, like a camera: so that everything live can be tried without one."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

from rtseg.core.frame import Frame, StreamInfo
from rtseg.io.inputs import Source
from rtseg.io.inputs.live_clock import TIME_BASE, LiveClock
from rtseg.io.inputs.pacing import Pacer
from rtseg.live.reconnect import Disconnects


class Paced:
    """Gives a file's frames when they are due. Implements `rtseg.live.camera.LiveSource`.

    A frame counts as captured when it was due, so that what a machine too slow to decode adds to its age is seen.
    """

    def __init__(
        self, open_file: Callable[[], Source], *, loop: bool = False, ready: threading.Event | None = None
    ) -> None:
        """Opens the file.

        Args:
            open_file: opens it, and opens it again for `loop`.
            loop: begin anew at the end, for ever.
            ready: it begins to play once this is set; None: at once.

        Raises:
            SourceError: it can't be read.
        """
        self._open_file, self._loop, self._ready = open_file, loop, ready
        self._source = open_file()
        self._info = replace(self._source.info, time_base=TIME_BASE, streams=(), chapters=())
        self._closing = threading.Event()
        self._corrupt_before = 0
        self._pacer = Pacer(self._closing)
        self.decode_seconds = 0.0
        self.disconnects = Disconnects(connected=True)
        self.tried = threading.Event()
        self.tried.set()

    @property
    def info(self) -> StreamInfo:
        """Of the file, with live time stamps."""
        return self._info

    @property
    def corrupt(self) -> int:
        """Frames so far that could not be decoded."""
        return self._corrupt_before + self._source.corrupt

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was met and mended so far."""
        late = self._pacer.late
        slow = f"the file could not be decoded as fast as it plays: {late} times it went on later"
        return (*self._source.warnings, *((slow,) if late else ()))

    def close(self) -> None:
        """Ends the reading and the waiting, from any thread."""
        self._closing.set()
        self._source.close()

    def __iter__(self) -> Iterator[Frame]:
        """Frames when they are due; their `pts` are the file's, from 0, and go on rising with each round."""
        clock = LiveClock()
        shift = Fraction(0)
        first: Fraction | None = None
        index = 0
        if self._ready is not None:
            self._ready.wait()
        while True:
            last: Fraction | None = None
            for frame in self._timed_frames():
                own = frame.pts * frame.time_base
                first = own if first is None else first
                captured = self._pacer.wait(shift + own)
                if captured is None:
                    return
                last = own + (frame.duration * frame.time_base or self._nominal_seconds)
                yield replace(
                    frame,
                    pts=clock.place(shift + own, captured),
                    time_base=TIME_BASE,
                    index=index,
                    duration=round(frame.duration * frame.time_base / TIME_BASE),
                    captured_ns=captured,
                )
                index += 1
            if self._closing.is_set() or not self._loop or last is None or first is None:
                return
            shift += last - first
            self._reopen()

    def _timed_frames(self) -> Iterator[Frame]:
        items = iter(self._source)
        while True:
            begin = time.perf_counter()
            item = next(items, None)
            while item is not None and not isinstance(item, Frame):
                item = next(items, None)
            if item is None:
                return
            self.decode_seconds = time.perf_counter() - begin
            yield item

    def _reopen(self) -> None:
        following = self._open_file()
        before, self._source = self._source, following
        self._corrupt_before += before.corrupt
        before.close()
        del before
        gc.collect()  # PyAV's containers and streams hold each other: without this each round would leave one behind

    @property
    def _nominal_seconds(self) -> Fraction:
        return 1 / (self._info.frame_rate or Fraction(25))
