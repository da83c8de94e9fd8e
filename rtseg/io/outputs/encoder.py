"""Video encoder: converts rendered frames to packets with color tags and the durations that muxers expect."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import av
from av import Packet, VideoFrame
from av.codec import Codec
from av.codec.context import Flags
from av.container import OutputContainer
from av.stream import Disposition
from av.video.frame import PictureType
from av.video.stream import VideoStream

from rtseg.core.cpu import without_real_time_priority
from rtseg.core.errors import SinkError, reason
from rtseg.core.frame import Frame, StreamInfo
from rtseg.io.options import OutputOptions
from rtseg.io.outputs.containers import Container, add_global_header, encoder_options
from rtseg.io.outputs.frame_format import FrameFormat, FrameFormatter

_ALIASES = {"h265": "hevc", "x264": "libx264", "x265": "libx265", "vp9": "libvpx-vp9"}
_MPEG4_LARGEST_TIME_BASE = 65535
_REORDERING_ENCODERS = ("libx264", "libx265")
_COPIED_METADATA = ("language", "title", "handler_name", "creation_time", "reel_name", "comment")
"""Metadata keys that describe the content of a video stream. Other keys describe its encoding."""


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """Encoder settings of a stream."""

    codec: Codec
    options: Mapping[str, str]
    frame_format: FrameFormat
    keyframe_seconds: int = 2
    """Seconds between key frames. Players seek to key frames."""

    @classmethod
    def create(
        cls, name: str, info: StreamInfo, size: tuple[int, int], options: OutputOptions, *, live: bool = False
    ) -> EncoderSettings:
        """Return the settings for an encoder in FFmpeg and a source. `live` encodes with low latency.

        The size of the rendered frames is (width, height) in pixels.

        Raises:
            SinkError: the encoder does not exist.
        """
        codec = _find_encoder(name)
        names = [layout.name for layout in codec.video_formats or ()]
        preferred = (layout for layout in ("yuv420p", "yuvj420p", "nv12") if layout in names)
        frame_format = FrameFormat.create(info, size, next(preferred, names[0] if names else "yuv420p"))
        return cls(codec, encoder_options(codec.name, options.crf, options.preset, live=live), frame_format)


class VideoEncoder:
    """Encoder of the segmented video stream of an output. Create it before the header of the container is written.

    Raises:
        SinkError: the container does not support the codec, or the encoder rejects its settings.
    """

    def __init__(
        self, container: OutputContainer, kind: Container, info: StreamInfo, settings: EncoderSettings
    ) -> None:
        self._kind = kind
        self._settings = settings
        self._formatter = FrameFormatter(settings.frame_format)
        # x264 and x265 reorder frames unless they are tuned for zero latency.
        self._delays_last_frames = (
            settings.codec.name in _REORDERING_ENCODERS
            and settings.options.get("tune") != "zerolatency"
            and kind.fragmented
        )
        self._pending_frames: deque[tuple[Frame, int]] = deque()
        self._encoder_started = False
        self._pending_packets: list[Packet[VideoStream]] = []
        self._end_pts = 0
        self.started = False
        """True after the first packet was returned."""
        try:
            self._stream = self._add_stream(container, info)
            with without_real_time_priority():
                self._stream.codec_context.open()
        except (av.FFmpegError, ValueError) as error:
            options = ", ".join(f"{name} '{value}'" for name, value in settings.options.items())
            width, height = settings.frame_format.size
            message = (
                f"the encoder {settings.codec.name} can't write {width}x{height} frames to {kind.format} with {options}"
            )
            raise SinkError(f"{message}: {reason(error)}") from error

    def encode(self, rendered: Frame, pts: int) -> list[Packet[VideoStream]]:
        """Encode a frame and return the packets that are ready. `pts` is in the time base of the frame.

        If the encoder reorders frames, the last two are delayed until `flush`.

        Raises:
            SinkError: the frame size changed.
            av.FFmpegError: the encoder failed.
        """
        self._formatter.check_size(rendered)
        self._pending_frames.append((rendered, pts))
        if len(self._pending_frames) <= (2 if self._delays_last_frames else 0):
            return []
        self._encoder_started = True
        return self._finish_packets(self._stream.encode(self._video_frame(*self._pending_frames.popleft())), last=False)

    def flush(self) -> list[Packet[VideoStream]]:
        """Return the remaining packets at the end.

        The last two frames become P frames, so that the last displayed frame is also the last decoded one. Otherwise the last
        decoded packet would need a longer duration than its frame, and the average frame rate of the file would be wrong.
        """
        if not self._encoder_started and not self._pending_frames:
            return []
        packets = []
        for rendered, pts in self._pending_frames:
            frame = self._video_frame(rendered, pts)
            if self._encoder_started:  # the first must be an I frame
                frame.pict_type = PictureType.P
            self._encoder_started = True
            packets += self._stream.encode(frame)
        self._pending_frames.clear()
        return self._finish_packets([*packets, *self._stream.encode(None)], last=True)

    def _video_frame(self, rendered: Frame, pts: int) -> VideoFrame:
        frame = self._formatter.convert(rendered)
        frame.time_base, frame.pts, frame.pict_type = rendered.time_base, pts, PictureType.NONE
        # Players skip a last frame without a duration.
        frame.duration = rendered.duration or max(1, round(1 / (self._settings.frame_format.rate * rendered.time_base)))
        return frame

    def _add_stream(self, container: OutputContainer, info: StreamInfo) -> VideoStream:
        settings, frame_format = self._settings, self._settings.frame_format
        stream = container.add_stream(settings.codec.name, rate=frame_format.rate, options=dict(settings.options))
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.width, context.height = frame_format.size
        context.pix_fmt = frame_format.pixel_format
        time_base = info.time_base
        too_fine = settings.codec.name == "mpeg4" and time_base.denominator > _MPEG4_LARGEST_TIME_BASE
        if self._kind.constant_rate or too_fine:
            time_base = 1 / frame_format.rate
        context.time_base = stream.time_base = time_base
        context.gop_size = max(1, round(frame_format.rate * settings.keyframe_seconds))
        if self._kind.constant_rate:
            context.max_b_frames = 0
        context.flags |= Flags.frame_duration
        add_global_header(container, context)
        context.sample_aspect_ratio = info.sample_aspect_ratio
        context.colorspace, context.color_range = frame_format.color.space_tag, frame_format.color.range_tag
        context.color_primaries, context.color_trc = frame_format.color.primaries_tag, frame_format.color.transfer_tag
        template = info.template
        if template is not None:
            stream.metadata.update(
                {key: template.metadata[key] for key in _COPIED_METADATA if key in template.metadata}
            )
            stream.disposition = Disposition(template.disposition) | Disposition.default
        if info.time_code is not None:
            stream.metadata["timecode"] = info.time_code
        return stream

    def _finish_packets(self, packets: list[Packet[VideoStream]], last: bool) -> list[Packet[VideoStream]]:
        if self._kind.fragmented:
            packets = self._with_durations(packets, last)
        self.started = self.started or bool(packets)
        return packets

    def _with_durations(self, packets: list[Packet[VideoStream]], last: bool) -> list[Packet[VideoStream]]:
        """Set packet durations to the time until the next packet is decoded, and for the last packet until the end of display.

        Encoders set display durations. FFmpeg uses the last one of each fragment as a decode duration, which changes frame times
        at a variable rate. It also ends the edit list at the last decoded packet, which hides a frame that is displayed later.
        """
        for packet in packets:
            self._end_pts = max(self._end_pts, (packet.pts or 0) + (packet.duration or 0))
        ready = [*self._pending_packets, *packets]
        for packet, following in pairwise(ready):
            packet.duration = (following.dts or 0) - (packet.dts or 0)
        if not last:
            self._pending_packets = ready[-1:]
            return ready[:-1]
        self._pending_packets = []
        if ready:
            ready[-1].duration = max(1, self._end_pts - (ready[-1].pts or 0))
        return ready


def _find_encoder(name: str) -> Codec:
    """Return a video encoder by its name or alias. Raise SinkError if there is none."""
    suggestion = "try libx264, libx265, libvpx-vp9, libsvtav1 or mpeg4"
    try:
        encoder = Codec(_ALIASES.get(name, name), "w")
    except (av.FFmpegError, ValueError) as error:
        raise SinkError(f"no encoder '{name}'; {suggestion}") from error
    if encoder.type != "video":
        raise SinkError(f"'{name}' encodes {encoder.type}, not video; {suggestion}")
    return encoder
