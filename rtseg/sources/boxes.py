"""Data that a file holds outside of its streams, such as a dashcam's GPS: found and named, because it is not copied."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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

_GPS_NAMES = frozenset({"gps ", "gps0", "gpmf", "gpsi", "nmea", "3gf", "gsen", "gdat"})
_GPS = re.compile(
    rb"\AGPS |\$G[PNLAB](RMC|GGA|GSV|GSA|VTG|GLL)|freeGPS|LIGOGPSINFO|GPSLatitude|exif:GPS|DEVC.{4}DVID", re.DOTALL
)
_UUIDS = {
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "XMP metadata",
    bytes.fromhex("ffcc8263f8554a938814587a02521fdd"): "360-degree video metadata",
}


def outside_streams(path: str | Path) -> tuple[str, ...]:
    """Return one line for each kind of box or chunk with data outside of the streams of an MP4, MOV or AVI file.

    Only headers and the beginnings of unknown boxes are read, never `mdat`; sizes that are wrong end the search.

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
    count = 0
    for where, start, after in areas:
        for name, begin, stop in _boxes(file, start, after):
            count += 1
            if count > _MOST_BOXES:
                return
            if name in ("moov", "udta") and where.count("/") < 2:
                areas.append((f"{where}{name}/", begin, stop))
            elif not _is_read(name, where):
                line = _look(file, name, where, begin, stop)
                if line:
                    yield line, stop - begin


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, begin and end of the contents of each box."""
    while start + 8 <= end:
        file.seek(start)
        header = file.read(16)
        size, length = int.from_bytes(header[:4], "big"), 8
        if size == 1 and len(header) == 16:
            size, length = struct.unpack(">Q", header[8:])[0], 16
        stop = end if size == 0 else start + size
        if stop < start + length or stop > end:
            return  # `udta` of QuickTime ends with four zero bytes; anything else is damage
        yield header[4:8].decode("latin1"), start + length, stop
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
                break
            kind = header[8:12].decode("latin1") if name in ("LIST", "RIFF") else name
            if name == "LIST" and kind in ("hdrl", "strl", "odml"):
                areas.append((f"{where}{kind}/", begin + 12, stop))
            elif name not in ("strh", "strf", "strd", "strn", "avih", "dmlh", "RIFF") and not _is_read(
                kind.lower(), where
            ):
                line = _look(file, kind, where, begin + 8, stop)
                if line:
                    yield line, size
            begin = stop + size % 2


def _is_read(name: str, where: str) -> bool:
    if name in _EMPTY or name == "uuid":
        return False
    if where.endswith("udta/") and (name in _READ_IN_UDTA or name.startswith("\xa9")):
        return True
    return name in _STANDARD


def _look(file: BinaryIO, name: str, where: str, begin: int, stop: int) -> str:
    """Return what a box holds and where it is, empty for padding."""
    file.seek(begin)
    data = file.read(min(stop - begin, _MOST_BYTES))
    shown = "".join(letter if letter.isprintable() else "?" for letter in name).strip() or "?"
    place = f"'{where}{shown}'"
    if name.lower() in _GPS_NAMES or _GPS.search(data):
        return f"GPS data in box {place}"
    if name == "uuid":
        return f"{_UUIDS.get(data[:16], 'vendor data')} in box {place}"
    if name.lower() in _EMPTY:
        # Padding may repeat a byte, or be text of the program that wrote the file.
        text = data.strip(b"\0\xff \n")
        return f"data in box {place}" if len(text) > 256 and len(set(text)) > 16 else ""
    return f"vendor data in box {place}" if data.strip(b"\0") else ""
