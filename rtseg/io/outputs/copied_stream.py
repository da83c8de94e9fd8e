"""Streams that are copied packet by packet to another container."""

from __future__ import annotations

import io
from collections import deque
from fractions import Fraction
from heapq import heappop, heappush
from math import ceil
from typing import Any, Protocol

import av
from av import Packet
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.stream import Disposition

from rtseg.core.frame import TIME_CODE
from rtseg.io.outputs.audio_parameters import default_layout
from rtseg.io.outputs.containers import TEE, Container

_BIBLIOGRAPHIC = {"deu": "ger", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "swe": "sve", "fas": "per"}
"""Mapping of ISO 639-2 language codes to those in FFmpeg's list of QuickTime languages."""

_COVER_TYPES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
"""File names of cover images from the Matroska specification, and MIME types."""

_AVI_TICK_SECONDS = Fraction(1, 600)
"""Smallest time step of FFmpeg's AVI muxer, seconds."""


def codec_name(stream: Any) -> str:
    """Return the canonical codec name of a stream: `mp3`, not `mp3float`."""
    context = stream.codec_context
    if context is not None:
        return str(context.codec.canonical_name)
    name = getattr(stream, "name", None) or "of an unknown kind"
    if stream.type == "data" and name in ("of an unknown kind", "none") and "timecode" in stream.metadata:
        return TIME_CODE
    return name


def metadata_for(kind: Container, template: Any, no_time_code: bool) -> dict[str, str]:
    """Return the metadata for the copy of a stream, with the bibliographic language codes that MOV needs."""
    metadata = {k: v for k, v in template.metadata.items() if not no_time_code or k.lower() != "timecode"}
    if kind.format == "mov" and metadata.get("language") in _BIBLIOGRAPHIC:
        metadata["language"] = _BIBLIOGRAPHIC[metadata["language"]]
    return metadata


