"""Video files encoded by FFmpeg or GStreamer. FFmpeg also copies all other streams of the input."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer

from rtseg.core.errors import SinkError
from rtseg.core.frame import Passthrough, ProcessedFrame, StreamInfo
from rtseg.io.gstreamer.pipelines import encoder, to_file
from rtseg.io.options import OutputOptions
from rtseg.io.outputs.containers import TEE, Container, container_for
from rtseg.io.outputs.copied_stream import codec_name
from rtseg.io.outputs.encoder import EncoderSettings, VideoEncoder
from rtseg.io.outputs.file_sink import FileSink, FileWriter, WrittenFile
from rtseg.io.outputs.frame_format import FrameFormat
from rtseg.io.outputs.gstreamer import GStreamerWriter
from rtseg.io.outputs.stream_copy import StreamCopier

CONTAINER_METADATA = frozenset({"encoder", "major_brand", "minor_version", "compatible_brands"})
"""Metadata keys that describe the container of the input, not its content."""

_APPLE_LOCATION = "com.apple.quicktime.location.ISO6709"


class FFmpegWriter(FileWriter):
    """Writer that encodes rendered frames and copies all other streams.

    The output keeps the timestamps, time base and color tags of the source. A path of None is standard output. `audio` copies all
    other streams: audio, subtitles, data and further video. For `strict` and `live` see `open_video`.

    Raises:
        SinkError: the encoder rejects its settings, or a stream can't be copied and `strict` is set.
        av.FFmpegError, OSError: the file can't be written.
    """

    def __init__(
        self,
        path: Path | None,
        kind: Container,
        info: StreamInfo,
        settings: EncoderSettings,
        *,
        audio: bool,
        strict: bool,
        live: bool,
    ) -> None:
        self.encoder = settings.codec.name
        self.size = settings.frame_format.size
        self._path = path
        self._kind = kind
        self._info = info
        self._settings = settings
        self._live = live
        self._start_seconds: Fraction | None = None
        """Time of the first frame in a container with a constant rate, which is subtracted from all streams."""
        self._last_slot = -1
        self._last_seconds: float | None = None
        self._dropped = False
        self._pending: list[Passthrough] = []
        self._container, self._encoder, self._copier = self._open(info.streams if audio else (), strict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages about differences between output and input, one line each."""
        dropped: tuple[str, ...] = ()
        if self._dropped:
            rate = float(self._settings.frame_format.rate)
            dropped = (
                f"{self._kind.format} has a constant rate of {rate:g} FPS, and frames arrived faster: some are left out; "
                "write .mp4 or .mkv, which keep the time of each frame",
            )
        return (*self._settings.frame_format.warnings, *self._copier.warnings, *dropped)

    @property
    def last_seconds(self) -> float | None:
        """Time of the last frame of a recording in a container with timestamps; None: the whole file must be read."""
        indexed = self._live and self._kind.has_timestamps and not self._kind.constant_rate
        return self._last_seconds if indexed else None

    def write(self, item: ProcessedFrame) -> bool:
        """Encode one frame; return False if it was dropped; see `live`."""
        rendered = item.rendered
        pts = rendered.pts
        if self._kind.constant_rate:
            if self._start_seconds is None:
                self._start_seconds = pts * rendered.time_base
            seconds = self._assign_slot(pts * rendered.time_base - self._start_seconds)
            if seconds is None:
                self._dropped = True
                return False
            pts = round(seconds / rendered.time_base)
        self._container.mux(self._encoder.encode(rendered, pts))
        self._last_seconds = float(pts * rendered.time_base)
        if self._pending and self._encoder.started:
            self._write_pending()
        return True

    def _assign_slot(self, seconds: Fraction) -> Fraction | None:
        """Return the time of a frame in a container with a constant rate, None to drop the frame.

        Raises:
            SinkError: the slot of the frame is used, and `live` is False.
        """
        rate = self._settings.frame_format.rate
        slot = round(seconds * rate)
        if slot <= self._last_slot:
            if not self._live:
                raise SinkError(
                    f"{self._kind.format} has a constant rate of {float(rate):g} FPS, and two frames are at "
                    f"{float(seconds):.3f} s: write .mp4 or .mkv, which keep the time of each frame"
                )
            if slot < self._last_slot:
                return None
            slot = self._last_slot + 1
            seconds = slot / rate
        self._last_slot = slot
        return seconds

    def pass_through(self, packet: Passthrough) -> None:
        """Copy a packet of another stream."""
        self._pending.append(packet)
        if self._encoder.started:
            self._write_pending()

    def finish(self, timeout_seconds: float) -> None:
        """Write the remaining frames and packets, and close the file in any case."""
        try:
            self._container.mux(self._encoder.flush())
            self._write_pending()
            self._container.mux(self._copier.flush())
        finally:
            if self._kind.fragmented and self._info.chapters:
                # Chapters that are set earlier would start a fragment, and write the index, before the first packets.
                self._container.set_chapters(list(self._info.chapters))
            self._container.close()

    def written_file(self, path: Path | None, frames: int) -> WrittenFile:
        """Return the description of the file with this path and number of frames."""
        return WrittenFile(
            path=path,
            frames=frames,
            size=self.size,
            copied=self._copier.copied,
            reencoded=self._copier.reencoded,
        )

    def _open(self, streams: Sequence[Any], strict: bool) -> tuple[OutputContainer, VideoEncoder, StreamCopier]:
        unfragmented = any(
            codec_name(stream)
            in (self._kind.cover_codecs if stream.index in self._info.covers else ("mov_text", "ttml"))
            for stream in streams
        )
        options = dict(self._kind.options_unfragmented if unfragmented else self._kind.options)
        url = "pipe:1" if self._path is None else f"file:{self._path}"
        muxer = self._kind.format
        # `tee` does not forward chapters.
        if not self._info.chapters and any(codec_name(stream) in self._kind.unlisted_codecs for stream in streams):
            url, muxer = self._kind.tee(url), TEE
        container = av.open(url, "w", format=muxer, container_options=options)
        try:
            copier = StreamCopier(container, self._kind, self._info, strict)
            before = self._streams_before_video(streams)
            for stream in before:
                copier.add(stream)
            encoder = VideoEncoder(container, self._kind, self._info, self._settings)
            for stream in streams:
                if stream not in before:
                    copier.add(stream)
            container.metadata.update(
                {k: v for k, v in self._info.metadata.items() if k.lower() not in CONTAINER_METADATA}
            )
            copier.complete()
            if _APPLE_LOCATION in container.metadata:  # the MP4 and MOV muxers write only `location`
                container.metadata.setdefault("location", container.metadata[_APPLE_LOCATION])
            if not self._kind.fragmented:
                container.set_chapters(list(self._info.chapters))
            container.start_encoding()
            container.mux(copier.header_packets())
        except BaseException:
            container.close()
            raise
        return container, encoder, copier

    def _streams_before_video(self, streams: Sequence[Any]) -> list[Any]:
        """Return the streams before the segmented one, which is the first video stream, because players select that."""
        if self._info.template is None or self._kind.constant_rate:
            return []
        videos = [other.index for other in streams if other.type == "video" and other.index not in self._info.covers]
        first = min([self._info.template.index, *videos])
        return [stream for stream in streams if stream.index < first]

    def _write_pending(self) -> None:
        """Write the pending packets of other streams.

        They are pending until the encoder returns its first packet: the index of an MP4 is written with the first fragment and
        contains the start time of each track.
        """
        pending, self._pending = self._pending, []
        for item in pending:
            packet = item.packet
            shift = round((self._start_seconds or 0) / (packet.time_base or Fraction(1)))
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            for ready in self._copier.process(item):
                self._container.mux(ready)


