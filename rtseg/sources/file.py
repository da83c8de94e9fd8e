"""A video file, or one that comes through standard input."""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
from av import Packet, VideoFrame
from av.video.stream import VideoStream

from rtseg.card_frame import CardFrame, Fetched, card_picture, in_card_memory
from rtseg.errors import SourceError
from rtseg.frame import Frame, Passthrough, Planes, StreamInfo
from rtseg.sources.demux import shown_name
from rtseg.sources.opened import MAX_PIXELS, open_at
from rtseg.sources.pictures import PictureReader
from rtseg.sources.timeline import Timeline, fraction

_ONE_PACKET_PER_PICTURE = {"h264", "hevc", "mpeg1video", "mpeg2video", "mjpeg", "ffv1", "prores", "dnxhd", "rawvideo"}
"""Codecs in which each packet holds one shown picture, so that lost pictures can be counted by packets."""

_ERRORS_IN_A_ROW = 64
"""Reading stops after as many errors of the container without one packet between them."""

_TAIL_SECONDS = 5
"""How far past `--duration` packets of other streams are looked for."""


class FileSource:
    """A video file. Implements `rtseg.sources.Source`.

    The first frame is decoded on construction, so that `info` is what the pictures are and not what a header says.

    Args:
        path: the file, or `-` for standard input.
        start: seconds from the beginning at which the first frame lies; frames and packets before are left out and
            all time stamps moved earlier by as much.
        duration: seconds that are read; None: to the end.
        strict: the first damage raises instead of being counted.
        max_pixels: refuse larger pictures.
        allow_protocols: `file`, `http`, `https`: by which a playlist may open what it names; none: playlists are refused.
        decoder: as `rtseg.hardware.choose_decoder` gives it.
        card: number of the card where pictures may stay that its decoder left there, in the CUDA context that is current in
            this thread; None: all come down.
        stream: number of the video stream, counted as FFmpeg's `v:N`; None: the largest, the default one among equals.

    Raises:
        SourceError: missing, not a video, no picture in it that can be decoded, or refused.
        OptionError: no such protocol.
    """

    def __init__(
        self,
        path: str,
        *,
        start: float | None = None,
        duration: float | None = None,
        strict: bool = False,
        max_pixels: int = MAX_PIXELS,
        allow_protocols: Sequence[str] = (),
        decoder: str = "software",
        card: int | None = None,
        stream: int | None = None,
    ) -> None:
        self._name = shown_name(path)
        self._strict = strict
        self._max_pixels = max_pixels
        self._damage: dict[str, int] = {}
        self._corrupt = 0
        self._index = 0
        self._resized = 0
        self._finished = False
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._opened = open_at(path, start, duration, max_pixels, allow_protocols, decoder, card, stream)
        self._decoder, self._stays = decoder, card is not None
        self._in_software = 0
        # Pictures that stay on a card are brought down by whichever thread looks at them.
        self._converting = threading.Lock()
        self._container, self._video = self._opened.container, self._opened.video
        self._span, self._time_base = self._opened.span, self._opened.time_base
        # Kept here because a stream object must not be touched once its container is closed: PyAV crashes.
        self._kinds = {stream.index: stream.type for stream in self._container.streams}
        self._timeline = Timeline(self._opened.nominal_ticks, max(1, round(1 / self._time_base)))
        self._others: dict[int, Timeline] = {}
        # Pictures leave the decoder in the order of their decoding times, one for each packet: where a format has no
        # presentation times (AVI), the earliest that is left is the picture's.
        self._decoding_times: deque[int | None] = deque()
        self._reader: PictureReader | None = None
        self._items = self._read()
        self._head: list[Frame | Passthrough] = []
        try:
            self._info = self._look_ahead()
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> StreamInfo:
        """What is known before the first frame."""
        return self._info

    @property
    def corrupt(self) -> int:
        """Frames so far that were in the stream but could not be decoded."""
        return self._corrupt

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was met and mended so far, one line each."""
        lines = [f"{text}: {count} times" if count > 1 else text for text, count in self._damage.items()]
        if self._resized:
            width, height = self._info.width, self._info.height
            lines.append(f"the picture changed its size: {self._resized} frames stretched to {width}x{height}")
        if self._in_software:
            lines.append(f"{self._in_software} frames decoded in software: the card's decoder would not")
        lines += self._timeline.warnings("frames")
        for index, timeline in self._others.items():
            lines += timeline.warnings(f"packets of {self._kinds.get(index)} stream {index}")
        return tuple(lines)

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        """Frames in presentation order and packets in reading order, once."""
        head, self._head = self._head, []
        yield from head
        yield from self._items

    def close(self) -> None:
        """Gives back file and decoder; from another thread it ends the reading at the next packet."""
        self._closing.set()
        if self._lock.acquire(blocking=False):
            try:
                self._container.close()
            finally:
                self._lock.release()

    def _look_ahead(self) -> StreamInfo:
        for item in self._items:
            self._head.append(item)
            if isinstance(item, Frame):
                assert self._reader is not None
                if self._in_software and self._decoder == "nvdec":
                    raise SourceError(
                        f"--decoder nvdec: the card does not decode the pictures of {self._name}; try auto"
                    )
                return self._opened.describe(self._name, item, self._reader, in_software=bool(self._in_software))
        damage = next(iter(self._damage), None)
        if self._span.start and not self._corrupt:
            raise SourceError(f"{self._name} has no picture at or after {float(self._span.start):g} s")
        raise SourceError(f"{self._name}: no picture in it can be decoded{f' ({damage})' if damage else ''}")

    # Reading

    def _read(self) -> Iterator[Frame | Passthrough]:
        packets = frames = 0
        sought = bool(self._span.start)  # MPEG-TS goes to any picture: what stands before a key frame can't be decoded.
        for packet in self._packets():
            if packet.stream_index != self._video.index:
                yield from self._copied(packet)
                continue
            sought = sought and not packet.is_keyframe
            if sought or self._past_end(packet):
                continue
            if not packet.is_discard:
                packets += 1
                self._decoding_times.append(packet.dts)
            for picture in self._decode(packet):
                frames += 1
                yield from self._frame(picture)
        if self._closing.is_set():
            return
        for picture in self._decode(None):
            frames += 1
            yield from self._frame(picture)
        lost = packets - frames - self._corrupt
        countable = self._video.codec_context.name in _ONE_PACKET_PER_PICTURE and self._span.whole
        if lost > 0 and countable:
            self._corrupt += lost
            self._damaged("pictures missing: the decoder had nothing to predict them from", lost)

    def _packets(self) -> Iterator[Packet[Any]]:
        """All packets in reading order, without the empty ones that ask a decoder to flush."""
        errors = 0
        while errors < _ERRORS_IN_A_ROW:
            try:
                for packet in self._guarded_demux():
                    errors = 0
                    if packet.size:
                        yield packet
                    if self._finished:
                        return
                return
            except (av.FFmpegError, OSError) as error:
                errors += 1
                self._damaged(f"unreadable data ({_reason(error)})")

    def _guarded_demux(self) -> Iterator[Packet[Any]]:
        packets = self._container.demux()
        while True:
            with self._lock:
                if self._closing.is_set():
                    self._container.close()
                    return
                packet = next(packets, None)
            if packet is None:
                return
            yield packet

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        with self._lock:
            if self._closing.is_set():
                return []
            try:
                return self._video.codec_context.decode(packet)
            except av.EOFError:
                return []
            except (av.FFmpegError, OSError) as error:
                failure = error
        if self._opened.accelerated and getattr(failure, "errno", None) == errno.ENOMEM:
            raise SourceError(
                f"{self._name}: no memory left on the card to decode; fewer --jobs or a smaller video need less"
            )
        self._corrupt += 1
        self._damaged(f"picture not decodable ({_reason(failure)})")
        return []

    def _frame(self, picture: VideoFrame) -> Iterator[Frame]:
        if picture.is_corrupt:
            self._corrupt += 1
            self._damaged("picture damaged (the decoder marks it corrupt)")
            return
        if picture.width * picture.height > self._max_pixels:
            size = f"{picture.width}x{picture.height}"
            raise SourceError(f"{self._name}: a picture is {size}: more than {self._max_pixels} pixels (--max-pixels)")
        pts = self._timeline.place(picture.pts, self._decoding_times.popleft() if self._decoding_times else None)
        if not self._span.holds(pts, self._time_base):
            return
        if self._reader is None:
            self._reader = PictureReader.of(picture)
        self._resized += not self._reader.fits(picture)
        self._in_software += self._opened.accelerated and not in_card_memory(picture)
        yield self._made(picture, pts - self._span.shift(self._time_base), self._reader)
        self._index += 1

    def _made(self, picture: VideoFrame, pts: int, reader: PictureReader) -> Frame:
        """The frame of a picture: on its card if it may stay there and can be used as it is, else in the processor's memory."""
        stays = card_picture(picture) if self._stays and reader.takes_as_it_is(picture) else None
        fetched: Any = (
            self._planes(picture, reader) if stays is None else Fetched(lambda: self._planes(picture, reader))
        )
        known: dict[str, Any] = {
            "planes": fetched,
            "pixel_format": reader.pixel_format,
            "colour": reader.colour,
            "pts": pts,
            "time_base": self._time_base,
            "index": self._index,
            "duration": picture.duration or 0,
            "captured_ns": time.monotonic_ns(),
        }
        return Frame(**known) if stays is None else CardFrame(**known, picture=stays)

    def _planes(self, picture: VideoFrame, reader: PictureReader) -> Planes:
        try:
            with self._converting:
                return reader.read(picture)
        except (av.FFmpegError, OSError) as error:
            what = f"{picture.format.name} pictures can't be converted"
            raise SourceError(f"{self._name}: {what} ({_reason(error)})") from error

    def _past_end(self, packet: Packet[Any]) -> bool:
        """Whether a picture packet lies behind the range, where nothing needs it; a little later reading ends."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None or not self._span.ended(stamp, self._time_base):
            return False
        self._finished = self._span.ended(stamp, self._time_base, _TAIL_SECONDS)
        return True

    def _copied(self, packet: Packet[Any]) -> Iterator[Passthrough]:
        """A packet of another stream, its time stamps rising and within the range."""
        stream = packet.stream_index
        unit = fraction(packet.time_base) or Fraction(1)
        timeline = self._others.setdefault(stream, Timeline(1, max(1, round(1 / unit))))
        dts = timeline.place(packet.dts, packet.pts)
        timeline.nominal = max(1, packet.duration or 1)
        pts = dts if packet.pts is None else packet.pts + (0 if packet.dts is None else dts - packet.dts)
        if self._span.holds(pts, unit):
            packet.pts, packet.dts = max(pts, dts) - self._span.shift(unit), dts - self._span.shift(unit)
            yield Passthrough(packet, stream)

    def _damaged(self, text: str, count: int = 1) -> None:
        if self._strict:
            raise SourceError(
                f"{self._name}: {text}, after {self._index} frames; without --strict it is left out and counted"
            )
        self._damage[text] = self._damage.get(text, 0) + count


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]
