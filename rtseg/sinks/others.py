"""The streams beside the picture: copied packet by packet, encoded anew where the container must, or left out and named."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Protocol

import av
from av import AudioResampler, Packet
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer

from rtseg.errors import SinkError
from rtseg.frame import Passthrough
from rtseg.sinks.containers import Container

_AUDIO_BITS_PER_SECOND = 128_000


class OtherStream(Protocol):
    """One stream of the output beside the picture."""

    index: int
    """In the output."""

    def take(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """What is to be written for a packet of the input. May raise av.FFmpegError."""

    def flush(self) -> list[Packet[Any]]:
        """What is still to be written at the end."""


def codec_name(stream: Any) -> str:
    """FFmpeg's name of a stream's codec, whoever decodes it: `mp3`, not `mp3float`."""
    context = stream.codec_context
    if context is not None:
        return str(context.codec.canonical_name)
    return getattr(stream, "name", None) or "of an unknown kind"


class Copied:
    """A stream whose packets are the input's own."""

    def __init__(self, container: OutputContainer, template: Any, kind: Container) -> None:
        if kind.held is not None and codec_name(template) not in kind.held:
            raise ValueError(f"{kind.format} does not hold {codec_name(template)}")
        self._stream = container.add_stream_from_template(template, opaque=True)
        self._stream.metadata.update(template.metadata)
        self._stream.disposition = template.disposition
        self.index: int = self._stream.index
        context = template.codec_context
        # AAC in MPEG-TS carries its parameters in every packet (ADTS), elsewhere once in the header.
        bare = context is not None and context.name == "aac" and not context.extradata and kind.format != "mpegts"
        self._filter = BitStreamFilterContext("aac_adtstoasc", template) if bare else None

    def take(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """The packet itself."""
        packets = [packet]
        if self._filter is not None:
            time_base = packet.time_base
            packets = self._filter.filter(packet)
            for filtered in packets:
                filtered.time_base = time_base or Fraction(1)
        for ready in packets:
            ready.stream = self._stream
        return packets

    def flush(self) -> list[Packet[Any]]:
        """Nothing is held back."""
        return []


class Reencoded:
    """Sound that the container can't hold as it is."""

    def __init__(self, container: OutputContainer, template: AudioStream, encoder: str) -> None:
        self._decoder = template.codec_context
        rate = 48_000 if encoder == "libopus" else self._decoder.rate
        stream = container.add_stream(encoder, rate=rate)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        self._stream.codec_context.layout = self._decoder.layout
        self._stream.codec_context.bit_rate = _AUDIO_BITS_PER_SECOND
        self._stream.metadata.update(template.metadata)
        self.index: int = stream.index
        self._resampler: AudioResampler | None = None
        self.damaged = 0

    def take(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """The sound of the packet, encoded anew; a packet that can't be decoded gives none."""
        try:
            sounds = self._decoder.decode(packet)
        except av.InvalidDataError:
            self.damaged += 1
            return []
        return [ready for sound in sounds for ready in self._encode(sound)]

    def flush(self) -> list[Packet[Any]]:
        """What decoder, resampler and encoder still hold."""
        if self._resampler is None:
            return []
        rest = [ready for sound in self._decoder.decode(None) for ready in self._encode(sound)]
        return [*rest, *self._encode(None), *self._stream.encode(None)]

    def _encode(self, sound: Any) -> list[Packet[Any]]:
        context = self._stream.codec_context
        if self._resampler is None:
            self._resampler = AudioResampler(context.format, context.layout, context.rate, context.frame_size or None)
        return [ready for piece in self._resampler.resample(sound) for ready in self._stream.encode(piece)]


class OtherStreams:
    """All streams of the output beside the picture.

    Args:
        container: the output, before its header is written.
        kind: what it can hold.
        templates: the input's streams.
        strict: whether a stream that can't be copied as it is raises.
        copy_sound: False encodes all sound anew.

    Raises:
        SinkError: one can't be copied, with `strict`.
    """

    def __init__(
        self,
        container: OutputContainer,
        kind: Container,
        templates: Sequence[Any],
        strict: bool = False,
        copy_sound: bool = True,
    ) -> None:
        self._container = container
        self._kind = kind
        self._strict = strict
        self._copy_sound = copy_sound
        self.streams: dict[int, OtherStream] = {}
        self.left_out: dict[int, str] = {}
        self._told: list[str] = []
        for template in templates:
            self._add(template)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What became of streams that are not copied as they are, one line each."""
        damaged = {source: stream.damaged for source, stream in self.streams.items() if isinstance(stream, Reencoded)}
        lost = [
            f"audio stream {source}: {count} packets can't be decoded" for source, count in damaged.items() if count
        ]
        return (*self._told, *lost)

    @property
    def copied(self) -> dict[int, int]:
        """Index in the input to index in the output of each stream that is copied."""
        return {source: stream.index for source, stream in self.streams.items() if isinstance(stream, Copied)}

    @property
    def reencoded(self) -> dict[int, int]:
        """The same for streams that are encoded anew."""
        return {source: stream.index for source, stream in self.streams.items() if isinstance(stream, Reencoded)}

    def take(self, packet: Passthrough) -> list[Packet[Any]]:
        """What is to be written for a packet of the input."""
        stream = self.streams.get(packet.stream_index)
        return [] if stream is None else stream.take(packet.packet)

    def flush(self) -> list[Packet[Any]]:
        """What is still to be written at the end."""
        return [packet for stream in self.streams.values() for packet in stream.flush()]

    def leave_out(self, template: Any) -> None:
        """Names a stream that the container can't hold."""
        what = self._describe(template)
        self._refuse(what, "left out")
        self.left_out[template.index] = what

    def _add(self, template: Any) -> None:
        try:
            if template.type == "audio" and not self._copy_sound:
                raise ValueError("all sound is encoded anew")
            self.streams[template.index] = Copied(self._container, template, self._kind)
        except (av.FFmpegError, ValueError):
            encoder = self._kind.audio_codec
            if template.type != "audio" or encoder is None or template.codec_context is None:
                self.leave_out(template)
                return
            self._refuse(self._describe(template), f"encoded anew as {encoder.removeprefix('lib')}")
            self.streams[template.index] = Reencoded(self._container, template, encoder)

    def _refuse(self, what: str, consequence: str) -> None:
        if self._strict:
            raise SinkError(f"{self._kind.format} can't hold {what}; without --strict it is {consequence}")
        self._told.append(f"{self._kind.format} can't hold {what}: {consequence}")

    @staticmethod
    def _describe(template: Any) -> str:
        return f"{template.type} stream {template.index} ({codec_name(template)})"
