"""Interface for reading the packets of an open stream, and its implementation for containers that FFmpeg demuxes."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, Protocol

import av
from av import Packet
from av.codec.context import Flags
from av.container import InputContainer

from rtseg.core.errors import Disconnected
from rtseg.io.codecs import decoder_name
from rtseg.io.inputs.byte_stream import DemuxerInput
from rtseg.io.inputs.file_clock import Clock
from rtseg.io.inputs.http_file import HttpFile
from rtseg.io.inputs.opened_file import GENERATE_PTS, MAX_PIXELS, NO_TIME_STAMPS, clock_of
from rtseg.io.inputs.timestamps import fraction
from rtseg.io.inputs.video_stream import choose_video, duration_seconds

_FORMATS_WITH_LENGTH = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "hls", "flv", "ogg", "nut"}
"""Formats in which only a file, not a live stream, has a length in its header."""

_DELAYED_CODECS = {"mpeg1video", "mpeg2video", "mpeg4"}
"""Codecs whose frames FFmpeg returns in decoding order if the low-delay flag is set."""

_LENGTH_TOLERANCE_SECONDS = 1.0
"""Largest difference between the stated and the real length of a complete file."""


class Packets(Protocol):
    """Interface for reading the packets of one video stream, with their decoder. Readers inherit its defaults."""

    codec_context: Any
    """Decoder."""
    codec: str
    """Name of the decoder."""
    time_base: Fraction = Fraction(1, 1_000_000)
    """Unit of the packets' time stamps in seconds."""
    frame_rate: Fraction | None = None
    """Frames per second in the header of the stream; None: unknown."""
    has_clock: bool = False
    """True if the packets have the sender's time stamps."""
    file_seconds: float | None = None
    """Length of a file, 0 if unknown; None: a live stream."""
    aspect: Fraction | None = None
    """Width of a pixel divided by its height; None: that of the decoder, after the first frame."""
    is_playlist: bool = False
    """True if the stream is a playlist of finite length. FFmpeg does not report incomplete parts of playlists."""
    is_live_playlist: bool = False
    """True if the stream is a playlist that grows, whose frames arrive in parts of several seconds."""
    warnings: tuple[str, ...] = ()
    """Warnings about the stream, one line each."""

    @property
    def corrupt(self) -> int:
        """Number of frames so far that were damaged before they were decoded."""
        return 0

    def read(self) -> Packet[Any] | None:
        """Return the next packet, or None at the end. Raise Disconnected after a failure or a timeout."""

    def close(self) -> None:
        """Close the stream."""


