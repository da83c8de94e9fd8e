"""One connection to a live stream: every packet decoded as it comes, for as long as it holds."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
from av import Packet, VideoFrame
from av.video.stream import VideoStream

from rtseg.core.errors import Disconnected, SourceError
from rtseg.core.frame import Frame, Passthrough, StreamInfo
from rtseg.gpu.gpu_frame import software_layout
from rtseg.io.inputs.frame_converter import FrameConverter
from rtseg.io.inputs.live_clock import TS_WRAP_SECONDS
from rtseg.io.inputs.missing_frames import MissingFrames
from rtseg.io.inputs.opened_file import MAX_PIXELS
from rtseg.io.inputs.packets import Packets
from rtseg.io.inputs.timestamps import FrameTimes

WITHOUT_KEY_FRAME = 600
"""Packets that are passed over at most while no key frame comes; then decoding begins anyway (streams that refresh row by row)."""

UNDECODABLE_SECONDS = 20.0
"""A live stream of whose packets nothing could be decoded for so long is given up: with a new connection it may be better."""

UNDECODABLE_PACKETS = 50
"""So many of them at least: more than a decoder holds back, of a camera that sends few."""

_KEPT_ARRIVALS = 64

_KEPT_STAMPS = 8
"""More frames than this a decoder does not hold back to put them in order."""

_DEFAULT_RATE = Fraction(25)
"""Of files that state none, as in FFmpeg."""

_ARRIVAL_UNIT = Fraction(1, 1_000_000)
"""Time base of streams that have no clock of their own: when their packets came, by the monotonic clock."""


class Connection:
    """Frames of one connection. Implements `rtseg.io.inputs.Source`.

    A live stream has no end, so any end is `Disconnected`, but for that of a file behind a URL.

    Pictures may change their size and layout in mid-stream: each frame is what it is, and `info` is that of the newest.
    Sound is not read.
    """

    def __init__(
        self,
        packets: Packets,
        name: str,
        *,
        lends_memory: bool = False,
        arrival_ns: Callable[[int | None], int | None] = lambda _: None,
        wrap_seconds: float = TS_WRAP_SECONDS,
    ) -> None:
        """Take the first frame of an open stream.

        Args:
            packets: closed by this object.
            name: for messages, without passwords.
            lends_memory: raw frames lie in memory of the device, which is gone once it is closed: they are copied.
            arrival_ns: gives when the byte at a packet's position came, where that was before the packet was asked for.
            wrap_seconds: after so long the sender's clock begins anew.

        Raises:
            Disconnected: it ended, or went silent, before the first frame, or nothing of it can be decoded.
        """
        self._packets, self._name, self._arrival_ns = packets, name, arrival_ns
        self.wrap_seconds = wrap_seconds
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._corrupt = 0
        self._index = 0
        self._arrivals: dict[int, int] = {}
        self._stamps: list[int] = []
        self._last: tuple[int, int] | None = None
        self._reader: FrameConverter | None = None
        self.decode_seconds = 0.0
        """What the newest frame took to decode and to bring into planes."""
        self._copies = lends_memory and packets.codec == "rawvideo"
        self._time_base = packets.time_base if packets.has_clock else _ARRIVAL_UNIT
        # When the frames of a file are shown, as `rtseg video` tells it.
        step = max(1, round(1 / ((packets.frame_rate or _DEFAULT_RATE) * self._time_base)))
        timed_file = packets.file_seconds is not None and packets.has_clock
        self._times: FrameTimes[Frame] | None = FrameTimes(step) if timed_file else None
        self._holes = MissingFrames() if packets.in_parts else None
        # Where a format has no presentation times (AVI), frames come in the order of the decoding times.
        self._decoding_times: deque[int | None] | None = deque()
        try:
            self._frames = self._read()
            self._first: Frame | None = next(self._frames)
        except StopIteration:
            self.close()
            raise Disconnected(f"{name}: it was closed before its first picture") from None
        except BaseException:
            self.close()
            raise

    @property
    def file_seconds(self) -> float | None:
        """Length of a file, whose end is no disconnection; None: a live stream."""
        return self._packets.file_seconds

    @property
    def info(self) -> StreamInfo:
        """Of the newest frame."""
        return self._info

    @property
    def corrupt(self) -> int:
        """Frames so far that could not be decoded."""
        # What can't be decoded leaves a hole.
        return max(self._corrupt, self._holes.frames if self._holes else 0) + self._packets.corrupt

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is worth knowing of how it sends; damage is counted in `corrupt`, or ends the connection."""
        holes = self._holes
        if holes is None or not holes.places:
            return self._packets.warnings
        where = "one place" if holes.places == 1 else f"{holes.places} places"
        missing = (
            f"frames are missing in {where}, {holes.frames} by their times, as where a part of a playlist breaks off"
        )
        return (*self._packets.warnings, missing)

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        """Frames as they come, until `close`, or the end of a file.

        Raises:
            Disconnected: the stream ended, failed, went silent, or nothing of it can be decoded any more.
        """
        first, self._first = self._first, None
        if first is not None:
            yield first
        yield from self._frames

    def close(self) -> None:
        """Ends the connection; from another thread, at the next packet or time-out."""
        self._closing.set()
        if self._lock.acquire(blocking=False):
            try:
                self._packets.close()
            finally:
                self._lock.release()

    # Reading

    def _read(self) -> Iterator[Frame]:
        passed_over = undecoded = 0
        undecoded_since = 0.0
        for packet in self._each_packet():
            now = time.monotonic_ns()
            if packet is not None:
                now = self._arrival_ns(packet.pos) or now
                if passed_over >= 0 and not packet.is_keyframe and passed_over < WITHOUT_KEY_FRAME:
                    passed_over += 1
                    continue
                passed_over = -1
                self._arrived(packet, now)
            begin = time.perf_counter()
            if not undecoded:
                undecoded_since = begin
            undecoded += 1
            for picture in self._decode(packet):
                for frame in self._frames_of(picture, now):
                    self.decode_seconds = time.perf_counter() - begin
                    undecoded = 0
                    yield frame
                    begin = time.perf_counter()
            long = time.perf_counter() - undecoded_since >= UNDECODABLE_SECONDS
            if undecoded >= UNDECODABLE_PACKETS and long and self._times is None:
                raise Disconnected(self._why_undecodable(undecoded))
        if self._times is not None and not self._closing.is_set():
            yield from self._timed(self._times.flush())

    def _why_undecodable(self, count: int) -> str:
        context = self._packets.codec_context
        sets = {"h264": "SPS and PPS", "hevc": "VPS, SPS and PPS"}.get(context.name)
        what = f"{self._name}: frames arrive, but none of the last {count} can be decoded"
        if sets is None or context.width:
            return f"{what}: they are damaged, encrypted, or not what the stream says they are ({context.name})"
        return f"{what}: the stream has no parameter sets ({sets}); have the camera send them with each key frame, or restart it"

    def _each_packet(self) -> Iterator[Packet[Any] | None]:
        """Packets, and None at the end, for what the decoder still holds."""
        while True:
            with self._lock:
                if self._closing.is_set():
                    self._packets.close()
                    return
                packet = self._packets.read()
            yield packet
            if packet is None and self.file_seconds is None:
                raise Disconnected(f"{self._name}: the stream ended")
            if packet is None:
                return

    def _arrived(self, packet: Packet[Any], now: int) -> None:
        if not self._packets.has_clock:
            # The stamps that FFmpeg makes up know nothing of the sender's pace: the time of arrival does.
            stamp = round(now / 1e9 / _ARRIVAL_UNIT)
            stamp = max(stamp, self._stamps[-1] + 1) if self._stamps else stamp
            packet.pts = packet.dts = stamp
            packet.time_base = _ARRIVAL_UNIT
            self._stamps.append(stamp)
            del self._stamps[:-_KEPT_STAMPS]
        if packet.pts is not None:
            self._decoding_times = None
        if self._times is not None:
            if self._decoding_times is not None:
                self._decoding_times.append(packet.dts)
        elif packet.pts is not None:
            self._arrivals[packet.pts] = now
            while len(self._arrivals) > _KEPT_ARRIVALS:
                del self._arrivals[next(iter(self._arrivals))]

    def _stamp(self, picture: VideoFrame, captured: int) -> int:
        """When a frame is shown, in the stream's own time or, without one, by when it came."""
        pts = picture.pts
        if pts is None:
            pts, before = self._last or (round(captured / 1e9 / self._time_base), captured)
            pts += round((captured - before) / 1e9 / self._time_base)
        elif not self._packets.has_clock:
            # Frames that come in another order than they are shown in (B-frames) share their arrivals out in order.
            if not self._packets.codec_context.has_b_frames:
                self._stamps = [stamp for stamp in self._stamps if stamp >= pts]
            pts = self._stamps.pop(0) if self._stamps else pts
        self._last = pts, captured
        return pts

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        with self._lock:
            if self._closing.is_set():
                return []
            try:
                found: list[VideoFrame] = self._packets.codec_context.decode(packet)
            except av.EOFError:
                return []
            except (av.FFmpegError, OSError):
                self._corrupt += 1
                return []
            return found

    def _frames_of(self, picture: VideoFrame, now: int) -> Iterator[Frame]:
        """The frames whose times are certain now that a picture was decoded: of a live stream, this one."""
        if self._times is None:
            frame = self._frame(picture, now)
            if frame is not None:
                yield frame
            return
        stamp, guessed = picture.pts, picture.pts is None and self._decoding_times is None
        if guessed:
            stamp = picture.dts  # FFmpeg's best effort: that of the packet that made the decoder give this frame
        elif stamp is None:
            stamp = self._decoding_times.popleft() if self._decoding_times else None
        frame = self._frame(picture, now)
        if frame is not None:
            yield from self._timed(self._times.put(frame, stamp, guessed=guessed))

    def _timed(self, placed: Iterator[tuple[Frame, int]]) -> Iterator[Frame]:
        for frame, pts in placed:
            if self._holes is not None:
                self._holes.put(pts)
            yield replace(frame, pts=pts)

    def _frame(self, picture: VideoFrame, now: int) -> Frame | None:
        captured = now if picture.pts is None else self._arrivals.pop(picture.pts, now)
        if picture.is_corrupt:
            self._stamp(picture, captured)
            self._corrupt += 1
            return None
        if picture.width * picture.height > MAX_PIXELS:
            raise SourceError(f"{self._name}: its pictures are {picture.width}x{picture.height}, too large")
        if self._reader is None or not self._fits(picture):
            self._reader = FrameConverter.of(picture)
            self._layout = _layout(picture)
            self._info = self._describe(self._reader)
        try:
            planes = self._reader.read(picture)
            if self._copies:
                planes = (planes[0].copy(), planes[1].copy(), planes[2].copy())
        except (av.FFmpegError, OSError):
            self._corrupt += 1
            return None
        self._index += 1
        return Frame(
            planes=planes,
            pixel_format=self._reader.pixel_format,
            color=self._reader.color,
            pts=self._stamp(picture, captured),
            time_base=self._time_base,
            index=self._index - 1,
            duration=picture.duration or 0,
            captured_ns=captured,
        )

    def _fits(self, picture: VideoFrame) -> bool:
        return self._layout == _layout(picture)

    def _describe(self, reader: FrameConverter) -> StreamInfo:
        width, height = reader.upright_size
        packets = self._packets
        return StreamInfo(
            name=self._name,
            width=width,
            height=height,
            pixel_format=reader.pixel_format,
            color=reader.color,
            time_base=self._time_base,
            frame_rate=packets.frame_rate,
            sample_aspect_ratio=1 / packets.aspect if reader.orientation.transpose else packets.aspect,
            codec=packets.codec,
            notes=reader.notes,
        )


def _layout(picture: VideoFrame) -> tuple[int, int, str, int, int]:
    return picture.width, picture.height, software_layout(picture).name, picture.colorspace, picture.color_range
