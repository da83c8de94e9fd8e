"""Checks of the first boxes of an MP4 or MOV that is read from a connection.

Cameras and their servers send endless MP4s in fragments, with a header without a length.
"""

from __future__ import annotations

from collections.abc import Iterator

from rtseg.io.inputs.byte_stream import ByteStream

_MAX_HEADER_BYTES = 1 << 20
_BOX_BYTES = 8
_FIRST_BOXES = {b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip"}


def is_live_mp4(stream: ByteStream) -> bool:
    """Return whether a stream is an MP4 whose header announces fragments and has no length. Only the header is read."""
    header = _header(stream)
    fragments = header.get(b"mvex")
    if fragments is None:
        return False
    lengths = (_length(header.get(b"mvhd", b""), 16, 24), _length(dict(_boxes(fragments)).get(b"mehd", b""), 4, 4))
    return not any(lengths)


def has_fragments(stream: ByteStream) -> bool:
    """Return whether a stream is an MP4 whose header announces fragments."""
    return b"mvex" in _header(stream)


def has_index_last(stream: ByteStream) -> bool:
    """Return whether a stream is an MP4 or MOV whose index is after the media data."""
    return list(_top_boxes(stream))[-1][0] == b"mdat"


def _top_boxes(stream: ByteStream) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, position and size of each box up to the index or the media data; for other formats, one invalid box."""
    position = 0
    while position < _MAX_HEADER_BYTES:
        head = stream.peek(position + _BOX_BYTES)[position:]
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        yield kind, position, size
        if kind in (b"mdat", b"moof", b"moov") or size < _BOX_BYTES or (not position and kind not in _FIRST_BOXES):
            return
        position += size


def _header(stream: ByteStream) -> dict[bytes, bytes]:
    """Return the boxes of the header by name; none if the header is not before the media data."""
    boxes = list(_top_boxes(stream))
    kind, position, size = boxes[-1]
    if boxes[0][0] != b"ftyp" or kind != b"moov" or not _BOX_BYTES <= size <= _MAX_HEADER_BYTES:
        return {}
    return dict(_boxes(stream.peek(position + size)[position + _BOX_BYTES :]))


def _length(box: bytes, position: int, position_64: int) -> int:
    """Return the length in a box, at a position that depends on the box's version; 0 if it is missing or unknown."""
    is_64 = box[:1] == b"\1"
    data = box[position_64 : position_64 + 8] if is_64 else box[position : position + 4]
    return 0 if set(data) == {255} else int.from_bytes(data, "big")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each box."""
    position = 0
    while position + _BOX_BYTES <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size < _BOX_BYTES:
            return
        yield data[position + 4 : position + 8], data[position + _BOX_BYTES : position + size]
        position += size
