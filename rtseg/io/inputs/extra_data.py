"""Detection of data outside the streams of a file, such as a dashcam's GPS, which is reported because it is not copied."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MAX_BOXES = 20_000
_MAX_CONTENT_BYTES = 1 << 14
"""Number of bytes that are read of a box to detect its content."""

_STANDARD = frozenset({
    "ftyp", "styp", "pdin", "moov", "mdat", "moof", "mfra", "mfro", "meta", "sidx", "ssix", "prft", "emsg", "bloc", "wide",
    "pnot", "uuid", "mvhd", "trak", "mvex", "iods", "cmov", "rmra", "clip", "ctab", "udta", "junk", "idit", "strl", "hdrl",
    "movi", "idx1", "indx", "odml", "vprp", "info",
})  # fmt: skip
"""Boxes of ISO/IEC 14496-12 and QuickTime, and chunks of AVI, that FFmpeg reads or that contain no further data."""

_READ_IN_UDTA = frozenset({
    "meta", "hnti", "hinf", "hclr", "loci", "chpl", "name", "cprt", "titl", "auth", "perf", "gnre", "dscp", "albm", "yrrc",
    "rtng", "kywd", "cpil",
})  # fmt: skip
"""Boxes of `udta` that FFmpeg returns as metadata, in addition to those that begin with a copyright sign."""

_EMPTY = frozenset({"free", "skip", "junk", "wide"})
"""Boxes for padding, in which some cameras hide data."""

_GPS_NAMES = frozenset({"gps ", "gps0", "gpmf", "gpsi", "nmea", "3gf", "gsen", "gdat", "igps"})
_GPS = re.compile(
    rb"\AGPS |\bG[PNLAB](RMC|GGA|GSV|GSA|VTG|GLL)(,|$)|freeGPS|LIGOGPSINFO|GPSLatitude|exif:GPS|DEVC.{4}DVID"
    rb"|<gps\b|<gpx\b|<Geo\b",
    re.DOTALL,
)
_IN_META = frozenset({
    "hdlr", "keys", "ilst", "mhdr", "dinf", "iloc", "iinf", "iprp", "ipro", "pitm", "idat", "iref", "grpl", "ctry", "lang",
})  # fmt: skip
"""Boxes of `meta` that FFmpeg reads, or that describe other boxes."""

_AFTER_LAST = "after the last box"

_SAMPLES = ("moov", "trak", "mdia", "minf", "stbl")
"""Path of the boxes that contain the positions of a track's samples."""

_MAX_GAPS = 1000
"""Largest number of gaps between the samples of an MP4 that are checked."""

_MIN_GAP_BYTES = 64
"""A smaller gap between two chunks is padding."""

_UUIDS = {
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "XMP metadata",
    bytes.fromhex("ffcc8263f8554a938814587a02521fdd"): "360-degree video metadata",
}


class _Block(NamedTuple):
    """Data that may be outside the streams."""

    name: str
    """Name of the box or chunk, or `_AFTER_LAST`."""
    parent: str
    """Names of the boxes around it: `moov/udta/`."""
    begin: int
    stop: int
    only_gps: bool = False
    """True if other data than GPS data is not reported."""


def outside_streams(path: str | Path) -> tuple[str, ...]:
    """Return one line for each kind of box or chunk with data outside the streams of an MP4, MOV or AVI file.

    Only headers are read, and the beginnings of unknown boxes, of an `mdat` that no track uses, and of the gaps between the
    samples, where dashcams write GPS data. Data after a box with a wrong size counts as one block.

    Raises:
        OSError: the file can't be read.
    """
    with Path(path).open("rb") as file:
        head = file.read(12)
        file.seek(0, 2)
        end = file.tell()
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            blocks = _avi(file, 12, end)
        elif re.fullmatch(rb"ftyp|moov|mdat|free|skip|wide|pnot|uuid|styp|moof", head[4:8]):
            blocks = _mp4(file, end)
        else:
            return ()
        sizes = Counter[str]()
        for block in blocks:
            line = _describe(file, block)
            if line and (line.startswith("GPS") or not block.only_gps):
                sizes[line] += block.stop - block.begin
    return tuple(f"{line} ({size} bytes) is not copied" for line, size in sizes.items())


