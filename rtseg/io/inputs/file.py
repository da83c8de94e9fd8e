"""A video file, or one that comes through standard input."""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import Any

import av
from av import Packet, VideoFrame
from av.video.stream import VideoStream

from rtseg.core.errors import SourceError
from rtseg.core.frame import Frame, Passthrough, Planes, StreamInfo
from rtseg.gpu.gpu_frame import GpuFrame, LazyPlanes, gpu_surface, in_gpu_memory
from rtseg.io.inputs.avi_audio_times import AviAudioTimes
from rtseg.io.inputs.avi_frame_order import avi_orders
from rtseg.io.inputs.copied_video import CopiedVideo
from rtseg.io.inputs.duplicate_timestamps import without_duplicate_timestamps
from rtseg.io.inputs.file_clock import Clock
from rtseg.io.inputs.frame_converter import FrameConverter
from rtseg.io.inputs.frame_decoder import FrameDecoder
from rtseg.io.inputs.h264_fields import FieldCounter
from rtseg.io.inputs.opened_file import MAX_PIXELS, NO_TIME_STAMPS, arbitrary_clock, is_cover, open_at
from rtseg.io.inputs.safe_open import redacted_name
from rtseg.io.inputs.timestamps import FrameTimes, PacketTimes, fraction

_ONE_PACKET_PER_PICTURE = {"h264", "hevc", "mpeg1video", "mpeg2video", "mjpeg", "ffv1", "prores", "dnxhd", "rawvideo"}
"""Codecs in which each packet holds one shown picture, so that lost pictures can be counted by packets."""

_ERRORS_IN_A_ROW = 64
"""Reading stops after as many errors of the container without one packet between them."""

_PREROLL_SECONDS = Fraction(8, 100)
"""Hidden audio that is kept before the first sample: Opus asks for 80 ms (RFC 7845, 4.6), AAC for a packet."""

_REORDERED = 16
"""Frames that a codec holds back at most to show them in order (H.264, HEVC)."""

_NOTICED_SECONDS = Fraction(6, 100)
"""Audio that is missing for less than this at the beginning of a part is not worth a line."""

_TAIL_SECONDS = 5
"""How far past `--duration` packets of other streams are looked for."""


