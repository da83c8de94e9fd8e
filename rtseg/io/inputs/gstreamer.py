"""Frames from GStreamer: its pipeline runs in a process of its own and writes raw pictures into a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import Disconnected, SourceError
from rtseg.core.frame import Frame, Passthrough, StreamInfo
from rtseg.core.secrets import redacted_pipeline
from rtseg.io.gstreamer.gdp import BUFFER, CAPS, HEADER, NANOSECOND, Header, RawVideo, read_caps, read_header
from rtseg.io.gstreamer.pipelines import command_line, csi_pipeline, file_decoder, file_pipeline, srt_pipeline, to_pipe
from rtseg.io.gstreamer.process import GStreamerProcess, words_of
from rtseg.io.inputs.opened_file import MAX_PIXELS, open_at

__all__ = ["GStreamerSource", "csi_pipeline", "dry_run", "file_pipeline", "srt_pipeline"]

LIVE_TIME_BASE = Fraction(1, 90_000)
_PIPE_BYTES = 1 << 20


class GStreamerSource:
    """One run of a pipeline. Implements `rtseg.io.inputs.Source`.

    The first frame is read on construction, so that `info` is what the pictures are.

    Args:
        pipeline: elements in the syntax of gst-launch-1.0, ending in raw pictures: `v4l2src ! video/x-raw,width=1280`.
        name: how messages call it; None: the pipeline.
        timeout: seconds without a byte after which it counts as gone.
        live: a camera or network stream, whose end is a loss; False: a file, whose end is the end.
        codec: what decodes, for statistics.
        notes: for people, what the pipeline leaves out.

    Raises:
        OptionError: a pipeline that can't be read.
        SourceError: GStreamer is missing, or no raw pictures come out.
        Disconnected: it ended or stayed silent before the first picture.
    """

    def __init__(
        self,
        pipeline: str,
        *,
        name: str | None = None,
        timeout: float = 10.0,
        live: bool = True,
        codec: str = "rawvideo",
        notes: tuple[str, ...] = (),
    ) -> None:
        self._codec, self._notes = codec, notes
        self._name = name or redacted_pipeline(pipeline)
        self._timeout_ms = max(1, round(timeout * 1000))
        self._live = live
        self._video: RawVideo | None = None
        self._closing = False
        self._closed = False
        self._lock = threading.Lock()
        self._index = 0
        self._last_pts = -1
        self._begin_ns: int | None = None
        self._last_time: tuple[int, int] | None = None
        self._decode_seconds = 0.0
        read_fd, write_fd = os.pipe()
        try:
            self._process = GStreamerProcess(
                words_of(to_pipe(pipeline, write_fd)), error=SourceError, output_fd=write_fd
            )
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        self._fd = read_fd
        with contextlib.suppress(OSError, AttributeError):  # Larger where the system lets us: fewer changes of process.
            fcntl.fcntl(read_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._poll = select.poll()
        self._poll.register(read_fd, select.POLLIN | select.POLLHUP)
        try:
            self._first = self._next()
            self._info = self._describe()
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> StreamInfo:
        """What is known before the first frame."""
        return self._info

    @property
    def corrupt(self) -> int:
        """Always 0: GStreamer does not hand on what it could not decode, nor count it."""
        return 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """Nothing is mended here."""
        return ()

    @property
    def decode_seconds(self) -> float:
        """What the last frame cost here: reading it from the pipe and separating its planes, without waiting for it."""
        return self._decode_seconds

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        """Frames until the pipeline ends.

        Raises:
            Disconnected: a live pipeline ended, crashed or stayed silent.
            SourceError: a file's pipeline failed, or the pictures changed their format.
        """
        first, self._first = self._first, None
        if first is not None:
            yield first
        while (frame := self._next()) is not None:
            yield frame

    def close(self) -> None:
        """Ends the process. May be called twice, and from another thread to end a blocked read."""
        self._closing = True
        self._process.stop()
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._fd)

    def _next(self) -> Frame | None:
        with self._lock:
            while not self._closed:
                header = self._header()
                if header is None:
                    return None
                begin, captured_ns = time.perf_counter(), time.monotonic_ns()
                payload = self._payload(header)
                if payload is None:
                    return None
                if header.kind == CAPS:
                    self._take_caps(payload.tobytes().decode(errors="replace"))
                elif header.kind == BUFFER:
                    frame = self._frame(header, payload, captured_ns)
                    self._decode_seconds = time.perf_counter() - begin
                    return frame
        return None

    def _header(self) -> Header | None:
        data = np.empty(HEADER.size, np.uint8)
        if not self._fill(data):
            return None
        try:
            return read_header(data.tobytes())
        except ValueError as error:
            raise SourceError(f"{self._name}: what the pipeline writes is {error}") from error

    def _payload(self, header: Header) -> npt.NDArray[np.uint8] | None:
        if header.kind == BUFFER and (self._video is None or header.length != self._video.size):
            expected = f"{self._video.size} bytes as {self._video.layout}" if self._video else "a format first"
            raise SourceError(f"{self._name}: a picture of {header.length} bytes came, but {expected} was expected")
        data = np.empty(header.length, np.uint8)
        complete = self._fill(data, first=False)
        return data if complete else None

    def _frame(self, header: Header, data: npt.NDArray[np.uint8], captured_ns: int) -> Frame:
        video = self._video
        assert video is not None
        # A frame without a time (some cameras give none) is placed by its arrival, behind the last one that had one.
        before_ns, arrived_ns = self._last_time or (captured_ns, captured_ns)
        nanoseconds = before_ns + captured_ns - arrived_ns if header.pts_ns is None else header.pts_ns
        self._last_time = nanoseconds, captured_ns
        if not self._live:  # a file with B-frames begins where its first picture is decoded, not where it is shown
            self._begin_ns = nanoseconds if self._begin_ns is None else self._begin_ns
            nanoseconds -= self._begin_ns
        pts = round(nanoseconds * NANOSECOND / LIVE_TIME_BASE)
        if (
            not self._live
        ):  # a time that does not rise is moved on by a tick; of a live source, `LiveClock` sees to that
            pts = max(self._last_pts + 1, pts)
        self._last_pts = pts
        frame = Frame(
            planes=video.planes(data),
            pixel_format=video.pixel_format,
            color=video.color,
            pts=pts,
            time_base=LIVE_TIME_BASE,
            index=self._index,
            duration=round((header.duration_ns or 0) * NANOSECOND / LIVE_TIME_BASE),
            captured_ns=captured_ns,
        )
        self._index += 1
        return frame

    def _take_caps(self, text: str) -> None:
        try:
            video = read_caps(text)
        except ValueError as error:
            raise SourceError(f"{self._name}: {error}") from error
        if video.width * video.height > MAX_PIXELS:
            raise SourceError(f"{self._name}: its pictures are {video.width}x{video.height}: more than {MAX_PIXELS}")
        if self._video is not None and _shape(video) != _shape(self._video):
            # Whoever reads a live source opens it again, and everything behind it gets the new size.
            kind = Disconnected if self._live else SourceError
            old = self._video
            raise kind(f"{self._name}: pictures changed from {old.width}x{old.height} to {video.width}x{video.height}")
        self._video = video

    def _fill(self, data: npt.NDArray[np.uint8], *, first: bool = True) -> bool:
        """Reads until `data` is full; False where the reading ends well: closed, or a file's end before a `first` byte."""
        view = memoryview(data)  # type: ignore[arg-type]
        while view:
            if not self._poll.poll(self._timeout_ms):
                raise Disconnected(f"{self._name}: silent for {self._timeout_ms / 1000:g} s")
            count = os.readv(self._fd, [view])
            if not count:
                return self._end(first and len(view) == len(data))
            view = view[count:]
        return True

    def _end(self, between_packets: bool) -> bool:
        if self._closing:
            return False
        status = self._process.wait(1.0)
        if status == 0 and between_packets and not self._live:
            return False
        kind = Disconnected if self._live or status is None else SourceError
        raise kind(f"{self._name}: {self._process.reason()}")

    def _describe(self) -> StreamInfo:
        video = self._video
        if self._first is None or video is None:
            raise SourceError(f"{self._name}: no picture came out of the pipeline ({self._process.reason()})")
        return StreamInfo(
            name=self._name,
            width=video.width,
            height=video.height,
            pixel_format=video.pixel_format,
            color=video.color,
            time_base=LIVE_TIME_BASE,
            frame_rate=video.frame_rate,
            sample_aspect_ratio=video.pixel_aspect,
            codec=self._codec,
            notes=self._notes,
        )


def open_file(path: str) -> GStreamerSource:
    """A video file decoded by GStreamer. FFmpeg looks at it first: it must be a video of a kind that it reads too.

    Raises:
        SourceError: missing, not a video, or GStreamer can't decode it.
    """
    opened = open_at(path, None, None, MAX_PIXELS)
    others = len(opened.container.streams) > 1
    opened.container.close()
    notes = ("GStreamer gives the pictures alone: sound and subtitles are left out",) if others else ()
    return GStreamerSource(file_pipeline(path), name=path, live=False, codec=file_decoder(), notes=notes)


def dry_run(pipeline: str) -> str:
    """The command that `GStreamerSource` would run, frames going to standard output.

    Raises:
        OptionError: as `GStreamerSource`.
    """
    words_of(pipeline)
    return command_line(to_pipe(pipeline, 1))


def _shape(video: RawVideo) -> tuple[object, ...]:
    return video.layout, video.width, video.height, video.color
