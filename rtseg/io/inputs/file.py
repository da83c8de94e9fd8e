"""Source for the frames of a video file or of standard input."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain
from math import ceil
from typing import Any

import av
from av import Packet, VideoFrame
from av.video.stream import VideoStream

from rtseg.core.errors import SourceError, reason
from rtseg.core.frame import Frame, Passthrough, Planes, StreamInfo
from rtseg.core.path_identity import redirected_file
from rtseg.gpu.gpu_frame import GpuFrame, LazyPlanes, gpu_surface, in_gpu_memory
from rtseg.io.inputs import Source
from rtseg.io.inputs.copied_streams import CopiedStreams
from rtseg.io.inputs.file_demuxer import REORDERED_FRAMES, FileDemuxer, from_last_key_frame
from rtseg.io.inputs.frame_converter import FrameConverter
from rtseg.io.inputs.frame_decoder import FrameDecoder
from rtseg.io.inputs.h264_fields import FieldDetector
from rtseg.io.inputs.opened_file import MAX_PIXELS, NO_TIME_STAMPS, clock_of, open_at
from rtseg.io.inputs.safe_open import STDIN, redacted_name
from rtseg.io.inputs.timestamps import FrameTimes
from rtseg.io.options import DEFAULT_INPUT, InputOptions

_ONE_PACKET_PER_FRAME = {"h264", "hevc", "mpeg1video", "mpeg2video", "mjpeg", "ffv1", "prores", "dnxhd", "rawvideo"}
"""Codecs with one displayed frame in each packet, so that the number of packets gives the number of lost frames."""

_TAIL_SECONDS = 5
"""Time after the end of `--duration` in which packets of other streams are still read."""


class FileSource(Source):
    """Source for a video file.

    The first frame is decoded on construction, so that `info` describes the decoded frames and not a header. Arguments and
    errors are those of `open_source`; a file of which no frame can be decoded is a SourceError too.
    """

    def __init__(self, path: str, options: InputOptions = DEFAULT_INPUT, *, gpu: int | None = None) -> None:
        self._name = redacted_name(path)
        self._strict, self._decoder = options.strict, options.decoder
        self._max_pixels = options.max_pixels or MAX_PIXELS
        self._damage: dict[str, int] = {}
        self._corrupt = 0
        self._expected = self._decoded = 0
        self._index = 0
        self._resized = 0
        self._past_span = False
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._opened = open_at(path, options, gpu)
        self._keep_on_gpu = gpu is not None
        self._decoded_in_software = 0
        # Surfaces on a GPU are copied to CPU memory by the thread that first reads their planes.
        self._converting = threading.Lock()
        self._container, self._video = self._opened.container, self._opened.video
        self._time_base = self._opened.time_base
        self._frame_decoder = FrameDecoder(self._video.codec_context, accelerated=self._opened.accelerated)
        self._clock = clock_of(self._container, self._container.streams, self._video.index)
        self._span = replace(self._opened.span, origin=self._opened.span.origin + self._clock.start_offset)
        # A span that begins between two ticks of a coarse clock (AVI) gets a finer time base.
        aligned = self._span.start % self._time_base == 0 or self._time_base <= Fraction(1, 1000)
        self._refinement = 1 if aligned else ceil(90_000 * self._time_base)
        # Kept here because PyAV crashes if a stream object is used after its container is closed.
        self._video_index = self._video.index
        timed = not self._container.format.flags & NO_TIME_STAMPS
        self._times: FrameTimes[VideoFrame] = FrameTimes(self._opened.nominal_ticks, timed=timed)
        self._demuxer = FileDemuxer(self._opened, self._lock, self._closing, self._add_damage)
        self._copied = CopiedStreams(self._container, self._video_index, self._span)
        self._converter: FrameConverter | None = None
        self._field_durations: set[int] = set()
        self._last_pts = 0
        self._items = self._read()
        try:
            self.info = self._read_first_frame()
        except BaseException:
            self.close()
            raise

    @property
    def corrupt(self) -> int:
        """Number of frames so far that were in the stream but could not be decoded."""
        return self._corrupt

    @property
    def warnings(self) -> tuple[str, ...]:
        """Damage and repairs so far, one line each."""
        lines = [f"{text}: {count} times" if count > 1 else text for text, count in self._damage.items()]
        if self._resized:
            width, height = self.info.width, self.info.height
            lines.append(f"the frame size changed: {self._resized} frames stretched to {width}x{height}")
        if self._decoded_in_software:
            lines.append(f"{self._decoded_in_software} frames decoded in software: the GPU decoder refused them")
        lines += self._timestamp_warnings()
        return tuple(lines)

    def _timestamp_warnings(self) -> Iterator[str]:
        """Yield one line for each kind of time stamp repair so far."""
        clock = self._clock
        if clock.start_offset:
            yield f"the clock begins at {-float(clock.start_offset):+.3f} s: all streams are moved together, to begin near zero"
        for jump in clock.jumps:
            yield f"the clock jumps near {jump.at_seconds:.1f} s: all streams moved by {jump.seconds:+.3f} s from there on"
        wrong = dict(clock.wrong_stamps)
        wrong_packets = wrong.pop(self._video_index, 0)
        if missing := max(0, self._times.missing - wrong_packets):
            yield f"frames without a time stamp: {missing}, set from their neighbors or the frame rate"
        # Of the packets, those count whose frame has no other time stamp.
        if out_of_order := self._times.wrong + min(wrong_packets, self._times.missing):
            yield f"frames with a wrong time stamp: {out_of_order}, set between their neighbors"
        for index, count in wrong.items():
            packets = f"packets of {self._copied.types.get(index)} stream {index}"
            yield f"{packets} with a wrong time stamp: {count}, set between their neighbors"
        yield from self._copied.warnings()

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        """Yield frames in presentation order and packets in reading order, once."""
        return self._items

    def close(self) -> None:
        """Release the file and the decoder. From another thread, end the reading at the next packet."""
        self._closing.set()
        if self._lock.acquire(blocking=False):
            try:
                self._container.close()
            finally:
                self._lock.release()

    def _read_first_frame(self) -> StreamInfo:
        """Read up to the first frame and return the properties of the stream."""
        head: list[Frame | Passthrough] = []
        for item in self._items:
            head.append(item)
            if isinstance(item, Frame):
                self._items = chain(head, self._items)
                assert self._converter is not None
                if self._decoded_in_software and self._decoder == "nvdec":
                    raise SourceError(f"--decoder nvdec: the GPU can't decode the video of {self._name}; try auto")
                codec = self._video.codec_context.name if self._decoded_in_software else self._opened.codec
                info = self._opened.describe(self._name, item, self._converter, codec)
                empty = self._demuxer.cover_streams - self._demuxer.covers.keys()
                streams = tuple(stream for stream in info.streams if stream.index not in empty)
                return replace(info, streams=streams, covers=self._demuxer.covers)
        damage = next(iter(self._damage), None)
        if self._span.start and not self._corrupt:
            raise SourceError(f"{self._name} has no frame at or after {float(self._span.start):g} s")
        if (
            self._name == redacted_name(STDIN)
            and not redirected_file(0)
            and self._container.format.name.startswith("mov")
        ):
            damage = "an MP4 or MOV with its index at the end can't be read from a pipe: use `rtseg video - < FILE`"
        raise SourceError(f"{self._name}: none of its frames can be decoded{f' ({damage})' if damage else ''}")

    # Reading

    def _read(self) -> Iterator[Frame | Passthrough]:
        fields = FieldDetector.of(self._video.codec_context)
        for packet in from_last_key_frame(self._clock.map(self._demuxer), self._opened, self._span):
            if packet.stream_index != self._video_index:
                yield from self._copied.take(packet)
                continue
            is_second_field = fields is not None and fields.is_second_field(bytes(packet))
            if is_second_field and packet.duration:
                self._field_durations.add(packet.duration)
            if self._is_past_span(packet, is_second_field):
                continue
            if not packet.is_discard and not is_second_field:
                self._expected += 1
                self._times.expect(packet)
            for video_frame in self._decode(packet):
                yield from self._place(video_frame)
        if self._closing.is_set():
            return
        for video_frame in self._flush_decoder():
            yield from self._place(video_frame)
        for video_frame, pts in self._times.flush():
            yield from self._in_span(video_frame, pts)
        yield from self._copied.flush()
        lost = self._expected - self._decoded - self._corrupt
        countable = self._video.codec_context.name in _ONE_PACKET_PER_FRAME and self._span.whole
        if lost > 0 and countable:
            self._corrupt += lost
            self._add_damage("frames missing: the decoder had nothing to predict them from", lost)

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        with self._lock:
            if self._closing.is_set():
                return []
            frames = self._frame_decoder.decode(packet)
        self._count_errors()
        return frames

    def _count_errors(self) -> None:
        for error in self._frame_decoder.errors:
            if self._opened.accelerated and getattr(error, "errno", None) == errno.ENOMEM:
                raise SourceError(
                    f"{self._name}: no GPU memory left to decode; fewer --jobs or a smaller video need less"
                )
            self._corrupt += 1
            self._add_damage(f"frame not decodable ({reason(error)})")

    def _flush_decoder(self) -> Iterator[VideoFrame]:
        """Yield the frames that are still in the decoder."""
        yield from self._decode(None)
        if self._expected > self._decoded + self._corrupt:
            # FFmpeg's threads may end without an error at a damaged frame.
            yield from self._frame_decoder.decode_again(ended=True)
            self._count_errors()

    def _place(self, video_frame: VideoFrame) -> Iterator[Frame]:
        """Take a decoded frame and yield the frames whose times are now certain."""
        self._decoded += 1
        stamp, guessed = self._times.stamp_of(video_frame, sparse=self._clock.sparse)
        if video_frame.is_corrupt:
            if not (self._span.start and stamp is not None and stamp < self._span.first(self._time_base)):
                self._corrupt += 1
                self._add_damage("frame damaged (the decoder marks it corrupt)")
            return
        if video_frame.width * video_frame.height > self._max_pixels:
            size = f"{video_frame.width}x{video_frame.height}"
            raise SourceError(f"{self._name}: a frame is {size}: more than {self._max_pixels} pixels (--max-pixels)")
        for placed, pts in self._times.put(video_frame, stamp, guessed=guessed):
            yield from self._in_span(placed, pts)

    def _in_span(self, video_frame: VideoFrame, pts: int) -> Iterator[Frame]:
        if not self._span.contains(pts, self._time_base):
            return
        if self._converter is None:
            self._converter = FrameConverter.of(video_frame)
        self._resized += not self._converter.fits(video_frame)
        self._decoded_in_software += self._opened.accelerated and not in_gpu_memory(video_frame)
        yield self._to_frame(video_frame, pts, self._converter)
        self._index += 1

    def _to_frame(self, video_frame: VideoFrame, pts: int, converter: FrameConverter) -> Frame:
        """Return a frame on the GPU if it may stay there and needs no conversion, else in CPU memory."""
        surface = gpu_surface(video_frame) if self._keep_on_gpu and converter.needs_no_change(video_frame) else None
        read_planes = partial(self._planes, video_frame, converter)
        time_base = self._time_base / self._refinement
        fields: dict[str, Any] = {
            "planes": read_planes() if surface is None else LazyPlanes(read_planes),
            "pixel_format": converter.pixel_format,
            "color": converter.color,
            "pts": pts * self._refinement - self._span.shift(time_base),
            "time_base": time_base,
            "index": self._index,
            "duration": self._duration(video_frame, pts) * self._refinement,
            "captured_ns": time.monotonic_ns(),
        }
        return Frame(**fields) if surface is None else GpuFrame(**fields, surface=surface)

    def _duration(self, video_frame: VideoFrame, pts: int) -> int:
        """Return the duration of a frame in ticks. FFmpeg's is that of one field if the fields have separate packets."""
        duration, step, self._last_pts = video_frame.duration or 0, pts - self._last_pts, pts
        return 2 * duration if duration in self._field_durations and step >= 2 * duration - 1 else duration

    def _planes(self, video_frame: VideoFrame, converter: FrameConverter) -> Planes:
        try:
            with self._converting:
                return converter.read(video_frame)
        except (av.FFmpegError, OSError) as error:
            format_name = video_frame.format.name
            raise SourceError(f"{self._name}: {format_name} frames can't be converted ({reason(error)})") from error

    def _is_past_span(self, packet: Packet[Any], is_second_field: bool) -> bool:
        """Return whether a video packet is after the span and not needed; end the reading some seconds later."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None or is_second_field:
            return self._past_span  # Both fields of a frame are read, or none.
        if not self._times.has_presentation_times:
            # Its frame may be presented before the decoding time.
            stamp -= REORDERED_FRAMES * self._opened.nominal_ticks
        self._past_span = self._span.ended(stamp, self._time_base)
        if not self._past_span:
            return False
        self._demuxer.finished = self._span.ended(stamp, self._time_base, _TAIL_SECONDS)
        return True

    def _add_damage(self, text: str, count: int = 1) -> None:
        if self._strict:
            raise SourceError(
                f"{self._name}: {text}, after {self._index} frames; without --strict it is left out and counted"
            )
        self._damage[text] = self._damage.get(text, 0) + count
