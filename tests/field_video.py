"""H.264 whose frames are stored as two field pictures (PAFF), written bit by bit: no encoder that is at hand makes it."""

from __future__ import annotations

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
        """The NAL unit with its stop bit, and with the bytes that prevent start codes."""
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


def _parameter_sets(timed: bool = False) -> bytes:
    sequence = _Bits()
    sequence.write(77, 8)  # Main profile: it has field pictures
    sequence.write(0, 8)
    sequence.write(30, 8)
    sequence.unsigned(0)
    sequence.unsigned(4)  # frame_num has 8 bits
    sequence.unsigned(2)  # order of showing is that of decoding
    sequence.unsigned(1)
    sequence.write(0, 1)
    sequence.unsigned(WIDTH // 16 - 1)
    sequence.unsigned(HEIGHT // 32 - 1)
    sequence.write(0, 1)  # frame_mbs_only_flag
    sequence.write(0, 1)
    sequence.write(1, 1)
    sequence.write(0, 1)
    sequence.write(timed, 1)
    if timed:
        sequence.write(0b00001, 5)  # of what is described beside the picture the timing alone
        sequence.write(1, 32)
        sequence.write(50, 32)  # fields a second
        sequence.write(0b10000, 5)
    picture = _Bits()
    picture.unsigned(0)
    picture.unsigned(0)
    picture.write(0, 2)
    picture.unsigned(0)
    picture.unsigned(0)
    picture.unsigned(0)
    picture.write(0, 3)
    picture.unsigned(0)
    picture.unsigned(0)
    picture.unsigned(0)
    picture.write(0b100, 3)  # deblocking control present
    return sequence.unit(0x67) + picture.unit(0x68)


def _field(frame_number: int, key: bool, bottom: bool, luma: int) -> bytes:
    slice_ = _Bits()
    slice_.unsigned(0)
    slice_.unsigned(7)  # an I slice, as all slices of the picture
    slice_.unsigned(0)
    slice_.write(frame_number & 255, 8)
    slice_.write(1, 1)  # field_pic_flag
    slice_.write(int(bottom), 1)
    if key:
        slice_.unsigned(0)  # idr_pic_id
        slice_.write(0, 2)
    else:
        slice_.write(0, 1)
    slice_.write(0b1, 1)  # slice_qp_delta: se(0)
    slice_.unsigned(1)  # no deblocking
    for _ in range(WIDTH // 16 * HEIGHT // 32):
        slice_.unsigned(25)  # I_PCM
        slice_.align()
        slice_.raw(bytes([luma]) * 256 + bytes([128]) * 128)
    return slice_.unit(0x65 if key else 0x61)


def write_fields(path: Path, frames: int = 20, *, hurt: int | None = None, timed: bool = False) -> Path:
    """Writes a video of 25 frames a second whose luma rises by 8 from frame to frame.

    Args:
        path: `.h264`, or a container: each field has a packet of its own, as in MPEG-TS.
        frames: number of frames, at most 28.
        hurt: a frame whose two fields are left out.
        timed: the codec's parameters say how many fields there are in a second.
    """
    packets: list[bytes] = []
    for number in range(frames):
        # All are key frames of their own, so that one that is missing hurts no other.
        head = _parameter_sets(timed) if number == 0 else b""
        fields = [_field(0, True, False, 16 + 8 * number), _field(0, False, True, 16 + 8 * number)]
        if number != hurt:
            packets += [head + fields[0], fields[1]]
    if path.suffix == ".h264":
        path.write_bytes(b"".join(packets))
        return path
    raw = path.with_suffix(".h264")
    raw.write_bytes(b"".join(packets))
    with av.open(str(raw), format="h264") as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        number = 0
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts = packet.dts = number * 1800
                packet.duration, packet.time_base, packet.stream = 1800, Fraction(1, 90_000), stream
                out.mux(packet)
                number += 1
    raw.unlink()
    return path


def luma_of(planes: tuple[np.ndarray, ...]) -> int:
    """The frame's number by its luma."""
    return round((float(planes[0].mean()) - 16) / 8)
