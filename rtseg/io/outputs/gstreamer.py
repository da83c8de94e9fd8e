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
from rtseg.io.gstreamer.gdp import BUFFER, LAYOUT_OF, RawVideo, stream_header, write_header
from rtseg.io.gstreamer.pipelines import STDIN_FD, GstEncoder, command_line, encoder, to_file
from rtseg.io.gstreamer.process import GStreamerProcess, words_of
from rtseg.io.outputs import Sink
from rtseg.io.outputs.partial_file import PartialFile
from rtseg.io.outputs.read_back import read_back
from rtseg.io.outputs.written_file import WrittenFile

_STALL_SECONDS = 10.0
_FINISH_SECONDS = 30.0
_ABORT_SECONDS = 1.5


class FramePipe:
    """Running GStreamer pipeline that reads frames of one size from its standard input.

    Args:
        pipeline: description of the pipeline; it reads from `STDIN_FD`.
        video: format of the frames.
        name: name of the output for messages.

    Raises:
        SinkError: GStreamer is missing.
    """

    def __init__(self, pipeline: str, video: RawVideo, name: str) -> None:
        assert f"fdsrc fd={STDIN_FD}" in pipeline
        self._name = name
        self._video = video
        self._process = GStreamerProcess(words_of(pipeline), error=SinkError, reads_stdin=True)
        self._fd = self._process.stdin_fd
        os.set_blocking(self._fd, False)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._buffer = np.zeros(video.size, np.uint8)
        self._header = stream_header(video)

    def send(self, frame: Frame, start_seconds: Fraction) -> None:
        """Write one frame.

        Args:
            frame: the frame.
            start_seconds: time of the first frame, which is subtracted from the frame's time.

        Raises:
            SinkError: the process ended, or did not read for ten seconds.
        """
        self._video.fill(self._buffer, frame.planes)
        ticks_per_second = 1_000_000_000
        pts = max(0, round((frame.pts * frame.time_base - start_seconds) * ticks_per_second))
        duration = round(frame.duration * frame.time_base * ticks_per_second)
        self._write(self._header + write_header(BUFFER, self._video.size, pts, duration))
        self._header = b""
        self._write(self._buffer)

    def finish(self, timeout_seconds: float) -> None:
        """Close the input and wait until the pipeline has written all frames.

        Raises:
            SinkError: the pipeline failed or did not end in time.
        """
        with contextlib.suppress(BrokenPipeError):
            self._process.end_input()
        status = self._process.wait(timeout_seconds)
        if status != 0:
            cause = self._process.reason() if status is not None else f"not done after {timeout_seconds:g} s"
            self._process.stop()
            raise SinkError(f"{self._name}: GStreamer failed: {cause}")

    def stop(self) -> None:
        """Stop the process."""
        self._process.stop()

    def _write(self, data: bytes | npt.NDArray[np.uint8]) -> None:
        view = memoryview(data)  # type: ignore[arg-type]
        while view:
            if not self._poll.poll(_STALL_SECONDS * 1000):
                raise SinkError(f"{self._name}: GStreamer read no frame for {_STALL_SECONDS:g} s")
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                continue  # the pipe has less free space than the write needs
            except OSError as error:
                raise SinkError(f"{self._name}: GStreamer ended: {self._process.reason()}") from error


