"""A video file opened where reading begins: the right stream chosen, and a key frame before the wanted part found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from rtseg.core.errors import SourceError
from rtseg.core.frame import Frame, StreamInfo, time_code_of
from rtseg.gpu.gpu_frame import GpuFrame
from rtseg.io.codecs import decoder_name
from rtseg.io.inputs.audio_changes import changing_audio, may_change
from rtseg.io.inputs.extra_data import outside_streams
from rtseg.io.inputs.frame_converter import FrameConverter
from rtseg.io.inputs.h264_fields import FieldCounter
from rtseg.io.inputs.safe_open import STDIN, VIDEO_CODECS, open_input, redacted_name
from rtseg.io.inputs.timestamps import Span, fraction

MAX_PIXELS = 1 << 26
"""Pictures larger than this (8192x8192) are refused: a few bytes can ask for gigabytes of memory."""

GENERATE_PTS = 1
"""FFmpeg's AVFMT_FLAG_GENPTS, which PyAV sets: for H.264 in AVI it makes time stamps that are a frame late."""

NO_TIME_STAMPS = 0x80
"""FFmpeg's AVFMT_NOTIMESTAMPS: MJPEG, raw H.264 and the like, whose time stamps FFmpeg makes up from 25 frames a second."""

_FASTEST = 1000
"""Frames per second that a stream is believed to have."""

_FASTEST_TIME_CODE = 255
"""Frames per second that a time code of MP4 and MOV counts."""

_GPU_THREADS = 2
"""Of FFmpeg, where the card decodes."""

_ARBITRARY_CLOCK = 0x0200
"""FFmpeg's AVFMT_TS_DISCONT: the format's clock begins anywhere and may jump (MPEG-TS, MPEG-PS …)."""

_DISCARD_ALL = 48
"""FFmpeg's AVDISCARD_ALL."""


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """An open file and what is wanted of it."""

    container: InputContainer
    video: VideoStream
    span: Span
    time_base: Fraction
    """Of the picture stream, seconds."""

    codec: str
    """What decodes it, as statistics say it."""

    changing: frozenset[int] = frozenset()
    """Audio streams, see `StreamInfo.changing`."""

    notes: tuple[str, ...] = ()
    """What was chosen, and what is not taken over, one line each."""

    @property
    def accelerated(self) -> bool:
        """Whether a card decodes it."""
        return bool(self.video.codec_context.is_hwaccel)

    @property
    def frame_rate(self) -> Fraction | None:
        """Frames per second as the stream states it; None: not known."""
        video = self.video
        rates = [fraction(rate) for rate in (video.average_rate, video.guessed_rate, video.base_rate) if rate]
        # FFmpeg gives the unit of the clock for the average rate of raw DV.
        stated = next((rate for rate in rates if rate <= _FASTEST), rates[0] if rates else None)
        if self.container.format.flags & NO_TIME_STAMPS:  # the container's is made up: what the codec states counts
            of_codec = fraction(video.codec_context.framerate)
            # Encoders that were given no rate state their clock's: 90000.
            stated = of_codec if 0 < of_codec <= _FASTEST else stated
        if self._counts_fields:
            stated = fraction(video.codec_context.framerate)
        return fraction(stated) or None

    @property
    def _counts_fields(self) -> bool:
        """Whether the container's average rate counts the fields of H.264, some or all, as frames (MP4)."""
        context, average = self.video.codec_context, fraction(self.video.average_rate)
        of_codec = fraction(context.framerate)
        interlaced = context.name == "h264" and FieldCounter(context.extradata).may_have_fields
        return interlaced and 0 < of_codec < average <= 2 * of_codec

    @property
    def nominal_ticks(self) -> int:
        """Ticks between two frames by the stream's own rate, at least 1."""
        rate = self.frame_rate
        return max(1, round(1 / (rate * self.time_base))) if rate else 1

    def describe(self, name: str, first: Frame, reader: FrameConverter, *, in_software: bool = False) -> StreamInfo:
        """What is known of the picture stream once its first frame is out; `in_software`: the card left it to FFmpeg."""
        video, container = self.video, self.container
        rate = self.frame_rate
        seconds = None
        if video.duration:
            seconds = float(video.duration * self.time_base)
        elif container.duration:
            seconds = container.duration / av.time_base
        count: int | None = None if self._counts_fields else video.frames or None
        if not self.span.whole:
            left = None if seconds is None else max(0.0, seconds - float(self.span.start))
            limits = [value for value in (left, self.span.duration) if value is not None]
            seconds = float(min(limits)) if limits else None
            count = None
        if count is None and seconds is not None and rate:
            count = round(seconds * rate)
        aspect = fraction(video.sample_aspect_ratio) or Fraction(1)
        notes = [*self.notes, *reader.notes]
        lost = "for a part of a video" if self.span.start else ""  # That of a later frame is another one.
        if rate and rate > _FASTEST_TIME_CODE:
            lost = f"at more than {_FASTEST_TIME_CODE} frames a second"
        if self.span.start:
            notes.append(f"begins at {float(self.span.start):g} s of the input")
        metadata = container.metadata
        if lost and time_code_of(metadata):
            metadata = {key: value for key, value in metadata.items() if key.lower() != "timecode"}
            notes.append(f"the time code is not kept {lost}")
        return StreamInfo(
            name=name,
            width=first.width,
            height=first.height,
            pixel_format=reader.pixel_format,
            color=reader.color,
            time_base=first.time_base,
            frame_rate=rate,
            frame_count=count,
            duration_seconds=seconds,
            sample_aspect_ratio=1 / aspect if reader.orientation.transpose else aspect,
            codec=str(video.codec_context.name) if in_software else self.codec,
            on_gpu=isinstance(first, GpuFrame),
            notes=tuple(notes),
            streams=tuple(
                stream for stream in container.streams if stream.index != video.index and not _unread(stream)
            ),
            changing=self.changing,
            template=video,
            time_code=None if lost else time_code_of(video.metadata),
            no_time_code=lost,
            metadata=metadata,
            chapters=tuple(self._chapters()),
        )

    def _chapters(self) -> Iterator[dict[str, Any]]:
        for chapter in self.container.chapters():
            inside = self.span.clip(chapter["start"], chapter["end"], fraction(chapter["time_base"]))
            if inside is not None:
                yield {**chapter, "start": inside[0], "end": inside[1]}


