"""One connection to a live stream through FFmpeg: every packet decoded as it comes, for as long as it holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
from av import Packet, VideoFrame
from av.codec.context import Flags
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from rtseg.card_frame import software_layout
from rtseg.errors import Disconnected, SourceError
from rtseg.frame import Frame, Passthrough, StreamInfo
from rtseg.hardware import decoder_name
from rtseg.sources.demux import VIDEO_CODECS
from rtseg.sources.opened import GENERATE_PTS, MAX_PIXELS
from rtseg.sources.pictures import PictureReader
from rtseg.sources.timeline import fraction

WITHOUT_KEY_FRAME = 600
"""Packets that are passed over at most while no key frame comes; then decoding begins anyway (streams that refresh row by row)."""

_KEPT_ARRIVALS = 64


class Connection:
    """Frames of one connection. Implements `rtseg.sources.Source`; a live stream has no end, so any end is `Disconnected`.

    Pictures may change their size and layout in mid-stream: each frame is what it is, and `info` is that of the newest.
    Sound is not read.
    """

    def __init__(
        self,
        container: InputContainer,
        name: str,
        *,
        wait_readable: Callable[[], None] | None = None,
        lends_memory: bool = False,
        decoder: str = "software",
    ) -> None:
        """Takes the first picture of an open container.

        Args:
            container: closed by this object.
            name: for messages, without passwords.
            wait_readable: called before each read; raises Disconnected when nothing comes in time. For devices, whose
                reads FFmpeg can't interrupt.
            lends_memory: raw pictures lie in memory of the device, which is gone once it is closed: they are copied.
            decoder: what the container was opened with, as `rtseg.hardware.choose_decoder` gives it.

        Raises:
            SourceError: no picture stream, or one of a kind that rtseg does not decode.
            Disconnected: it ended, or went silent, before the first picture.
        """
        self._container, self._name = container, name
        self._wait_readable = wait_readable
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._corrupt = 0
        self._index = 0
        self._arrivals: dict[int, int] = {}
        self._reader: PictureReader | None = None
        self.decode_seconds = 0.0
        """What the newest frame took to decode and to bring into planes."""
        try:
            self._video = _choose_video(container, name)
            self._time_base = fraction(self._video.time_base) or Fraction(1, 1000)
            self._codec = decoder_name(self._video, decoder)
            self._copies = lends_memory and self._codec == "rawvideo"
            self._aspect = fraction(self._video.sample_aspect_ratio) or Fraction(1)
            self._frames = self._read()
            self._first: Frame | None = next(self._frames)
        except StopIteration:
            self.close()
            raise Disconnected(f"{name}: it was closed before its first picture") from None
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> StreamInfo:
        """Of the newest frame."""
        return self._info

    @property
    def corrupt(self) -> int:
        """Frames so far that could not be decoded."""
        return self._corrupt

    @property
    def warnings(self) -> tuple[str, ...]:
        """None: what a connection meets is counted in `corrupt`, or ends it."""
        return ()

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        """Frames as they come, until `close`.

        Raises:
            Disconnected: the stream ended, failed, or went silent.
        """
        first, self._first = self._first, None
        if first is not None:
            yield first
        yield from self._frames

    def close(self) -> None:
        """Ends the connection; from another thread, at the next packet or time-out."""
        self._closing.set()
        if self._lock.acquire(blocking=False):
            try:
                self._container.close()
            finally:
                self._lock.release()

    # Reading

    def _read(self) -> Iterator[Frame]:
        passed_over = 0
        for packet in self._packets():
            if passed_over >= 0 and not packet.is_keyframe and passed_over < WITHOUT_KEY_FRAME:
                passed_over += 1
                continue
            passed_over = -1
            now = time.monotonic_ns()
            if packet.pts is not None:
                self._arrivals[packet.pts] = now
                while len(self._arrivals) > _KEPT_ARRIVALS:
                    del self._arrivals[next(iter(self._arrivals))]
            begin = time.perf_counter()
            for picture in self._decode(packet):
                frame = self._frame(picture, now)
                if frame is not None:
                    self.decode_seconds = time.perf_counter() - begin
                    yield frame
                    begin = time.perf_counter()

    def _packets(self) -> Iterator[Packet[Any]]:
        packets = self._container.demux(self._video)
        while True:
            with self._lock:
                if self._closing.is_set():
                    self._container.close()
                    return
                try:
                    if self._wait_readable is not None:
                        self._wait_readable()
                    packet = next(packets, None)
                except (av.FFmpegError, OSError) as error:
                    raise Disconnected(f"{self._name}: the connection failed ({reason(error)})") from None
            if packet is None or not packet.size:
                raise Disconnected(f"{self._name}: the stream ended")
            yield packet

    def _decode(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        with self._lock:
            if self._closing.is_set():
                return []
            try:
                return self._video.codec_context.decode(packet)
            except (av.FFmpegError, OSError):
                self._corrupt += 1
                return []

    def _frame(self, picture: VideoFrame, now: int) -> Frame | None:
        captured = now if picture.pts is None else self._arrivals.pop(picture.pts, now)
        if picture.is_corrupt:
            self._corrupt += 1
            return None
        if picture.width * picture.height > MAX_PIXELS:
            raise SourceError(f"{self._name}: its pictures are {picture.width}x{picture.height}, too large")
        if self._reader is None or not self._fits(picture):
            self._reader = PictureReader.of(picture)
            self._layout = _layout(picture)
            self._info = self._describe(self._reader)
        try:
            planes = self._reader.read(picture)
            if self._copies:
                planes = (planes[0].copy(), planes[1].copy(), planes[2].copy())
        except (av.FFmpegError, OSError):
            self._corrupt += 1
            return None
        self._index += 1
        pts = picture.pts
        return Frame(
            planes=planes,
            pixel_format=self._reader.pixel_format,
            colour=self._reader.colour,
            pts=round(captured / 1e9 / self._time_base) if pts is None else pts,
            time_base=self._time_base,
            index=self._index - 1,
            duration=picture.duration or 0,
            captured_ns=captured,
        )

    def _fits(self, picture: VideoFrame) -> bool:
        return self._layout == _layout(picture)

    def _describe(self, reader: PictureReader) -> StreamInfo:
        width, height = reader.upright_size
        # The rate that FFmpeg guesses counts fields where it has seen few pictures.
        rate = fraction(self._video.average_rate or self._video.codec_context.framerate) or None
        return StreamInfo(
            name=self._name,
            width=width,
            height=height,
            pixel_format=reader.pixel_format,
            colour=reader.colour,
            time_base=self._time_base,
            frame_rate=rate,
            sample_aspect_ratio=1 / self._aspect if reader.orientation.transpose else self._aspect,
            codec=self._codec,
            notes=reader.notes,
        )


def reason(error: Exception) -> str:
    """The system's words for a failure alone: FFmpeg's own message may hold a URL with its password."""
    if isinstance(error, (av.ExitError, av.TimeoutError)):
        return "nothing came in time"
    text = getattr(error, "strerror", None) or type(error).__name__
    return str(text)[:1].lower() + str(text)[1:]


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
    context.flags |= Flags.low_delay
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return video


def _layout(picture: VideoFrame) -> tuple[int, int, str, int, int]:
    return picture.width, picture.height, software_layout(picture).name, picture.colorspace, picture.color_range
