"""What a media file holds, read by demuxing alone: the packets of each stream, their times and their contents.

Nothing here goes through a source of rtseg or its repairs: both sides of a fidelity report are read this way. Shared with the
source are only how a file is opened, the arithmetic of MPEG's wrapping clock (`unwrapped`), and what AVI's header says of
times that FFmpeg reads wrongly (`AviAudioTimes`).
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
from av import Packet
from av.container import InputContainer

from rtseg.core.frame import time_code_of
from rtseg.io.inputs.audio_changes import has_adts
from rtseg.io.inputs.avi_audio_times import AviAudioTimes
from rtseg.io.inputs.file_clock import GAP_SECONDS, LONGEST_GAP_SECONDS, MPEG_TICK, unwrapped
from rtseg.io.inputs.opened_file import GENERATE_PTS, NO_TIME_STAMPS, arbitrary_clock, is_cover
from rtseg.io.inputs.safe_open import open_input
from rtseg.io.inputs.timestamps import fraction
from rtseg.io.outputs.copied_stream import codec_name

NO_TIME = -(1 << 62)
"""Stands for a time stamp that is missing."""

_ERRORS_IN_A_ROW = 64

_LONGEST_STEP_SECONDS = Fraction(1, 2)
"""A frame without a time stamp is not shown further than this behind the one before."""


@dataclass(slots=True)
class StreamReading:
    """The packets of one stream in the order of the file."""

    codec: str
    """FFmpeg's name."""

    kind: str
    """`video`, `cover`, `audio`, `subtitle`, `data` …"""

    time_base: Fraction = Fraction(1)
    """Seconds in a tick."""

    default: bool = False
    """Whether players choose it by themselves."""

    adts: bool = False
    """Whether it is AAC with a header before each packet; one without is damaged, and no muxer takes it."""

    time_code: str | None = None
    """In its metadata."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    """Presentation times in ticks; `NO_TIME` where there is none."""

    dts: array[int] = field(default_factory=lambda: array("q"))
    """Decoding times in ticks; `NO_TIME` where there is none."""

    order: array[int] = field(default_factory=lambda: array("q"))
    """Number of each packet among all packets of the file."""

    hidden: set[int] = field(default_factory=set)
    """Numbers of packets that an edit list hides."""

    contents: array[int] = field(default_factory=lambda: array("Q"))
    """A hash of each packet's content, without what containers add to it; empty for the video that is segmented."""

    whole: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))
    """A hash of all contents in a row: containers cut PCM into packets as they like."""

    heard: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))
    """The same without packets that an edit list hides."""

    last_duration: int = 0
    """Duration of the packet that is shown last, in ticks."""

    _end: int = NO_TIME

    def add(self, packet: Packet[Any], order: int, hashed: bool = True) -> None:
        """Note one packet, the `order`-th of all."""
        if hashed:
            payload = _payload(self.codec, packet, self.adts)
            if payload is None:
                return
            self.whole.update(payload)
            if not packet.is_discard:
                self.heard.update(payload)
            digest = hashlib.blake2b(payload, digest_size=8).digest()
            self.contents.append(int.from_bytes(digest, "little"))
        if packet.is_discard:
            self.hidden.add(len(self.pts))
        self.order.append(order)
        self.pts.append(NO_TIME if packet.pts is None else packet.pts)
        self.dts.append(NO_TIME if packet.dts is None else packet.dts)
        self.time_base = fraction(packet.time_base) or self.time_base
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and stamp >= self._end and not packet.is_discard:
            self._end, self.last_duration = stamp, packet.duration or 0

    @property
    def is_pcm(self) -> bool:
        """Whether its packets are cut as a container likes."""
        return self.codec.startswith("pcm_")

    def time(self, number: int) -> int | None:
        """Return when a packet is presented, in ticks; its decoding time where that is all."""
        time = self.pts[number] if self.pts[number] != NO_TIME else self.dts[number]
        return None if time == NO_TIME else time

    def times(self) -> list[int | None]:
        """Return when each packet is presented, in the order of the file."""
        return [self.time(number) for number in range(len(self.pts))]


