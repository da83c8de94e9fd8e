"""Reader for label files with class indices, palettes or colors.

PNG files are read without conversion. OpenCV expands palettes to colors and packed gray (1, 2 and 4 bits) to 0..255. Both lose
the indices, so a PNG with one channel is passed to OpenCV as plain gray.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import DataError
from rtseg.core.palette import NO_CLASS, Rgb
from rtseg.models.evaluation.class_list import format_rgb

UNASSIGNED = -1
"""Entry of label values that must not occur, in `LabelTable.values`."""

VOC_BORDER: Rgb = (224, 224, 192)
"""The color of Void in the palette of Pascal VOC."""

_PNG = b"\x89PNG\r\n\x1a\n"
_GRAY, _PALETTE = 0, 3


@dataclass(frozen=True)
class LabelTable:
    """Class of each label value and color."""

    values: npt.NDArray[np.int16]
    """int16 `[256]`: label value to class index; `NO_CLASS` for Void, `UNASSIGNED` for values without a class."""

    colors: dict[Rgb, int] = field(default_factory=dict)
    """Color to class index or `NO_CLASS`; empty if labels contain only indices."""

    source: str = ""
    """File name of the class list; empty if the layout determines the classes."""

    is_255_void: bool = False
    """True if the layout or the class list defines 255 as Void. Otherwise 255 is Void by convention, and a check warns that it may
    be a class."""


@dataclass(frozen=True)
class Label:
    """Contents of a label file."""

    classes: npt.NDArray[np.uint8]
    """uint8 `[H, W]`, class indices, `NO_CLASS` for Void."""

    read_as: str
    """`class indices`, `palette indices` or `colors`."""

    assumed_void: int
    """Number of pixels of value 255 that are Void only by convention."""

    palette: dict[int, Rgb]
    """Colors of the indices that occur, if they were read as palette indices."""


def read_label(path: Path, table: LabelTable) -> Label:
    """Read a label file.

    Raises:
        DataError: the file can't be read, its format loses values, or a value or color belongs to no class.
    """
    stored, palette, expansion = _read_stored(path)
    if stored.ndim == 3:
        stored = _one_channel(path, stored, table)
    if stored.ndim == 3:
        return Label(_from_colors(path, stored, table), "colors", 0, {})
    if stored.dtype != np.uint8 and stored.max() > 255:
        raise DataError(f"{path}: {_too_large(stored)}")
    values = stored.astype(np.uint8)
    counts = np.bincount(values.ravel(), minlength=256)
    occurring = [int(value) for value in np.flatnonzero(counts)]
    used = {value: palette[value] for value in occurring if value < len(palette)}
    if table.colors:
        colors = used
        if not palette and all(r == g == b for r, g, b in table.colors):
            colors = {value: (value * expansion, value * expansion, value * expansion) for value in occurring}
        known = [value for value, color in colors.items() if color in table.colors]
        if colors and (known or not palette):
            unknown = [value for value in colors if value not in known and not (palette and value == NO_CLASS)]
            _refuse_colors(path, {colors[value]: int(counts[value]) for value in unknown}, table)
            lookup = np.full(256, NO_CLASS, np.uint8)
            for value in known:
                lookup[value] = table.colors[colors[value]]
            return Label(lookup[values], "colors", 0, {})
    unassigned = [value for value in occurring if table.values[value] == UNASSIGNED]
    if unassigned:
        raise DataError(
            f"{path}: label value {', '.join(map(str, unassigned[:5]))} belongs to no class{_hint(unassigned, table)}"
        )
    is_stated = table.is_255_void or table.values[NO_CLASS] != NO_CLASS or used.get(NO_CLASS) == VOC_BORDER
    assumed = 0 if is_stated else int(counts[NO_CLASS])
    classes = table.values[values].astype(np.uint8)
    return Label(classes, "palette indices" if palette else "class indices", assumed, used)


def _too_large(stored: npt.NDArray[Any]) -> str:
    """Describe labels of 16 bits that are not class indices, with instructions."""
    highest = stored.max()
    if highest == 65535 and ((stored == 0) | (stored == highest)).all():
        return "contains a mask of 16 bits, 0 and 65535; save labels with 8 bits, as class indices 0 and 1"
    ids = "; are these instance ids, of which Cityscapes has the classes in *_labelIds.png?" if highest > 999 else ""
    return f"label value {highest}; labels are class indices from 0 to 255{ids}"


def _hint(unassigned: list[int], table: LabelTable) -> str:
    if len(unassigned) > 5:
        return f" (and {len(unassigned) - 5} more values do not); resize labels with nearest neighbor, and save them without loss"
    if not table.source:
        return ""
    lines = f"'{unassigned[0]} NAME' or '{unassigned[0]} void'"
    return f"; {table.source} can give each class its label value: lines such as {lines}"


def _one_channel(path: Path, stored: npt.NDArray[np.uint8], table: LabelTable) -> npt.NDArray[np.uint8]:
    """Convert gray in three channels to one channel, and colors to RGB. Drop an opaque alpha channel."""
    if stored.shape[2] == 4:
        if stored[..., 3].min() != np.iinfo(stored.dtype).max:
            raise DataError(f"{path}: has transparent pixels; save labels without alpha, Void as 255")
        stored = stored[..., :3]
    blue, green, red = stored[..., 0], stored[..., 1], stored[..., 2]
    if table.colors and stored.dtype == np.uint8:
        return stored[..., ::-1]
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    if stored.dtype != np.uint8:
        raise DataError(f"{path}: contains colors of 16 bits; save labels with 8 bits")
    where = f"in {table.source}, such as 'road 128 64 128'" if table.source else "as class indices instead"
    raise DataError(f"{path}: contains {stored.shape[2]} channels of colors; give the color of each class {where}")


def _from_colors(path: Path, rgb: npt.NDArray[np.uint8], table: LabelTable) -> npt.NDArray[np.uint8]:
    packed = (rgb.astype(np.int32) << np.array([16, 8, 0], np.int32)).sum(axis=2, dtype=np.int32)
    known = np.array(sorted((r << 16 | g << 8 | b, index) for (r, g, b), index in table.colors.items()), np.int32)
    position = np.minimum(np.searchsorted(known[:, 0], packed), len(known) - 1)
    wrong = known[position, 0] != packed
    if wrong.any():
        colors, counts = np.unique(packed[wrong], return_counts=True)
        unpacked = ((int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in colors)
        _refuse_colors(path, dict(zip(unpacked, counts.tolist(), strict=True)), table)
    return np.asarray(known[position, 1], np.uint8)


def _refuse_colors(path: Path, unknown: dict[Rgb, int], table: LabelTable) -> None:
    """Raise DataError if there are colors without a class."""
    if not unknown:
        return
    few = sorted(unknown.items(), key=lambda item: -item[1])[:3]
    named = ", ".join(f"{format_rgb(color)} ({count} pixels)" for color, count in few)
    more = f" and {len(unknown) - len(few)} more" if len(unknown) > len(few) else ""
    lossy = "; resize labels with nearest neighbor, and save them without loss" if len(unknown) > 8 else ""
    raise DataError(f"{path}: the color {named}{more} belongs to no class of {table.source}{lossy}")


def _read_stored(path: Path) -> tuple[npt.NDArray[np.uint8], list[Rgb], int]:
    """Return the stored values, the palette, and the factor by which a viewer multiplies the values.

    Values are `[H, W]`, or `[H, W, C]` in OpenCV's order; the palette is empty if there is none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error})") from error
    lossy = _lossy_format(data)
    if lossy:
        raise DataError(f"{path}: is {lossy}, which changes label values; save labels as PNG, from the original")
    palette: list[Rgb] = []
    factor = 1
    if data.startswith(_PNG):
        data, palette, factor = _plain_png(path, data)
    elif data.startswith(b"BM") and len(data) > 30 and not _is_plain_bmp(data):
        raise DataError(f"{path}: is a BMP with a palette; save labels as PNG")
    elif data.startswith((b"GIF8", b"II*\0", b"MM\0*")):
        raise DataError(f"{path}: is a GIF or TIFF; save labels as PNG")
    try:
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error as error:
        raise DataError(f"{path}: can't be read ({error})") from error
    if stored is None:
        raise DataError(f"{path}: is not an image, or is damaged")
    return np.asarray(stored) // factor if factor > 1 else np.asarray(stored), palette, factor


