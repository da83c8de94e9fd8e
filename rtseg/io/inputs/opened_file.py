"""Opening of a video file: choice of the video stream, and seek to a key frame before the requested part."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from rtseg.core.errors import SourceError
from rtseg.core.frame import Frame, StreamInfo, time_code_of
from rtseg.core.path_identity import redirected_file
from rtseg.gpu.gpu_frame import GpuFrame
from rtseg.io.codecs import decoder_name
from rtseg.io.inputs.extra_data import outside_streams
from rtseg.io.inputs.file_clock import Clock
from rtseg.io.inputs.frame_converter import FrameConverter
from rtseg.io.inputs.h264_fields import FieldDetector
from rtseg.io.inputs.safe_open import STDIN, open_input, redacted_name
from rtseg.io.inputs.timestamps import Span, fraction
from rtseg.io.inputs.video_stream import choose_video, duration_seconds
from rtseg.io.options import DEFAULT_INPUT, InputOptions

_REOPENED_STDIN = Path("/proc/self/fd/0")
"""On Linux, opens the file that standard input reads once more, with a position of its own."""

MAX_PIXELS = 1 << 26
"""Larger frames (than 8192x8192) are refused: a header of a few bytes could request gigabytes of memory."""

GENERATE_PTS = 1
"""FFmpeg's AVFMT_FLAG_GENPTS, which PyAV sets. For H.264 in AVI it generates time stamps that are a frame late."""

NO_TIME_STAMPS = 0x80
"""FFmpeg's AVFMT_NOTIMESTAMPS: formats such as MJPEG or raw H.264, for which FFmpeg generates time stamps at 25 frames a second."""

_MAX_FRAME_RATE = 1000
"""Highest plausible frame rate."""

_MAX_TIME_CODE_RATE = 255
"""Highest frame rate of a time code in MP4 and MOV."""

_ARBITRARY_CLOCK = 0x0200
"""FFmpeg's AVFMT_TS_DISCONT: the format's clock may start anywhere and jump (MPEG-TS, MPEG-PS …)."""