@dataclass(frozen=True, slots=True)
class ContainerReading:
    """All streams of a file."""

    video: StreamReading
    """The video stream that is segmented."""

    others: dict[int, StreamReading]
    """The other streams by their index."""

    arbitrary_clock: bool
    """Whether the format's clock may begin anywhere and jump."""

    timed: bool = True
    """Whether the format says when a frame is shown; raw streams do not."""

    time_code: str | None = None
    """In the metadata of the whole file."""

    @property
    def time_codes(self) -> set[str]:
        """All time codes that the file says."""
        codes = self.time_code, self.video.time_code, *(other.time_code for other in self.others.values())
        return {code for code in codes if code is not None}

    def presentation_times(self) -> list[int] | None:
        """Return when each frame is shown, in ticks and in the order of showing, where the packets alone say so.

        None: they do not: times are missing, occur twice, or the clock jumps.
        """
        video = self.video
        if NO_TIME in video.pts:
            if set(video.pts) != {NO_TIME} or NO_TIME in video.dts:
                return None
            return [
                d for n, d in enumerate(video.dts) if n not in video.hidden
            ]  # AVI: frames leave as they are decoded.
        decoding = [dts for dts in video.dts if dts != NO_TIME]
        limit = (GAP_SECONDS if self.arbitrary_clock else LONGEST_GAP_SECONDS) / video.time_base
        if any(not 0 < later - earlier <= limit for earlier, later in pairwise(decoding)):
            return None
        times = sorted(pts for n, pts in enumerate(video.pts) if n not in video.hidden)
        return None if any(later == earlier for earlier, later in pairwise(times)) else times


def read_container(path: str, video: int, *, allow_protocols: Sequence[str] = ()) -> ContainerReading:
    """Read all packets of a file.

    Args:
        path: the file.
        video: index of the stream that is segmented.
        allow_protocols: as `open_input` takes them.

    Raises:
        SourceError: it can't be opened.
    """
    with open_input(path, allow_protocols=allow_protocols) as container:
        return reading_of(container, video)


def reading_of(container: InputContainer, video: int) -> ContainerReading:
    """Read all packets of an open file; unreadable stretches are left out."""
    container.flags &= ~GENERATE_PTS
    streams = {stream.index: _reading(stream) for stream in container.streams}
    avi_times = AviAudioTimes(container)
    errors = order = 0
    while errors < _ERRORS_IN_A_ROW:
        try:
            for packet in container.demux(list(container.streams)):
                errors = 0
                order += 1
                avi_times.mend(packet)
                if packet.size and packet.stream_index in streams:
                    streams[packet.stream_index].add(packet, order, packet.stream_index != video)
            break
        except (av.FFmpegError, OSError, IndexError):  # IndexError: PyAV, where a stream begins in mid-file
            errors += 1
    if arbitrary_clock(container):
        _unwrap(streams, streams[video])
    own = streams.pop(video)
    timed = not container.format.flags & NO_TIME_STAMPS
    return ContainerReading(own, streams, arbitrary_clock(container), timed, time_code_of(container.metadata))


def decoded_times(
    path: str, video: int, *, allow_protocols: Sequence[str] = (), damaged: bool = True
) -> list[int | None]:
    """Return when a plain FFmpeg decode shows each frame, in ticks and in the order of showing.

    A frame without a presentation time has the decoding time that FFmpeg gives it, as in FFmpeg's best effort; None where
    there is neither. Frames that can't be decoded are not among them.

    Args:
        path: the file.
        video: index of the stream.
        allow_protocols: as `open_input` takes them.
        damaged: whether it may have errors: with frame threads, which are faster, PyAV loses frames behind one at the end.

    Raises:
        SourceError: it can't be opened.
    """
    times, sound = _decode(path, video, allow_protocols, "NONE" if damaged else "FRAME")
    # With frame threads FFmpeg marks frames as corrupt that it decodes well without, and PyAV loses those beside an error.
    return times if damaged or sound else _decode(path, video, allow_protocols, "NONE")[0]


def first_decoded(path: str, video: int) -> Fraction | None:
    """Return the seconds at which FFmpeg's own tools show the first frame of a stream without presentation times; None: no frame.

    It is the decoding time of the packet behind which the decoder gives the frame.
    """
    with open_input(path) as container:
        stream = container.streams[video]
        assert isinstance(stream, av.VideoStream)
        stream.thread_type = "NONE"
        for packet in _video_packets(container, stream):
            with suppress(av.FFmpegError, OSError):
                for frame in stream.codec_context.decode(packet):
                    return None if frame.dts is None else frame.dts * (fraction(stream.time_base) or Fraction(1))
    return None


