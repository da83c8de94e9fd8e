"""MP4 without an end: sent in fragments, with a header that states no length, as cameras and their servers send it."""

from __future__ import annotations

from collections.abc import Iterator

from rtseg.sources.transport import Answer

_LARGEST_HEADER = 1 << 20
_BOX_BYTES = 8


def is_live_mp4(answer: Answer) -> bool:
    """Whether an answer is an MP4 whose header announces fragments and no length. Reads no further than its header."""
    position = 0
    while position < _LARGEST_HEADER:
        head = answer.peek(position + _BOX_BYTES)[position:]
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        if size < _BOX_BYTES or kind in (b"mdat", b"moof") or (not position and kind != b"ftyp"):
            return False
        if kind == b"moov":
            if size > _LARGEST_HEADER:
                return False
            header = answer.peek(position + size)[position + _BOX_BYTES :]
            return _announces_fragments(header)
        position += size
    return False


def _announces_fragments(header: bytes) -> bool:
    boxes = dict(_boxes(header))
    fragments = boxes.get(b"mvex")
    if fragments is None:
        return False
    lengths = (_number(boxes.get(b"mvhd", b""), 16, 24), _number(dict(_boxes(fragments)).get(b"mehd", b""), 4, 4))
    return not any(lengths)


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