_DISCARD_ALL = 48
"""FFmpeg's AVDISCARD_ALL."""


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """An open file, its chosen video stream, and the requested part."""

    container: InputContainer
    video: VideoStream
    span: Span
    time_base: Fraction
    """Seconds per tick of the video stream."""

    codec: str
    """Name of the decoder, for statistics."""

    changing: frozenset[int]
    """Audio streams, see `StreamInfo.changing`."""

    notes: tuple[str, ...]
    """Remarks about the choice of the stream and about data that is not copied, one line each."""

    @property
    def accelerated(self) -> bool:
        """True if a GPU decodes it."""
        return bool(self.video.codec_context.is_hwaccel)

    @property
    def frame_rate(self) -> Fraction | None:
        """Frames per second as the stream states it; None: not known."""
        video = self.video
        rates = [fraction(rate) for rate in (video.average_rate, video.guessed_rate, video.base_rate) if rate]
        # For raw DV, FFmpeg returns the rate of the clock as average rate.
        stated = next((rate for rate in rates if rate <= _MAX_FRAME_RATE), rates[0] if rates else None)
        codec_rate = fraction(video.codec_context.framerate)
        # Encoders without a configured rate state that of their clock: 90000.
        is_generated = self.container.format.flags & NO_TIME_STAMPS and 0 < codec_rate <= _MAX_FRAME_RATE
        if is_generated or self._counts_fields:
            stated = codec_rate
        return fraction(stated) or None

    @property
    def may_have_fields(self) -> bool:
        """True if the video is H.264 whose frames may be stored as two fields."""
        context = self.video.codec_context
        return context.name == "h264" and FieldDetector(context.extradata).may_have_fields

    @property
    def _counts_fields(self) -> bool:
        """True if the container's average rate counts some or all fields of H.264 as frames (MP4)."""
        context, average = self.video.codec_context, fraction(self.video.average_rate)
        codec_rate = fraction(context.framerate)
        return self.may_have_fields and 0 < codec_rate < average <= 2 * codec_rate

    @property
    def nominal_ticks(self) -> int:
        """Number of ticks between two frames at the stated rate, at least 1."""
        rate = self.frame_rate
        return max(1, round(1 / (rate * self.time_base))) if rate else 1

    def describe(self, name: str, first: Frame, converter: FrameConverter, codec: str) -> StreamInfo:
        """Return the properties of the video stream. `codec` is the name of its decoder."""
        video, container = self.video, self.container
        rate = self.frame_rate
        seconds = duration_seconds(container, video)
        count: int | None = None if self._counts_fields else video.frames or None
        if not self.span.whole:
            remaining = None if seconds is None else max(0.0, seconds - float(self.span.start))
            limits = [value for value in (remaining, self.span.duration) if value is not None]
            seconds = float(min(limits)) if limits else None
            count = None
        if count is None and seconds is not None and rate:
            count = round(seconds * rate)
        aspect = fraction(video.sample_aspect_ratio) or Fraction(1)
        notes = [*self.notes, *converter.notes]
        # A later frame has another time code.
        time_code_lost = "for a part of a video" if self.span.start else ""
        if rate and rate > _MAX_TIME_CODE_RATE:
            time_code_lost = f"at more than {_MAX_TIME_CODE_RATE} frames a second"
        if self.span.start:
            notes.append(f"begins at {float(self.span.start):g} s of the input")
        metadata = dict(container.metadata)
        if "creation_time" in metadata:  # FFmpeg 9 joins the times of two boxes by `;`, and muxes no such value
            metadata["creation_time"] = metadata["creation_time"].rpartition(";")[2]
        if time_code_lost and time_code_of(metadata):
            metadata = {key: value for key, value in metadata.items() if key.lower() != "timecode"}
            notes.append(f"the time code is not kept {time_code_lost}")
        return StreamInfo(
            name=name,
            width=first.width,
            height=first.height,
            pixel_format=converter.pixel_format,
            color=converter.color,
            time_base=first.time_base,
            frame_rate=rate,
            frame_count=count,
            duration_seconds=seconds,
            sample_aspect_ratio=1 / aspect if converter.orientation.transpose else aspect,
            codec=codec,
            on_gpu=isinstance(first, GpuFrame),
            notes=tuple(notes),
            # Without MP4's chapter track, which FFmpeg does not demux. PyAV has `discard` from 18.0 on.
            streams=tuple(
                stream
                for stream in container.streams
                if stream.index != video.index and getattr(stream, "discard", None) != _DISCARD_ALL
            ),
            changing=self.changing,
            template=video,
            time_code=None if time_code_lost else time_code_of(video.metadata),
            no_time_code=time_code_lost,
            metadata=metadata,
            chapters=tuple(
                {**chapter, "start": inside[0], "end": inside[1]}
                for chapter in container.chapters()
                if (inside := self.span.clip(chapter["start"], chapter["end"], fraction(chapter["time_base"])))
            ),
        )


def open_at(path: str, options: InputOptions = DEFAULT_INPUT, gpu: int | None = None) -> OpenedFile:
    """Open a file, or standard input for `-`, and seek to a key frame before the part to read.

    If no key frame is found, reading begins at the beginning, and the caller has to leave out everything before that part.

    Raises:
        SourceError: the file is missing, not a video, or refused, or `start` or `duration` is out of range.
        OptionError: a protocol is unknown.
    """
    start, duration = options.start, options.duration
    if (start is not None and start < 0) or (duration is not None and duration <= 0):
        raise SourceError(f"start must be at least 0 and duration more than 0 seconds, not {start} and {duration}")
    opened = _open(path, options, gpu)
    # A clock that jumps allows no seek, and AVI gives audio times only when read from the beginning.
    unseekable = arbitrary_clock(opened.container) or opened.container.format.name == "avi"
    if not start or path == STDIN or unseekable or _seek(opened):
        return opened
    opened.container.close()
    return _open(path, options, gpu)


