"""Streaming of the rendered frames to a server or receiver: RTSP, RTMP, MPEG-TS over UDP, SRT."""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import replace
from fractions import Fraction

import av

from rtseg.core.errors import OptionError, SinkError
from rtseg.core.frame import Frame, ProcessedFrame, StreamInfo
from rtseg.core.secrets import parse_url
from rtseg.io.gstreamer.pipelines import encoder, to_srt
from rtseg.io.options import OutputOptions
from rtseg.io.outputs import Sink
from rtseg.io.outputs.containers import Container
from rtseg.io.outputs.encoder import EncoderSettings, VideoEncoder
from rtseg.io.outputs.frame_format import FrameFormat
from rtseg.io.outputs.gstreamer import FramePipe

_FORMATS = {"rtsp": "rtsp", "rtmp": "flv", "rtmps": "flv", "udp": "mpegts"}
_TIMEOUT_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_PATIENCE_SECONDS = 1.0
"""A receiver that accepts no data for this long causes a warning."""

_PIPE_BYTES = 1 << 16
"""Capacity of an operating system pipe."""

_PIPELINE_FRAMES = 16
"""Upper bound of the number of frames inside the encoder and its queues."""

_TIME_BASE = Fraction(1, 90_000)
_DEFAULT_RATE = Fraction(25)


