"""Detection of second fields in H.264, where two packets contain one frame.

Interlaced H.264 may store each field of a frame as a separate picture (PAFF). FFmpeg returns a packet for each and one frame
for both, so code that counts frames by packets must know which packets are second fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from av.video.codeccontext import VideoCodecContext

_START_CODE = b"\0\0\1"
_SLICES = (1, 2, 5)
_SPS, _PPS = 7, 8
_HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
_HEADER_BYTES = 64
"""Number of bytes that are read of a slice. They contain its first syntax elements."""


class _Sequence(NamedTuple):
    """Values of a sequence parameter set that locate the field flags of a slice."""

    frame_number_bits: int
    may_have_fields: bool
    separate_planes: bool


@dataclass(slots=True)
class FieldDetector:
    """Detector for the packets of an H.264 stream that are the second field of a frame.

    Args:
        extradata: of the codec, as in the container: `avcC` or Annex B; None: parameter sets are in the packets.
    """

    extradata: bytes | None = None
    _length_bytes: int = 0
    _sequences: dict[int, _Sequence] = field(default_factory=dict)
    _sequence_of: dict[int, int] = field(default_factory=dict)
    _open: tuple[int, bool] | None = None
    """Frame number and parity (bottom) of a first field that waits for its second."""

    @classmethod
    def of(cls, context: VideoCodecContext) -> FieldDetector | None:
        """Return the detector for a decoder that is not used yet; None: not H.264."""
        return cls(context.extradata) if context.name == "h264" else None

    def __post_init__(self) -> None:
        data = self.extradata or b""
        if data[:1] == b"\1" and len(data) > 6:  # avcC, ISO/IEC 14496-15
            self._length_bytes = (data[4] & 3) + 1
            position, sets = 6, data[5] & 31
            for _ in range(2):
                for _ in range(sets):
                    size = int.from_bytes(data[position : position + 2], "big")
                    self._parameter_set(data[position + 2 : position + 2 + size])
                    position += 2 + size
                sets = data[position] if position < len(data) else 0
                position += 1
        else:
            for unit in data.split(_START_CODE)[1:]:
                self._parameter_set(unit)

    @property
    def may_have_fields(self) -> bool:
        """True if a parameter set so far allows frames to be stored as two fields."""
        return any(sequence.may_have_fields for sequence in self._sequences.values())

    def is_second_field(self, packet: bytes) -> bool:
        """Return whether a packet completes the frame that the packet before it began."""
        for unit in self._units(packet):
            kind = unit[0] & 31
            if kind in (_SPS, _PPS):
                self._parameter_set(unit)
            elif kind in _SLICES:
                try:
                    return self._second(unit)
                except (IndexError, KeyError):
                    break  # Damaged, or its parameter sets are missing.
        self._open = None
        return False

    def _second(self, unit: bytes) -> bool:
        bits = _Bits(unit[1 : 1 + _HEADER_BYTES])
        bits.unsigned()  # first_mb_in_slice
        bits.unsigned()  # slice_type
        sequence = self._sequences[self._sequence_of[bits.unsigned()]]
        if not sequence.may_have_fields:
            return False
        if sequence.separate_planes:
            bits.read(2)
        number = bits.read(sequence.frame_number_bits)
        if not bits.read(1):  # field_pic_flag
            self._open = None
            return False
        bottom = bool(bits.read(1))
        if self._open == (number, not bottom):
            self._open = None
            return True
        self._open = (number, bottom)
        return False

    def _units(self, packet: bytes) -> Iterator[bytes]:
        if not self._length_bytes:
            yield from filter(None, packet.split(_START_CODE)[1:])
            return
        position = 0
        while position + self._length_bytes < len(packet):
            size = int.from_bytes(packet[position : position + self._length_bytes], "big")
            position += self._length_bytes
            unit = packet[position : position + size]
            if unit:
                yield unit
            position += size

    def _parameter_set(self, unit: bytes) -> None:
        try:
            if unit and unit[0] & 31 == _SPS:
                self._sequence(unit)
            elif unit and unit[0] & 31 == _PPS:
                bits = _Bits(unit[1:])
                number = bits.unsigned()
                self._sequence_of[number] = bits.unsigned()
        except IndexError:
            return  # Damaged: its slices count as whole frames.

    def _sequence(self, unit: bytes) -> None:
        """Read a sequence parameter set (ITU-T H.264, 7.3.2.1.1)."""
        bits = _Bits(unit[1:])
        profile = bits.read(8)
        bits.read(16)  # constraint flags, level
        number = bits.unsigned()
        separate = False
        if profile in _HIGH_PROFILES:
            chroma = bits.unsigned()
            separate = chroma == 3 and bool(bits.read(1))
            bits.unsigned(), bits.unsigned()  # bit depths
            bits.read(1)
            if bits.read(1):
                for index in range(12 if chroma == 3 else 8):
                    if bits.read(1):
                        bits.scaling_list(16 if index < 6 else 64)
        frame_number_bits = bits.unsigned() + 4
        order = bits.unsigned()  # pic_order_cnt_type
        if order == 0:
            bits.unsigned()
        elif order == 1:
            bits.read(1)
            bits.unsigned(), bits.unsigned()
            for _ in range(bits.unsigned()):
                bits.unsigned()
        bits.unsigned()  # max_num_ref_frames
        bits.read(1)
        bits.unsigned(), bits.unsigned()  # size
        self._sequences[number] = _Sequence(frame_number_bits, not bits.read(1), separate)


class _Bits:
    """Reader for the bits of a NAL unit, without emulation prevention bytes. Raises IndexError after the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data.replace(b"\0\0\3", b"\0\0")
        self._position = 0

    def read(self, count: int) -> int:
        value = 0
        for _ in range(count):
            byte = self._data[self._position >> 3]
            value = value << 1 | byte >> (7 - (self._position & 7)) & 1
            self._position += 1
        return value

    def unsigned(self) -> int:
        """Read an Exp-Golomb code: ue(v)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)

    def signed(self) -> int:
        """Read a signed Exp-Golomb code: se(v)."""
        code = self.unsigned()
        return (code + 1) // 2 if code & 1 else -(code // 2)

    def scaling_list(self, size: int) -> None:
        last = following = 8
        for _ in range(size):
            if following:
                following = (last + self.signed()) % 256
            last = following or last
