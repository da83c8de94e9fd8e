"""Output streams other than the segmented one: copied, transcoded if the container requires it, or dropped with a message."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import av
from av import Packet
from av.codec import Codec
from av.container import OutputContainer

from rtseg.core.errors import SinkError
from rtseg.core.frame import TIME_CODE, Passthrough, StreamInfo, time_code_of
from rtseg.io.outputs.audio_parameters import pcm_encoder
from rtseg.io.outputs.audio_transcoder import AudioTranscoder
from rtseg.io.outputs.containers import TEE, Container
from rtseg.io.outputs.copied_stream import CopiedStream, CoverImage, OtherStream, codec_name, metadata_for


class StreamCopier:
    """Copier of all input streams other than the segmented one. `strict` raises if one can't be copied unchanged."""

    def __init__(self, container: OutputContainer, kind: Container, info: StreamInfo, strict: bool = False) -> None:
        self._container = container
        self._kind = kind
        self._info = info
        self._covers: list[Any] = []
        self._strict = strict
        self.streams: dict[int, OtherStream] = {}
        self._added: list[Any] = []
        self._time_codes: list[Any] = []
        self._written_time_codes: dict[int, int] = {}
        self._messages: list[str] = []

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages about streams that are not copied unchanged, one line each."""
        problems = [problem for source, stream in self.streams.items() for problem in stream.problems(source)]
        return (*self._messages, *problems)

    @property
    def copied(self) -> dict[int, int]:
        """Mapping of the index in the input to the index in the output, for copied streams."""
        return {
            source: stream.index for source, stream in self.streams.items() if not isinstance(stream, AudioTranscoder)
        }

    @property
    def reencoded(self) -> dict[int, int]:
        """Mapping of the index in the input to the index in the output, for transcoded streams and time code tracks."""
        # FFmpeg detects some data as audio, which can't be decoded; `warnings` reports it.
        return self._written_time_codes | {
            source: stream.index
            for source, stream in self.streams.items()
            if isinstance(stream, AudioTranscoder) and (stream.has_audio or not stream.damaged)
        }

    def process(self, packet: Passthrough) -> list[Packet[Any]]:
        """Convert a packet of the input and return the packets to write."""
        stream = self.streams.get(packet.stream_index)
        return [] if stream is None else stream.process(packet.packet)

    def flush(self) -> list[Packet[Any]]:
        """Return the remaining packets at the end."""
        return [packet for stream in self.streams.values() for packet in stream.flush()]

    def add(self, template: Any) -> None:
        """Add a stream of the input.

        Raises:
            SinkError: `strict` is set and the stream can't be copied unchanged.
        """
        self._added.append(template)
        if codec_name(template) == TIME_CODE and self._kind.time_codes in ("tracks", "tags"):
            self._time_codes.append(template)
            return
        if template.index in self._info.covers:
            if codec_name(template) in self._kind.cover_codecs:
                self._covers.append(template)
            else:
                description = f"cover image {template.index} ({codec_name(template)})"
                self._report(f"{self._kind.format} can't hold {description}", "dropped")
            return
        description = f"{template.type} stream {template.index} ({codec_name(template)})"
        problem = f"{self._kind.format} can't hold {description}"
        if template.index in self._info.changing and self._kind.format != "mpegts":
            self._transcode(template, f"{problem}, which changes its rate or channels")
            return
        if _would_close_gaps(template, self._kind) and self._kind.supports(template.type, codec_name(template)):
            self._transcode(template, f"{self._kind.format} has no times for {description}", ", to keep gaps")
            return
        if codec_name(template) in self._kind.unlisted_codecs and self._container.format.name != TEE:
            problem = f"{description} can't be copied to {self._kind.format} together with chapters"
        try:
            self.streams[template.index] = CopiedStream(
                self._container, template, self._kind, bool(self._info.no_time_code)
            )
        except (av.FFmpegError, ValueError):
            self._transcode(template, problem)

    def complete(self) -> None:
        """Add cover images and match time codes. Call it after adding all other streams and the container's metadata."""
        time_codes = _output_time_codes(self._container, self._kind)
        first_index = len(self._container.streams) + (len(time_codes) if self._kind.time_codes == "tracks" else 0)
        self._match_time_codes(time_codes)
        for offset, template in enumerate(self._covers):
            packet = self._info.covers[template.index]
            self.streams[template.index] = CoverImage(self._container, template, packet, first_index + offset)

    def _match_time_codes(self, time_codes: list[tuple[str, int]]) -> None:
        """Match each time code track with a time code of the output and its stream index, and report the missing ones."""
        for template in self._time_codes:
            match = next((entry for entry in time_codes if entry[0] == template.metadata["timecode"]), None)
            description = f"data stream {template.index} ({TIME_CODE})"
            if self._info.no_time_code:
                self._report(f"{description} is not kept {self._info.no_time_code}", "dropped")
            elif match is not None:
                time_codes.remove(match)
                self._written_time_codes[template.index] = match[1]
            else:
                self._report(f"{description} belongs to no video stream", "dropped")
        tracks = {stream.metadata["timecode"] for stream in self._added if codec_name(stream) == TIME_CODE}
        kept = [stream for stream in self._added if stream.index in self.streams]
        self._messages += _missing_time_codes(self._kind, self._info, kept, tracks)

    def header_packets(self) -> list[Packet[Any]]:
        """Return the packets to write directly after the header."""
        covers = [stream for stream in self.streams.values() if isinstance(stream, CoverImage)]
        return [packet for cover in covers for packet in cover.header_packets]

    def _transcode(self, template: Any, problem: str, purpose: str = "") -> None:
        encoder = self._kind.audio_codec
        if template.type == "audio" and encoder is not None and template.codec_context is not None:
            encoder = (pcm_encoder(template) if self._kind.keeps_pcm else None) or encoder
            try:
                stream = AudioTranscoder(self._container, template, encoder, self._kind.constant_rate)
                stream.metadata.update(metadata_for(self._kind, template, bool(self._info.no_time_code)))
            except (av.FFmpegError, ValueError):
                problem += ", which FFmpeg can't decode"
            else:
                before, after = template.codec_context.layout.nb_channels, stream.channels
                mixed = f", mixed from {before} channels to {after}" if after < before else ""
                self._report(problem, f"transcoded to {Codec(encoder, 'w').canonical_name}{mixed}{purpose}")
                self.streams[template.index] = stream
                return
        self._report(problem, "dropped")

    def _report(self, problem: str, consequence: str) -> None:
        if self._strict:
            raise SinkError(f"{problem}; without --strict it is {consequence}")
        self._messages.append(f"{problem}: {consequence}")