class PushSink(Sink):
    """Encoded stream to one address. Connects at the first frame, and again when the size or colors of the frames change.

    If the receiver is missing or disconnects, the sink reconnects after a pause that doubles from half a second to half a
    minute, and drops the frames of that time. PyAV passes no timeout to RTMP and holds Python's global lock while it opens a
    connection: a server that sends nothing blocks the program until the operating system ends the connection.

    UDP, and SRT with `mode=listener`, send with or without a receiver.

    Args:
        url: `rtsp://`, `rtmp://`, `rtmps://`, `udp://` (MPEG-TS) or `srt://` (MPEG-TS, through GStreamer).

    Raises:
        OptionError: the URL has another scheme or no host.
        SinkError: software that the URL requires is not installed.
    """

    written = 0
    dropped = 0
    unfinished_message = None
    """A receiver that does not respond is not a failure of the run."""

    def __init__(self, url: str) -> None:
        parts = parse_url(url, "--push")
        known = ", ".join(f"{scheme}://" for scheme in (*_FORMATS, "srt"))
        if parts.scheme not in _FORMATS and parts.scheme != "srt":
            raise OptionError(f"--push supports {known}, not {parts.redacted}")
        if not parts.host:
            raise OptionError(f"--push needs a host: {parts.scheme}://HOST...")
        # The name has no user, password or path: the path may contain a stream key.
        self.name = f"{parts.scheme}://{parts.address}"
        self.disconnects = 0
        """Number of disconnects and failed attempts to connect."""
        self._url, self._scheme = parts.text, parts.scheme
        self._pause = _FIRST_PAUSE_SECONDS
        self._next_attempt = 0.0
        self._reason = ""
        self._unconfirmed = 0  # frames sent on a connection that may not have a receiver yet
        self._waiting_since: float | None = None
        self._shape: object = None
        self._connection: _Connection | _SrtConnection | None = None
        if parts.scheme == "srt":
            to_srt(self._url, encoder(_DEFAULT_RATE))  # reports missing programs now, not at the first frame

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems so far, one line each."""
        lines = []
        if self.disconnects:
            disconnects = "1 disconnect" if self.disconnects == 1 else f"{self.disconnects} disconnects"
            lines.append(f"{self.name}: {disconnects}; last reason: {self._reason}")
        since = self._waiting_since
        waited_seconds = 0.0 if since is None else time.monotonic() - since
        if waited_seconds >= _PATIENCE_SECONDS:
            lines.append(f"{self.name}: the receiver has accepted no data for {waited_seconds:.0f} s")
        return tuple(lines)

    def write(self, item: ProcessedFrame) -> None:
        """Send one frame, or drop it while there is no receiver.

        Raises:
            SinkError: the encoder is missing.
        """
        rendered = item.rendered
        shape = rendered.width, rendered.height, rendered.pixel_format, rendered.color
        if shape != self._shape:
            self.close()
            self._shape = shape
        if self._connection is None and time.monotonic() < self._next_attempt:
            self.dropped += 1
            return
        self._waiting_since = time.monotonic()
        try:
            if self._connection is None:
                self._connection = self._connect(item)
            self._connection.send(rendered)
        except (av.FFmpegError, OSError, SinkError) as error:
            self._disconnected(error)
        else:
            self._unconfirmed += 1
            if self._connection.has_receiver:
                self.written, self._unconfirmed = self.written + self._unconfirmed, 0
                self._pause = _FIRST_PAUSE_SECONDS
        finally:
            self._waiting_since = None

    def close(self) -> None:
        """End the stream without waiting for the receiver."""
        connection, self._connection = self._connection, None
        self.dropped, self._unconfirmed = self.dropped + self._unconfirmed, 0
        if connection is not None:
            with contextlib.suppress(av.FFmpegError, OSError, SinkError):  # the receiver is already gone
                connection.close()

    abort = close

    def _connect(self, item: ProcessedFrame) -> _Connection | _SrtConnection:
        rendered = item.rendered
        info = replace(item.info, pixel_format=rendered.pixel_format, color=rendered.color, time_base=_TIME_BASE)
        size = rendered.width, rendered.height
        if self._scheme == "srt":
            return _SrtConnection(self._url, info, size, self.name)
        return _Connection(self._url, _FORMATS[self._scheme], info, size)

    def _disconnected(self, error: Exception) -> None:
        self.disconnects += 1
        self.dropped += 1
        # FFmpeg's message may contain the URL; the system's error text does not.
        text = (getattr(error, "strerror", None) or type(error).__name__).lower()
        self._reason = str(error).removeprefix(f"{self.name}: ") if isinstance(error, SinkError) else text
        self._next_attempt = time.monotonic() + self._pause * random.uniform(0.75, 1.25)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        self.close()


class _Connection:
    """Connection through FFmpeg."""

    has_receiver = True

    def __init__(self, url: str, form: str, info: StreamInfo, size: tuple[int, int]) -> None:
        options = {}
        if form == "rtsp":
            options = {"rtsp_transport": "tcp", "timeout": str(round(_TIMEOUT_SECONDS * 1e6))}
        if form == "mpegts" and "pkt_size" not in url:
            url += ("&" if "?" in url else "?") + "pkt_size=1316"
        settings = EncoderSettings.create("libx264", info, size, OutputOptions(preset="ultrafast"), live=True)
        settings = replace(settings, keyframe_seconds=1)  # so that new receivers can start
        self._container = av.open(url, "w", format=form, options=options)
        try:
            self._encoder = VideoEncoder(self._container, Container(form), info, settings)
            self._container.start_encoding()
        except BaseException:
            with contextlib.suppress(av.FFmpegError, OSError):
                self._container.close()
            raise
        self._start_seconds: Fraction | None = None
        self._last_pts = -1

    def send(self, rendered: Frame) -> None:
        """Encode and send one frame. Raises the exceptions of PyAV."""
        seconds = rendered.pts * rendered.time_base
        if self._start_seconds is None:
            self._start_seconds = seconds
        # Several cameras in one frame have different clocks.
        pts = self._last_pts = max(self._last_pts + 1, round((seconds - self._start_seconds) / _TIME_BASE))
        duration = round(rendered.duration * rendered.time_base / _TIME_BASE)
        self._container.mux(self._encoder.encode(replace(rendered, time_base=_TIME_BASE, duration=duration), pts))

    def close(self) -> None:
        """End the stream. Raises the exceptions of PyAV."""
        self._container.close()


class _SrtConnection:
    """Connection through GStreamer's srtsink: PyAV's FFmpeg has no SRT."""

    def __init__(self, url: str, info: StreamInfo, size: tuple[int, int], name: str) -> None:
        pipeline = to_srt(url, encoder(info.frame_rate or _DEFAULT_RATE))
        self._pipe = FramePipe(pipeline, info, FrameFormat.create(info, size), name)
        self._buffer_frames = _PIPE_BYTES // self._pipe.frame_bytes + _PIPELINE_FRAMES

    @property
    def has_receiver(self) -> bool:
        """True once more frames were accepted than fit into the buffers while srtsink connects."""
        return self._buffer_frames < 0

    def send(self, rendered: Frame) -> None:
        """Send one frame to the process. Raises SinkError."""
        self._pipe.send(rendered)
        self._buffer_frames -= 1

    def close(self) -> None:
        """End the process."""
        self._pipe.stop()
