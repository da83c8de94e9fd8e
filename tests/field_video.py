"""Writer of H.264 with two field pictures per frame (PAFF), bit by bit, because no available encoder writes it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT = 64, 64


class _Bits:
    def __init__(self) -> None:
        self._text: list[str] = []

    def write(self, value: int, count: int) -> None:
        self._text.append(format(value, f"0{count}b"))

    def unsigned(self, value: int) -> None:
        code = format(value + 1, "b")
        self._text.append("0" * (len(code) - 1) + code)

    def align(self) -> None:
        self._text.append("0" * (-sum(map(len, self._text)) % 8))

    def raw(self, data: bytes) -> None:
        self._text += [format(byte, "08b") for byte in data]

    def unit(self, header: int) -> bytes:
        """Return the NAL unit with its stop bit and emulation prevention bytes."""
        self._text.append("1")
        self.align()
        text = "".join(self._text)
        payload = int(text, 2).to_bytes(len(text) // 8, "big")
        safe = bytearray()
        zeros = 0
        for byte in payload:
            if zeros >= 2 and byte <= 3:
                safe.append(3)
                zeros = 0
            safe.append(byte)
            zeros = zeros + 1 if byte == 0 else 0
        return b"\0\0\0\1" + bytes([header]) + bytes(safe)


def _parameter_sets(timed: bool = False, reordered: bool = False) -> bytes:
    sps = _Bits()
    sps.write(77 << 16 | 30, 24)  # Main profile, which allows field pictures
    # frame_num has 8 bits; display order is decoding order, or given by 8 bits.
    for value in (0, 4, 0, 4, 2) if reordered else (0, 4, 2, 1):
        sps.unsigned(value)
    sps.write(0, 1)
    sps.unsigned(WIDTH // 16 - 1)
    sps.unsigned(HEIGHT // 32 - 1)
    sps.write(0b0010, 4)  # the first one is frame_mbs_only_flag
    sps.write(timed, 1)
    if timed:
        sps.write(0b00001, 5)  # of the VUI parameters only the timing
        sps.write(1, 32)
        sps.write(50, 32)  # fields a second
        sps.write(0b10001 if reordered else 0b10000, 5)
    if reordered:
        sps.write(1, 1)
        for value in (0, 0, 16, 16, 1, 2):  # one frame is reordered, and two are stored
            sps.unsigned(value)
    pps = _Bits()
    pps.write(0b11_00_111_000_111_100, 16)  # numbers are 0, coded as 1; the last 1 is deblocking control present
    return sps.unit(0x67) + pps.unit(0x68)


def _field(
    frame_number: int, key: bool, bottom: bool, luma: int, order: int | None = None, reference: bool = True
) -> bytes:
    slice_ = _Bits()
    slice_.unsigned(0)
    slice_.unsigned(7)  # all slices are I slices
    slice_.unsigned(0)
    slice_.write(frame_number & 255, 8)
    slice_.write(1, 1)  # field_pic_flag
    slice_.write(int(bottom), 1)
    if key:
        slice_.unsigned(0)  # idr_pic_id
    if order is not None:
        slice_.write(order & 255, 8)
    if reference:
        slice_.write(0, 2 if key else 1)
    slice_.write(0b1, 1)  # slice_qp_delta: se(0)
    slice_.unsigned(1)  # no deblocking
    for _ in range(WIDTH // 16 * HEIGHT // 32):
        slice_.unsigned(25)  # I_PCM
        slice_.align()
        slice_.raw(bytes([luma]) * 256 + bytes([128]) * 128)
    return slice_.unit(0x65 if key else 0x61 if reference else 0x01)


def write_fields(path: Path, frames: int = 20, *, missing: int | None = None, timed: bool = False) -> Path:
    """Write a video of 25 frames per second whose luma increases by 8 from frame to frame.

    Args:
        path: `.h264`, or a container with a packet per field, as in MPEG-TS.
        frames: number of frames, at most 28.
        missing: number of a frame whose two fields are missing.
        timed: store the field rate in the parameter sets.
    """
    packets: list[bytes] = []
    for number in range(frames):
        # All frames are key frames, so that a missing one damages no other.
        head = _parameter_sets(timed) if number == 0 else b""
        fields = [_field(0, True, False, 16 + 8 * number), _field(0, False, True, 16 + 8 * number)]
        if number != missing:
            packets += [head + fields[0], fields[1]]
    if path.suffix == ".h264":
        path.write_bytes(b"".join(packets))
        return path
    return _mux(path, packets, range(0, 1800 * len(packets), 1800))


def write_reordered_fields(path: Path, frames: int = 21) -> Path:
    """Write a video as `write_fields` does whose frames are stored in the order 0, 2, 1, 4, 3 …: `frames` is odd, at most 27."""
    order = [0, *(number for even in range(2, frames, 2) for number in (even, even - 1))]
    packets, times, references = [], [], 0
    for number in order:
        key, reference = number == 0, number % 2 == 0
        head = _parameter_sets(timed=True, reordered=True) if key else b""
        fields = [
            _field(references, key and not bottom, bottom, 16 + 8 * number, 2 * number + bottom, reference)
            for bottom in (False, True)
        ]
        packets += [head + fields[0], fields[1]]
        times += [7200 + number * 3600, 7200 + number * 3600 + 1800]
        references += reference
    return _mux(path, packets, times)


def _mux(path: Path, packets: list[bytes], times: Sequence[int]) -> Path:
    """Write packets in decoding order, 1800 ticks of 1/90000 s each, with these presentation times in ticks."""
    raw = path.with_suffix(".h264")
    raw.write_bytes(b"".join(packets))
    with av.open(str(raw), format="h264") as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        units = [packet for packet in source.demux(video=0) if packet.size]
        for number, (packet, time) in enumerate(zip(units, times, strict=True)):
            packet.pts, packet.dts, packet.duration = time, number * 1800, 1800
            packet.time_base, packet.stream = Fraction(1, 90_000), stream
            out.mux(packet)
    raw.unlink()
    return path


def luma_of(planes: tuple[np.ndarray, ...]) -> int:
    """Return the number of a frame from its luma."""
    return round((float(planes[0].mean()) - 16) / 8)
