"""Streams that are copied packet by packet into another container."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
from av import Packet
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.stream import Disposition

from rtseg.io.outputs.audio_parameters import default_layout
from rtseg.io.outputs.avi_video import AviVideo
from rtseg.io.outputs.containers import TEE, Container

_BIBLIOGRAPHIC = {"deu": "ger", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "swe": "sve", "fas": "per"}
"""ISO 639-2 codes and their forms in FFmpeg's list of QuickTime's languages."""


TIME_CODE = "time code"
"""Codec name of a time code track, which muxers create from the `timecode` of a video stream."""


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
    """Return a stream's metadata, without its time code if `no_time_code`. MOV needs bibliographic language codes."""
    metadata = {k: v for k, v in template.metadata.items() if not no_time_code or k.lower() != "timecode"}
    if kind.format == "mov" and metadata.get("language") in _BIBLIOGRAPHIC:
        metadata["language"] = _BIBLIOGRAPHIC[metadata["language"]]
    return metadata


class Copied:
    """A copied stream. `no_time_code`: the time code in its metadata is not that of its beginning.

    Raises:
        av.FFmpegError, ValueError: the container does not support it.
    """

    def __init__(self, container: OutputContainer, template: Any, kind: Container, no_time_code: bool) -> None:
        if not kind.holds(template.type, codec_name(template)):
            raise ValueError(f"{kind.format} does not support {codec_name(template)}")
        if container.format.name != TEE or codec_name(template) not in kind.unlisted:
            _try_header(template, kind)
        self._stream = _add_copy(container, template, kind)
        self._stream.metadata.update(metadata_for(kind, template, no_time_code))
        disposition = Disposition(template.disposition)
        if template.type == "video":
            disposition &= ~Disposition.default  # players open the default stream, which is the segmented one
        self._stream.disposition = disposition
        self.index: int = self._stream.index
        self.kind = str(template.type)
        context = template.codec_context
        # AAC in MPEG-TS has its parameters in every packet (ADTS), elsewhere once in the header.
        self._adts = context is not None and context.name == "aac" and not context.extradata
        needs_header = self._adts and kind.format != "mpegts"
        self._filter = BitStreamFilterContext("aac_adtstoasc", template) if needs_header else None
        self.damaged = 0
        """Number of damaged packets that were left out."""
        in_avi = template.type == "video" and kind.constant_rate
        self._avi = AviVideo(template, codec_name(template), self._stream) if in_avi else None
        # These containers have no default stream: FFmpeg opens the one with more frames.
        self._key_first = in_avi or (template.type == "video" and kind.format == "mpegts")
        self.begun = False
        self.waited = False
        """True if video packets were left out: before the first key frame, or only needed to decode later ones."""
        # In MP4 the edit list ends at the packets of the last fragment, which hides a frame that is displayed later.
        self._ends_late = template.type == "video" and kind.fragmented
        self._held: list[Packet[Any]] = []
        self._end: int | None = None

    def process(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Return the packets to write for a packet of the input."""
        packets = [packet]
        if self._key_first and not self.begun:
            # A packet that is still displayed at zero is the first one.
            before = packet.pts is not None and packet.pts < 0 and packet.pts + (packet.duration or 0) <= 0
            if before or (self.waited and not packet.is_keyframe):
                self.waited = True
                return []
            self.begun = True
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
        if self._ends_late:
            return self._own(self._all_but_last(packet))
        if self._avi is not None:
            try:
                packets = self._avi.process(packet)
            except av.FFmpegError:
                self.damaged += 1
                return []
        return self._own(packets)

    def flush(self) -> list[Packet[Any]]:
        """Return the packets that were held back."""
        for packet in self._held:
            packet.duration = max(packet.duration or 0, (self._end or 0) - (packet.pts or 0))
        return self._own(self._held if self._avi is None else self._avi.flush())

    def _all_but_last(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Return the previous packet, or the first one at once. The last packet is held back, as it gets a longer duration."""
        end = (packet.pts or 0) + (packet.duration or 0)
        if self._end is None:
            self._end = end
            return [packet]
        self._end = max(self._end, end)
        held, self._held = self._held, [packet]
        return held

    def _own(self, packets: list[Packet[Any]]) -> list[Packet[Any]]:
        for packet in packets:
            packet.stream = self._stream
        return packets


def _begins_with_adts(packet: Packet[Any]) -> bool:
    """Return True if an AAC packet has an ADTS header: sync word, layer 0 and a known rate (ISO/IEC 13818-7, 6.2)."""
    head = bytes(memoryview(packet)[:3]) if packet.size > 7 else b""
    return len(head) == 3 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 15 < 13


def _add_copy(container: OutputContainer, template: Any, kind: Container) -> Any:
    """Add a stream with the input's parameters. PCM in MP4 needs a channel layout; AVI often has only the number of channels."""
    stream: Any
    if kind.format == "avi" and codec_name(template) == "ac3":
        # AC-3 of an AVI has a block size, with which the muxer would compute wrong times. PyAV can't clear it.
        context = template.codec_context
        stream = container.add_stream("ac3", rate=context.sample_rate)
        stream.codec_context.layout = context.layout
        stream.codec_context.bit_rate = context.bit_rate or 192_000
        return stream
    stream = container.add_stream_from_template(template, opaque=True)
    if kind.format == "mp4" and codec_name(template).startswith("pcm_"):
        stream.codec_context.layout = default_layout(template.codec_context.layout)
    return stream


def _try_header(template: Any, kind: Container) -> None:
    """Raise the muxer's error for a header with this stream, which it reports only when the header is written."""
    # By default the index of an MP4, which may reject the channels of PCM, is written last and without empty streams.
    options = {"movflags": "empty_moov"} if kind.fragmented and codec_name(template).startswith("pcm_") else {}
    with io.BytesIO() as memory, av.open(memory, "w", format=kind.format, container_options=options) as trial:
        _add_copy(trial, template, kind).metadata.update(template.metadata)
        trial.start_encoding()