def _mp4(file: BinaryIO, end: int) -> Iterator[_Block]:
    areas = [("", 0, end)]
    mdats: list[tuple[int, int]] = []
    fragmented = False
    count = 0
    for parent, start, after in areas:
        for name, begin, stop in _boxes(file, start, after):
            count += 1
            if count > _MAX_BOXES:
                return
            fragmented |= name == "moof"
            if not parent and name == "mdat":
                mdats.append((begin, stop))
            if name in ("moov", "trak", "udta") and parent.count("/") < 3:
                areas.append((f"{parent}{name}/", begin, stop))
            elif name == "meta":
                file.seek(begin)
                version_bytes = 0 if file.read(8)[4:] == b"hdlr" else 4  # none in QuickTime
                areas.append((f"{parent}{name}/", begin + version_bytes, stop))
            elif name == _AFTER_LAST or not _is_read(name, parent):
                yield _Block(name, parent, begin, stop)
    if fragmented:
        return
    chunks = np.concatenate([np.zeros((0, 2), np.int64), *_chunks(file, 0, end, _SAMPLES)])
    for begin, stop in mdats:
        inside = chunks[(chunks[:, 0] >= begin) & (chunks[:, 0] < stop)]
        if len(inside):
            yield from _gaps(inside, stop)
        elif len(mdats) > 1:
            yield _Block("mdat", "", begin, stop)


def _gaps(chunks: NDArray[np.int64], stop: int) -> Iterator[_Block]:
    """Yield the gaps between the chunks of an `mdat`. `chunks` are pairs of begin and end."""
    chunks = chunks[np.argsort(chunks[:, 0])]
    ends = np.maximum.accumulate(chunks[:, 1])
    begins = np.append(chunks[1:, 0], stop)
    for gap in np.flatnonzero(begins - ends >= _MIN_GAP_BYTES)[:_MAX_GAPS]:
        yield _Block("mdat", "", int(ends[gap]), int(begins[gap]), only_gps=True)


