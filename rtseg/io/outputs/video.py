"""Video output to a file or standard output: rendered frames are encoded, all other streams copied."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
from av.container import OutputContainer

from rtseg.core.errors import SinkError
from rtseg.core.frame import Passthrough, SegmentedFrame, StreamInfo
from rtseg.io.outputs.containers import STDOUT, TEE, container_for
from rtseg.io.outputs.copied_stream import codec_name
from rtseg.io.outputs.encoder import Coding, VideoEncoder
from rtseg.io.outputs.partial_file import Partial, reason
from rtseg.io.outputs.read_back import read_back
from rtseg.io.outputs.stream_copy import StreamCopier

_NOT_COPIED = frozenset({"encoder", "major_brand", "minor_version", "compatible_brands"})
"""Metadata about the writing of the input file, not about its content."""

_APPLE_LOCATION = "com.apple.quicktime.location.ISO6709"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Written:
    """A complete file before it gets its final name, for `rtseg.video.verify.compare`."""

    path: Path | None
    """Path of the file; None: standard output."""

    frames: int
    """Number of encoded frames."""

    size: tuple[int, int]
    """(width, height) of the encoded frames, pixels."""

    copied: dict[int, int] = field(default_factory=dict)
    """Mapping of the index in the input to the index in the output, for copied streams."""

    reencoded: dict[int, int] = field(default_factory=dict)
    """The same for streams that were transcoded."""

    left_out: dict[int, str] = field(default_factory=dict)
    """Description of each stream that is not in the output, by its index in the input."""

    timed: bool = True
    """True if the container stores timestamps."""


class VideoSink:
    """Encoder of rendered frames with copies of all other streams. Implements `rtseg.io.outputs.Sink`.

    Timestamps, time base and color tags are those of the source. Sizes are rounded up to even if the encoder requires it, by
    repeating the last column or row.

    Args:
        path: the output, with a suffix that selects the container; `-` for Matroska on standard output.
        info: the source.
        size: (width, height) of the rendered frames, pixels.
        codec: name of an encoder in FFmpeg; None: the default of the container.
        crf: constant quality; None: 23 or similar.
        preset: preset of the encoder; None: `veryfast` or similar.
        tune: tuning of the encoder, such as `zerolatency`.
        overwrite: replace an existing file.
        audio: copy all other streams.
        strict: raise if a stream can't be copied unchanged.
        live: recording of a live stream. Only the index and the last seconds of the finished file are read back, which takes the
            same time for a recording of hours. In a container with a constant rate, a frame whose slot is used moves to the
            next slot, or is dropped and counted in `dropped`. False: raise SinkError for such a frame.

    Raises:
        SinkError: the container or encoder is unknown, or the file can't be written.
    """

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
        self._info = info
        self._strict = strict
        self._live = live
        self._kind = container_for(self._output)
        self._coding = Coding.of(codec or self._kind.video_codec, info, size, crf, preset, tune)
        self._written = 0
        self._zero = Fraction(0)
        self._place = -1
        self.dropped = 0
        """Number of frames dropped so far; see `live`."""
        self._last_seconds = 0.0
        self._waiting: list[Passthrough] = []
        self._finished: Written | None = None
        self._closed = False
        self._partial = None
        if self._output != STDOUT:
            self._partial = Partial(self._output, source=info.name, overwrite=overwrite)
        try:
            self._container, self._encoder, self._others = self._open(info.streams if audio else ())
        except BaseException:
            if self._partial:
                self._partial.discard()
            raise

    @property
    def name(self) -> str:
        """File name of the output."""
        return "standard output" if self._output == STDOUT else Path(self._output).name

    @property
    def encoder(self) -> str:
        """Name of the encoder in FFmpeg, for statistics."""
        return self._coding.codec.name

    @property
    def written(self) -> int:
        """Number of frames written so far."""
        return self._written

    @property
    def warnings(self) -> tuple[str, ...]:
        """Differences between output and input, one line each."""
        partial = self._partial.warnings if self._partial else ()
        left_out: tuple[str, ...] = ()
        if self.dropped:
            left_out = (
                f"{self._kind.format} has a constant rate of {float(self._coding.rate):g} FPS, and frames arrived faster: some are "
                "left out; write .mp4 or .mkv, which keep the time of each frame",
            )
        return (*self._coding.warnings, *self._others.warnings, *partial, *left_out)

    @property
    def partial_path(self) -> Path | None:
        """Path of the file until it is complete; None for standard output."""
        return self._partial.path if self._partial else None

    def write(self, item: SegmentedFrame) -> None:
        """Encode one frame.

        Raises:
            SinkError: the frame can't be encoded or written.
        """
        rendered = item.rendered
        if self._kind.constant_rate and not self._written:
            # A container with a constant rate begins at zero: all streams are moved by the time of the first frame.
            self._zero = rendered.pts * rendered.time_base
        pts = rendered.pts - round(self._zero / rendered.time_base)
        if self._kind.constant_rate:
            placed = self._assign_slot(pts * rendered.time_base)
            if placed is None:
                self.dropped += 1
                return
            pts = round(placed / rendered.time_base)
        self._guard(lambda: self._container.mux(self._encoder.encode(rendered, pts)))
        self._written += 1
        self._last_seconds = float(pts * rendered.time_base)
        if self._waiting and self._encoder.started:
            self._guard(self._release)

    def _assign_slot(self, seconds: Fraction) -> Fraction | None:
        """Return the time of a frame in a container with a constant rate; None if its slot is used."""
        place = round(seconds * self._coding.rate)
        if place <= self._place:
            if not self._live:
                raise SinkError(
                    f"{self._kind.format} has a constant rate of {float(self._coding.rate):g} FPS, and two frames are at "
                    f"{float(seconds):.3f} s: write .mp4 or .mkv, which keep the time of each frame"
                )
            if place < self._place:
                return None
            place = self._place + 1
            seconds = place / self._coding.rate
        self._place = place
        return seconds

    def pass_through(self, packet: Passthrough) -> None:
        """Copy a packet of another stream.

        Raises:
            SinkError: the packet can't be written.
        """
        self._waiting.append(packet)
        if self._encoder.started:
            self._guard(self._release)

    def finish(self) -> Written:
        """Complete the file under its `.partial` name and read it back. Further calls return the same result.

        Raises:
            SinkError: the file can't be written or read back.
        """
        if self._finished is None:
            self._flush()
            self._close_container()
            self._finished = Written(
                path=self._partial.path if self._partial else None,
                frames=self._written,
                size=self._coding.size,
                copied=self._others.copied,
                reencoded=self._others.reencoded,
                left_out=self._others.left_out,
                timed=self._kind.timed,
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
        # An error here loses the frames inside the encoder, or the trailer; a fragmented file plays without both.
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
            codec_name(stream) in (self._kind.covers if stream.index in self._info.covers else ("mov_text", "ttml"))
            for stream in streams
        )
        options = dict(self._kind.options_unfragmented if unfragmented else self._kind.options)
        url = "pipe:1" if self._partial is None else f"file:{self._partial.path}"
        muxer = self._kind.format
        # `tee` forwards no chapters.
        if not self._info.chapters and any(codec_name(stream) in self._kind.unlisted for stream in streams):
            url, muxer = self._kind.tee(url), TEE
        container = self._guard(lambda: av.open(url, "w", format=muxer, container_options=options))
        try:
            others = StreamCopier(container, self._kind, self._info, self._strict)
            before = [stream for stream in streams if self._is_before_video(stream, streams)]
            for stream in before:
                others.add(stream)
            encoder = VideoEncoder(container, self._kind, self._info, self._coding)
            for stream in streams:
                if stream not in before:
                    others.add(stream)
            container.metadata.update({k: v for k, v in self._info.metadata.items() if k not in _NOT_COPIED})
            others.complete()
            if _APPLE_LOCATION in container.metadata:  # the MP4 and MOV muxers write only `location`
                container.metadata.setdefault("location", container.metadata[_APPLE_LOCATION])
            if not self._kind.fragmented:
                container.set_chapters(list(self._info.chapters))
            self._guard(container.start_encoding)
            self._guard(lambda: container.mux(others.header_packets()))
        except BaseException:
            container.close()
            raise
        return container, encoder, others

    def _is_before_video(self, stream: Any, streams: Sequence[Any]) -> bool:
        """Return True if a stream stays before the segmented one, which is first among video streams so that players choose it."""
        if self._info.template is None or self._kind.constant_rate:
            return False
        covers = self._info.covers
        videos = [other.index for other in streams if other.type == "video" and other.index not in covers]
        return bool(stream.index < min(videos, default=stream.index + 1) and stream.index < self._info.template.index)

    # Writing

    def _flush(self) -> None:
        self._guard(lambda: self._container.mux(self._encoder.flush()))
        self._guard(self._release)
        self._guard(lambda: self._container.mux(self._others.flush()))

    def _release(self) -> None:
        """Write the packets of other streams that waited for the first frame to leave the encoder.

        The index of an MP4 is written with the first fragment and has the start of each track, so it needs the first frame.
        """
        waiting, self._waiting = self._waiting, []
        for item in waiting:
            packet = item.packet
            shift = round(self._zero / (packet.time_base or Fraction(1)))
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            for ready in self._others.process(item):
                self._container.mux(ready)

    def _close_container(self) -> None:
        if not self._closed:
            self._closed = True
            if self._kind.fragmented and self._info.chapters:
                # Chapters set at the beginning would cause a fragment, and with it the index, before the first packets.
                self._container.set_chapters(list(self._info.chapters))
            self._guard(self._container.close)

    def _read_back(self) -> None:
        if self._partial is not None:
            whole = not self._live or not self._kind.timed or self._kind.constant_rate or not self._written
            read_back(self._partial.path, self._written, None if whole else self._last_seconds)

    def _guard(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except (av.FFmpegError, OSError) as error:
            kept = f"; the unfinished output is {self._partial.path}" if self._partial and self._written else ""
            raise SinkError(f"can't write {self._output}: {reason(error)}{kept}") from error
