"""Corrected times of audio in AVI whose header counts packets, where FFmpeg counts bytes."""

from __future__ import annotations

from typing import Any

from av import Packet
from av.container import InputContainer


class AviAudioTimes:
    """Corrector for packets of such streams, which sets the times that the header states. Other packets stay unchanged.

    FFmpeg writes G.726 that way. Because of the block size of one byte, its demuxer counts each byte as a tick, so that
    packets of a quarter of a second seem minutes apart.
    """

    def __init__(self, container: InputContainer) -> None:
        self._numbers: dict[int, dict[int, int]] = {}
        if container.format.name != "avi":
            return
        for stream in container.streams.audio:
            times = [entry.timestamp for entry in stream.index_entries]
            if times and len(times) == stream.duration and times[-1] >= len(times):
                self._numbers[stream.index] = {time: number for number, time in enumerate(times)}

    def correct(self, packet: Packet[Any]) -> None:
        """Correct a packet's time stamps in place."""
        numbers = self._numbers.get(packet.stream_index)
        if numbers is not None:
            packet.pts = None if packet.pts is None else numbers.get(packet.pts, packet.pts)
            packet.dts = None if packet.dts is None else numbers.get(packet.dts, packet.dts)
