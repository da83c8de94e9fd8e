"""Source for one connection to a live stream. Each packet is decoded on arrival."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from typing import Any

import av
from av import Packet, VideoFrame
from av.video.stream import VideoStream

from rtseg.core.errors import Disconnected, SourceError
from rtseg.core.frame import Frame, Passthrough, StreamInfo
from rtseg.gpu.gpu_frame import software_layout
from rtseg.io.inputs import Source
from rtseg.io.inputs.arrival_times import ArrivalTimes
from rtseg.io.inputs.frame_converter import FrameConverter
from rtseg.io.inputs.live_clock import TS_WRAP_SECONDS
from rtseg.io.inputs.missing_frames import MissingFrames
from rtseg.io.inputs.opened_file import MAX_PIXELS
from rtseg.io.inputs.packets import Packets
from rtseg.io.inputs.timestamps import FrameTimes, fraction

_MAX_SKIPPED_PACKETS = 600
"""Largest number of packets to skip while waiting for a key frame. Streams with intra refresh have no key frames."""

UNDECODABLE_SECONDS = 20.0
"""Longest time without a decodable packet. Then the live stream is closed, since a new connection may help."""

UNDECODABLE_PACKETS = 50
"""Smallest number of such packets: larger than the delay of a decoder, also at a low frame rate."""

_DEFAULT_RATE = Fraction(25)
"""Frame rate of files without one, as in FFmpeg."""


class Connection(Source):
    """Source for the frames of one connection.

    The end of a live stream raises `Disconnected`; the end of a file at a URL does not. Frames may change their size and
    format within the stream; `info` describes the newest frame. Audio is not read.
    """

    def __init__(
        self,
        packets: Packets,
        name: str,
        *,
        copies_raw_frames: bool = False,
        arrival_ns: Callable[[int | None], int | None] = lambda _: None,
        wrap_seconds: float = TS_WRAP_SECONDS,
    ) -> None:
        """Take over an open stream and read its first frame.

        Args:
            packets: the open stream; closed by this object.
            name: name for messages, without passwords.
            copies_raw_frames: copy the planes of raw frames, because they are in device memory that `close` releases.
            arrival_ns: function that returns the arrival time of the byte at a position; None: unknown.
            wrap_seconds: period after which the sender's clock wraps.

        Raises:
            Disconnected: the stream ended or timed out before the first frame, or none of its frames can be decoded.
            SourceError: the frames are too large.
        """
        self._packets, self._name, self._arrival_ns = packets, name, arrival_ns
        self.wrap_seconds, self.file_seconds = wrap_seconds, packets.file_seconds
        self.is_live_playlist = packets.is_live_playlist
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._corrupt = 0
        self._index = 0
        self._arrival_times = ArrivalTimes(packets)
        self._converter: FrameConverter | None = None
        self._format: tuple[int, int, str, int, int] | None = None
        self._copies_planes = copies_raw_frames and packets.codec == "rawvideo"
        self._time_base = self._arrival_times.time_base
        # Presentation times of a file, computed as in `rtseg video`.
        step = max(1, round(1 / ((packets.frame_rate or _DEFAULT_RATE) * self._time_base)))
        timed_file = packets.file_seconds is not None and packets.has_clock
        self._times: FrameTimes[Frame] | None = FrameTimes(step) if timed_file else None
        self._missing = MissingFrames() if packets.is_playlist else None
        try:
            frames = self._read()
            first = [next(frames)]
            if self._times is None and self._arrival_times.begins_untimed:
                first.append(next(frames))
                duration = first[1].duration or round(1 / ((packets.frame_rate or _DEFAULT_RATE) * self._time_base))
                first[0] = replace(first[0], pts=first[1].pts - duration)
            self._frames = chain(first, frames)
        except StopIteration:
            self.close()
            raise Disconnected(f"{name}: it was closed before its first frame") from None
        except BaseException:
            self.close()
            raise

    @property
    def corrupt(self) -> int:
        """Number of frames so far that could not be decoded."""
        # The missing frames include those that can't be decoded.
        return max(self._corrupt, self._missing.frames if self._missing else 0) + self._packets.corrupt

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the stream. Damage is counted in `corrupt`, or ends the connection."""
        missing = self._missing
        if missing is None or not missing.places:
            return self._packets.warnings
        where = "1 place" if missing.places == 1 else f"{missing.places} places"
        count = f"{missing.frames} by the time stamps"
        warning = f"frames are missing in {where} ({count}): a part of the playlist may be incomplete"
        return (*self._packets.warnings, warning)

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        """Yield frames as they arrive, until `close` or the end of a file.

        Raises:
            Disconnected: the stream ended, failed or timed out, or its frames can no longer be decoded.
            SourceError: the frames are too large.
        """
        return self._frames

    def close(self) -> None:
        """Close the connection. A call from another thread takes effect at the next packet or timeout."""
        self._closing.set()
        if self._lock.acquire(blocking=False):
            try:
                self._packets.close()
            finally:
                self._lock.release()

    def _read(self) -> Iterator[Frame]:
        skipped = undecoded = 0
        undecoded_since = 0.0
        for packet in self._read_packets():
            now_ns = time.monotonic_ns()
            if packet is not None:
                now_ns = self._arrival_ns(packet.pos) or self._arrival_times.without_hold(packet, now_ns)
                if skipped >= 0 and not packet.is_keyframe and skipped < _MAX_SKIPPED_PACKETS:
                    skipped += 1
                    continue
                skipped = -1
                self._arrival_times.set_stamps(packet, now_ns)
                if self._times is not None:
                    self._times.expect(packet)
                elif packet.pts is not None:
                    self._arrival_times.add(packet.pts, now_ns)
            begin = time.perf_counter()
            if not undecoded:
                undecoded_since = begin
            undecoded += 1
            for video_frame in self._decode(packet):
                for frame in self._add(video_frame, now_ns):
                    self.decode_seconds = time.perf_counter() - begin
                    undecoded = 0
                    yield frame
                    begin = time.perf_counter()
            timed_out = time.perf_counter() - undecoded_since >= UNDECODABLE_SECONDS
            if undecoded >= UNDECODABLE_PACKETS and timed_out and self._times is None:
                raise Disconnected(self._undecodable_text(undecoded))
        if self._times is not None and not self._closing.is_set():
            yield from self._with_pts(self._times.flush())

    def _undecodable_text(self, count: int) -> str:
        context = self._packets.codec_context
        sets = {"h264": "SPS and PPS", "hevc": "VPS, SPS and PPS"}.get(context.name)
        text = f"{self._name}: frames arrive, but none of the last {count} can be decoded"
        if sets is None or context.width:
            return f"{text}: they are damaged, encrypted, or not in the stated codec ({context.name})"
        return f"{text}: the stream has no parameter sets ({sets}); have the camera send them with each key frame, or restart it"

    def _read_packets(self) -> Iterator[Packet[Any] | None]:
        """Yield packets, and None at the end, and after a failure of a live stream, to flush the decoder."""
        failure: Disconnected | None = None
        while failure is None:
            with self._lock:
                if self._closing.is_set():
                    self._packets.close()
                    return
                try:
                    packet = self._packets.read()
                except Disconnected as error:
                    if self.file_seconds is not None:
                        raise
                    packet, failure = None, error
            yield packet
            if packet is None and failure is None:
                if self.file_seconds is not None:
                    return
                failure = Disconnected(f"{self._name}: the stream ended")
        raise failure

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        with self._lock:
            if self._closing.is_set():
                return []
            try:
                return list(self._packets.codec_context.decode(packet))
            except av.EOFError:
                return []
            except (av.FFmpegError, OSError):
                self._corrupt += 1
                return []

    def _add(self, video_frame: VideoFrame, now_ns: int) -> Iterator[Frame]:
        """Add a decoded frame, and yield the frames whose times are final: for a live stream, the same frame."""
        stamp, guessed = self._times.stamp_of(video_frame) if self._times else (None, False)
        frame = self._to_frame(video_frame, now_ns)
        if frame is None:
            return
        if self._times is None:
            yield frame
        else:
            yield from self._with_pts(self._times.put(frame, stamp, guessed=guessed))

    def _with_pts(self, timed: Iterator[tuple[Frame, int]]) -> Iterator[Frame]:
        for frame, pts in timed:
            if self._missing is not None:
                self._missing.put(pts)
            yield replace(frame, pts=pts)

    def _to_frame(self, video_frame: VideoFrame, now_ns: int) -> Frame | None:
        captured_ns = self._arrival_times.pop(video_frame.pts, now_ns)
        if video_frame.is_corrupt:
            self._arrival_times.presentation_time(video_frame, captured_ns)
            self._corrupt += 1
            return None
        if video_frame.width * video_frame.height > MAX_PIXELS:
            raise SourceError(f"{self._name}: its frames are {video_frame.width}x{video_frame.height}, too large")
        layout = software_layout(video_frame).name
        frame_format = video_frame.width, video_frame.height, layout, video_frame.colorspace, video_frame.color_range
        if self._converter is None or self._format != frame_format:
            self._converter, self._format = FrameConverter.of(video_frame), frame_format
            self.info = self._describe(self._converter)
        try:
            planes = self._converter.read(video_frame)
            if self._copies_planes:
                planes = (planes[0].copy(), planes[1].copy(), planes[2].copy())
        except (av.FFmpegError, OSError):
            self._corrupt += 1
            return None
        self._index += 1
        return Frame(
            planes=planes,
            pixel_format=self._converter.pixel_format,
            color=self._converter.color,
            pts=self._arrival_times.presentation_time(video_frame, captured_ns),
            time_base=self._time_base,
            index=self._index - 1,
            duration=video_frame.duration or 0,
            captured_ns=captured_ns,
        )

    def _describe(self, converter: FrameConverter) -> StreamInfo:
        width, height = converter.upright_size
        packets = self._packets
        aspect = packets.aspect or fraction(packets.codec_context.sample_aspect_ratio) or Fraction(1)
        return StreamInfo(
            name=self._name,
            width=width,
            height=height,
            pixel_format=converter.pixel_format,
            color=converter.color,
            time_base=self._time_base,
            frame_rate=packets.frame_rate,
            sample_aspect_ratio=1 / aspect if converter.orientation.transpose else aspect,
            codec=packets.codec,
            notes=converter.notes,
        )