def _open(path: str, options: InputOptions, gpu: int | None) -> OpenedFile:
    container = open_input(path, allow_protocols=options.allow_protocols, decoder=options.decoder, gpu=gpu)
    container.flags &= ~GENERATE_PTS
    try:
        video, notes = choose_video(redacted_name(path), container, options.max_pixels or MAX_PIXELS, options.stream)
        time_base = fraction(video.time_base)
        if not time_base:
            raise SourceError(f"{redacted_name(path)}: its video stream has no time base")
        codec = decoder_name(video, options.decoder)
        if path != STDIN:
            notes += outside_streams(path)
        elif redirected_file(0) and _REOPENED_STDIN.exists():
            notes += outside_streams(_REOPENED_STDIN)
    except BaseException:
        container.close()
        raise
    span = Span(
        Fraction(options.start or 0).limit_denominator(1_000_000),
        None if options.duration is None else Fraction(options.duration).limit_denominator(1_000_000),
        (video.start_time or 0) * time_base,
    )
    changing = frozenset[int]()
    if path != STDIN and any(map(has_adts, container.streams.audio)):
        with open_input(path, allow_protocols=options.allow_protocols) as other:
            changing = _changing_audio(other)
    return OpenedFile(container, video, span, time_base, codec, changing, notes)


def arbitrary_clock(container: InputContainer) -> bool:
    """Return whether the clock of a container's format may start anywhere and jump."""
    return bool(container.format.flags & _ARBITRARY_CLOCK)


def clock_of(container: InputContainer, streams: Iterable[Any], video_index: int) -> Clock:
    """Return the clock of these streams of a container."""
    decoding_times = "matroska" not in container.format.name
    return Clock(streams, video_index, arbitrary=arbitrary_clock(container), decoding_times=decoding_times)


def _seek(opened: OpenedFile) -> bool:
    """Seek to a key frame before the span and return whether it was found; if not, the file must be opened again."""
    first = opened.span.first(opened.time_base)
    # In H.264 the target may be the second field of a frame; reading would begin with it.
    min_seconds = 1 if opened.video.codec_context.name == "h264" else 0
    for seconds_before in (min_seconds, 2, 10, 60):
        target = first - round(seconds_before / opened.time_base)
        try:
            opened.container.seek(target, stream=opened.video)
            key = next((packet for packet in opened.container.demux(opened.video) if packet.is_keyframe), None)
            if key is not None and key.pts is not None and key.pts <= first:
                opened.container.seek(target, stream=opened.video)
                return True
        except (av.FFmpegError, OSError):
            return False
    return False


def _changing_audio(container: InputContainer) -> frozenset[int]:
    """Return the indices of AAC streams whose profile, rate or channels change. Reads the file to its end or to damage.

    A container with one header per stream can't store copies of them.
    """
    streams = [stream for stream in container.streams.audio if has_adts(stream)]
    first: dict[int, tuple[int, int]] = {}
    changing = set()
    with suppress(av.FFmpegError):  # Decoding the video meets the same damage and reports it.
        for packet in container.demux(streams):
            head = bytes(memoryview(packet)[:4]) if packet.size > 7 else b""
            if head[:1] == b"\xff" and head[1] & 0xF6 == 0xF0:
                # Profile, sampling frequency index and channel configuration (ISO/IEC 13818-7, 6.2.1) without the private bit.
                parameters = head[2] & 0xFD, head[3] & 0xC0
                if first.setdefault(packet.stream_index, parameters) != parameters:
                    changing.add(packet.stream_index)
    return frozenset(changing)


def has_adts(stream: object) -> bool:
    """Return whether a stream is AAC with its parameters only in the header of each packet (ADTS), as in MPEG-TS."""
    context = getattr(stream, "codec_context", None)
    return context is not None and context.name == "aac" and not context.extradata