def _would_close_gaps(template: Any, kind: Container) -> bool:
    """Return True if audio may have gaps that the container would close.

    AVI counts packets or bytes; MP4 and MOV count samples of PCM. Audio from these containers has no gaps.
    """
    if template.type != "audio":
        return False
    source = set(template.container.format.name.split(","))
    pcm = codec_name(template).startswith("pcm_")
    if kind.constant_rate:
        return not ("avi" in source or (pcm and "mov" in source))
    return pcm and kind.fragmented and not {"avi", "mov"} & source


def _output_time_codes(container: OutputContainer, kind: Container) -> list[tuple[str, int]]:
    """Return the time codes of the output that can replace tracks of the input, with their stream indices.

    The output has all its streams and metadata; its header is not written.
    """
    videos = container.streams.video
    codes = [time_code_of(video.metadata) for video in videos]
    if kind.time_codes == "tags":
        return [(code, video.index) for code, video in zip(codes, videos, strict=True) if code]
    if kind.time_codes == "tracks":
        file_code = time_code_of(container.metadata)
        track_codes = [file_code or code for code in codes]
        # The muxer adds its tracks after all streams.
        return [(code, index) for index, code in enumerate(filter(None, track_codes), len(container.streams))]
    return []


def _missing_time_codes(
    kind: Container, info: StreamInfo, kept: Sequence[Any], tracks: Collection[str]
) -> Iterator[str]:
    """Yield a message for each time code in the input's metadata that is missing from the output's.

    `kept` are the streams of the input that are in the output, without the segmented one. Time codes of `tracks` are reported
    separately. The notes of `info` already report that the time code of the file does not apply to a part.
    """
    if not kind.time_codes and time_code_of(info.metadata):
        yield f"{kind.format} can't hold the time code: dropped"
    for stream in [*([] if info.template is None else [info.template]), *kept]:
        code = time_code_of(stream.metadata)
        if code is None or code in tracks:
            continue
        description = f"the time code of {stream.type} stream {stream.index}"
        if info.no_time_code:
            yield f"{description} is not kept {info.no_time_code}"
        elif not (kind.time_codes == "tags" or (kind.time_codes == "tracks" and stream.type == "video")):
            yield f"{kind.format} can't hold {description}: dropped"