def _decode(path: str, video: int, allow_protocols: Sequence[str], threads: str) -> tuple[list[int | None], bool]:
    """The times of all frames, and whether there was no error."""
    times: list[int | None] = []
    sound = True
    with open_input(path, allow_protocols=allow_protocols) as container:
        container.flags &= ~GENERATE_PTS
        stream = container.streams[video]
        assert isinstance(stream, av.VideoStream)
        stream.thread_type = threads
        gap = int(_LONGEST_STEP_SECONDS / (fraction(stream.time_base) or 1))
        wraps = arbitrary_clock(container) and fraction(stream.time_base) == MPEG_TICK
        packets = _video_packets(container, stream)
        ends = 0
        while ends < _ERRORS_IN_A_ROW:
            packet = next(packets, None)
            ends += packet is None  # An error at the end does not hold back the frames behind it.
            try:
                frames = stream.codec_context.decode(packet)
            except av.EOFError:
                break
            except (av.FFmpegError, OSError):
                sound = False
                continue
            if packet is None and not frames:
                break
            for frame in frames:
                sound &= not frame.is_corrupt
                if not frame.is_corrupt:
                    times.append(_shown(frame, times, gap))
    return _in_one_turn(times, next((time for time in times if time is not None), 0)) if wraps else times, sound


def _video_packets(container: InputContainer, stream: av.VideoStream) -> Iterator[Packet[Any]]:
    """All packets of a stream; unreadable stretches are left out."""
    errors = 0
    while errors < _ERRORS_IN_A_ROW:
        try:
            for packet in container.demux(stream):
                errors = 0
                if packet.size:
                    yield packet
            return
        except (av.FFmpegError, OSError, IndexError):
            errors += 1


def _shown(frame: Any, times: Sequence[int | None], gap: int) -> int | None:
    """When a frame is shown; None: nothing tells.

    Where its stamp is missing, FFmpeg has that of the packet that it came behind, which may be of another recording.
    """
    if frame.pts is not None or frame.dts is None:
        return frame.pts  # type: ignore[no-any-return]
    before = next((time for time in reversed(times) if time is not None), None)
    return frame.dts if before is None or 0 < frame.dts - before <= gap else None


def _unwrap(streams: dict[int, StreamReading], video: StreamReading) -> None:
    """Undo the wraps of MPEG's clock that FFmpeg leaves: no time is further than half a turn from the one before."""
    first = next((time for time in video.times() if time is not None), 0)
    for stream in streams.values():
        if stream.time_base == MPEG_TICK:
            for times in (stream.pts, stream.dts):
                known = [None if time == NO_TIME else time for time in times]
                times[:] = array("q", [NO_TIME if time is None else time for time in _in_one_turn(known, first)])


def _in_one_turn(times: Sequence[int | None], near: int) -> list[int | None]:
    turned: list[int | None] = []
    for time in times:
        near = near if time is None else unwrapped(time, near)
        turned.append(None if time is None else near)
    return turned


def _reading(stream: Any) -> StreamReading:
    default = bool(stream.disposition & 1)  # AV_DISPOSITION_DEFAULT
    kind = "cover" if is_cover(stream) else stream.type
    unit = fraction(stream.time_base) or Fraction(1)
    return StreamReading(codec_name(stream), kind, unit, default, has_adts(stream), time_code_of(stream.metadata))


def _payload(codec: str, packet: Packet[Any], adts: bool) -> bytes | None:
    """The part of a packet that no container changes; None: nothing is in it that can be used."""
    payload = bytes(packet)
    if codec in ("mov_text", "text", "subrip") and payload == b"\0\0":
        return None  # MP4 fills the gaps between subtitles with empty ones.
    if codec == "aac" and len(payload) > 7 and payload[0] == 0xFF and payload[1] & 0xF6 == 0xF0:
        # MPEG-TS puts an ADTS header before each packet (ISO/IEC 13818-7, 6.2): 7 bytes, 9 with a checksum.
        known_rate = payload[2] >> 2 & 15 < 13
        return payload[7 if payload[1] & 1 else 9 :] if known_rate or not adts else None
    if adts:
        return None
    if codec in ("h264", "hevc"):
        return _slices(payload, codec)
    return payload


def _slices(payload: bytes, codec: str) -> bytes:
    """The slices of an H.264 or HEVC packet, framed by lengths of 4 bytes (MP4, Matroska) or by start codes (MPEG-TS).

    Parameter sets, delimiters and the like are repeated by some containers and kept apart by others.
    """
    units: list[bytes] = []
    position = 0
    while position + 4 <= len(payload):
        size = int.from_bytes(payload[position : position + 4], "big")
        units.append(payload[position + 4 : position + 4 + size].rstrip(b"\0"))
        position += 4 + size
    if position != len(payload):
        units = [unit.rstrip(b"\0") for unit in payload.split(b"\0\0\1")[1:]]
    # ITU-T H.264, table 7-1; H.265, table 7-1.
    kinds, mask, shift = (range(1, 6), 31, 0) if codec == "h264" else (range(32), 63, 1)
    return b"".join(unit for unit in units if unit and unit[0] >> shift & mask in kinds)
