"""Demuxer for verification: packets of each stream with timestamps and content hashes.

Both sides of a fidelity report are read with this module. It does not use the sources of rtseg or their timestamp repairs, except
for opening the file, unwrapping the MPEG clock (`unwrapped`), and the AVI audio times that FFmpeg reads wrongly (`AviAudioTimes`).
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
from av import Packet
from av.container import InputContainer
from av.stream import Disposition, Stream

from rtseg.core.frame import time_code_of
from rtseg.io.inputs.avi_audio_times import AviAudioTimes
from rtseg.io.inputs.file_clock import MPEG_TICK, unwrapped
from rtseg.io.inputs.opened_file import GENERATE_PTS, NO_TIME_STAMPS, arbitrary_clock, has_adts
from rtseg.io.inputs.stream_state import GAP_SECONDS, LONGEST_GAP_SECONDS
from rtseg.io.inputs.timestamps import fraction
from rtseg.io.inputs.video_stream import is_cover
from rtseg.io.outputs.copied_stream import codec_name

NO_TIME = -(1 << 62)
"""Value of a missing timestamp."""

MAX_CONSECUTIVE_ERRORS = 64
"""Number of errors without a packet between them after which reading ends."""


@dataclass(slots=True)
class StreamPackets:
    """Packets of one stream in file order. A packet number is an index into the arrays."""

    codec: str
    """FFmpeg's name of the codec."""

    kind: str
    """`video`, `cover`, `audio`, `subtitle`, `data` …"""

    time_base: Fraction = Fraction(1)
    """Seconds per tick."""

    default: bool = False
    """True if the stream has the default flag, by which players select it."""

    adts: bool = False
    """True if the stream is AAC with a header before each packet. A packet without one is damaged, and muxers reject it."""

    time_code: str | None = None
    """Time code in the stream's metadata."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    """Presentation times in ticks; `NO_TIME` where missing."""

    dts: array[int] = field(default_factory=lambda: array("q"))
    """Decoding times in ticks; `NO_TIME` where missing."""

    positions: array[int] = field(default_factory=lambda: array("q"))
    """Position of each packet among all packets of the file."""

    hidden: set[int] = field(default_factory=set)
    """Numbers of the packets that an edit list hides."""

    hashes: array[int] = field(default_factory=lambda: array("Q"))
    """Hash of each packet's content, without what containers add; empty for the segmented video stream."""

    stream_hash: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))
    """Hash of the concatenated contents. Containers split PCM into packets of any size."""

    visible_hash: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))
    """The same without packets that an edit list hides."""

    last_duration: int = 0
    """Duration of the packet with the latest timestamp, in ticks."""

    _end: int = NO_TIME

    def add(self, packet: Packet[Any], position: int, hashed: bool = True) -> None:
        """Add a packet, which has a position among all packets of the file; `hashed` adds the hash of its content."""
        if hashed:
            content = _content(self.codec, packet, self.adts)
            if content is None:
                return
            self.stream_hash.update(content)
            if not packet.is_discard:
                self.visible_hash.update(content)
            digest = hashlib.blake2b(content, digest_size=8).digest()
            self.hashes.append(int.from_bytes(digest, "little"))
        if packet.is_discard:
            self.hidden.add(len(self.pts))
        self.positions.append(position)
        self.pts.append(NO_TIME if packet.pts is None else packet.pts)
        self.dts.append(NO_TIME if packet.dts is None else packet.dts)
        self.time_base = fraction(packet.time_base) or self.time_base
        timestamp = packet.pts if packet.pts is not None else packet.dts
        if timestamp is not None and timestamp >= self._end and not packet.is_discard:
            self._end, self.last_duration = timestamp, packet.duration or 0

    @property
    def is_pcm(self) -> bool:
        """True if containers may split the stream into packets of any size."""
        return self.codec.startswith("pcm_")

    def time(self, number: int) -> int | None:
        """Return the presentation time of a packet in ticks, or its decoding time if there is none."""
        time = self.pts[number] if self.pts[number] != NO_TIME else self.dts[number]
        return None if time == NO_TIME else time

    def times(self) -> list[int | None]:
        """Return `time` of each packet in file order."""
        return [self.time(number) for number in range(len(self.pts))]

    def visible_times(self) -> list[int | None]:
        """Return `time` of each packet that is not hidden, in file order."""
        return [time for number, time in enumerate(self.times()) if number not in self.hidden]

    def known_times(self) -> list[int]:
        """Return the visible times without missing ones, in file order."""
        return [time for time in self.visible_times() if time is not None]


