"""The shown picture sent to a server or a receiver as it comes: RTSP, RTMP, MPEG-TS over UDP, SRT."""

from __future__ import annotations

import contextlib
import random
import time
from fractions import Fraction

import av
import numpy as np
from av import VideoFrame
from av.container import OutputContainer
from av.video.stream import VideoStream

from rtseg.core.errors import OptionError, SinkError
from rtseg.core.frame import Frame, Passthrough, SegmentedFrame, StreamInfo
from rtseg.core.secrets import parse_url
from rtseg.io.gstreamer.gdp import LAYOUT_OF, RawVideo
from rtseg.io.gstreamer.pipelines import encoder, to_srt
from rtseg.io.outputs.gstreamer import FramePipe

_FORMATS = {"rtsp": "rtsp", "rtmp": "flv", "rtmps": "flv", "udp": "mpegts"}
_SPACE_TAG = {"bt601": 6, "bt709": 1, "bt2020": 9, "rgb": 1}
_TIMEOUT_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_PATIENCE_SECONDS = 1.0
"""A receiver that takes nothing for so long is told of."""

_PIPE_BYTES = 1 << 16
"""What the system keeps of a pipe that nobody reads."""

_PIPELINE_FRAMES = 16
"""More than an encoder and what stands around it hold."""

_TICKS = Fraction(1, 90_000)


class PushSink:
    """An encoded stream to one address. Implements `rtseg.io.outputs.Sink`.

    A receiver that is not there, or goes away, is tried again after a pause that doubles from half a second to half a minute;
    frames of that time are left out. PyAV hands RTMP no time limit, and lets no other thread run while it
    opens a connection: a server that says nothing stops the program until the system gives the connection up.

    UDP, and SRT with `mode=listener`, send whether or not somebody receives.

    Args:
        url: `rtsp://`, `rtmp://`, `rtmps://`, `udp://` (MPEG-TS) or `srt://` (MPEG-TS, through GStreamer).
        info: the source.
        size: width and height of the shown frames; an odd last column or row is cut off.

    Raises:
        OptionError: another kind of URL, or one without a host.
        SinkError: what is needed to send to such a URL is not installed.
    """

    late = None
    """That its receiver does not answer is no failure of the run."""

    def __init__(self, url: str, info: StreamInfo, *, size: tuple[int, int]) -> None:
        parts = parse_url(url, "--push")
        known = ", ".join(f"{scheme}://" for scheme in (*_FORMATS, "srt"))
        if parts.scheme not in _FORMATS and parts.scheme != "srt":
            raise OptionError(f"--push takes {known}, not {parts.redacted}")
        if not parts.host:
            raise OptionError(f"--push needs a host: {parts.scheme}://HOST...")
        # Users, passwords and the keys of streams, which stand in the path, are for the receiver alone.
        self.name = f"{parts.scheme}://{parts.address}"
        self.written = 0
        self.dropped = 0
        """Frames left out because nobody received."""
        self.disconnects = 0
        """Times that the receiver went away or was not there."""
        self._url, self._scheme, self._info = parts.text, parts.scheme, info
        self._size = (size[0] // 2 * 2, size[1] // 2 * 2)
        self._pause = _FIRST_PAUSE_SECONDS
        self._next_try = 0.0
        self._reason = ""
        self._unsure = 0  # frames given to a connection that may not have a receiver yet
        self._waiting_since: float | None = None
        self._connection: _Connection | _SrtConnection | None = None
        if parts.scheme == "srt":
            to_srt(self._url, encoder(self._rate))  # missing programs are told now, not with the first frame

    @property
    def warnings(self) -> tuple[str, ...]:
        """What went wrong so far, one line each."""
        lines = []
        if self.disconnects:
            disconnects = "1 disconnect" if self.disconnects == 1 else f"{self.disconnects} disconnects"
            lines.append(f"{self.name}: {disconnects}; the last: {self._reason}")
        since = self._waiting_since
        waited = 0.0 if since is None else time.monotonic() - since
        if waited >= _PATIENCE_SECONDS:
            lines.append(f"{self.name}: its receiver has taken nothing for {waited:.0f} s")
        return tuple(lines)

    def write(self, item: SegmentedFrame) -> None:
        """Sends one frame, or leaves it out while nobody receives.

        Raises:
            SinkError: the encoder is missing.
        """
        if self._connection is None and time.monotonic() < self._next_try:
            self.dropped += 1
            return
        self._waiting_since = time.monotonic()
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.send(item.rendered)
        except (av.FFmpegError, OSError, SinkError) as error:
            self._lost(error)
        else:
            self._unsure += 1
            if self._connection.has_receiver:
                self.written, self._unsure = self.written + self._unsure, 0
                self._pause = _FIRST_PAUSE_SECONDS
        finally:
            self._waiting_since = None

    def pass_through(self, packet: Passthrough) -> None:
        """Pictures alone are sent."""

    def close(self) -> None:
        """Ends the stream. What a receiver does with its end is not waited for."""
        connection, self._connection = self._connection, None
        self.dropped, self._unsure = self.dropped + self._unsure, 0
        if connection is not None:
            with contextlib.suppress(av.FFmpegError, OSError, SinkError):  # It went away: then it knows the end.
                connection.close()

    def abort(self) -> None:
        """The same."""
        self.close()

    @property
    def _rate(self) -> Fraction:
        return self._info.frame_rate or Fraction(25)

    def _connect(self) -> _Connection | _SrtConnection:
        if self._scheme == "srt":
            return _SrtConnection(self._url, self._info, self._size, self._rate, self.name)
        return _Connection(self._url, _FORMATS[self._scheme], self._info, self._size, self._rate)

    def _lost(self, error: Exception) -> None:
        self.disconnects += 1
        self.dropped += 1
        # FFmpeg's own message may hold the URL; the system's words for a failure do not.
        text = (getattr(error, "strerror", None) or type(error).__name__).lower()
        self._reason = str(error).removeprefix(f"{self.name}: ") if isinstance(error, SinkError) else text
        self._next_try = time.monotonic() + self._pause * random.uniform(0.75, 1.25)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        self.close()


class _Connection:
    """One connection through FFmpeg."""

    has_receiver = True

    def __init__(self, url: str, form: str, info: StreamInfo, size: tuple[int, int], rate: Fraction) -> None:
        options = {}
        if form == "rtsp":
            options = {"rtsp_transport": "tcp", "timeout": str(round(_TIMEOUT_SECONDS * 1e6))}
        if form == "mpegts" and "pkt_size" not in url:
            url += ("&" if "?" in url else "?") + "pkt_size=1316"
        self._container: OutputContainer = av.open(url, "w", format=form, options=options)
        try:
            self._stream = self._add_stream(info, size, rate)
            self._container.start_encoding()
        except BaseException:
            with contextlib.suppress(av.FFmpegError, OSError):
                self._container.close()
            raise
        self._since: Fraction | None = None
        self._last = -1

    def _add_stream(self, info: StreamInfo, size: tuple[int, int], rate: Fraction) -> VideoStream:
        options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "23"}
        stream = self._container.add_stream("libx264", rate=rate.limit_denominator(10_000), options=options)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.width, context.height = size
        context.pix_fmt = "yuv420p"
        context.time_base = _TICKS
        context.gop_size = max(1, round(rate))  # Who joins sees a picture within a second.
        context.colorspace = _SPACE_TAG[info.color.matrix]
        context.color_range = 2 if info.color.full_range and info.color.matrix != "rgb" else 1
        return stream

    def send(self, rendered: Frame) -> None:
        """Encodes and sends one frame. Raises what PyAV raises."""
        now = rendered.pts * rendered.time_base
        if self._since is None:
            self._since = now
        context = self._stream.codec_context
        picture = picture_of(rendered, (context.width, context.height))
        if picture.format.name != "yuv420p":
            picture = picture.reformat(format="yuv420p", dst_colorspace=1 if rendered.pixel_format == "gbrp" else None)
        picture.pts = self._last = max(self._last + 1, round((now - self._since) / _TICKS))
        picture.time_base = _TICKS
        for packet in self._stream.encode(picture):
            self._container.mux(packet)

    def close(self) -> None:
        """Ends the stream. Raises what PyAV raises."""
        self._container.close()


