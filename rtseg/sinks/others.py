"""The streams next to the video stream: copied packet by packet, transcoded where the container needs it, or dropped and named."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any, Protocol

import av
from av import Packet
from av.bitstream import BitStreamFilterContext
from av.codec import Codec
from av.container import OutputContainer
from av.stream import Disposition

from rtseg.errors import SinkError
from rtseg.frame import Passthrough, StreamInfo
from rtseg.sinks.containers import TEE, Container
from rtseg.sinks.covers import Cover
from rtseg.sinks.time_codes import lost_tags, time_code_places
from rtseg.sinks.transcode import Transcoded, default_layout, pcm_encoder

_BIBLIOGRAPHIC = {"deu": "ger", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "swe": "sve", "fas": "per"}
"""ISO 639-2 codes and their forms in FFmpeg's list of QuickTime's languages."""


TIME_CODE = "time code"
"""Stands for the codec of a time code track, which muxers write by themselves from the `timecode` of a video stream."""


class OtherStream(Protocol):
    """One stream of the output next to the video stream."""

    index: int
    """In the output."""

    def take(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Return what is to be written for a packet of the input. May raise av.FFmpegError."""

    def flush(self) -> list[Packet[Any]]:
        """Return what is still to be written at the end."""


def codec_name(stream: Any) -> str:
    """Return FFmpeg's name of a stream's codec, whatever decodes it: `mp3`, not `mp3float`."""
    context = stream.codec_context
    if context is not None:
        return str(context.codec.canonical_name)
    name = getattr(stream, "name", None) or "of an unknown kind"
    if stream.type == "data" and name in ("of an unknown kind", "none") and "timecode" in stream.metadata:
        return TIME_CODE
    return name


def metadata_for(kind: Container, template: Any, no_time_code: bool) -> dict[str, str]:
    """Return a stream's metadata, with its time code or without; MOV knows languages by their bibliographic codes."""
    metadata = {k: v for k, v in template.metadata.items() if not no_time_code or k.lower() != "timecode"}
    if kind.format == "mov" and metadata.get("language") in _BIBLIOGRAPHIC:
        metadata["language"] = _BIBLIOGRAPHIC[metadata["language"]]
    return metadata