def _lossy_format(data: bytes) -> str:
    if data.startswith(b"\xff\xd8\xff"):
        return "a JPEG"
    if data[4:8] == b"ftyp" or data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ", b"\0\0\0\x0cjP  ")):
        return "an AVIF, HEIC, JPEG XL or JPEG 2000 file"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        position = 12
        while position + 8 <= len(data):
            kind, size = struct.unpack_from("<4sI", data, position)
            if kind in (b"VP8 ", b"ANMF"):
                return "a lossy WebP"
            position += 8 + size + size % 2
    return ""


def _plain_png(path: Path, data: bytes) -> tuple[bytes, list[Rgb], int]:
    """Return a PNG that OpenCV does not convert, its palette, and the factor of OpenCV for values of fewer than 8 bits."""
    chunks, position, is_complete = [], len(_PNG), False
    while not is_complete and position + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + size]
        if zlib.crc32(kind + body) != int.from_bytes(data[position + 8 + size : position + 12 + size], "big"):
            break
        chunks.append((kind, body))
        position += 12 + size
        is_complete = kind == b"IEND"
    if not is_complete or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise DataError(f"{path}: is damaged")
    header = bytearray(chunks[0][1])
    depth, color_type = header[8], header[9]
    palette: list[Rgb] = []
    if color_type == _PALETTE:
        entries = next((body for kind, body in chunks if kind == b"PLTE"), b"")
        palette = [(entries[i], entries[i + 1], entries[i + 2]) for i in range(0, len(entries) - 2, 3)]
        if not palette:
            raise DataError(f"{path}: is damaged")
        header[9] = _GRAY
    plain_chunks = [(b"IHDR", bytes(header)), *(chunk for chunk in chunks if chunk[0] == b"IDAT"), (b"IEND", b"")]
    plain = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in plain_chunks]
    return b"".join([_PNG, *plain]), palette, 255 // (2**depth - 1) if depth < 8 else 1


def _is_plain_bmp(data: bytes) -> bool:
    """Return True if a BMP has no palette or the gray palette of 8-bit values."""
    header, bits = struct.unpack_from("<I", data, 14)[0], struct.unpack_from("<H", data, 28)[0]
    if bits > 8:
        return True
    ramp = bytes(value for i in range(256) for value in (i, i, i))
    entries = data[14 + header : 14 + header + 1024]
    return bits == 8 and b"".join(entries[i : i + 3] for i in range(0, len(entries), 4)) == ramp
