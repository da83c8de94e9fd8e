"""The video decoder of a file: frames are decoded several at a time, and none of them is lost behind one that is damaged."""

from __future__ import annotations

import errno
from collections import deque

import av
from av import Packet, VideoFrame
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

_KEPT_BYTES = 32 << 20
"""Packets that are kept to be decoded again, at most."""

_KEPT_PACKETS = 64
"""Packets of which a decoder may still hold the frames: reordered ones (16), and one for each thread."""

Identity = tuple[int | None, int, int, int]


class FrameDecoder:
    """Decodes the packets of one video stream.

    FFmpeg decodes several frames at the same time. PyAV raises the first error that it meets and drops the frames that it
    had received with it, and those behind it at the end of a file. So after an error the last packets are decoded once
    more, from a key frame on, by a decoder that gives one frame at a time; it goes on from there.

    Args:
        context: of the stream, not used yet.
        accelerated: whether it decodes on a GPU: errors are counted, and nothing is decoded again.
    """

    def __init__(self, context: VideoCodecContext, *, accelerated: bool) -> None:
        self._context = context
        self._again = not accelerated
        self._packets: list[Packet[VideoStream]] = []
        self._bytes = 0
        self._left_out = 0
        """Packets before those that are kept."""
        self._given: deque[Identity] = deque(maxlen=4 * _KEPT_PACKETS)
        self._given_count = 0
        self.errors: list[Exception] = []
        """The errors of the last call, one for each frame that can't be decoded."""

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Return the frames that are ready, in presentation order; with None, all that are left."""
        self.errors = []
        if self._again and packet is not None:
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
        if not self._again:
            return frames
        # With threads FFmpeg also marks frames as corrupt that it decodes well without.
        sound = next((number for number, frame in enumerate(frames) if frame.is_corrupt), len(frames))
        self._given.extend(_identity(frame) for frame in frames[:sound])
        self._given_count += sound
        if sound < len(frames) and self._packets:
            return [*frames[:sound], *self.decode_again(ended=packet is None)]
        return frames

    def decode_again(self, *, ended: bool) -> list[VideoFrame]:
        """Go on with a decoder without threads; return the frames that the one before did not give."""
        packets, self._packets, self._again = self._packets, [], False
        if not packets:
            return []
        context = CodecContext.create(self._context.name, "r")
        assert isinstance(context, VideoCodecContext)
        context.extradata = self._context.extradata
        context.options, context.thread_type, context.thread_count = self._context.options, "NONE", 1
        self._context, self.errors = context, []
        frames: list[VideoFrame] = []
        for kept in (*packets, *([None] if ended else [])):
            try:
                frames += context.decode(kept)
            except av.EOFError:
                break
            except (av.FFmpegError, OSError) as error:
                self.errors.append(error)
        return frames[self._already_given(frames) :]

    def _keep(self, packet: Packet[VideoStream]) -> None:
        """Keep a packet, and of those before it what a decoder needs from a key frame on."""
        self._packets.append(packet)
        self._bytes += packet.size
        full = self._bytes > _KEPT_BYTES
        if not (full or packet.is_keyframe):
            return
        last = len(self._packets) - (1 if full else _KEPT_PACKETS)
        keys = [number for number, kept in enumerate(self._packets) if kept.is_keyframe and number <= last]
        first = (min if full else max)((key for key in keys if key), default=len(self._packets) if full else 0)
        self._bytes -= sum(kept.size for kept in self._packets[:first])
        self._left_out += first
        del self._packets[:first]
        self._again = bool(self._packets)

    def _already_given(self, frames: list[VideoFrame]) -> int:
        """How many of the frames that were decoded again are the last ones that were given before."""
        again, given = [_identity(frame) for frame in frames], list(self._given)
        same = [
            count for count in range(min(len(again), len(given)) + 1) if again[:count] == given[len(given) - count :]
        ]
        # Frames without time stamps look alike; most packets hold one frame.
        expected = self._given_count - self._left_out
        return min(same, key=lambda count: (count == 0, abs(count - expected)))


def _identity(frame: VideoFrame) -> Identity:
    # Without the decoding time: with threads it is that of a later packet.
    return frame.pts, frame.pict_type, frame.width, frame.height
