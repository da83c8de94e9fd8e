"""Video output encoded by GStreamer in a separate process, with the hardware encoder of a Jetson if available."""

from __future__ import annotations

import contextlib
import os
import select
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import SinkError
from rtseg.core.frame import Frame, ProcessedFrame, StreamInfo
from rtseg.io.gstreamer.gdp import BUFFER, NANOSECOND, RawVideo, stream_header, write_header
from rtseg.io.gstreamer.pipelines import GstEncoder, to_file
from rtseg.io.gstreamer.process import GStreamerProcess, words_of
from rtseg.io.outputs.file_sink import FileWriter
from rtseg.io.outputs.frame_format import FrameFormat, FrameFormatter

_STALL_SECONDS = 10.0


class FramePipe:
    """Running GStreamer pipeline that reads frames of one size, in `yuv420p`, from its standard input, `pipelines.STDIN_FD`.

    `name` is the name of the output for messages.

    Raises:
        SinkError: GStreamer is missing.
    """

    def __init__(self, pipeline: str, info: StreamInfo, frame_format: FrameFormat, name: str) -> None:
        self._name = name
        self._formatter = FrameFormatter(frame_format)
        width, height = frame_format.size
        self._video = RawVideo(width, height, frame_format.color, info.frame_rate, info.sample_aspect_ratio)
        self._process = GStreamerProcess(words_of(pipeline), error=SinkError, reads_stdin=True)
        self._fd = self._process.stdin_fd
        os.set_blocking(self._fd, False)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._buffer = np.zeros(self._video.size, np.uint8)
        self._header = stream_header(self._video)
        self._start_seconds: Fraction | None = None
        self.last_seconds: float | None = None
        """Time of the last frame after the first one."""
        self.frame_bytes = self._video.size
        """Size of a frame in the pipe."""

    def send(self, rendered: Frame) -> None:
        """Write one frame. Times begin at zero.

        Raises:
            SinkError: the process ended, or did not read for ten seconds, or the size of the frames changed.
        """
        self._formatter.check_size(rendered)
        frame = self._formatter.convert(rendered)
        for target, plane in zip(self._video.planes(self._buffer), frame.planes, strict=True):
            source = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)  # type: ignore[call-overload]
            target[:] = source[:, : plane.width]
        pts_seconds = rendered.pts * rendered.time_base
        if self._start_seconds is None:
            self._start_seconds = pts_seconds
        seconds = max(Fraction(0), pts_seconds - self._start_seconds)
        pts, duration = round(seconds / NANOSECOND), round(rendered.duration * rendered.time_base / NANOSECOND)
        self._write(self._header + write_header(BUFFER, self._video.size, pts, duration))
        self._header = b""
        self._write(self._buffer)
        self.last_seconds = float(seconds)

    def finish(self, timeout_seconds: float) -> None:
        """Close the input, wait until the pipeline has written all frames, and stop the process in any case.

        Raises:
            SinkError: the pipeline failed or did not end in time.
        """
        try:
            with contextlib.suppress(BrokenPipeError):
                self._process.end_input()
            status = self._process.wait(timeout_seconds)
            if status != 0:
                cause = self._process.reason() if status is not None else f"not done after {timeout_seconds:g} s"
                raise SinkError(f"{self._name}: GStreamer failed: {cause}")
        finally:
            self._process.stop()

    def stop(self) -> None:
        """Stop the process."""
        self._process.stop()

    def _write(self, data: bytes | npt.NDArray[np.uint8]) -> None:
        view = memoryview(data)  # type: ignore[arg-type]
        while view:
            if not self._poll.poll(_STALL_SECONDS * 1000):
                raise SinkError(f"{self._name}: GStreamer read no frame for {_STALL_SECONDS:g} s")
            try:
                with contextlib.suppress(BlockingIOError):  # the pipe has less free space than the write needs
                    view = view[os.write(self._fd, view) :]
            except OSError as error:
                raise SinkError(f"{self._name}: GStreamer ended: {self._process.reason()}") from error


class GStreamerWriter(FileWriter):
    """Writer that encodes a file with GStreamer: `.mp4`, `.mkv` or `.ts`.

    `name` is the name of the output for messages. `live` reads back only the index and the last seconds of the file.

    Raises:
        SinkError: GStreamer is missing.
    """

    warnings: tuple[str, ...] = ()

    def __init__(
        self, path: Path, name: str, info: StreamInfo, frame_format: FrameFormat, element: GstEncoder, *, live: bool
    ) -> None:
        self.encoder = element.name
        self.size = frame_format.size
        self._live = live
        video_only = ("GStreamer writes video only: audio and subtitles are left out",) if info.streams else ()
        self.warnings = (*video_only, *frame_format.warnings)
        self._pipe = FramePipe(to_file(str(path), element), info, frame_format, name)

    @property
    def last_seconds(self) -> float | None:
        """Time of the last frame of a recording; None: the whole file must be read."""
        return self._pipe.last_seconds if self._live else None

    def write(self, item: ProcessedFrame) -> bool:
        """Encode one frame. Raises SinkError if GStreamer failed, or the size of the frames changed."""
        self._pipe.send(item.rendered)
        return True

    def finish(self, timeout_seconds: float) -> None:
        """Complete the file and end the process. Raises SinkError if the pipeline failed or did not end in time."""
        self._pipe.finish(timeout_seconds)
