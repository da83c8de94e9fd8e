"""Video output to a file or standard output: encodes rendered frames and copies all other streams."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
from av.container import OutputContainer

from rtseg.core.errors import SinkError, reason
from rtseg.core.frame import Passthrough, ProcessedFrame, StreamInfo
from rtseg.io.outputs import Sink
from rtseg.io.outputs.containers import STDOUT, TEE, container_for
from rtseg.io.outputs.copied_stream import codec_name
from rtseg.io.outputs.encoder import EncoderSettings, VideoEncoder
from rtseg.io.outputs.partial_file import PartialFile
from rtseg.io.outputs.read_back import read_back
from rtseg.io.outputs.stream_copy import StreamCopier
from rtseg.io.outputs.written_file import WrittenFile

_NOT_COPIED = frozenset({"encoder", "major_brand", "minor_version", "compatible_brands"})
"""Metadata keys that describe the container of the input, not its content."""

_APPLE_LOCATION = "com.apple.quicktime.location.ISO6709"

T = TypeVar("T")


class VideoSink(Sink):
    """Sink that encodes rendered frames and copies all other streams.

    The output keeps the timestamps, time base and color tags of the source. If the encoder requires even sizes, the last column
    or row is repeated.

    Args:
        path: the output, with a suffix that selects the container; `-` for Matroska on standard output.
        info: the source.
        size: (width, height) of the rendered frames, pixels.
        codec: name of an encoder in FFmpeg; None: the default of the container.
        crf: constant quality; None: 23 or a similar quality.
        preset: preset of the encoder; None: `veryfast` or a similar preset.
        tune: tuning of the encoder, such as `zerolatency`.
        overwrite: replace an existing file.
        audio: copy all other streams: audio, subtitles, data and further video.
        strict: raise if a stream can't be copied unchanged.
        live: record a live stream. Only the index and the last seconds of the completed file are read back, so the duration of
            the check does not depend on the length of the recording. In a container with a constant rate, a frame whose slot is
            used moves to the next slot, or is dropped and counted in `dropped`. False: raise SinkError for such a frame.

    Raises:
        SinkError: the container or encoder is unknown, or the file can't be written.
    """

    dropped = 0
    """Number of dropped frames so far; see `live`."""

    def __init__(
        self,
        path: str | Path,
        info: StreamInfo,
        *,
        size: tuple[int, int],
        codec: str | None = None,
        crf: int | None = None,
        preset: str | None = None,
        tune: str | None = None,
        overwrite: bool = True,
        audio: bool = True,
        strict: bool = False,
        live: bool = False,
    ) -> None:
        self._output = str(path)
        self.name = "standard output" if self._output == STDOUT else Path(self._output).name
        self._info = info
        self._strict = strict
        self._live = live
        self._kind = container_for(self._output)
        self._settings = EncoderSettings.create(codec or self._kind.video_codec, info, size, crf, preset, tune)
        self._written = 0
        self._start_seconds = Fraction(0)
        self._last_slot = -1
        self._last_seconds = 0.0
        self._pending: list[Passthrough] = []
        self._finished: WrittenFile | None = None
        self._closed = False
        self._partial = None
        if self._output != STDOUT:
            self._partial = PartialFile(self._output, source=info.name, overwrite=overwrite)
        try:
            self._container, self._encoder, self._copier = self._open(info.streams if audio else ())
        except BaseException:
            if self._partial:
                self._partial.discard()
            raise

    @property
    def encoder(self) -> str:
        """Name of the encoder in FFmpeg, for statistics."""
        return self._settings.codec.name

    @property
    def written(self) -> int:
        """Number of frames written so far."""
        return self._written

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages about differences between output and input, one line each."""
        partial = self._partial.warnings if self._partial else ()
        dropped: tuple[str, ...] = ()
        if self.dropped:
            rate = float(self._settings.rate)
            dropped = (
                f"{self._kind.format} has a constant rate of {rate:g} FPS, and frames arrived faster: some are left out; "
                "write .mp4 or .mkv, which keep the time of each frame",
            )
        return (*self._settings.warnings, *self._copier.warnings, *partial, *dropped)

    @property
    def partial_path(self) -> Path | None:
        """Path of the file until it is renamed; None for standard output."""
        return self._partial.path if self._partial else None

    def write(self, item: ProcessedFrame) -> None:
        """Encode one frame.

        Raises:
            SinkError: the frame can't be encoded or written.
        """
        rendered = item.rendered
        if self._kind.constant_rate and not self._written:
            # A container with a constant rate starts at zero: subtract the time of the first frame from all streams.
            self._start_seconds = rendered.pts * rendered.time_base
        pts = rendered.pts - round(self._start_seconds / rendered.time_base)
        if self._kind.constant_rate:
            slot_seconds = self._assign_slot(pts * rendered.time_base)
            if slot_seconds is None:
                self.dropped += 1
                return
            pts = round(slot_seconds / rendered.time_base)
        self._guard(lambda: self._container.mux(self._encoder.encode(rendered, pts)))
        self._written += 1
        self._last_seconds = float(pts * rendered.time_base)
        if self._pending and self._encoder.started:
            self._guard(self._write_pending)

    def _assign_slot(self, seconds: Fraction) -> Fraction | None:
        """Return the time of a frame in a container with a constant rate, None to drop the frame.

        Raises:
            SinkError: the slot of the frame is used, and `live` is False.
        """
        slot = round(seconds * self._settings.rate)
        if slot <= self._last_slot:
            if not self._live:
                raise SinkError(
                    f"{self._kind.format} has a constant rate of {float(self._settings.rate):g} FPS, and two frames are at "
                    f"{float(seconds):.3f} s: write .mp4 or .mkv, which keep the time of each frame"
                )
            if slot < self._last_slot:
                return None
            slot = self._last_slot + 1
            seconds = slot / self._settings.rate
        self._last_slot = slot
        return seconds

    def pass_through(self, packet: Passthrough) -> None:
        """Copy a packet of another stream.

        Raises:
            SinkError: the packet can't be written.
        """
        self._pending.append(packet)
        if self._encoder.started:
            self._guard(self._write_pending)

    def finish(self) -> WrittenFile:
        """Complete the file under its `.partial` name and read it back. Further calls return the same result.

        Raises:
            SinkError: the file can't be written or read back.
        """
        if self._finished is None:
            self._flush()
            self._close_container()
            self._finished = WrittenFile(
                path=self._partial.path if self._partial else None,
                frames=self._written,
                size=self._settings.size,
                copied=self._copier.copied,
                reencoded=self._copier.reencoded,
                left_out=self._copier.left_out,
                timed=self._kind.has_timestamps,
            )
            self._read_back()
        return self._finished

    def close(self) -> None:
        """Complete the file, read it back, and rename it to its final name.

        Raises:
            SinkError: the file can't be written, read back or renamed.
        """
        self.finish()
        if self._partial:
            self._partial.publish()

    def abort(self) -> None:
        """Keep the playable unfinished file under its `.partial` name. Does not raise."""
        if self._finished is not None:
            return
        # An error here loses the frames in the encoder or the trailer. A fragmented file plays without them.
        with contextlib.suppress(SinkError):
            if self._written:
                self._flush()
        with contextlib.suppress(SinkError):
            self._close_container()
        if self._partial and not self._written:
            self._partial.discard()

    # Opening

    def _open(self, streams: Sequence[Any]) -> tuple[OutputContainer, VideoEncoder, StreamCopier]:
        unfragmented = any(
            codec_name(stream)
            in (self._kind.cover_codecs if stream.index in self._info.covers else ("mov_text", "ttml"))
            for stream in streams
        )
        options = dict(self._kind.options_unfragmented if unfragmented else self._kind.options)
        url = "pipe:1" if self._partial is None else f"file:{self._partial.path}"
        muxer = self._kind.format
        # `tee` does not forward chapters.
        if not self._info.chapters and any(codec_name(stream) in self._kind.unlisted_codecs for stream in streams):
            url, muxer = self._kind.tee(url), TEE
        container = self._guard(lambda: av.open(url, "w", format=muxer, container_options=options))
        try:
            copier = StreamCopier(container, self._kind, self._info, self._strict)
            before = [stream for stream in streams if self._is_before_video(stream, streams)]
            for stream in before:
                copier.add(stream)
            encoder = VideoEncoder(container, self._kind, self._info, self._settings)
            for stream in streams:
                if stream not in before:
                    copier.add(stream)
            container.metadata.update({k: v for k, v in self._info.metadata.items() if k not in _NOT_COPIED})
            copier.complete()
            if _APPLE_LOCATION in container.metadata:  # the MP4 and MOV muxers write only `location`
                container.metadata.setdefault("location", container.metadata[_APPLE_LOCATION])
            if not self._kind.fragmented:
                container.set_chapters(list(self._info.chapters))
            self._guard(container.start_encoding)
            self._guard(lambda: container.mux(copier.header_packets()))
        except BaseException:
            container.close()
            raise
        return container, encoder, copier

    def _is_before_video(self, stream: Any, streams: Sequence[Any]) -> bool:
        """Return True if a stream precedes the segmented one in the output.

        The segmented stream is the first video stream, because players select the first one.
        """
        if self._info.template is None or self._kind.constant_rate:
            return False
        covers = self._info.covers
        videos = [other.index for other in streams if other.type == "video" and other.index not in covers]
        return bool(stream.index < min(videos, default=stream.index + 1) and stream.index < self._info.template.index)

    # Writing

    def _flush(self) -> None:
        self._guard(lambda: self._container.mux(self._encoder.flush()))
        self._guard(self._write_pending)
        self._guard(lambda: self._container.mux(self._copier.flush()))

    def _write_pending(self) -> None:
        """Write the pending packets of other streams.

        They are pending until the encoder returns its first packet: the index of an MP4 is written with the first fragment and
        contains the start time of each track.
        """
        pending, self._pending = self._pending, []
        for item in pending:
            packet = item.packet
            shift = round(self._start_seconds / (packet.time_base or Fraction(1)))
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            for ready in self._copier.process(item):
                self._container.mux(ready)

    def _close_container(self) -> None:
        if not self._closed:
            self._closed = True
            if self._kind.fragmented and self._info.chapters:
                # Chapters that are set earlier would start a fragment, and write the index, before the first packets.
                self._container.set_chapters(list(self._info.chapters))
            self._guard(self._container.close)

    def _read_back(self) -> None:
        if self._partial is not None:
            read_all = not self._live or not self._kind.has_timestamps or self._kind.constant_rate or not self._written
            read_back(self._partial.path, self._written, None if read_all else self._last_seconds)

    def _guard(self, operation: Callable[[], T]) -> T:
        """Run an operation and convert its errors to SinkError."""
        try:
            return operation()
        except (av.FFmpegError, OSError) as error:
            kept = f"; the unfinished output is {self._partial.path}" if self._partial and self._written else ""
            raise SinkError(f"can't write {self._output}: {reason(error)}{kept}") from error