class DemuxedPackets(Packets):
    """Reader for the packets of an open container."""

    def __init__(
        self,
        container: InputContainer,
        name: str,
        *,
        wait_readable: Callable[[], None] | None = None,
        decoder: str = "software",
        file: bool | None = False,
        stream: DemuxerInput | HttpFile | None = None,
        timeout_seconds: float | None = None,
    ) -> None:
        """Take over an open container and choose its video stream.

        Args:
            container: the open container; closed by this object.
            name: name for messages, without passwords.
            wait_readable: function that is called before each read, and raises Disconnected if no data arrives in time. For
                devices, whose reads FFmpeg can't interrupt.
            decoder: decoder of the open container, a return value of `rtseg.io.codecs.choose_decoder`.
            file: True: a file; False: a live stream; None: a file if the header has a length.
            stream: object from which the container reads; closed by this object.
            timeout_seconds: time after which FFmpeg ends a read. It may return a frame that it held instead of an error: the
                next read raises the error then. None: no such limit.

        Raises:
            SourceError: the container has no video stream, or rtseg does not decode its codec.
        """
        self._container, self._name, self._wait_readable, self._stream = container, name, wait_readable, stream
        self._timeout, self._timed_out = timeout_seconds, False
        try:
            video, _ = choose_video(name, container, MAX_PIXELS, None)
            self.codec = decoder_name(video, decoder)
        except BaseException:
            self.close()
            raise
        self._video, self.codec_context = video, video.codec_context
        container.flags &= ~GENERATE_PTS  # it delays frames until their times are known
        video.codec_context.thread_type = "SLICE"  # with frame threads, each thread adds a delay of one frame
        video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        if container.format.name in ("mjpeg", "mpjpeg"):
            # Otherwise half a JPEG is decoded as a whole frame, in part gray.
            video.codec_context.options |= {"err_detect": "explode"}
        self.time_base = fraction(video.time_base) or Fraction(1, 1000)
        self.aspect = fraction(video.sample_aspect_ratio) or Fraction(1)
        if file or (file is None and container.format.name in _FORMATS_WITH_LENGTH):
            self.file_seconds = duration_seconds(container, video) or (0.0 if file else None)
        if container.format.name == "hls":
            self.is_playlist = self.file_seconds is not None
            self.is_live_playlist = not self.is_playlist
        if self.file_seconds is None and video.codec_context.name not in _DELAYED_CODECS:
            video.codec_context.flags |= Flags.low_delay
        timed = not int(container.format.flags) & NO_TIME_STAMPS
        # A raw file has the frame rate of its codec, else FFmpeg's default of 25 frames per second.
        self.has_clock = bool(file) or timed
        # After few frames, FFmpeg's estimate may be the field rate.
        rates = (video.average_rate, video.codec_context.framerate)
        rate = fraction((rates[0] or rates[1]) if timed else (rates[1] or rates[0]))
        self.frame_rate = rate if rate and self.has_clock else None
        self._begin_seconds = float((video.start_time or 0) * self.time_base)
        self._reached_seconds = 0.0
        self._packets: Iterator[Packet[Any]] = self._demux()
        self._clock: Clock | None = None
        if self.file_seconds is not None:
            # The parts of a file may have different clocks, for example in an HLS playlist with discontinuities.
            self._clock = clock = clock_of(container, [video], video.index)
            self._begin_seconds += float(clock.start_offset)
            self._packets = clock.map(packet for packet in self._packets if packet.size)

    def read(self) -> Packet[Any] | None:
        """Return the next packet, or None at the end.

        Raises:
            Disconnected: the connection failed, or a file is incomplete.
        """
        if self._timed_out:
            raise Disconnected(f"{self._name}: the connection failed (no data arrived in time)")
        begin = time.monotonic()
        try:
            if self._wait_readable is not None:
                self._wait_readable()
            packet = next(self._packets, None)
        except (av.FFmpegError, OSError) as error:
            raise Disconnected(f"{self._name}: the connection failed ({safe_error_text(error)})") from None
        self._timed_out = self._timeout is not None and time.monotonic() - begin >= self._timeout
        if packet is not None and packet.size:
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * self.time_base) - self._begin_seconds
                self._reached_seconds = max(self._reached_seconds, end)
            return packet
        if self._stream is not None and self._stream.failure:
            raise self._stream.failure
        # After a jump of the clock, FFmpeg's length is the difference of two unrelated times.
        length = None if self._clock is None or self._clock.jumps else self.file_seconds
        if length is not None and self._reached_seconds < length - _LENGTH_TOLERANCE_SECONDS:
            raise Disconnected(f"{self._name}: the file broke off at {self._reached_seconds:.1f} of {length:.1f} s")
        return None

    def _demux(self) -> Iterator[Packet[Any]]:
        """Yield all packets.

        FFmpeg reports the end of a playlist without a length as a failure, after the last part. It ignores failures within
        parts.
        """
        try:
            yield from self._container.demux(self._video)
        except OSError as error:
            if self._container.format.name != "hls" or error.errno != errno.EIO:
                raise

    def close(self) -> None:
        """Close the container."""
        self._container.close()
        if self._stream is not None:
            self._stream.close()


def safe_error_text(error: Exception) -> str:
    """Return the error text of the operating system. FFmpeg's message may contain a URL with a password."""
    if isinstance(error, (av.ExitError, av.TimeoutError, TimeoutError)):
        return "no data arrived in time"
    text = getattr(error, "strerror", None) or type(error).__name__
    return str(text)[:1].lower() + str(text)[1:]
