"""The packets of one open stream, as `Connection` reads them: here those that FFmpeg demuxes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, Protocol

import av
from av import Packet
from av.codec.context import Flags
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from rtseg.core.errors import Disconnected, SourceError
from rtseg.io.codecs import decoder_name
from rtseg.io.inputs.file_clock import Clock
from rtseg.io.inputs.opened_file import GENERATE_PTS, MAX_PIXELS, NO_TIME_STAMPS, arbitrary_clock
from rtseg.io.inputs.safe_open import VIDEO_CODECS
from rtseg.io.inputs.timestamps import fraction

_FILES = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "hls", "flv", "ogg", "nut"}
"""Formats whose live streams state no length."""

_HOLDS_PICTURES = {"mpeg1video", "mpeg2video", "mpeg4"}
"""Codecs whose frames FFmpeg would give in the order of decoding where it is asked for a low delay."""

_END_SECONDS = 1.0
"""A file that ends so long before it should has still come to its end."""


class Packets(Protocol):
    """Packets of one video stream, and what decodes them."""

    codec_context: Any
    codec: str
    """Name of the decoder."""
    time_base: Fraction
    """Seconds in a unit of the packets' time stamps."""
    frame_rate: Fraction | None
    """Frames per second as the stream states it; None: not known."""
    has_clock: bool
    """Whether the packets' time stamps are those of the sender; False: there are none."""
    file_seconds: float | None
    """Length of a file, 0 where it does not say; None: a live stream."""
    in_parts: bool
    """Whether it is a file in parts, of which one that breaks off goes unnoticed."""
    warnings: tuple[str, ...]
    """What is worth knowing of how it sends, in whole sentences."""

    @property
    def aspect(self) -> Fraction:
        """Width of a pixel divided by its height; certain once the first frame is decoded."""

    @property
    def corrupt(self) -> int:
        """Frames so far that were damaged before they could be decoded."""

    def read(self) -> Packet[Any] | None:
        """Return the next packet; None: the end. Raises Disconnected where it failed or nothing came in time."""

    def close(self) -> None:
        """Give back what is open."""


class DemuxedPackets:
    """Packets of an open container. Implements `Packets`."""

    corrupt = 0
    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        container: InputContainer,
        name: str,
        *,
        wait_readable: Callable[[], None] | None = None,
        decoder: str = "software",
        file: bool | None = False,
        on_end: Callable[[], None] = lambda: None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """Choose the video stream.

        Args:
            container: closed by this object.
            name: for messages, without passwords.
            wait_readable: called before each read; raises Disconnected when nothing comes in time. For devices, whose
                reads FFmpeg can't interrupt.
            decoder: what the container was opened with, as `rtseg.io.codecs.choose_decoder` gives it.
            file: whether it is a file rather than a live stream; None: it is one where it states its length.
            on_end: called when no more packets come; raises Disconnected where that is no end.
            on_close: called when the container has been closed.

        Raises:
            SourceError: no video stream, or one of a kind that rtseg does not decode.
        """
        self._container, self._name, self._wait_readable = container, name, wait_readable
        self._on_end, self._on_close = on_end, on_close
        try:
            self._video = video = _choose_video(container, name)
            self.codec = decoder_name(video, decoder)
        except BaseException:
            self.close()
            raise
        self.codec_context = video.codec_context
        self.time_base = fraction(video.time_base) or Fraction(1, 1000)
        self.aspect = fraction(video.sample_aspect_ratio) or Fraction(1)
        self.file_seconds: float | None = None
        if file or (file is None and container.format.name in _FILES):
            self.file_seconds = _length(container, video) or (0.0 if file else None)
        self.in_parts = container.format.name == "hls" and self.file_seconds is not None
        if self.file_seconds is None and video.codec_context.name not in _HOLDS_PICTURES:
            video.codec_context.flags |= Flags.low_delay
        timed = not int(container.format.flags) & NO_TIME_STAMPS
        # A raw file plays at the rate that its codec states, else at FFmpeg's made-up 25 frames a second.
        self.has_clock = bool(file) or timed
        # The rate that FFmpeg guesses counts fields where it has seen few frames.
        rates = (video.average_rate, video.codec_context.framerate)
        rate = fraction((rates[0] or rates[1]) if timed else (rates[1] or rates[0]))
        self.frame_rate = rate if rate and self.has_clock else None
        self._begin = float((video.start_time or 0) * self.time_base)
        self._reached = 0.0
        self._packets: Iterator[Packet[Any]] = self._demux()
        self._clock: Clock | None = None
        if self.file_seconds is not None:
            # A file may be joined from several, each with a clock of its own: an HLS list with discontinuities, for one.
            self._clock = clock = Clock(
                [video],
                video.index,
                arbitrary=arbitrary_clock(container),
                decoding_times="matroska" not in container.format.name,
            )
            self._begin += float(clock.start_offset)
            self._packets = clock.map(packet for packet in self._packets if packet.size)

    def read(self) -> Packet[Any] | None:
        """Return the next packet; None: the end.

        Raises:
            Disconnected: the connection failed, or a file broke off.
        """
        try:
            if self._wait_readable is not None:
                self._wait_readable()
            packet = next(self._packets, None)
        except (av.FFmpegError, OSError) as error:
            raise Disconnected(f"{self._name}: the connection failed ({reason(error)})") from None
        if packet is not None and packet.size:
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * self.time_base) - self._begin
                self._reached = max(self._reached, end)
            return packet
        self._on_end()
        # Where the clock jumps, FFmpeg's length is the distance of two times that have nothing to do with each other.
        length = None if self._clock is None or self._clock.jumps else self.file_seconds
        if length is not None and self._reached < length - _END_SECONDS:
            raise Disconnected(f"{self._name}: the file broke off at {self._reached:.1f} of {length:.1f} s")
        return None

    def _demux(self) -> Iterator[Packet[Any]]:
        """All packets.

        FFmpeg takes the end of a playlist that came without a length for a failure, and tells of it behind the last
        part. What fails in the parts themselves it passes over.
        """
        try:
            yield from self._container.demux(self._video)
        except OSError as error:
            if self._container.format.name != "hls" or error.errno != errno.EIO:
                raise

    def close(self) -> None:
        """Close the container."""
        self._container.close()
        self._on_close()


def reason(error: Exception) -> str:
    """The system's words for a failure alone: FFmpeg's own message may hold a URL with its password."""
    if isinstance(error, (av.ExitError, av.TimeoutError, TimeoutError)):
        return "nothing came in time"
    text = getattr(error, "strerror", None) or type(error).__name__
    return str(text)[:1].lower() + str(text)[1:]


def _length(container: InputContainer, video: VideoStream) -> float | None:
    if video.duration and video.time_base:
        return float(video.duration * fraction(video.time_base))
    return container.duration / av.time_base if container.duration else None


def _choose_video(container: InputContainer, name: str) -> VideoStream:
    pictures = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not pictures:
        raise SourceError(f"{name} has no video stream")
    video = max(pictures, key=lambda stream: stream.codec_context.width * stream.codec_context.height)
    context = video.codec_context
    if context.name not in VIDEO_CODECS.split(","):
        raise SourceError(f"{name}: rtseg does not decode this kind of video ({context.name})")
    container.flags &= ~GENERATE_PTS  # it would hold frames back until it knows
    context.thread_type = "SLICE"  # threads by frame hold back one frame each
    options = {"max_pixels": str(MAX_PIXELS)}
    if container.format.name in ("mjpeg", "mpjpeg"):
        options["err_detect"] = "explode"  # else half a JPEG comes out as a whole one, gray below
    context.options = options
    return video