class GStreamerSink(Sink):
    """Sink that encodes a file with GStreamer.

    Args:
        path: the output: `.mp4`, `.mkv` or `.ts`.
        info: the source.
        size: (width, height) of the rendered frames, pixels.
        crf: constant quality, for encoders that support it; None: 23.
        overwrite: replace an existing file.
        read_whole: read back the complete file. False: read only its index and last seconds, so the duration of the check does
            not depend on the length of the recording.

    Raises:
        SinkError: GStreamer or an encoder is missing, the container is unknown, or the file can't be written.
    """

    def __init__(
        self,
        path: str | Path,
        info: StreamInfo,
        *,
        size: tuple[int, int],
        crf: int | None = None,
        overwrite: bool = True,
        read_whole: bool = True,
    ) -> None:
        self._path = str(path)
        self.name = Path(path).name
        self._read_whole = read_whole
        self._last_seconds = 0.0
        self._size = size
        self._pixel_format = info.pixel_format
        self._encoder = _encoder(info, crf)
        to_file(self._path, self._encoder)  # raises for an unknown suffix before a file is created
        self._written = 0
        self._start_seconds: Fraction | None = None
        self._ended = False
        self._finished: WrittenFile | None = None
        self._omitted_streams = {stream.index: stream.type for stream in info.streams}
        self._partial = PartialFile(self._path, source=info.name, overwrite=overwrite)
        self._warnings = ("GStreamer writes video only: audio and subtitles are left out",) if info.streams else ()
        try:
            pipeline = to_file(str(self._partial.path), self._encoder)
            self._pipe = FramePipe(pipeline, raw_video(info, size), self.name)
        except BaseException:
            self._partial.discard()
            raise

    @property
    def written(self) -> int:
        """Number of frames written so far."""
        return self._written

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages about differences between output and input, one line each."""
        return (*self._warnings, *self._partial.warnings)

    @property
    def encoder(self) -> str:
        """Name of the encoder element, for statistics."""
        return self._encoder.name

    @property
    def partial_path(self) -> Path:
        """Path of the file until it is renamed."""
        return self._partial.path

    def write(self, item: ProcessedFrame) -> None:
        """Encode one frame.

        Raises:
            SinkError: GStreamer failed, or the size or pixel format of the frames changed.
        """
        rendered = item.rendered
        if (rendered.width, rendered.height) != self._size or rendered.pixel_format != self._pixel_format:
            raise SinkError(
                f"{self.name}: a frame is {rendered.width}x{rendered.height} {rendered.pixel_format}, the others {self._size}"
            )
        if self._start_seconds is None:
            self._start_seconds = rendered.pts * rendered.time_base
        self._pipe.send(rendered, self._start_seconds)
        self._written += 1
        self._last_seconds = float(rendered.pts * rendered.time_base - self._start_seconds)

    def finish(self) -> WrittenFile:
        """Complete the file under its `.partial` name and read it back. Further calls return the same result.

        Raises:
            SinkError: the file can't be written or read back.
        """
        if self._finished is None:
            self._ended = True
            self._pipe.finish(_FINISH_SECONDS)
            read_back(self._partial.path, self._written, None if self._read_whole else self._last_seconds)
            self._finished = WrittenFile(self._partial.path, self._written, self._size, left_out=self._omitted_streams)
        return self._finished

    def close(self) -> None:
        """Complete the file, read it back, and rename it to its final name.

        Raises:
            SinkError: the file can't be written, read back or renamed.
        """
        self.finish()
        self._partial.publish()

    def abort(self) -> None:
        """Keep the playable unfinished file under its `.partial` name. Does not raise."""
        if self._ended:
            return
        self._ended = True
        with contextlib.suppress(SinkError):  # a fragmented file plays without its end
            self._pipe.finish(_ABORT_SECONDS)
        self._pipe.stop()
        if not self._written:
            self._partial.discard()


def raw_video(info: StreamInfo, size: tuple[int, int]) -> RawVideo:
    """Return the GStreamer format of rendered frames of a source."""
    layout = LAYOUT_OF[info.pixel_format]
    return RawVideo(layout, *size, info.color, info.frame_rate, info.sample_aspect_ratio)


def dry_run(path: str | Path, info: StreamInfo, *, crf: int | None = None) -> str:
    """Return the command that `GStreamerSink` would run.

    Raises:
        SinkError: GStreamer or an encoder is missing, or the container is unknown.
    """
    return command_line(to_file(str(path), _encoder(info, crf)))


def _encoder(info: StreamInfo, crf: int | None) -> GstEncoder:
    """Return the GStreamer encoder for a source. Raise SinkError if none is installed."""
    return encoder(info.frame_rate or Fraction(25), quality=23 if crf is None else crf)