class _SrtConnection:
    """One connection through GStreamer's srtsink: PyAV's FFmpeg has no SRT."""

    def __init__(self, url: str, info: StreamInfo, size: tuple[int, int], rate: Fraction, name: str) -> None:
        video = RawVideo(LAYOUT_OF[info.pixel_format], *size, info.color, info.frame_rate, info.sample_aspect_ratio)
        self._size = size
        self._pipe = FramePipe(to_srt(url, encoder(rate)), video, name)
        self._since: Fraction | None = None
        self._room = _PIPE_BYTES // video.size + _PIPELINE_FRAMES

    @property
    def has_receiver(self) -> bool:
        """Whether more was taken than there is room for while srtsink still connects."""
        return self._room < 0

    def send(self, rendered: Frame) -> None:
        """Hands one frame on. Raises SinkError."""
        if self._since is None:
            self._since = rendered.pts * rendered.time_base
        self._pipe.send(rendered, self._since)
        self._room -= 1

    def close(self) -> None:
        """Ends the process."""
        self._pipe.stop()


def picture_of(rendered: Frame, size: tuple[int, int]) -> VideoFrame:
    """A frame as PyAV has it, cut to `size`, which is at most one column and row smaller."""
    picture = VideoFrame(*size, rendered.pixel_format)
    for plane, source in zip(picture.planes, rendered.planes, strict=True):
        target = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)  # type: ignore[call-overload]
        target[:, : plane.width] = source[: plane.height, : plane.width]
    picture.colorspace = _SPACE_TAG[rendered.color.matrix] if rendered.color.matrix != "rgb" else 0
    picture.color_range = 2 if rendered.color.full_range else 1
    return picture
