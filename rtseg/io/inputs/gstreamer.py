"""Source for frames from a GStreamer pipeline, which runs in a separate process and writes raw frames to a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import Disconnected, SourceError
from rtseg.core.frame import Frame, Passthrough, StreamInfo
from rtseg.core.secrets import redacted_pipeline
from rtseg.io.gstreamer.gdp import BUFFER, CAPS, HEADER, NANOSECOND, Header, RawVideo, read_caps, read_header
from rtseg.io.gstreamer.pipelines import file_decoder, file_pipeline, to_pipe
from rtseg.io.gstreamer.process import GStreamerProcess, words_of
from rtseg.io.inputs import Source
from rtseg.io.inputs.opened_file import MAX_PIXELS, open_at

LIVE_TIME_BASE = Fraction(1, 90_000)
_PIPE_BYTES = 1 << 20


class GStreamerSource(Source):
    """Source for one run of a pipeline.

    The constructor reads the first frame, so that `info` is available.

    Args:
        pipeline: elements in the syntax of gst-launch-1.0, ending in raw video: `v4l2src ! video/x-raw,width=1280`.
        name: name for messages; None: the pipeline.
        timeout: longest time without data in seconds.
        live: True: a camera or network stream, whose end is a disconnect; False: a file.
        codec, notes: for `StreamInfo`.

    Raises:
        OptionError: the pipeline can't be parsed.
        SourceError: GStreamer is missing, or the pipeline outputs no raw video.
        Disconnected: the pipeline ended or timed out before the first frame.
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
        # A larger pipe, if permitted, needs fewer context switches.
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(read_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._poll = select.poll()
        self._poll.register(read_fd, select.POLLIN | select.POLLHUP)
        try:
            first = self._next()
            if first is None:
                raise SourceError(f"{self._name}: the pipeline output no frame ({self._process.reason()})")
            self.info = self._describe()
            self._frames: Iterator[Frame] = chain([first], iter(self._next, None))
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        """Yield frames until the pipeline ends.

        Raises:
            Disconnected: a live pipeline ended, crashed or timed out, or its frames changed their format.
            SourceError: the pipeline of a file failed, or its frames changed their format.
        """
        return self._frames

    def close(self) -> None:
        """Stop the process. May be called twice, and from another thread to end a blocked read."""
        self._closing = True
        self._process.stop()
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._fd)

    def _next(self) -> Frame | None:
        with self._lock:
            while not self._closed:
                data = self._read(HEADER.size, is_header=True)
                if data is None:
                    return None
                begin, captured_ns = time.perf_counter(), time.monotonic_ns()
                header = self._parse(data.tobytes())
                payload = self._read(header.length)
                if payload is None:
                    return None
                if header.kind == CAPS:
                    self._set_caps(payload.tobytes().decode(errors="replace"))
                elif header.kind == BUFFER:
                    frame = self._frame(header, payload, captured_ns)
                    self.decode_seconds = time.perf_counter() - begin
                    return frame
        return None

    def _parse(self, data: bytes) -> Header:
        try:
            header = read_header(data)
        except ValueError as error:
            raise SourceError(f"{self._name}: the output of the pipeline is {error}") from error
        if header.kind == BUFFER and (self._video is None or header.length != self._video.size):
            expected = f"{self._video.size} bytes" if self._video else "its format first"
            raise SourceError(f"{self._name}: received a frame of {header.length} bytes, expected {expected}")
        return header

    def _frame(self, header: Header, data: npt.NDArray[np.uint8], captured_ns: int) -> Frame:
        video = self._video
        assert video is not None
        # Some cameras send frames without a time. Then the time is estimated from the arrival time.
        before_ns, arrived_ns = self._last_time or (captured_ns, captured_ns)
        nanoseconds = before_ns + captured_ns - arrived_ns if header.pts_ns is None else header.pts_ns
        self._last_time = nanoseconds, captured_ns
        if not self._live:  # times begin at 0; in a file with B-frames, the first one is a decoding time
            self._begin_ns = nanoseconds if self._begin_ns is None else self._begin_ns
            nanoseconds -= self._begin_ns
        pts = round(nanoseconds * NANOSECOND / LIVE_TIME_BASE)
        if not self._live:
            # Times must increase by at least one tick. For a live source, `LiveClock` ensures that.
            pts = max(self._last_pts + 1, pts)
        self._last_pts = pts
        frame = Frame(
            planes=video.planes(data),
            pixel_format="yuv420p",
            color=video.color,
            pts=pts,
            time_base=LIVE_TIME_BASE,
            index=self._index,
            duration=round((header.duration_ns or 0) * NANOSECOND / LIVE_TIME_BASE),
            captured_ns=captured_ns,
        )
        self._index += 1
        return frame

    def _set_caps(self, text: str) -> None:
        try:
            video = read_caps(text)
        except ValueError as error:
            raise SourceError(f"{self._name}: {error}") from error
        if video.width * video.height > MAX_PIXELS:
            raise SourceError(
                f"{self._name}: its frames have {video.width}x{video.height} pixels, more than {MAX_PIXELS}"
            )
        old = self._video
        if old is not None and (video.width, video.height, video.color) != (old.width, old.height, old.color):
            # A live source is then opened again, so that all later stages get the new size.
            kind = Disconnected if self._live else SourceError
            raise kind(f"{self._name}: frames changed from {old.width}x{old.height} to {video.width}x{video.height}")
        self._video = video

    def _read(self, count: int, *, is_header: bool = False) -> npt.NDArray[np.uint8] | None:
        """Return `count` bytes; None: the source was closed, or a file ended before the first byte of a header."""
        data = np.empty(count, np.uint8)
        view = memoryview(data)  # type: ignore[arg-type]
        while view:
            if not self._poll.poll(self._timeout_ms):
                raise Disconnected(f"{self._name}: no data for {self._timeout_ms / 1000:g} s")
            received = os.readv(self._fd, [view])
            if not received:
                self._check_end(is_header and len(view) == count)
                return None
            view = view[received:]
        return data

    def _check_end(self, between_packets: bool) -> None:
        """Raise an error unless the source was closed or a file ended between two packets."""
        if self._closing:
            return
        status = self._process.wait(1.0)
        if status == 0 and between_packets and not self._live:
            return
        kind = Disconnected if self._live or status is None else SourceError
        raise kind(f"{self._name}: {self._process.reason()}")

    def _describe(self) -> StreamInfo:
        video = self._video
        assert video is not None
        return StreamInfo(
            name=self._name,
            width=video.width,
            height=video.height,
            pixel_format="yuv420p",
            color=video.color,
            time_base=LIVE_TIME_BASE,
            frame_rate=video.frame_rate,
            sample_aspect_ratio=video.pixel_aspect,
            codec=self._codec,
            notes=self._notes,
        )


def open_file(path: str) -> GStreamerSource:
    """Open a video file for decoding by GStreamer. FFmpeg opens it first, as a check, so FFmpeg must also support it.

    Raises:
        SourceError: the file is missing or not a video, or GStreamer can't decode it.
    """
    opened = open_at(path)
    has_other_streams = len(opened.container.streams) > 1
    opened.container.close()
    notes = ("GStreamer decodes only the video: audio and subtitles are left out",) if has_other_streams else ()
    return GStreamerSource(file_pipeline(path), name=path, live=False, codec=file_decoder(), notes=notes)