def open_at(
    path: str,
    start: float | None,
    duration: float | None,
    max_pixels: int,
    allow_protocols: Sequence[str] = (),
    decoder: str = "software",
    gpu: int | None = None,
    stream: int | None = None,
) -> OpenedFile:
    """Opens a file, or standard input for `-`, and goes to a key frame before `start`.

    Where there is none to be found, reading begins at the beginning, and what comes before `start` has to be left out.

    Args:
        path: the file, or `-`.
        start: seconds from the beginning; None: 0.
        duration: seconds; None: to the end.
        max_pixels: refuse larger pictures.
        allow_protocols: by which a playlist may open what it names.
        decoder: as `rtseg.io.codecs.choose_decoder` gives it.
        card: see `FileSource`.
        stream: see `FileSource`.

    Raises:
        SourceError: missing, not a video, or refused.
        OptionError: no such protocol.
    """
    if (start is not None and start < 0) or (duration is not None and duration <= 0):
        raise SourceError(f"start must be at least 0 and duration more than 0 seconds, not {start} and {duration}")
    opened = _open(path, start, duration, max_pixels, allow_protocols, decoder, gpu, stream)
    # By a clock that jumps no place can be found, and AVI tells the time of audio from the beginning alone: such a file
    # is read from there.
    whole = arbitrary_clock(opened.container) or opened.container.format.name == "avi"
    if not start or path == STDIN or whole or _seek(opened):
        return opened
    opened.container.close()
    return _open(path, start, duration, max_pixels, allow_protocols, decoder, gpu, stream)


def _open(
    path: str,
    start: float | None,
    duration: float | None,
    max_pixels: int,
    allow_protocols: Sequence[str],
    decoder: str,
    gpu: int | None,
    stream: int | None,
) -> OpenedFile:
    container = open_input(path, allow_protocols=allow_protocols, decoder=decoder, gpu=gpu)
    container.flags &= ~GENERATE_PTS
    try:
        video, notes = _choose_video(redacted_name(path), container, max_pixels, stream)
        time_base = fraction(video.time_base)
        if not time_base:
            raise SourceError(f"{redacted_name(path)}: its video stream has no time base")
        codec = decoder_name(video, decoder)
        if path != STDIN:
            notes += outside_streams(path)
    except BaseException:
        container.close()
        raise
    span = Span(
        Fraction(start or 0).limit_denominator(1_000_000),
        None if duration is None else Fraction(duration).limit_denominator(1_000_000),
        (video.start_time or 0) * time_base,
    )
    changing = frozenset[int]()
    if path != STDIN and may_change(container):
        changing = _find_changing(path, allow_protocols)
    return OpenedFile(container, video, span, time_base, codec, changing, notes)


