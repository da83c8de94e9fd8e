"""Data that a file holds outside of its streams, such as a dashcam's GPS: found and named, because it is not copied."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_MOST_BOXES = 20_000
_MOST_BYTES = 1 << 14
"""What is read of a box to see what it holds."""

_STANDARD = frozenset(
    [
        "ftyp",
        "styp",
        "pdin",
        "moov",
        "mdat",
        "moof",
        "mfra",
        "mfro",
        "meta",
        "sidx",
        "ssix",
        "prft",
        "emsg",
        "bloc",
        "wide",
        "pnot",
        "uuid",
        "mvhd",
        "trak",
        "mvex",
        "iods",
        "cmov",
        "rmra",
        "clip",
        "ctab",
        "udta",
        "junk",
        "idit",
        "strl",
        "hdrl",
        "movi",
        "idx1",
        "indx",
        "odml",
        "vprp",
        "info",
    ]
)
"""Boxes of ISO/IEC 14496-12 and QuickTime, and chunks of AVI, that FFmpeg reads or that hold nothing of their own."""

_READ_IN_UDTA = frozenset(
    [
        "meta",
        "hnti",
        "hinf",
        "hclr",
        "loci",
        "chpl",
        "name",
        "cprt",
        "titl",
        "auth",
        "perf",
        "gnre",
        "dscp",
        "albm",
        "yrrc",
        "rtng",
        "kywd",
        "cpil",
    ]
)
"""Boxes of `udta` that FFmpeg gives as metadata, besides those that begin with a copyright sign."""

_EMPTY = frozenset({"free", "skip", "junk", "wide"})
"""Padding by its name, which some cameras use to hide data in."""

_GPS_NAMES = frozenset({"gps ", "gps0", "gpmf", "gpsi", "nmea", "3gf", "gsen", "gdat", "igps"})
_GPS = re.compile(
    rb"\AGPS |\bG[PNLAB](RMC|GGA|GSV|GSA|VTG|GLL)(,|$)|freeGPS|LIGOGPSINFO|GPSLatitude|exif:GPS|DEVC.{4}DVID"
    rb"|<gps\b|<gpx\b|<Geo\b",
    re.DOTALL,
)
_IN_META = frozenset(
    [
        "hdlr",
        "keys",
        "ilst",
        "mhdr",
        "dinf",
        "iloc",
        "iinf",
        "iprp",
        "ipro",
        "pitm",
        "idat",
        "iref",
        "grpl",
        "ctry",
        "lang",
    ]
)
"""Boxes of `meta` that FFmpeg reads, or that describe the others."""

_BEHIND = "behind the last box"

_SAMPLES = ("moov", "trak", "mdia", "minf", "stbl")
"""Where the places of a track's samples are."""

_MOST_HOLES = 1000
"""Places between the samples of an MP4 that are looked at."""

_HOLE_BYTES = 64
"""Where less is between two chunks it is padding."""

_UUIDS = {
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "XMP metadata",
    bytes.fromhex("ffcc8263f8554a938814587a02521fdd"): "360-degree video metadata",
}


def outside_streams(path: str | Path) -> tuple[str, ...]:
    """Return one line for each kind of box or chunk with data outside of the streams of an MP4, MOV or AVI file.

    Only headers and the beginnings of unknown boxes are read, of an `mdat` that no track uses, and of the places between the
    samples, where dashcams put GPS data; what comes behind a wrong size is looked at as a whole.

    Raises:
        OSError: the file can't be read.
    """
    with Path(path).open("rb") as file:
        head = file.read(12)
        file.seek(0, 2)
        end = file.tell()
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            found = _avi(file, 12, end)
        elif re.fullmatch(rb"ftyp|moov|mdat|free|skip|wide|pnot|uuid|styp|moof", head[4:8]):
            found = _mp4(file, end)
        else:
            return ()
        lines: dict[str, int] = {}
        for line, size in found:
            lines[line] = lines.get(line, 0) + size
    return tuple(f"{line} ({size} bytes) is not copied" for line, size in lines.items())


def _mp4(file: BinaryIO, end: int) -> Iterator[tuple[str, int]]:
    areas = [("", 0, end)]
    mdats: list[tuple[int, int]] = []
    fragmented = False
    count = 0
    for where, start, after in areas:
        for name, begin, stop in _boxes(file, start, after):
            count += 1
            if count > _MOST_BOXES:
                return
            fragmented |= name == "moof"
            if not where and name == "mdat":
                mdats.append((begin, stop))
            if name in ("moov", "trak", "udta") and where.count("/") < 3:
                areas.append((f"{where}{name}/", begin, stop))
            elif name == "meta":
                areas.append((f"{where}{name}/", begin + _version_bytes(file, begin), stop))
            elif name == _BEHIND or not _is_read(name, where):
                line = _look(file, name, where, begin, stop)
                if line:
                    yield line, stop - begin
    if fragmented:
        return
    chunks = np.concatenate([np.zeros((0, 2), np.int64), *_chunks(file, 0, end, _SAMPLES)])
    for begin, stop in mdats:
        inside = chunks[(chunks[:, 0] >= begin) & (chunks[:, 0] < stop)]
        if len(inside):
            yield from _between(file, inside, stop)
        elif len(mdats) > 1:
            line = _look(file, "mdat", "", begin, stop)
            if line:
                yield line, stop - begin