@dataclass(frozen=True, slots=True)
class ContainerPackets:
    """Packets of all streams of a file."""

    video: StreamPackets
    """The segmented video stream."""

    others: dict[int, StreamPackets]
    """The other streams by index."""

    format: str
    """FFmpeg's name of the container format; empty: unknown."""

    arbitrary_clock: bool
    """True if the clock of the format may start anywhere and jump."""

    timed: bool = True
    """True if the format has timestamps; raw streams have none."""

    time_code: str | None = None
    """Time code in the metadata of the file."""

    @property
    def time_codes(self) -> set[str]:
        """Time codes in the metadata of the file and its streams."""
        codes = self.time_code, self.video.time_code, *(other.time_code for other in self.others.values())
        return {code for code in codes if code is not None}

    def presentation_times(self) -> list[int] | None:
        """Return the presentation time of each frame in ticks, sorted.

        None if the packets do not determine it: times are missing or occur twice, or the clock jumps.
        """
        video = self.video
        if NO_TIME in video.pts:
            if set(video.pts) != {NO_TIME} or NO_TIME in video.dts:
                return None
            # AVI: frames are displayed in decoding order.
            return [dts for number, dts in enumerate(video.dts) if number not in video.hidden]
        decoding = [dts for dts in video.dts if dts != NO_TIME]
        limit = (GAP_SECONDS if self.arbitrary_clock else LONGEST_GAP_SECONDS) / video.time_base
        if any(not 0 < later - earlier <= limit for earlier, later in pairwise(decoding)):
            return None
        times = sorted(pts for number, pts in enumerate(video.pts) if number not in video.hidden)
        return None if any(later == earlier for earlier, later in pairwise(times)) else times


def readable_packets(container: InputContainer, *streams: Stream) -> Iterator[Packet[Any]]:
    """Yield all packets of some streams that have content; unreadable parts are skipped."""
    errors = 0
    while errors < MAX_CONSECUTIVE_ERRORS:
        try:
            for packet in container.demux(*streams):
                errors = 0
                if packet.size:
                    yield packet
            return
        except (av.FFmpegError, OSError, IndexError):  # IndexError: PyAV, where a stream begins in the middle of a file
            errors += 1


def read_container(container: InputContainer, video: int) -> ContainerPackets:
    """Read all packets of an open file, in which `video` is the index of the segmented video stream."""
    container.flags &= ~GENERATE_PTS
    streams = {stream.index: empty_packets(stream) for stream in container.streams}
    avi_times = AviAudioTimes(container)
    for position, packet in enumerate(readable_packets(container, *container.streams)):
        avi_times.correct(packet)
        if packet.stream_index in streams:
            streams[packet.stream_index].add(packet, position, packet.stream_index != video)
    if arbitrary_clock(container):
        _unwrap_streams(streams, streams[video])
    video_packets = streams.pop(video)
    timed = not container.format.flags & NO_TIME_STAMPS
    time_code = time_code_of(container.metadata)
    return ContainerPackets(video_packets, streams, container.format.name, arbitrary_clock(container), timed, time_code)


def optional_times(times: Sequence[int]) -> list[int | None]:
    """Return times with None in place of `NO_TIME`."""
    return [None if time == NO_TIME else time for time in times]


def unwrap_times(times: Sequence[int | None], reference: int) -> list[int | None]:
    """Unwrap times of the MPEG clock in ticks: each is within half a period of the one before it, the first of `reference`."""
    result: list[int | None] = []
    for time in times:
        reference = reference if time is None else unwrapped(time, reference)
        result.append(None if time is None else reference)
    return result


def _unwrap_streams(streams: dict[int, StreamPackets], video: StreamPackets) -> None:
    """Undo the wraps of the MPEG clock that FFmpeg leaves."""
    first = next((time for time in video.times() if time is not None), 0)
    for stream in streams.values():
        if stream.time_base == MPEG_TICK:
            for times in (stream.pts, stream.dts):
                known = unwrap_times(optional_times(times), first)
                times[:] = array("q", [NO_TIME if time is None else time for time in known])


def empty_packets(stream: Stream) -> StreamPackets:
    """Return the properties of a stream, without packets."""
    default = bool(stream.disposition & Disposition.default)
    kind = "cover" if is_cover(stream) else stream.type
    time_base = fraction(stream.time_base) or Fraction(1)
    return StreamPackets(codec_name(stream), kind, time_base, default, has_adts(stream), time_code_of(stream.metadata))


def _content(codec: str, packet: Packet[Any], adts: bool) -> bytes | None:
    """Return the part of a packet that no container adds or changes; None if it contains nothing usable."""
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
    """Return the slices of an H.264 or HEVC packet, with 4-byte lengths (MP4, Matroska) or start codes (MPEG-TS).

    Parameter sets, delimiters and similar units are left out: some containers repeat them, others store them elsewhere.
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
    types, mask, shift = (range(1, 6), 31, 0) if codec == "h264" else (range(32), 63, 1)
    return b"".join(unit for unit in units if unit and unit[0] >> shift & mask in types)