class OtherStream(Protocol):
    """Output stream other than the segmented one."""

    index: int
    """Index in the output."""

    def process(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Convert a packet of the input and return the packets to write. May raise av.FFmpegError."""
        return []

    def flush(self) -> list[Packet[Any]]:
        """Return the remaining packets at the end."""
        return []

    def problems(self, source: int) -> list[str]:
        """Return messages about packets that were not copied, one line each; `source` is the index in the input."""
        return []


class CopiedStream(OtherStream):
    """Copy of an input stream. Create it before the header of the container is written.

    `no_time_code` omits the time code, because it does not apply to the start of the output.

    Raises:
        av.FFmpegError, ValueError: the container does not support the stream.
    """

    def __init__(self, container: OutputContainer, template: Any, kind: Container, no_time_code: bool) -> None:
        if not kind.supports(template.type, codec_name(template)):
            raise ValueError(f"{kind.format} does not support {codec_name(template)}")
        if container.format.name != TEE or codec_name(template) not in kind.unlisted_codecs:
            _check_header(template, kind)
        self._stream = _add_stream(container, template, kind)
        self._stream.metadata.update(metadata_for(kind, template, no_time_code))
        disposition = Disposition(template.disposition)
        if template.type == "video":
            disposition &= ~Disposition.default  # players open the default stream, which is the segmented one
        self._stream.disposition = disposition
        self.index = self._stream.index
        self._kind, self._format = str(template.type), kind.format
        context = template.codec_context
        # AAC has its parameters in every packet in MPEG-TS (ADTS), and once in the header in other containers.
        self._adts = context is not None and context.name == "aac" and not context.extradata
        needs_header = self._adts and kind.format != "mpegts"
        self._filter = BitStreamFilterContext("aac_adtstoasc", template) if needs_header else None
        self._damaged = 0
        """Number of damaged packets, which are dropped."""
        is_avi_video = template.type == "video" and kind.constant_rate
        self._avi_video = _AviVideo(template, codec_name(template), self._stream) if is_avi_video else None
        # AVI and MPEG-TS have no default stream: FFmpeg opens the video stream with more frames.
        self._starts_at_key_frame = is_avi_video or (template.type == "video" and kind.format == "mpegts")
        self._started = False
        self._dropped_leading = False
        """True if video packets were dropped that precede the first key frame, or that only decoding needs."""
        # In MP4 the edit list ends at the packets of the last fragment, which hides frames that are displayed later.
        self._extends_last_packet = template.type == "video" and kind.fragmented
        self._delayed: list[Packet[Any]] = []
        self._end_pts: int | None = None

    def problems(self, source: int) -> list[str]:
        """Return messages about dropped packets, one line each; `source` is the index of the stream in the input."""
        messages = []
        if self._damaged:
            packets = "packet" if self._damaged == 1 else "packets"
            messages.append(f"{self._kind} stream {source}: {self._damaged} damaged {packets} left out")
        if self._dropped_leading:
            messages.append(
                f"video stream {source} begins at its next key frame, as {self._format} can't hide packets before it"
                if self._started
                else f"video stream {source} is empty: none of its key frames is in the part"
            )
        return messages

    def process(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Convert a packet of the input and return the packets to write."""
        if self._starts_at_key_frame and not self._started:
            # The first packet is the one that is displayed at time zero.
            before_zero = packet.pts is not None and packet.pts < 0 and packet.pts + (packet.duration or 0) <= 0
            if before_zero or (self._dropped_leading and not packet.is_keyframe):
                self._dropped_leading = True
                return []
            self._started = True
        if self._adts and not _begins_with_adts(packet):
            self._damaged += 1
            return []
        packets = [packet]
        try:
            if self._filter is not None:
                time_base = packet.time_base
                packets = self._filter.filter(packet)
                for filtered in packets:
                    filtered.time_base = time_base or Fraction(1)
            elif self._avi_video is not None:
                packets = self._avi_video.process(packet)
            elif self._extends_last_packet:
                packets = self._delay_last_packet(packet)
        except av.FFmpegError:
            self._damaged += 1
            return []
        return self._set_stream(packets)

    def flush(self) -> list[Packet[Any]]:
        """Return the remaining packets at the end."""
        for packet in self._delayed:
            packet.duration = max(packet.duration or 0, (self._end_pts or 0) - (packet.pts or 0))
        return self._set_stream(self._delayed if self._avi_video is None else self._avi_video.flush())

    def _delay_last_packet(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Return the previous packet, or the first packet at once. The last packet is delayed, because its duration changes."""
        end = (packet.pts or 0) + (packet.duration or 0)
        if self._end_pts is None:
            self._end_pts = end
            return [packet]
        self._end_pts = max(self._end_pts, end)
        delayed, self._delayed = self._delayed, [packet]
        return delayed

    def _set_stream(self, packets: list[Packet[Any]]) -> list[Packet[Any]]:
        for packet in packets:
            packet.stream = self._stream
        return packets


class _AviVideo:
    """Packet converter for a copied video stream in AVI.

    H.264 packets get start codes, and the n-th packet gets the n-th presentation time. AVI stores no presentation times, and
    players that support reordering display the n-th frame at the time of the n-th packet. For other codecs FFmpeg and players
    derive presentation times from decode times, which are kept. The stream of the output gets the parameters of the converted
    packets.
    """

    def __init__(self, template: Any, codec: str, stream: Any) -> None:
        self._reorders = codec == "h264"
        extradata = template.codec_context.extradata if self._reorders else None
        self._filter: BitStreamFilterContext | None = None
        if extradata and bytes(extradata)[0] == 1:  # ISO/IEC 14496-15, 5.3.3.1: length prefixes, as in MP4 and Matroska
            self._filter = BitStreamFilterContext("h264_mp4toannexb", template, stream)
            stream.codec_context.codec_tag = "\0\0\0\0"  # the tag of the input means length prefixes
        self._packets: deque[Packet[Any]] = deque()
        self._times: list[int] = []
        self._last_time: int | None = None
        self._started = False

    def process(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Add a packet of the input and return the packets whose time is final. May raise av.FFmpegError."""
        time_base = packet.time_base or Fraction(1)
        for filtered in [packet] if self._filter is None else self._filter.filter(packet):
            filtered.time_base = time_base
            self._packets.append(filtered)
            if self._reorders:
                heappush(self._times, filtered.pts or 0)
        ready = []
        # Presentation times of later packets are after the decode time of the last packet.
        while self._packets and (not self._reorders or self._times[0] <= (self._packets[-1].dts or 0)):
            ready.append(self._next())
        return self._pad_to_zero(ready)

    def flush(self) -> list[Packet[Any]]:
        """Return the remaining packets."""
        return self._pad_to_zero([self._next() for _ in range(len(self._packets))])

    def _next(self) -> Packet[Any]:
        packet = self._packets.popleft()
        if self._reorders:
            time = heappop(self._times)
            if self._last_time is not None:  # two fields of one frame may have the same time
                time = max(time, self._last_time + ceil(_AVI_TICK_SECONDS / (packet.time_base or 1)))
            packet.pts = packet.dts = self._last_time = time
        return packet

    def _pad_to_zero(self, packets: list[Packet[Any]]) -> list[Packet[Any]]:
        """Insert an empty packet at zero if the first packet is later, because each stream in AVI starts at zero."""
        if self._started or not packets:
            return packets
        self._started = True
        if (packets[0].dts or 0) <= 0:
            return packets
        empty: Packet[Any] = Packet()
        empty.time_base = packets[0].time_base or Fraction(1)
        empty.pts = empty.dts = 0
        return [empty, *packets]


class CoverImage(OtherStream):
    """Cover image of an output: metadata in MP4, an attachment in Matroska. Add it after all other streams.

    `index` is the index of its stream in the completed file.
    """

    def __init__(self, container: OutputContainer, template: Any, packet: Packet[Any], index: int) -> None:
        self.index = index
        self.header_packets: list[Packet[Any]] = []
        """Packets to write directly after the header."""
        if container.format.name == "mp4":
            stream = container.add_stream_from_template(template, opaque=True)
            stream.disposition = Disposition.attached_pic
            copy = Packet(bytes(packet))
            copy.pts = copy.dts = 0
            copy.time_base, copy.stream = template.time_base, stream
            self.header_packets = [copy]
        else:
            name, mime_type = _COVER_TYPES[codec_name(template)]
            attachment = container.add_attachment(template.metadata.get("filename", name), mime_type, bytes(packet))
            if "title" in template.metadata:
                attachment.metadata["title"] = template.metadata["title"]


def _begins_with_adts(packet: Packet[Any]) -> bool:
    """Return True if an AAC packet has an ADTS header: sync word, layer 0 and a known rate (ISO/IEC 13818-7, 6.2)."""
    header = bytes(memoryview(packet)[:3]) if packet.size > 7 else b""
    return len(header) == 3 and header[0] == 0xFF and header[1] & 0xF6 == 0xF0 and header[2] >> 2 & 15 < 13


def _add_stream(container: OutputContainer, template: Any, kind: Container) -> Any:
    """Add a stream with the input's parameters.

    PCM in MP4 needs a channel layout, and AVI inputs often have only a number of channels.
    """
    stream: Any
    if kind.format == "avi" and codec_name(template) == "ac3":
        # AC-3 from AVI has a block size with which the muxer would compute wrong times. PyAV can't clear it.
        context = template.codec_context
        stream = container.add_stream("ac3", rate=context.sample_rate)
        stream.codec_context.layout = context.layout
        stream.codec_context.bit_rate = context.bit_rate or 192_000
        return stream
    stream = container.add_stream_from_template(template, opaque=True)
    if kind.format == "mp4" and codec_name(template).startswith("pcm_"):
        stream.codec_context.layout = default_layout(template.codec_context.layout)
    return stream


def _check_header(template: Any, kind: Container) -> None:
    """Write a header with this stream to memory. Muxers report an unsupported stream only when they write the header.

    Raises:
        av.FFmpegError, ValueError: the muxer does not support the stream.
    """
    # The MP4 muxer checks PCM channels when it writes the index. By default it does so last and without empty streams.
    options = {"movflags": "empty_moov"} if kind.fragmented and codec_name(template).startswith("pcm_") else {}
    with io.BytesIO() as memory, av.open(memory, "w", format=kind.format, container_options=options) as output:
        _add_stream(output, template, kind).metadata.update(template.metadata)
        output.start_encoding()