def _between(file: BinaryIO, chunks: NDArray[np.int64], stop: int) -> Iterator[tuple[str, int]]:
    """Yield what is said of GPS data between the chunks of an `mdat`, of which each has its begin and end."""
    chunks = chunks[np.argsort(chunks[:, 0])]
    ends = np.maximum.accumulate(chunks[:, 1])
    begins = np.append(chunks[1:, 0], stop)
    for place in np.flatnonzero(begins - ends >= _HOLE_BYTES)[:_MOST_HOLES]:
        line = _look(file, "mdat", "", int(ends[place]), int(begins[place]))
        if line.startswith("GPS"):
            yield line, int(begins[place] - ends[place])


def _version_bytes(file: BinaryIO, begin: int) -> int:
    """Return how many bytes of `meta` come before its first box: four in MP4, none in QuickTime."""
    file.seek(begin)
    return 0 if file.read(8)[4:] == b"hdlr" else 4


def _chunks(file: BinaryIO, start: int, end: int, path: tuple[str, ...]) -> Iterator[NDArray[np.int64]]:
    """Yield where in the file the chunks of each track begin and end (ISO/IEC 14496-12, 8.6 and 8.7)."""
    tables: dict[str, NDArray[np.int64]] = {}
    for name, begin, stop in _boxes(file, start, end):
        if path and name == path[0]:
            yield from _chunks(file, begin, stop, path[1:])
        elif not path and name in ("stco", "co64", "stsc", "stsz"):
            at, width = begin + (4 if name == "stsz" else 8), 8 if name == "co64" else 4
            file.seek(at)
            data = file.read(max(0, stop - at) // width * width)
            tables[name] = np.frombuffer(data[: len(data) // width * width], f">u{width}").astype(np.int64)
    offsets = tables.get("stco", tables.get("co64"))
    if offsets is not None:
        sizes = _chunk_sizes(len(offsets), tables.get("stsc"), tables.get("stsz"))
        yield np.stack([offsets, offsets + sizes], axis=1)


def _chunk_sizes(count: int, counts: NDArray[np.int64] | None, sizes: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return the bytes of each chunk by the tables `stsc` and `stsz`; more than any file has where these say nothing."""
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
    """Yield name, begin and end of the contents of each box, and what comes behind the last one as `_BEHIND`."""
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
                yield _BEHIND, start, end
            return
        yield name, start + length, stop
        start = stop


def _avi(file: BinaryIO, start: int, end: int) -> Iterator[tuple[str, int]]:
    areas = [("", start, end)]
    count = 0
    for where, begin, after in areas:
        while begin + 8 <= after and count < _MOST_BOXES:
            count += 1
            file.seek(begin)
            header = file.read(12)
            name, size = header[:4].decode("latin1"), int.from_bytes(header[4:8], "little")
            stop = begin + 8 + size
            if stop > end:
                rest = "" if name in ("LIST", "RIFF") or _is_read(name.lower(), where) else _BEHIND
                line = _look(file, rest, where, begin, end) if rest else ""
                if line:
                    yield line, end - begin
                break
            kind = header[8:12].decode("latin1") if name in ("LIST", "RIFF") else name
            if name == "LIST" and kind in ("hdrl", "strl", "odml", "INFO"):
                areas.append((f"{where}{kind}/", begin + 12, stop))
            elif (name, kind) == ("RIFF", "AVIX"):
                areas.append((where, begin + 12, stop))
            elif where.endswith("INFO/"):
                line = _look(file, kind, where, begin + 8, stop)
                if line.startswith("GPS"):  # FFmpeg reads all of them as metadata; MP4 and others don't hold this one.
                    yield line, size
            elif name not in ("strh", "strf", "strd", "strn", "avih", "dmlh") and not _is_read(kind.lower(), where):
                line = _look(file, kind, where, begin + 8, stop)
                if line:
                    yield line, size
            begin = stop + size % 2


def _is_read(name: str, where: str) -> bool:
    if name in _EMPTY or name == "uuid":
        return False
    if where.endswith("meta/"):
        return name in _IN_META
    if where.endswith("udta/") and (name in _READ_IN_UDTA or name.startswith("\xa9")):
        return True
    return name in _STANDARD


def _look(file: BinaryIO, name: str, where: str, begin: int, stop: int) -> str:
    """Return what a box holds and where it is, empty for padding."""
    file.seek(begin)
    data = file.read(min(stop - begin, _MOST_BYTES))
    gps = name.lower() in _GPS_NAMES or _GPS.search(data) is not None
    shown = "".join(letter if letter.isprintable() else "?" for letter in name).strip() or "?"
    place = f"in box '{where}{shown}'"
    if name == _BEHIND:
        place = f"{_BEHIND} of '{where[:-1]}'" if where else _BEHIND
    if gps:
        return f"GPS data {place}"
    if where.endswith("trak/"):
        return ""  # The boxes of a track are FFmpeg's to read.
    if name == "uuid":
        return f"{_UUIDS.get(data[:16], 'vendor data')} {place}"
    if name.lower() in _EMPTY or name in ("mdat", _BEHIND):
        # Padding may repeat a byte, or be text of the program that wrote the file.
        content = data.strip(b"\0\xff \r\n")
        least = 256 if content.isascii() else 32
        return f"data {place}" if len(content) > least and len(set(content)) > 16 else ""
    if name in ("xml ", "bxml"):
        return f"metadata {place}"
    return f"vendor data {place}" if data.strip(b"\0") else ""