class Copied:
    """A stream whose packets are the input's own; `no_time_code`: the time code in its metadata is not that of its beginning.

    Raises:
        av.FFmpegError, ValueError: the container does not hold it.
    """

    def __init__(self, container: OutputContainer, template: Any, kind: Container, no_time_code: bool) -> None:
        if not kind.holds(template.type, codec_name(template)):
            raise ValueError(f"{kind.format} does not hold {codec_name(template)}")
        if container.format.name != TEE or codec_name(template) not in kind.unlisted:
            _try_header(template, kind)
        self._stream = _add_copy(container, template, kind)
        self._stream.metadata.update(metadata_for(kind, template, no_time_code))
        disposition = Disposition(template.disposition)
        if template.type == "video":
            disposition &= ~Disposition.default  # players open the default stream, which is the segmented one
        self._stream.disposition = disposition
        self.index: int = self._stream.index
        context = template.codec_context
        # AAC in MPEG-TS carries its parameters in every packet (ADTS), elsewhere once in the header.
        self._adts = context is not None and context.name == "aac" and not context.extradata
        bare = self._adts and kind.format != "mpegts"
        self._filter = BitStreamFilterContext("aac_adtstoasc", template) if bare else None
        self.damaged = 0
        """Packets that no muxer takes, and that are left out."""
        # MPEG-TS has no default stream: FFmpeg opens the one of which it sees more frames.
        self._key_first = template.type == "video" and kind.format == "mpegts"
        self._begun = False
        self.left_out = 0
        """Packets of video before its first key frame, and those that only prepare for what comes behind them."""

    def take(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """The packet itself."""
        packets = [packet]
        if self._key_first and not self._begun:
            before = packet.pts is not None and packet.pts < 0
            if before or (self.left_out and not packet.is_keyframe):
                self.left_out += 1
                return []
            self._begun = True
        if self._adts and not _begins_with_adts(packet):
            self.damaged += 1
            return []
        if self._filter is not None:
            time_base = packet.time_base
            try:
                packets = self._filter.filter(packet)
            except av.FFmpegError:
                self.damaged += 1
                return []
            for filtered in packets:
                filtered.time_base = time_base or Fraction(1)
        for ready in packets:
            ready.stream = self._stream
        return packets

    def flush(self) -> list[Packet[Any]]:
        """Nothing is held back."""
        return []


def _begins_with_adts(packet: Packet[Any]) -> bool:
    """Whether AAC has the header that says its parameters: sync word, layer 0 and a known rate (ISO/IEC 13818-7, 6.2)."""
    head = bytes(memoryview(packet)[:3]) if packet.size > 7 else b""
    return len(head) == 3 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 15 < 13


def _add_copy(container: OutputContainer, template: Any, kind: Container) -> Any:
    """Add a stream like the input's. PCM in MP4 must say which channel is which: AVI often gives their number alone."""
    stream: Any = container.add_stream_from_template(template, opaque=True)
    if kind.format == "mp4" and codec_name(template).startswith("pcm_"):
        stream.codec_context.layout = default_layout(template.codec_context.layout)
    return stream


def _try_header(template: Any, kind: Container) -> None:
    """Raise what the muxer raises for a header with this stream, which it says only when the header is written."""
    # By default MP4's index, which may refuse the channels of PCM, is written last and without a stream that has no packets.
    options = {"movflags": "empty_moov"} if kind.fragmented and codec_name(template).startswith("pcm_") else {}
    with io.BytesIO() as memory, av.open(memory, "w", format=kind.format, container_options=options) as trial:
        _add_copy(trial, template, kind).metadata.update(template.metadata)
        trial.start_encoding()


class OtherStreams:
    """All streams of the output next to the video stream.

    Args:
        container: the output, before its header is written.
        kind: what it can hold.
        info: the source.
        strict: whether a stream that can't be copied as it is raises.
    """

    def __init__(self, container: OutputContainer, kind: Container, info: StreamInfo, strict: bool = False) -> None:
        self._container = container
        self._kind = kind
        self._info = info
        self._no_time_code = info.no_time_code
        self._changing = info.changing
        self._pictures = info.covers
        self._covers: list[Any] = []
        self._strict = strict
        self.streams: dict[int, OtherStream] = {}
        self.left_out: dict[int, str] = {}
        self._added: list[Any] = []
        self._time_codes: list[Any] = []
        self._written_time_codes: dict[int, int] = {}
        self._messages: list[str] = []

    @property
    def warnings(self) -> tuple[str, ...]:
        """What happened to streams that are not copied as they are, one line each."""
        damaged = {source: stream.damaged for source, stream in self.streams.items() if isinstance(stream, Transcoded)}
        lost = [
            f"audio stream {source}: {count} packets can't be decoded" for source, count in damaged.items() if count
        ]
        copied = {source: stream.damaged for source, stream in self.streams.items() if isinstance(stream, Copied)}
        lost += [
            f"audio stream {source}: {count} damaged packet{'s' * (count > 1)} left out"
            for source, count in copied.items()
            if count
        ]
        lost += [
            f"video stream {source}: {stream.left_out} packets up to its second key frame left out, as mpegts can't hide any"
            for source, stream in self.streams.items()
            if isinstance(stream, Copied) and stream.left_out
        ]
        return (*self._messages, *lost)

    @property
    def copied(self) -> dict[int, int]:
        """Index in the input to index in the output of each stream that is copied."""
        return {source: stream.index for source, stream in self.streams.items() if isinstance(stream, Copied | Cover)}

    @property
    def reencoded(self) -> dict[int, int]:
        """The same for streams that are transcoded, and for time code tracks, which the muxer writes anew."""
        transcoded = {source: stream for source, stream in self.streams.items() if isinstance(stream, Transcoded)}
        # Data that FFmpeg takes for audio has nothing in it that can be decoded: a warning says so.
        indices = {source: stream.index for source, stream in transcoded.items() if stream.heard or not stream.damaged}
        return indices | self._written_time_codes

    def take(self, packet: Passthrough) -> list[Packet[Any]]:
        """Return what is to be written for a packet of the input."""
        stream = self.streams.get(packet.stream_index)
        return [] if stream is None else stream.take(packet.packet)

    def flush(self) -> list[Packet[Any]]:
        """Return what is still to be written at the end."""
        return [packet for stream in self.streams.values() for packet in stream.flush()]

    def add(self, template: Any) -> None:
        """Add a stream of the input.

        Raises:
            SinkError: it can't be copied, with `strict`.
        """
        self._added.append(template)
        if codec_name(template) == TIME_CODE and self._kind.time_codes in ("tracks", "tags"):
            self._time_codes.append(template)
            return
        if template.index in self._pictures:
            if codec_name(template) in self._kind.covers:
                self._covers.append(template)
            else:
                what = f"cover picture {template.index} ({codec_name(template)})"
                self._drop(template, f"{self._kind.format} can't hold {what}")
            return
        what = f"{template.type} stream {template.index} ({codec_name(template)})"
        problem = f"{self._kind.format} can't hold {what}"
        if template.index in self._changing and self._kind.format != "mpegts":
            self._transcode(template, f"{problem}, which changes its rate or channels")
            return
        if _may_close_gaps(template, self._kind) and self._kind.holds(template.type, codec_name(template)):
            self._transcode(template, f"{self._kind.format} can't hold gaps in {what}")
            return
        if codec_name(template) in self._kind.unlisted and self._container.format.name != TEE:
            problem = f"{what} can't be copied to {self._kind.format} beside chapters"
        try:
            self.streams[template.index] = Copied(self._container, template, self._kind, bool(self._no_time_code))
        except (av.FFmpegError, ValueError):
            self._transcode(template, problem)

    def complete(self) -> None:
        """Add what comes behind the others, once all of them, the video stream and the container's metadata are there."""
        places = time_code_places(self._container, self._kind)
        behind = len(self._container.streams) + (len(places) if self._kind.time_codes == "tracks" else 0)
        self._match_time_codes(places)
        for place, template in enumerate(self._covers):
            packet = self._pictures[template.index]
            self.streams[template.index] = Cover(self._container, template, packet, behind + place)

    def _match_time_codes(self, places: list[tuple[str, int]]) -> None:
        """Find each time code track among the time codes of the output; name what is lost."""
        for template in self._time_codes:
            place = next((place for place in places if place[0] == template.metadata["timecode"]), None)
            what = f"data stream {template.index} ({TIME_CODE})"
            if self._no_time_code:
                self._drop(template, f"{what} is not kept {self._no_time_code}")
            elif place is not None:
                places.remove(place)
                self._written_time_codes[template.index] = place[1]
            else:
                self._drop(template, f"{what} belongs to no video stream")
        tracks = {stream.metadata["timecode"] for stream in self._added if codec_name(stream) == TIME_CODE}
        kept = [stream for stream in self._added if stream.index in self.streams]
        self._messages += lost_tags(self._kind, self._info, kept, tracks)

    def first(self) -> list[Packet[Any]]:
        """Return what is to be written right behind the header."""
        return [packet for stream in self.streams.values() if isinstance(stream, Cover) for packet in stream.first()]

    def _transcode(self, template: Any, problem: str) -> None:
        encoder = self._kind.audio_codec
        if template.type == "audio" and encoder is not None and template.codec_context is not None:
            encoder = (pcm_encoder(template) if self._kind.holds_pcm else None) or encoder
            try:
                stream = Transcoded(self._container, template, encoder, self._kind.constant_rate)
                stream.metadata.update(metadata_for(self._kind, template, bool(self._no_time_code)))
            except (av.FFmpegError, ValueError):
                problem += ", which FFmpeg can't decode"
            else:
                before, after = template.codec_context.layout.nb_channels, stream.channels
                mixed = f", mixed from {before} channels to {after}" if after < before else ""
                self._refuse(problem, f"transcoded to {Codec(encoder, 'w').canonical_name}{mixed}")
                self.streams[template.index] = stream
                return
        self._drop(template, problem)

    def _drop(self, template: Any, problem: str) -> None:
        self._refuse(problem, "dropped")
        self.left_out[template.index] = f"{template.type} stream {template.index} ({codec_name(template)})"

    def _refuse(self, problem: str, consequence: str) -> None:
        if self._strict:
            raise SinkError(f"{problem}; without --strict it is {consequence}")
        self._messages.append(f"{problem}: {consequence}")


def _may_close_gaps(template: Any, kind: Container) -> bool:
    """Whether audio may have gaps that the container would close.

    AVI counts packets or bytes, MP4 and MOV count the samples of PCM. What comes from such a container has no gaps.
    """
    if template.type != "audio":
        return False
    source = set(template.container.format.name.split(","))
    pcm = codec_name(template).startswith("pcm_")
    if kind.constant_rate:
        return not ("avi" in source or (pcm and "mov" in source))
    return pcm and kind.fragmented and not {"avi", "mov"} & source