def _chunks(file: BinaryIO, start: int, end: int, path: tuple[str, ...]) -> Iterator[NDArray[np.int64]]:
    """Yield the begin and end of the chunks of each track in the file (ISO/IEC 14496-12, 8.6 and 8.7)."""
    tables: dict[str, NDArray[np.int64]] = {}
    for name, begin, stop in _boxes(file, start, end):
        if path and name == path[0]:
            yield from _chunks(file, begin, stop, path[1:])
        elif not path and name in ("stco", "co64", "stsc", "stsz"):
            position, width = begin + (4 if name == "stsz" else 8), 8 if name == "co64" else 4
            file.seek(position)
            data = file.read(max(0, stop - position) // width * width)
            tables[name] = np.frombuffer(data[: len(data) // width * width], f">u{width}").astype(np.int64)
    offsets = tables.get("stco", tables.get("co64"))
    if offsets is not None:
        sizes = _chunk_sizes(len(offsets), tables.get("stsc"), tables.get("stsz"))
        yield np.stack([offsets, offsets + sizes], axis=1)


def _chunk_sizes(count: int, counts: NDArray[np.int64] | None, sizes: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return the size of each chunk by the tables `stsc` and `stsz`; if they are invalid, more than any file has."""
    unknown = np.full(count, 1 << 60)
    if counts is None or sizes is None or len(sizes) < 2:
        return unknown
    rows = counts[: len(counts) // 3 * 3].reshape(-1, 3)
    firsts = np.append(np.minimum(rows[:, 0] - 1, count), count)
    if firsts[0] != 0 or (np.diff(firsts) < 0).any():
        return unknown
    last = np.cumsum(np.repeat(rows[:, 1], np.diff(firsts)))
    if sizes[0]:
        ends = np.minimum(last, sizes[1]) * sizes[0]
    else:
        ends = np.concatenate([[0], np.cumsum(sizes[2:])])[np.minimum(last, len(sizes) - 2)]
    bytes_each: NDArray[np.int64] = np.diff(ends, prepend=0)
    return bytes_each


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, begin and end of the content of each box, and data after the last one as `_AFTER_LAST`."""
    while start + 8 <= end:
        file.seek(start)
        header = file.read(16)
        size, length = int.from_bytes(header[:4], "big"), 8
        if size == 1 and len(header) == 16:
            size, length = struct.unpack(">Q", header[8:])[0], 16
        stop = end if size == 0 else start + size
        name = header[4:8].decode("latin1")
        if stop < start + length or stop > end or (size == 0 and not name.isprintable()):
            # `udta` of QuickTime ends with four zero bytes; a box that is cut off is damage.
            if name not in _STANDARD:
                yield _AFTER_LAST, start, end
            return
        yield name, start + length, stop
        start = stop


def _avi(file: BinaryIO, start: int, end: int) -> Iterator[_Block]:
    areas = [("", start, end)]
    count = 0
    for parent, begin, after in areas:
        while begin + 8 <= after and count < _MAX_BOXES:
            count += 1
            file.seek(begin)
            header = file.read(12)
            name, size = header[:4].decode("latin1"), int.from_bytes(header[4:8], "little")
            stop = begin + 8 + size
            if stop > end:
                if name not in ("LIST", "RIFF") and not _is_read(name.lower(), parent):
                    yield _Block(_AFTER_LAST, parent, begin, end)
                break
            kind = header[8:12].decode("latin1") if name in ("LIST", "RIFF") else name
            if name == "LIST" and kind in ("hdrl", "strl", "odml", "INFO"):
                areas.append((f"{parent}{kind}/", begin + 12, stop))
            elif (name, kind) == ("RIFF", "AVIX"):
                areas.append((parent, begin + 12, stop))
            elif parent.endswith("INFO/"):
                # FFmpeg reads these as metadata; MP4 and others can't store GPS data.
                yield _Block(kind, parent, begin + 8, stop, only_gps=True)
            elif name not in ("strh", "strf", "strd", "strn", "avih", "dmlh") and not _is_read(kind.lower(), parent):
                yield _Block(kind, parent, begin + 8, stop)
            begin = stop + size % 2


def _is_read(name: str, parent: str) -> bool:
    if name in _EMPTY or name == "uuid":
        return False
    if parent.endswith("meta/"):
        return name in _IN_META
    if parent.endswith("udta/") and (name in _READ_IN_UDTA or name.startswith("\xa9")):
        return True
    return name in _STANDARD


def _describe(file: BinaryIO, block: _Block) -> str:
    """Return a description of a block's content and position; empty for padding."""
    name, parent = block.name, block.parent
    file.seek(block.begin)
    data = file.read(min(block.stop - block.begin, _MAX_CONTENT_BYTES))
    printable = "".join(letter if letter.isprintable() else "?" for letter in name).strip() or "?"
    location = f"in box '{parent}{printable}'"
    if name == _AFTER_LAST:
        location = f"{_AFTER_LAST} of '{parent[:-1]}'" if parent else _AFTER_LAST
    if name.lower() in _GPS_NAMES or _GPS.search(data):
        return f"GPS data {location}"
    if parent.endswith("trak/"):
        return ""  # FFmpeg reads the boxes of a track.
    if name == "uuid":
        return f"{_UUIDS.get(data[:16], 'vendor data')} {location}"
    if name.lower() in _EMPTY or name in ("mdat", _AFTER_LAST):
        # Padding may be a repeated byte, or text of the program that wrote the file.
        content = data.strip(b"\0\xff \r\n")
        min_size = 256 if content.isascii() else 32
        return f"data {location}" if len(content) > min_size and len(set(content)) > 16 else ""
    if name in ("xml ", "bxml"):
        return f"metadata {location}"
    return f"vendor data {location}" if data.strip(b"\0") else ""
