"""What the boxes at the beginning of an MP4 or MOV say of how it can be read from a connection.

An MP4 without an end is sent in fragments, with a header that states no length, by cameras and their servers.
"""

from __future__ import annotations

from collections.abc import Iterator

from rtseg.io.inputs.byte_stream import Answer

_LARGEST_HEADER = 1 << 20
_BOX_BYTES = 8
_FIRST = {b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip"}


def is_live_mp4(answer: Answer) -> bool:
    """Whether an answer is an MP4 whose header announces fragments and no length. Reads no further than its header."""
    header = _header(answer)
    fragments = header.get(b"mvex")
    if fragments is None:
        return False
    lengths = (_number(header.get(b"mvhd", b""), 16, 24), _number(dict(_boxes(fragments)).get(b"mehd", b""), 4, 4))
    return not any(lengths)


def has_fragments(answer: Answer) -> bool:
    """Whether the header of an MP4 announces fragments."""
    return b"mvex" in _header(answer)


def has_index_last(answer: Answer) -> bool:
    """Whether an answer is an MP4 or MOV whose pictures come before what says where they are."""
    return list(_beginning(answer))[-1][0] == b"mdat"


def _beginning(answer: Answer) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and size of the boxes up to the index or the pictures; of other formats, one that is none."""
    position = 0
    while position < _LARGEST_HEADER:
        head = answer.peek(position + _BOX_BYTES)[position:]
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        yield kind, position, size
        if kind in (b"mdat", b"moof", b"moov") or size < _BOX_BYTES or (not position and kind not in _FIRST):
            return
        position += size


def _header(answer: Answer) -> dict[bytes, bytes]:
    """The boxes of the header, where it is at the beginning."""
    boxes = list(_beginning(answer))
    kind, position, size = boxes[-1]
    if boxes[0][0] != b"ftyp" or kind != b"moov" or not _BOX_BYTES <= size <= _LARGEST_HEADER:
        return {}
    return dict(_boxes(answer.peek(position + size)[position + _BOX_BYTES :]))


def _number(box: bytes, place: int, place_64: int) -> int:
    """A length at a place that depends on the box's version; 0 where it is missing or says that it is not known."""
    is_64 = box[:1] == b"\1"
    data = box[place_64 : place_64 + 8] if is_64 else box[place : place + 4]
    return 0 if set(data) == {255} else int.from_bytes(data, "big")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each box, those that are whole."""
    position = 0
    while position + _BOX_BYTES <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size < _BOX_BYTES:
            return
        yield data[position + 4 : position + 8], data[position + _BOX_BYTES : position + size]
        position += size
