"""A video file, or standard output: the colored frames encoded, all other streams copied packet by packet."""

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
"""Metadata that tells how the input file was written, not what it shows."""

_APPLE_LOCATION = "com.apple.quicktime.location.ISO6709"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Written:
    """A complete file that does not have its final name yet, for `rtseg.video.verify.compare`."""

    path: Path | None
    """Where it lies; None: it went to standard output."""

    frames: int
    """Frames that were encoded."""

    size: tuple[int, int]
    """Width and height as encoded."""

    copied: dict[int, int] = field(default_factory=dict)
    """Index in the input to index in the output of each stream that was copied packet by packet."""

    reencoded: dict[int, int] = field(default_factory=dict)
    """The same for streams that the container could not hold as they were."""

    left_out: dict[int, str] = field(default_factory=dict)
    """Index in the input of each stream that is not in the output, and what it is."""

    timed: bool = True
    """Whether the container keeps time stamps."""


class VideoSink:
    """Encodes what is shown and copies the other streams. Implements `rtseg.io.outputs.Sink`.

    Time stamps and time base are the source's own, and so are the color tags. Sizes are rounded up to even, where the
    encoder must have it, by repeating the last column or row.

    Args:
        path: the output, its container told by its ending; `-` for Matroska on standard output.
        info: the source.
        size: width and height of the shown frames.
        codec: FFmpeg's name of an encoder; None: what suits the container.
        crf: constant quality; None: 23, or its like.
        preset: the encoder's preset; None: `veryfast`, or its like.
        tune: the encoder's tuning, such as `zerolatency`.
        overwrite: whether an existing file may be replaced.
        audio: whether other streams are copied; False leaves out all of them.
        strict: a stream that can't be copied as it is, is an error.
        live: a recording of a live stream. The finished file is read back by its index and its last seconds alone, which takes
            no longer for a recording of hours. Where the container counts frames, one whose place is taken goes to the next
            place, and where that is taken too, it is left out and counted in `dropped`. False: it is an error.

    Raises:
        SinkError: unknown container or encoder, or the file can't be written.
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
        """Frames left out so far, see `live`."""
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
        """The output's name without its folder."""
        return "standard output" if self._output == STDOUT else Path(self._output).name

    @property
    def encoder(self) -> str:
        """FFmpeg's name of what encodes, for statistics."""
        return self._coding.codec.name

    @property
    def written(self) -> int:
        """Frames written so far."""
        return self._written

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the output does not hold as the input did, one line each."""
        partial = self._partial.warnings if self._partial else ()
        left_out: tuple[str, ...] = ()
        if self.dropped:
            left_out = (
                f"{self._kind.format} counts {float(self._coding.rate):g} frames a second, and frames came faster: some are left "
                "out; write .mp4 or .mkv, which keep the time of each frame",
            )
        return (*self._coding.warnings, *self._others.warnings, *partial, *left_out)

    @property
    def partial_path(self) -> Path | None:
        """Where the file lies until it is complete; None on standard output."""
        return self._partial.path if self._partial else None

    def write(self, item: SegmentedFrame) -> None:
        """Encodes one frame.

        Raises:
            SinkError: the encoder or the disk refused it.
        """
        rendered = item.rendered
        if self._kind.constant_rate and not self._written:
            # A container that counts frames begins at zero: everything is moved by the time of the first frame.
            self._zero = rendered.pts * rendered.time_base
        pts = rendered.pts - round(self._zero / rendered.time_base)
        if self._kind.constant_rate:
            placed = self._at_a_place(pts * rendered.time_base)
            if placed is None:
                self.dropped += 1
                return
            pts = round(placed / rendered.time_base)
        self._guard(lambda: self._container.mux(self._encoder.encode(rendered, pts)))
        self._written += 1
        self._last_seconds = float(pts * rendered.time_base)
        if self._waiting and self._encoder.started:
            self._guard(self._release)

    def _at_a_place(self, seconds: Fraction) -> Fraction | None:
        """When a frame is shown in a container that counts frames; None: there is no place for it."""
        place = round(seconds * self._coding.rate)
        if place <= self._place:
            if not self._live:
                raise SinkError(
                    f"{self._kind.format} counts {float(self._coding.rate):g} frames a second, and two frames are at "
                    f"{float(seconds):.3f} s: write .mp4 or .mkv, which keep the time of each frame"
                )
            if place < self._place:
                return None
            place = self._place + 1
            seconds = place / self._coding.rate
        self._place = place
        return seconds

    def pass_through(self, packet: Passthrough) -> None:
        """Copies a packet of another stream.

        Raises:
            SinkError: the disk or the container refused it.
        """
        self._waiting.append(packet)
        if self._encoder.started:
            self._guard(self._release)

    def finish(self) -> Written:
        """Flushes, completes the file under its `.partial` name, and reads it back. Further calls return the same.

        Raises:
            SinkError: it can't be written, or what was written can't be read back.
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
        """Completes the file, reads it back, and puts it under its final name.

        Raises:
            SinkError: it can't be written, read back or renamed.
        """
        self.finish()
        if self._partial:
            self._partial.publish()

    def abort(self) -> None:
        """Keeps what was written, playable, under its `.partial` name. Does not raise."""
        if self._finished is not None:
            return
        # What fails here loses the frames inside the encoder, or the trailer; a fragmented file plays without either.
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
        # `tee` hands on no chapters.
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
            if _APPLE_LOCATION in container.metadata:  # muxers of MP4 and MOV write `location` alone
                container.metadata.setdefault("location", container.metadata[_APPLE_LOCATION])
            if not self._kind.fragmented:
                container.set_chapters(list(self._info.chapters))
            self._guard(container.start_encoding)
            self._guard(lambda: container.mux(others.first()))
        except BaseException:
            container.close()
            raise
        return container, encoder, others

    def _is_before_video(self, stream: Any, streams: Sequence[Any]) -> bool:
        """Whether a stream keeps its place before the segmented one, which comes first among video streams: players choose it."""
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
        """Writes the packets of other streams that waited for the first picture to leave the encoder.

        An MP4's index is written with the first fragment, and tells when a track begins: it must have seen the picture.
        """
        waiting, self._waiting = self._waiting, []
        for item in waiting:
            packet = item.packet
            shift = round(self._zero / (packet.time_base or Fraction(1)))
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            for ready in self._others.take(item):
                self._container.mux(ready)

    def _close_container(self) -> None:
        if not self._closed:
            self._closed = True
            if self._kind.fragmented and self._info.chapters:
                # Known from the beginning they would make a fragment, and with it the index, before the first packets.
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
            kept = f"; what was written lies in {self._partial.path}" if self._partial and self._written else ""
            raise SinkError(f"can't write {self._output}: {reason(error)}{kept}") from error
