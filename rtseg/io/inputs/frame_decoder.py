"""Video decoder of a file that decodes several frames in parallel and loses no good frame after a damaged one."""

from __future__ import annotations

import errno
from collections import deque

import av
from av import Packet, VideoFrame
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

_MAX_KEPT_BYTES = 32 << 20
"""Largest total size of the packets that are kept to be decoded again."""

_MAX_DELAYED_PACKETS = 64
"""Largest number of packets whose frames are still in a decoder: reordered ones (16), and one for each thread."""

FrameKey = tuple[int | None, int, int, int]


class FrameDecoder:
    """Decoder for the packets of one video stream.

    FFmpeg decodes several frames at the same time. PyAV raises the first error, and drops the frames that it received
    together with it and, at the end of a file, those after it. So after an error the last packets are decoded once more,
    starting at a key frame, by a decoder without threads, which then decodes the rest of the stream.

    The decoder of the stream must not have been used. If it is `accelerated` by a GPU, errors are counted, and nothing is
    decoded again.
    """

    def __init__(self, context: VideoCodecContext, *, accelerated: bool) -> None:
        self._context = context
        self._can_retry = not accelerated
        self._packets: list[Packet[VideoStream]] = []
        self._bytes = 0
        self._discarded_count = 0
        """Number of packets before those that are kept."""
        self._returned: deque[FrameKey] = deque(maxlen=4 * _MAX_DELAYED_PACKETS)
        self._returned_count = 0
        self.errors: list[Exception] = []
        """Errors of the last call, one for each frame that can't be decoded."""

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Return the frames that are ready, in presentation order; with None, all remaining frames."""
        self.errors = []
        if self._can_retry and packet is not None:
            self._keep(packet)
        try:
            frames = list(self._context.decode(packet))
        except av.EOFError:
            return []
        except (av.FFmpegError, OSError) as error:
            if self._packets and getattr(error, "errno", None) != errno.ENOMEM:
                return self.decode_again(ended=packet is None)
            self.errors = [error]
            return []
        if not self._can_retry:
            return frames
        # With threads, FFmpeg also marks frames as corrupt that it decodes correctly without threads.
        good = next((number for number, frame in enumerate(frames) if frame.is_corrupt), len(frames))
        self._returned.extend(_key(frame) for frame in frames[:good])
        self._returned_count += good
        if good < len(frames) and self._packets:
            return [*frames[:good], *self.decode_again(ended=packet is None)]
        return frames

    def decode_again(self, *, ended: bool) -> list[VideoFrame]:
        """Switch to a decoder without threads, and return the frames that the first decoder did not return."""
        packets, self._packets, self._can_retry = self._packets, [], False
        if not packets:
            return []
        context = CodecContext.create(self._context.name, "r")
        assert isinstance(context, VideoCodecContext)
        context.extradata = self._context.extradata
        context.options, context.thread_type, context.thread_count = self._context.options, "NONE", 1
        self._context, self.errors = context, []
        frames: list[VideoFrame] = []
        for packet in (*packets, *([None] if ended else [])):
            try:
                frames += context.decode(packet)
            except av.EOFError:
                break
            except (av.FFmpegError, OSError) as error:
                self.errors.append(error)
        return frames[self._count_repeated(frames) :]

    def _keep(self, packet: Packet[VideoStream]) -> None:
        """Keep a packet, and those before it that a decoder needs, starting at a key frame."""
        self._packets.append(packet)
        self._bytes += packet.size
        full = self._bytes > _MAX_KEPT_BYTES
        if not (full or packet.is_keyframe):
            return
        last = len(self._packets) - (1 if full else _MAX_DELAYED_PACKETS)
        keys = [number for number, kept in enumerate(self._packets) if kept.is_keyframe and number <= last]
        first = (min if full else max)((key for key in keys if key), default=len(self._packets) if full else 0)
        self._bytes -= sum(kept.size for kept in self._packets[:first])
        self._discarded_count += first
        del self._packets[:first]
        self._can_retry = bool(self._packets)

    def _count_repeated(self, frames: list[VideoFrame]) -> int:
        """Return the number of leading frames that were returned before."""
        repeated, returned = [_key(frame) for frame in frames], list(self._returned)
        matching = [
            count
            for count in range(min(len(repeated), len(returned)) + 1)
            if repeated[:count] == returned[len(returned) - count :]
        ]
        # Frames without time stamps have equal keys; most packets contain one frame.
        expected = self._returned_count - self._discarded_count
        return min(matching, key=lambda count: (count == 0, abs(count - expected)))


def _key(frame: VideoFrame) -> FrameKey:
    # Without the decoding time: with threads it is that of a later packet.
    return frame.pts, frame.pict_type, frame.width, frame.height
