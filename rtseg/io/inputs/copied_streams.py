"""Packets of the streams that are copied: audio, subtitles, data and other videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from av import Packet
from av.container import InputContainer

from rtseg.core.frame import Passthrough
from rtseg.io.inputs.copied_video import AviFrameOrder, CopiedVideo
from rtseg.io.inputs.timestamps import PacketTimes, Span, fraction

_PREROLL_SECONDS = Fraction(8, 100)
"""Hidden audio that is kept before the first sample: Opus needs 80 ms (RFC 7845, 4.6), AAC one packet."""

_NOTICED_SECONDS = Fraction(6, 100)
"""Audio that is missing for less than this at the beginning of a span gets no warning."""


class CopiedStreams:
    """Filter that restricts the packets of all streams but `video` to a span, and makes their time stamps rise."""

    def __init__(self, container: InputContainer, video: int, span: Span) -> None:
        self._span = span
        # Copied here because PyAV crashes if a stream object is used after its container is closed.
        audio = container.streams.audio
        self._pcm = {s.index for s in audio if s.codec_context is not None and s.codec_context.name.startswith("pcm_")}
        self._starts = {stream.index: stream.start_time or 0 for stream in container.streams}
        self.types = {stream.index: stream.type for stream in container.streams}
        """Type of each stream by its index."""
        self._times: dict[int, PacketTimes] = {}
        self._videos: dict[int, CopiedVideo] = {}
        self._avi_orders = {
            stream.index: AviFrameOrder(stream)
            for stream in container.streams.video
            if container.format.name == "avi" and stream.index != video and stream.codec_context.name == "h264"
        }
        self._begun: set[int] = set()
        self._silent_seconds: dict[int, Fraction] = {}
        """Time from the start of the span to its first audio packet, where an earlier packet was left out."""

    def take(self, packet: Packet[Any]) -> Iterator[Passthrough]:
        """Take a packet and yield those that are ready."""
        stream = packet.stream_index
        if self._span.start:
            _refine_time_base(packet)  # AVI counts blocks of audio: the span begins between two of them.
        if self.types.get(stream) == "video":
            order = self._avi_orders.get(stream)
            for ordered in [packet] if order is None else order.take(packet):
                yield from self._take_video(ordered)
            return
        unit = fraction(packet.time_base) or Fraction(1)
        times = self._times.setdefault(stream, PacketTimes())
        if not packet.is_discard:
            self._begun.add(stream)
        else:
            # An edit list hides it. Right before the first audible sample, it prepares the decoder for that.
            early = ((packet.pts or 0) - self._starts.get(stream, 0)) * unit < -_PREROLL_SECONDS
            if early or stream in self._begun or stream in self._pcm:
                return
        yield from self._in_span(times.place(packet), stream)

    def flush(self) -> Iterator[Passthrough]:
        """Yield the packets that are held at the end."""
        for order in self._avi_orders.values():
            for packet in order.flush():
                yield from self._take_video(packet)
        for stream, video in self._videos.items():
            yield from self._with_times(video.flush(), stream)
        for stream, times in self._times.items():
            yield from self._in_span(times.flush(), stream)

    def warnings(self) -> Iterator[str]:
        """Yield one line for each kind of repair so far."""
        for index, seconds in self._silent_seconds.items():
            if seconds > _NOTICED_SECONDS:
                late = f"audio stream {index} begins {float(seconds):.2f} s later than the part"
                yield f"{late}: with its first packet that begins in it"
        for index, video in self._videos.items():
            if video.hidden_between:
                yield (
                    f"video stream {index}: {video.hidden_between} packets that an edit list hides between others left out: "
                    "frames after them can't be decoded up to the next key frame"
                )
            if video.left_out:
                yield f"video stream {index}: {video.left_out} packets before its first key frame left out"
        for index, times in self._times.items():
            yield from times.warnings(f"packets of {self.types.get(index)} stream {index}")

    def _take_video(self, packet: Packet[Any]) -> Iterator[Passthrough]:
        stream, unit = packet.stream_index, fraction(packet.time_base) or Fraction(1)
        first = self._span.first(unit) if self._span.start else None
        video = self._videos.setdefault(stream, CopiedVideo(first, self._starts.get(stream, 0), unit))
        yield from self._with_times(video.take(packet), stream)

    def _with_times(self, packets: Iterator[tuple[Packet[Any], bool]], stream: int) -> Iterator[Passthrough]:
        times = self._times.setdefault(stream, PacketTimes())
        for packet, is_lead_in in packets:
            yield from self._in_span(times.place(packet, True), stream, is_lead_in=is_lead_in)

    def _in_span(
        self, packets: Sequence[Packet[Any]], stream: int, *, is_lead_in: bool = False
    ) -> Iterator[Passthrough]:
        """Yield the packets that are within the span; all of them if they lead in, needed to decode the span."""
        for packet in packets:
            unit = fraction(packet.time_base) or Fraction(1)
            assert packet.pts is not None
            assert packet.dts is not None
            # Reordered frames that are decoded within the span are kept: other frames need them.
            last = packet.dts if self.types.get(stream) == "video" else packet.pts
            late_seconds = (packet.pts - self._span.first(unit)) * unit
            begun = not self._span.start or late_seconds >= 0
            is_audio = self.types.get(stream) == "audio"
            if self._span.start and is_audio and self._silent_seconds.get(stream, late_seconds) < 0:
                # That of the last packet before the span, then of the first packet in it.
                self._silent_seconds[stream] = late_seconds
            inside = begun and not self._span.ended(last, unit)
            if is_lead_in or inside:
                shift = self._span.shift(unit)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                yield Passthrough(packet, stream)


def _refine_time_base(packet: Packet[Any]) -> None:
    """Give a packet a time base of 1/90000 of a second or less that represents its times exactly."""
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
