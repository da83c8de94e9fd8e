"""When the pictures of a second H.264 camera in AVI are shown, which AVI does not say: its decoder knows their order."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

import av
from av import CodecContext, Packet
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext

_MOST_HELD = 32
"""Packets that wait for their picture, at most; more than H.264 reorders (16)."""


class AviFrameOrder:
    """Gives packets their times of showing: the n-th picture that is shown has the n-th time of the stream.

    Args:
        template: the stream.
    """

    def __init__(self, template: Any) -> None:
        decoder = CodecContext.create("h264", "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.extradata = template.codec_context.extradata
        decoder.thread_count = 1
        decoder.options = {"skip_loop_filter": "all", "skip_idct": "all"}  # The pictures themselves are not wanted.
        self._decoder = decoder
        self._held: deque[tuple[int, Packet[Any]]] = deque()
        self._times: list[int] = []
        self._ranks: dict[int, int] = {}
        self._next = 0
        self._taken: set[int] = set()
        self._delay: int | None = None

    def take(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Return the packets whose time is known."""
        if packet.dts is None:
            return [packet]
        number = len(self._times)
        self._times.append(packet.dts)
        self._held.append((number, packet))
        copy: Packet[Any] = Packet(bytes(packet))
        copy.pts = copy.dts = number
        self._decode(copy)
        return self._ready(_MOST_HELD)

    def flush(self) -> list[Packet[Any]]:
        """Return the rest."""
        self._decode(None)
        return self._ready(0)

    def _decode(self, packet: Packet[Any] | None) -> None:
        with suppress(av.FFmpegError):  # What is damaged is copied, and shown in the order of decoding.
            for frame in self._decoder.decode(packet):
                if frame.pts is not None:
                    if (
                        self._delay is None
                    ):  # A picture that is shown first is decoded first: what was before it is damaged.
                        self._delay = len(self._times) - 1 - frame.pts
                    # Each packet makes the decoder give one picture: where it gives none, one is missing.
                    rank = self._free(max(self._next, len(self._times) - 1 - self._delay))
                    self._ranks[frame.pts], self._next = rank, rank + 1

    def _ready(self, held: int) -> list[Packet[Any]]:
        ready = []
        while self._held and (self._held[0][0] in self._ranks or len(self._held) > held):
            number, packet = self._held.popleft()
            rank = self._ranks.pop(number, None)
            packet.pts = self._time(self._free(number) if rank is None else rank)
            packet.dts = self._time(number - (self._delay or 0))
            ready.append(packet)
        return ready

    def _free(self, rank: int) -> int:
        """The first place in the order of showing, from `rank` on, that no packet has."""
        while rank in self._taken:
            rank += 1
        self._taken.add(rank)
        return rank

    def _time(self, place: int) -> int:
        """The time at a place in the order of showing, or before or behind all of them.

        No picture is shown before it is decoded: each is decoded as many places earlier as the decoder holds back.
        """
        inside = min(max(place, 0), len(self._times) - 1)
        step = self._times[1] - self._times[0] if len(self._times) > 1 else 1
        return self._times[inside] + (place - inside) * step


def avi_orders(container: InputContainer, video: int) -> dict[int, AviFrameOrder]:
    """One for each H.264 stream of an AVI but the video that is segmented, by its index."""
    if container.format.name != "avi":
        return {}
    streams = [stream for stream in container.streams.video if stream.index != video]
    return {stream.index: AviFrameOrder(stream) for stream in streams if stream.codec_context.name == "h264"}
