"""Packets of an open file in reading order, despite damage of the container."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import av
from av import Packet

from rtseg.core.errors import reason
from rtseg.io.inputs.avi_audio_times import AviAudioTimes
from rtseg.io.inputs.h264_fields import FieldDetector
from rtseg.io.inputs.opened_file import OpenedFile
from rtseg.io.inputs.timestamps import Span
from rtseg.io.inputs.video_stream import is_cover

_MAX_CONSECUTIVE_ERRORS = 64
"""Reading stops after this number of container errors without a packet between them."""

_MAX_HELD = 64
"""Largest number of packets of other streams that wait for the next frame."""

REORDERED_FRAMES = 16
"""Largest number of frames that a codec holds back to output them in presentation order (H.264, HEVC)."""


class FileDemuxer:
    """Demuxer of an open file.

    It holds `lock` while it uses the container; the event `closing` ends the reading and closes the container. `on_damage` is
    called with a description of each error.
    """

    def __init__(
        self, opened: OpenedFile, lock: threading.Lock, closing: threading.Event, on_damage: Callable[[str], None]
    ) -> None:
        self._container, self._video_index = opened.container, opened.video.index
        self._codec_name = opened.video.codec_context.name
        self._lock, self._closing, self._on_damage = lock, closing, on_damage
        # Matroska stores no decoding times. Those that FFmpeg computes step back and forth if a frame has two packets.
        self._no_decoding_times = self._container.format.name.startswith("matroska") and opened.may_have_fields
        self._avi_audio_times = AviAudioTimes(self._container)
        self.cover_streams = {stream.index for stream in self._container.streams if is_cover(stream)}
        """Indices of the streams that are cover images."""
        self.covers: dict[int, Packet[Any]] = {}
        """Packets of the cover images so far, by stream index."""
        self.finished = False
        """Set to end the reading after the current packet."""

    def __iter__(self) -> Iterator[Packet[Any]]:
        """Yield all packets but cover images and the empty packets that flush a decoder."""
        if self._container.format.name == "mpeg" and self._codec_name in ("h264", "hevc"):
            return _without_duplicate_timestamps(self._packets(), self._video_index)
        return self._packets()

    def _packets(self) -> Iterator[Packet[Any]]:
        errors, packets = 0, None
        while errors < _MAX_CONSECUTIVE_ERRORS and not self.finished:
            try:
                with self._lock:
                    if self._closing.is_set():
                        self._container.close()
                        return
                    packets = packets or self._container.demux(list(self._container.streams))
                    packet = next(packets, None)
            except (av.FFmpegError, OSError, IndexError) as error:
                errors, packets = errors + 1, None
                # PyAV raises IndexError for a packet of a stream that did not exist when the file was opened.
                is_new = isinstance(error, IndexError)
                text = (
                    "packet of a stream that begins inside the file" if is_new else f"unreadable data ({reason(error)})"
                )
                self._on_damage(text)
                continue
            if packet is None:
                return
            errors = 0
            if packet.stream_index in self.cover_streams:
                if packet.size:
                    self.covers[packet.stream_index] = packet
            elif packet.size:
                if self._no_decoding_times and packet.stream_index == self._video_index:
                    packet.dts = None
                self._avi_audio_times.correct(packet)
                yield packet


def from_last_key_frame(packets: Iterator[Packet[Any]], opened: OpenedFile, span: Span) -> Iterator[Packet[Any]]:
    """Yield all packets, without video packets before the last key frame that the span needs."""
    if not span.start:
        yield from packets
        return
    held: list[Packet[Any]] = []
    fields = FieldDetector.of(opened.video.codec_context)
    # Kept here because PyAV crashes if a stream object is used after its container is closed.
    video_index, nominal_ticks, first = opened.video.index, opened.nominal_ticks, span.first(opened.time_base)
    for packet in packets:
        if packet.stream_index != video_index:
            yield packet  # `CopiedStreams` applies the span.
            continue
        stamp = packet.pts
        if stamp is None and packet.dts is not None:
            # It may be presented this much later than it is decoded; frames before it may need the previous key frame.
            stamp = packet.dts + REORDERED_FRAMES * nominal_ticks
        second = fields is not None and fields.is_second_field(bytes(packet))
        if packet.is_keyframe and not second and (stamp is None or stamp <= first or not held):
            held.clear()
        if held or packet.is_keyframe:
            held.append(packet)
        if stamp is None or stamp >= first:
            break
    yield from held
    yield from packets


def _without_duplicate_timestamps(packets: Iterable[Packet[Any]], video: int) -> Iterator[Packet[Any]]:
    """Yield all packets; of two packets of the stream `video` with the same time, the first one loses it.

    The time of a PES packet in a program stream is that of the first frame that begins in it (ISO/IEC 13818-1, 2.4.3.7).
    For H.264 and HEVC, FFmpeg also gives it to the frame that ends in it.
    """
    held: list[Packet[Any]] = []
    for packet in packets:
        if packet.stream_index == video:
            if held and packet.pts is not None and packet.pts == held[0].pts:
                held[0].pts = held[0].dts = None
            yield from held
            held = [packet]
        elif held and len(held) < _MAX_HELD:
            held.append(packet)
        else:
            yield from held
            held = []
            yield packet
    yield from held