class FileSource:
    """A video file. Implements `rtseg.io.inputs.Source`.

    The first frame is decoded on construction, so that `info` is what the pictures are and not what a header says.

    Args:
        path: the file, or `-` for standard input.
        start: seconds from the beginning at which the first frame lies; frames and packets before are left out and
            all time stamps moved earlier by as much.
        duration: seconds that are read; None: to the end.
        strict: the first damage raises instead of being counted.
        max_pixels: refuse larger pictures.
        allow_protocols: `file`, `http`, `https`: by which a playlist may open what it names; none: playlists are refused.
        decoder: as `rtseg.io.codecs.choose_decoder` gives it.
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
        gpu: int | None = None,
        stream: int | None = None,
    ) -> None:
        self._name = redacted_name(path)
        self._strict = strict
        self._max_pixels = max_pixels
        self._damage: dict[str, int] = {}
        self._corrupt = 0
        self._expected = self._decoded = 0
        self._index = 0
        self._resized = 0
        self._finished = self._behind = False
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._opened = open_at(path, start, duration, max_pixels, allow_protocols, decoder, gpu, stream)
        self._decoder, self._stays = decoder, gpu is not None
        self._in_software = 0
        # Pictures that stay on a card are brought down by whichever thread looks at them.
        self._converting = threading.Lock()
        self._container, self._video = self._opened.container, self._opened.video
        self._time_base = self._opened.time_base
        self._decoding = FrameDecoder(self._video.codec_context, accelerated=self._opened.accelerated)
        arbitrary = arbitrary_clock(self._container)
        self._clock = Clock(
            self._container.streams,
            self._video.index,
            arbitrary=arbitrary,
            decoding_times="matroska" not in self._container.format.name,
        )
        self._span = replace(self._opened.span, origin=self._opened.span.origin + self._clock.start_offset)
        # A part that begins between two ticks of a coarse clock (AVI) has a finer one.
        whole = self._span.start % self._time_base == 0 or self._time_base <= Fraction(1, 1000)
        self._finer = 1 if whole else ceil(90_000 * self._time_base)
        # Kept here because a stream object must not be touched once its container is closed: PyAV crashes.
        audio = self._container.streams.audio
        self._pcm = {s.index for s in audio if s.codec_context is not None and s.codec_context.name.startswith("pcm_")}
        self._video_index = self._video.index
        self._starts = {stream.index: stream.start_time or 0 for stream in self._container.streams}
        self._kinds = {stream.index: stream.type for stream in self._container.streams}
        timed = not self._container.format.flags & NO_TIME_STAMPS
        self._avi_times = AviAudioTimes(self._container)
        self._covers: dict[int, Packet[Any]] = {}
        self._cover_streams = {stream.index for stream in self._container.streams if is_cover(stream)}
        self._times: FrameTimes[VideoFrame] = FrameTimes(self._opened.nominal_ticks, timed=timed)
        self._others: dict[int, PacketTimes] = {}
        self._heard: set[int] = set()
        self._other_videos: dict[int, CopiedVideo] = {}
        self._avi_orders = avi_orders(self._container, self._video.index)
        self._silent: dict[int, Fraction] = {}
        """Seconds from the beginning of a part to the first packet of audio in it, where one before it was left out."""
        # Where a format has no presentation times at all (AVI), frames leave the decoder in the order of the decoding times.
        self._decoding_times: deque[int | None] | None = deque()
        self._reader: FrameConverter | None = None
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
        lines += self._repairs()
        return tuple(lines)

    def _repairs(self) -> Iterator[str]:
        """What was done to time stamps so far, one line each."""
        clock = self._clock
        if clock.start_offset:
            yield f"the clock begins at {-float(clock.start_offset):+.3f} s: all streams are moved together, to begin near zero"
        for jump in clock.jumps:
            yield f"the clock jumps near {jump.at_seconds:.1f} s: all streams moved by {jump.seconds:+.3f} s from there on"
        wrong = dict(clock.wrong_stamps)
        wrong_packets = wrong.pop(self._video_index, 0)
        if missing := max(0, self._times.missing - wrong_packets):
            yield f"frames without a time stamp: {missing}, set from their neighbors or the frame rate"
        if out_of_order := self._times.wrong + wrong_packets:
            yield f"frames with a wrong time stamp: {out_of_order}, set between their neighbors"
        for index, count in wrong.items():
            packets = f"packets of {self._kinds.get(index)} stream {index}"
            yield f"{packets} with a wrong time stamp: {count}, set between their neighbors"
        for index, silent in self._silent.items():
            if silent > _NOTICED_SECONDS:
                late = f"audio stream {index} begins {float(silent):.2f} s later than the part"
                yield f"{late}: with its first packet that begins in it"
        for index, other in self._other_videos.items():
            if other.hidden_between:
                yield (
                    f"video stream {index}: {other.hidden_between} packets that an edit list hides between others left out: "
                    "frames behind them can't be decoded up to the next key frame"
                )
            if other.left_out:
                yield f"video stream {index}: {other.left_out} packets before its first key frame left out"
        for index, times in self._others.items():
            yield from times.warnings(f"packets of {self._kinds.get(index)} stream {index}")

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
                info = self._opened.describe(self._name, item, self._reader, in_software=bool(self._in_software))
                empty = self._cover_streams - self._covers.keys()
                streams = tuple(stream for stream in info.streams if stream.index not in empty)
                return replace(info, streams=streams, covers=self._covers)
        damage = next(iter(self._damage), None)
        if self._span.start and not self._corrupt:
            raise SourceError(f"{self._name} has no picture at or after {float(self._span.start):g} s")
        raise SourceError(f"{self._name}: no picture in it can be decoded{f' ({damage})' if damage else ''}")

    # Reading

    def _read(self) -> Iterator[Frame | Passthrough]:
        fields = self._field_counter()
        packets = self._packets()
        if self._container.format.name == "mpeg" and self._video.codec_context.name in ("h264", "hevc"):
            packets = without_duplicate_timestamps(packets, self._video.index)
        for packet in self._from_start(self._clock.map(packets)):
            if packet.stream_index != self._video.index:
                yield from self._copied(packet)
                continue
            second = fields is not None and fields.is_second_field(bytes(packet))
            if self._past_end(packet, second):
                continue
            if not packet.is_discard and not second:
                self._expected += 1
                if packet.pts is not None:
                    self._decoding_times = None
                if self._decoding_times is not None:
                    self._decoding_times.append(packet.dts)
            for picture in self._decode(packet):
                yield from self._frames(picture)
        if self._closing.is_set():
            return
        for picture in self._rest():
            yield from self._frames(picture)
        for picture, pts in self._times.flush():
            yield from self._frame(picture, pts)
        for order in self._avi_orders.values():
            for packet in order.flush():
                yield from self._copied_video(packet)
        for stream, other in self._other_videos.items():
            yield from self._placed(other.flush(), stream)
        for stream, times in self._others.items():
            left = times.flush()
            yield from self._passed(left, stream, fraction(left[0].time_base) if left else Fraction(1))
        lost = self._expected - self._decoded - self._corrupt
        countable = self._video.codec_context.name in _ONE_PACKET_PER_PICTURE and self._span.whole
        if lost > 0 and countable:
            self._corrupt += lost
            self._damaged("pictures missing: the decoder had nothing to predict them from", lost)

    def _field_counter(self) -> FieldCounter | None:
        context = self._video.codec_context
        return FieldCounter(context.extradata) if context.name == "h264" else None

    def _from_start(self, packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
        """All packets from the last key frame before the range on: those before it need not be decoded."""
        if not self._span.start:
            yield from packets
            return
        held: list[Packet[Any]] = []
        fields = self._field_counter()
        first = self._span.first(self._time_base)
        for packet in packets:
            if packet.stream_index != self._video.index:
                yield packet  # The range takes what it needs of it.
                continue
            stamp = packet.pts
            if stamp is None and packet.dts is not None:
                # It may be shown as much later than it is decoded; frames before it may need the key frame before.
                stamp = packet.dts + _REORDERED * self._opened.nominal_ticks
            second = fields is not None and fields.is_second_field(bytes(packet))
            if packet.is_keyframe and not second and (stamp is None or stamp <= first or not held):
                held.clear()
            if held or packet.is_keyframe:
                held.append(packet)
            if stamp is None or stamp >= first:
                break
        yield from held
        yield from packets

    def _packets(self) -> Iterator[Packet[Any]]:
        """All packets in reading order, without the empty ones that ask a decoder to flush."""
        errors = 0
        while errors < _ERRORS_IN_A_ROW:
            try:
                for packet in self._guarded_demux():
                    errors = 0
                    if packet.stream_index in self._cover_streams:
                        if packet.size:
                            self._covers[packet.stream_index] = packet
                    elif packet.size:
                        self._avi_times.mend(packet)
                        yield packet
                    if self._finished:
                        return
                return
            except (av.FFmpegError, OSError) as error:
                errors += 1
                self._damaged(f"unreadable data ({_reason(error)})")
            except IndexError:  # PyAV, on a packet of a stream that was not there when the file was opened
                errors += 1
                self._damaged("packet of a stream that begins in mid-file")

    def _guarded_demux(self) -> Iterator[Packet[Any]]:
        packets = self._container.demux(list(self._container.streams))
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
            frames = self._decoding.decode(packet)
        self._count_errors()
        return frames

    def _count_errors(self) -> None:
        for error in self._decoding.errors:
            if self._opened.accelerated and getattr(error, "errno", None) == errno.ENOMEM:
                raise SourceError(
                    f"{self._name}: no memory left on the card to decode; fewer --jobs or a smaller video need less"
                )
            self._corrupt += 1
            self._damaged(f"picture not decodable ({_reason(error)})")

    def _rest(self) -> Iterator[VideoFrame]:
        """The frames that the decoder still holds."""
        yield from self._decode(None)
        if self._expected > self._decoded + self._corrupt:
            # FFmpeg's threads may end without a word at a frame that is damaged.
            yield from self._decoding.decode_again(ended=True)
            self._count_errors()

    def _frames(self, picture: VideoFrame) -> Iterator[Frame]:
        """The frames whose times are certain now that a picture was decoded."""
        self._decoded += 1
        stamp = picture.pts
        guessed = stamp is None and self._decoding_times is None
        if stamp is None and self._clock.sparse:
            # FFmpeg's best effort: the decoding time of the packet that made the decoder give this frame.
            stamp = picture.dts
            if self._decoding_times is not None:
                stamp = self._decoding_times.popleft() if self._decoding_times else None
        if picture.is_corrupt:
            if not (self._span.start and stamp is not None and stamp < self._span.first(self._time_base)):
                self._corrupt += 1
                self._damaged("picture damaged (the decoder marks it corrupt)")
            return
        if picture.width * picture.height > self._max_pixels:
            size = f"{picture.width}x{picture.height}"
            raise SourceError(f"{self._name}: a picture is {size}: more than {self._max_pixels} pixels (--max-pixels)")
        for earlier, pts in self._times.put(picture, stamp, guessed=guessed):
            yield from self._frame(earlier, pts)

    def _frame(self, picture: VideoFrame, pts: int) -> Iterator[Frame]:
        if not self._span.holds(pts, self._time_base):
            return
        if self._reader is None:
            self._reader = FrameConverter.of(picture)
        self._resized += not self._reader.fits(picture)
        self._in_software += self._opened.accelerated and not in_gpu_memory(picture)
        yield self._made(picture, pts, self._reader)
        self._index += 1

    def _made(self, picture: VideoFrame, pts: int, reader: FrameConverter) -> Frame:
        """The frame of a picture: on its card if it may stay there and can be used as it is, else in the processor's memory."""
        stays = gpu_surface(picture) if self._stays and reader.takes_as_it_is(picture) else None
        fetched: Any = (
            self._planes(picture, reader) if stays is None else LazyPlanes(lambda: self._planes(picture, reader))
        )
        time_base = self._time_base / self._finer
        known: dict[str, Any] = {
            "planes": fetched,
            "pixel_format": reader.pixel_format,
            "color": reader.color,
            "pts": pts * self._finer - self._span.shift(time_base),
            "time_base": time_base,
            "index": self._index,
            "duration": (picture.duration or 0) * self._finer,
            "captured_ns": time.monotonic_ns(),
        }
        return Frame(**known) if stays is None else GpuFrame(**known, surface=stays)

    def _planes(self, picture: VideoFrame, reader: FrameConverter) -> Planes:
        try:
            with self._converting:
                return reader.read(picture)
        except (av.FFmpegError, OSError) as error:
            what = f"{picture.format.name} pictures can't be converted"
            raise SourceError(f"{self._name}: {what} ({_reason(error)})") from error

    def _past_end(self, packet: Packet[Any], second_field: bool) -> bool:
        """Whether a picture packet lies behind the range, where nothing needs it; a little later reading ends."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None or second_field:
            return self._behind  # A frame has both its fields or none.
        if self._decoding_times is not None:
            # It may hold a frame that is shown earlier than it is decoded.
            stamp -= _REORDERED * self._opened.nominal_ticks
        self._behind = self._span.ended(stamp, self._time_base)
        if not self._behind:
            return False
        self._finished = self._span.ended(stamp, self._time_base, _TAIL_SECONDS)
        return True

    def _copied(self, packet: Packet[Any]) -> Iterator[Passthrough]:
        """A packet of another stream, its time stamps rising and within the range."""
        stream = packet.stream_index
        if self._span.start:
            _refine(packet)  # AVI counts blocks of audio: the part begins between two of them.
        if self._kinds.get(stream) == "video":
            order = self._avi_orders.get(stream)
            for placed in [packet] if order is None else order.take(packet):
                yield from self._copied_video(placed)
            return
        unit = fraction(packet.time_base) or Fraction(1)
        times = self._others.setdefault(stream, PacketTimes())
        if not packet.is_discard:
            self._heard.add(stream)
        elif stream in self._heard or not self._prepares(packet, unit):
            return  # An edit list hides it.
        yield from self._passed(times.place(packet), stream, unit)

    def _copied_video(self, packet: Packet[Any]) -> Iterator[Passthrough]:
        stream, unit = packet.stream_index, fraction(packet.time_base) or Fraction(1)
        first = self._span.first(unit) if self._span.start else None
        other = self._other_videos.setdefault(stream, CopiedVideo(first, self._starts.get(stream, 0), unit))
        yield from self._placed(other.take(packet), stream)

    def _placed(self, packets: Iterator[tuple[Packet[Any], bool]], stream: int) -> Iterator[Passthrough]:
        times = self._others.setdefault(stream, PacketTimes())
        for packet, leads in packets:
            unit = fraction(packet.time_base) or Fraction(1)
            yield from self._passed(times.place(packet, True), stream, unit, leads=leads)

    def _passed(
        self, packets: Sequence[Packet[Any]], stream: int, unit: Fraction, *, leads: bool = False
    ) -> Iterator[Passthrough]:
        """The packets that lie within the range; `leads`: they lie before it, and are needed to decode what is in it."""
        for packet in packets:
            assert packet.pts is not None
            assert packet.dts is not None
            # Of reordered frames those that are decoded within the range are kept: others need them.
            last = packet.dts if self._kinds.get(stream) == "video" else packet.pts
            late = (packet.pts - self._span.first(unit)) * unit
            begun = not self._span.start or late >= 0
            if self._span.start and self._kinds.get(stream) == "audio" and self._silent.get(stream, late) < 0:
                self._silent[stream] = late  # of the last packet before the part, then of the first one in it
            inside = begun and not self._span.ended(last, unit)
            if leads or inside:
                shift = self._span.shift(unit)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                yield Passthrough(packet, stream)

    def _prepares(self, packet: Packet[Any], unit: Fraction) -> bool:
        """Whether a hidden packet comes right before the first sample that is heard, and prepares the decoder for it."""
        early = ((packet.pts or 0) - self._starts.get(packet.stream_index, 0)) * unit < -_PREROLL_SECONDS
        return not early and packet.stream_index not in self._pcm

    def _damaged(self, text: str, count: int = 1) -> None:
        if self._strict:
            raise SourceError(
                f"{self._name}: {text}, after {self._index} frames; without --strict it is left out and counted"
            )
        self._damage[text] = self._damage.get(text, 0) + count


def _refine(packet: Packet[Any]) -> None:
    """Give a packet a time base of 1/90000 of a second or less, which holds its times exactly."""
    unit = fraction(packet.time_base)
    if not unit or unit <= Fraction(1, 90_000):
        return
    fine = Fraction(1, unit.denominator * max(1, -(-90_000 // unit.denominator)))
    factor = int(unit / fine)
    pts, dts, duration = packet.pts, packet.dts, packet.duration
    packet.time_base = fine
    packet.pts = None if pts is None else pts * factor
    packet.dts = None if dts is None else dts * factor
    packet.duration = (duration or 0) * factor


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]