def _find_changing(path: str, allow_protocols: Sequence[str]) -> frozenset[int]:
    with open_input(path, allow_protocols=allow_protocols) as container:
        try:
            return changing_audio(container)
        except av.FFmpegError:
            return frozenset()  # Reading it for its pictures meets the same damage, and reports it.


def is_cover(stream: Stream) -> bool:
    """Return whether a stream is a cover picture, which belongs to no moment of the video."""
    timed = Disposition.timed_thumbnails
    return (
        stream.type == "video" and (stream.disposition & (Disposition.attached_pic | timed)) == Disposition.attached_pic
    )


def _choose_video(
    name: str, container: InputContainer, max_pixels: int, number: int | None
) -> tuple[VideoStream, tuple[str, ...]]:
    """Return the video stream of a number, else the largest: the default one among those, else the first; and a note on it."""
    videos = list(container.streams.video)
    pictures = [stream for stream in videos if not stream.disposition & Disposition.attached_pic]
    if not pictures:
        cover = ", only a cover picture" if videos else ""
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceError(f"{name} has no video stream{cover} (it holds: {kinds})")
    listed = [f"{videos.index(stream)} ({_describe(stream)})" for stream in pictures]
    if number is None:
        video = max(pictures, key=lambda stream: (_area(stream), bool(stream.disposition & Disposition.default)))
    else:
        chosen = [stream for stream in pictures if videos.index(stream) == number]
        if not chosen:
            raise SourceError(f"{name} has no video stream {number} (--stream); it has {', '.join(listed)}")
        video = chosen[0]
    notes = []
    if len(pictures) > 1:
        others = ", ".join(text for text, stream in zip(listed, pictures, strict=True) if stream is not video)
        taken = f"video stream {listed[pictures.index(video)]} of {len(pictures)} is segmented"
        notes.append(f"{taken}; --stream N takes another: {others}")
    context = video.codec_context
    if context is None or context.name not in VIDEO_CODECS.split(","):
        codec = context.name if context else "an unknown codec"
        raise SourceError(f"{name}: rtseg does not decode this kind of video ({codec})")
    if context.width * context.height > max_pixels:
        size = f"{context.width}x{context.height}"
        raise SourceError(f"{name} says its pictures are {size}: more than {max_pixels} pixels (--max-pixels)")
    context.thread_type = "FRAME"
    if context.is_hwaccel:
        # FFmpeg keeps one more picture in the card's decoder for each thread, and a decoder has room for 32 in all.
        context.thread_count = _GPU_THREADS
    # FFmpeg counts the edges that it adds to a picture, up to 127 pixels across.
    context.options = {"max_pixels": str(max_pixels + max_pixels // 4 + (1 << 16))}
    return video, tuple(notes)


def _describe(stream: VideoStream) -> str:
    context = stream.codec_context
    return f"{context.width}x{context.height}" if context is not None else "unknown codec"


def arbitrary_clock(container: InputContainer) -> bool:
    """Return whether the clock of a container's format may begin anywhere and jump."""
    return bool(container.format.flags & _ARBITRARY_CLOCK)


def _seek(opened: OpenedFile) -> bool:
    """Whether a key frame before the span was found; if not, the file has been read and must be opened again."""
    first = opened.span.first(opened.time_base)
    # H.264 may have the second field of a frame at the place that is asked for, and begin with it.
    least = 1 if opened.video.codec_context.name == "h264" else 0
    for seconds_before in (least, 2, 10, 60):
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


def _unread(stream: Stream) -> bool:
    # MP4's chapter track, which FFmpeg gives as chapters and does not read as packets. PyAV tells from 18.0 on.
    return getattr(stream, "discard", None) == _DISCARD_ALL


def _area(stream: VideoStream) -> int:
    context = stream.codec_context
    return context.width * context.height if context is not None else 0
