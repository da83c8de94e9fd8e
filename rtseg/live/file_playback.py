"""Playback of a file at its own frame rate, to use it like a camera."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

from rtseg.core.frame import Frame
from rtseg.io.inputs import Source
from rtseg.io.inputs.live_clock import TIME_BASE, LiveClock
from rtseg.io.inputs.pacing import Pacer
from rtseg.live.disconnects import Disconnects
from rtseg.live.reconnect import on_clock


class FilePlayback(Source):
    """Source that yields the frames of a file when they are due. Implements `rtseg.live.camera.LiveSource`.

    The capture time of a frame is the time when it was due. Slow decoding therefore adds to its age.
    """

    def __init__(
        self, open_file: Callable[[], Source], *, loop: bool = False, ready: threading.Event | None = None
    ) -> None:
        """Open the file.

        Args:
            open_file: opens the file, and opens it again for `loop`.
            loop: restart at the end, without limit.
            ready: playback starts when it is set; None: immediately.

        Raises:
            SourceError: the file can't be read.
        """
        self._open_file, self._loop, self._ready = open_file, loop, ready
        self._source = open_file()
        self.info = replace(self._source.info, time_base=TIME_BASE, streams=(), chapters=())
        self._closing = threading.Event()
        self._corrupt_before = 0
        self._pacer = Pacer(self._closing)
        self.disconnects = Disconnects(connected=True)
        self.connect_attempted = threading.Event()
        self.connect_attempted.set()

    @property
    def corrupt(self) -> int:
        """Number of frames so far that could not be decoded."""
        return self._corrupt_before + self._source.corrupt

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems that were detected and handled so far, one line each."""
        delays = self._pacer.shift_count
        slow = f"the file could not be decoded at its own frame rate: playback was delayed {delays} times"
        return (*self._source.warnings, *((slow,) if delays else ()))

    def close(self) -> None:
        """End the iteration and all waiting. May be called from any thread."""
        self._closing.set()
        self._source.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames when they are due. Their `pts` are those of the file, from 0, and keep rising when the file repeats."""
        clock = LiveClock()
        offset = Fraction(0)
        first: Fraction | None = None
        index = 0
        if self._ready is not None:
            self._ready.wait()
        while True:
            end: Fraction | None = None
            for frame in self._timed_frames():
                position = frame.pts * frame.time_base
                first = position if first is None else first
                captured_ns = self._pacer.wait(offset + position)
                if captured_ns is None:
                    return
                end = position + (frame.duration * frame.time_base or 1 / (self.info.frame_rate or Fraction(25)))
                yield on_clock(clock, replace(frame, captured_ns=captured_ns), offset + position, index)
                index += 1
            if self._closing.is_set() or not self._loop or end is None or first is None:
                return
            offset += end - first
            self._reopen()

    def _timed_frames(self) -> Iterator[Frame]:
        frames = (item for item in self._source if isinstance(item, Frame))
        begin = time.perf_counter()
        for frame in frames:
            self.decode_seconds = time.perf_counter() - begin
            yield frame
            begin = time.perf_counter()

    def _reopen(self) -> None:
        before, self._source = self._source, self._open_file()
        self._corrupt_before += before.corrupt
        before.close()
        del before
        gc.collect()  # PyAV's containers and streams are reference cycles: without this they would stay in memory