def open_video(
    path: str | Path,
    info: StreamInfo,
    size: tuple[int, int],
    options: OutputOptions,
    *,
    strict: bool = False,
    live: bool = False,
) -> FileSink:
    """Open the sink that encodes a video.

    If the encoder requires even sizes, the last column or row is repeated.

    Args:
        path: the output, with a suffix that selects the container; `-` for Matroska on standard output.
        info: the source.
        size: (width, height) of the rendered frames, pixels.
        options: encoding options.
        strict: raise if a stream can't be copied unchanged.
        live: record a live stream, with low latency. Only the index and the last seconds of the completed file are read back, so
            the duration of the check does not depend on the length of the recording. In a container with a constant rate, a
            frame whose slot is used moves to the next slot, or is dropped. False: raise SinkError for such a frame.

    Raises:
        SinkError: the container or encoder is unknown or not installed, or the file can't be written.
    """
    output = str(path)
    if options.codec == "gstreamer":
        element = encoder(info.frame_rate or Fraction(25), quality=23 if options.crf is None else options.crf)
        to_file(output, element)  # raises for an unknown suffix before a file is created

        def open_writer(partial: Path | None) -> FileWriter:
            assert partial is not None
            return GStreamerWriter(partial, Path(output).name, info, FrameFormat.create(info, size), element, live=live)
    else:
        kind = container_for(output)
        settings = EncoderSettings.create(options.codec or kind.video_codec, info, size, options, live=live)

        def open_writer(partial: Path | None) -> FileWriter:
            return FFmpegWriter(partial, kind, info, settings, audio=options.audio, strict=strict, live=live)

    return FileSink(output, open_writer, source=info.name, overwrite=options.overwrite)
