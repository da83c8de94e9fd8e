"""Modification of edit lists and sample tables of an MP4. Box sizes and chunk offsets stay consistent unless they are changed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

_PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"}
_ROW = {b"stts": ">II", b"ctts": ">Ii", b"stsc": ">III", b"stco": ">I", b"stss": ">I"}


@dataclass
class Box:
    """Box with a payload or with child boxes."""

    name: bytes
    payload: bytes = b""
    children: list[Box] = field(default_factory=list)

    def encode(self) -> bytes:
        """Return the bytes of the box with the correct size."""
        content = self.payload + b"".join(child.encode() for child in self.children)
        return struct.pack(">I4s", len(content) + 8, self.name) + content

    def all(self, name: bytes) -> Iterator[Box]:
        """Yield all descendants with a name."""
        for child in self.children:
            if child.name == name:
                yield child
            yield from child.all(name)

    def one(self, name: bytes) -> Box:
        """Return the first descendant with a name.

        Raises:
            StopIteration: there is none.
        """
        return next(self.all(name))


def parse(data: bytes, start: int = 0, end: int | None = None) -> list[Box]:
    """Parse the boxes of a valid file. Boxes without tables remain unparsed."""
    end = len(data) if end is None else end
    boxes = []
    while start + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, start)
        size = size or end - start
        if size < 8:
            raise ValueError("a box with a 64-bit size, or a damaged one")
        if name in _PARENTS:
            boxes.append(Box(name, children=parse(data, start + 8, start + size)))
        else:
            boxes.append(Box(name, data[start + 8 : start + size]))
        start += size
    return boxes


def _rows(box: Box) -> list[list[int]]:
    layout = _ROW[box.name]
    (count,) = struct.unpack_from(">I", box.payload, 4)
    size = struct.calcsize(layout)
    return [list(struct.unpack_from(layout, box.payload, 8 + size * row)) for row in range(count)]


def _set_rows(box: Box, rows: list[list[int]]) -> None:
    packed = b"".join(
        struct.pack(_ROW[box.name], *(_fit(v, code) for v, code in zip(row, _ROW[box.name][1:], strict=True)))
        for row in rows
    )
    version = b"\x01\0\0\0" if box.name == b"ctts" else b"\0\0\0\0"  # version 1: offsets may be negative
    box.payload = version + struct.pack(">I", len(rows)) + packed


def _fit(value: int, code: str) -> int:
    return max(-(1 << 31), min(value, (1 << 31) - 1)) if code == "i" else max(0, min(value, (1 << 32) - 1))


def _timescale(track_or_moov: Box, name: bytes) -> int:
    payload = track_or_moov.one(name).payload
    return int(struct.unpack_from(">I", payload, 20 if payload[0] else 12)[0])


def change_mp4(data: bytes, random: np.random.Generator) -> tuple[str, bytes]:
    """Apply one to three changes to an MP4 or MOV that has an index and no fragments.

    Returns:
        Description of the changes, and the changed file.

    Raises:
        ValueError, StopIteration: the file has another structure.
    """
    boxes = parse(data)
    moov = next(box for box in boxes if box.name == b"moov")
    before = len(moov.encode())
    names = [box.name for box in boxes]
    changes = [_change(moov, random) for _ in range(int(random.integers(1, 3)))]
    if names.index(b"moov") < names.index(b"mdat"):
        moved = len(moov.encode()) - before
        for table in moov.all(b"stco"):
            _set_rows(table, [[row[0] + moved] for row in _rows(table)])
    return ", ".join(changes), b"".join(box.encode() for box in boxes)


def _change(moov: Box, random: np.random.Generator) -> str:
    tracks = list(moov.all(b"trak"))
    track = tracks[int(random.integers(0, len(tracks)))]
    kind = track.one(b"hdlr").payload[8:12].decode("latin1")
    name = str(random.choice(["elst", "elst", "elst", "stts", "ctts", "stsc", "stsz", "stco", "stss", "tkhd"]))
    if name == "elst":
        return f"{kind} {_edit_list(track, _timescale(moov, b'mvhd'), random)}"
    if name == "stsz":
        return f"{kind} {_sizes(track.one(b'stsz'), random)}"
    if name == "tkhd":
        header = track.one(b"tkhd")
        header.payload = header.payload[:3] + bytes([header.payload[3] ^ 1]) + header.payload[4:]
        return f"{kind} tkhd enabled flag flipped"
    table = next(track.all(name.encode()), None)
    if table is None:
        if name != "ctts":
            return f"{kind} no {name}"
        # Offsets from media time 0, like the negative ones of real files.
        samples = sum(count for count, _ in _rows(track.one(b"stts")))
        step = _rows(track.one(b"stts"))[0][1]
        table = Box(b"ctts")
        _set_rows(table, [[1, int(random.integers(-2, 3)) * step] for _ in range(samples)])
        track.one(b"stbl").children.append(table)
        return f"{kind} ctts added with steps of {step}"
    if name == "stss" and random.integers(0, 2):
        track.one(b"stbl").children.remove(table)
        return f"{kind} stss removed"
    rows = _rows(table)
    return f"{kind} {name} {_table(table, rows, random)}"


def _edit_list(track: Box, movie_scale: int, random: np.random.Generator) -> str:
    scale = _timescale(track, b"mdhd")
    length = round(movie_scale * float(random.choice([0.2, 0.52, 1.0, 1.2, 100.0])))
    start = round(scale * float(random.choice([0.0, 0.02, 0.04, 0.2, 0.38, 1.0])))
    empty = (round(movie_scale * float(random.choice([0.04, 0.3, 1.0]))), -1, 1)
    choice = int(random.integers(0, 7))
    entries: list[tuple[int, int, int]] = [
        [(length, start, 1)],
        [empty, (length, start, 1)],
        [(length // 2, start, 1), (length // 2, start + scale // 4, 1)],
        [(length // 2, start, 1), empty, (length // 2, 0, 1)],
        [(length, start, 0)],
        [(length // 3, start, 1), (length // 3, start, 0), (length // 3, start, 1)],
        [(0, start, 1)],
    ][choice]
    track.children = [child for child in track.children if child.name != b"edts"]
    packed = b"".join(struct.pack(">IiHH", _fit(long, "I"), at, rate, 0) for long, at, rate in entries)
    table = Box(b"elst", struct.pack(">II", 0, len(entries)) + packed)
    track.children.insert(1, Box(b"edts", children=[table]))
    description = "; ".join(
        f"{long / movie_scale:.2f} s from {'nothing' if at < 0 else f'{at / scale:.2f} s'}{' at rate 0' * (not rate)}"
        for long, at, rate in entries
    )
    return f"elst [{description}]"


def _sizes(table: Box, random: np.random.Generator) -> str:
    fixed, count = struct.unpack_from(">II", table.payload, 4)
    if fixed or not count:
        table.payload = table.payload[:4] + struct.pack(">II", fixed + 1, count)
        return "stsz of all samples one more"
    at = int(random.integers(0, count))
    value = int(random.choice([0, 1, 50, 100_000, 0xFFFFFFFF]))
    table.payload = table.payload[: 12 + 4 * at] + struct.pack(">I", value) + table.payload[16 + 4 * at :]
    return f"stsz of sample {at} is {value}"


def _table(table: Box, rows: list[list[int]], random: np.random.Generator) -> str:
    if not rows:
        return "empty"
    at = int(random.integers(0, len(rows)))
    column = int(random.integers(0, len(rows[at])))
    match int(random.integers(0, 5)):
        case 0:
            rows[at][column] = int(random.choice([0, 1, 2, 1 << 20, (1 << 31) - 1]))
            change = f"row {at} column {column} is {rows[at][column]}"
        case 1:
            rows[at][column] += int(random.integers(-600, 600))
            change = f"row {at} column {column} changed to {rows[at][column]}"
        case 2:
            rows[at:at] = [list(rows[at])]
            change = f"row {at} doubled"
        case 3:
            del rows[at]
            change = f"row {at} removed"
        case _:
            # The samples after a position get other values, as if a recorder had changed its frame rate.
            count = rows[at][0]
            if len(rows[at]) == 2 and count > 2:
                half = int(random.integers(1, count))
                rows[at : at + 1] = [[half, rows[at][1]], [count - half, rows[at][1] * int(random.choice([2, 3, 40]))]]
                change = f"from sample {half} on {rows[at + 1][1]}"
            else:
                rows[at], rows[-1] = rows[-1], rows[at]
                change = f"row {at} and the last swapped"
    _set_rows(table, rows)
    return change
