"""Small files that appear whole or not at all, and the mark by which rtseg knows its own images."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from rtseg._version import __version__
from rtseg.core.errors import SinkError, escaped_json

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".jp2", ".avif",
    ".pbm", ".pgm", ".ppm", ".pnm", ".pxm", ".pam", ".ras", ".sr", ".hdr", ".pic",
})  # fmt: skip
"""Endings of the pictures that OpenCV reads, in lower case: what a folder is searched for. (A file that is named is read by its
content, whatever its ending.)"""

_LONGEST_NAME = 255
"""Bytes that Linux, macOS and Windows file systems allow in a name."""

_PNG_MARK = b"tEXtSoftware\0rtseg"
_JPEG_MARK = b"\xff\xfe\x00\x07rtseg"
_WEBP_MARK = b"RTSG\x06\x00\x00\x00rtseg\x00"
_MARK_WITHIN = 1024
"""Bytes from the beginning of an image in which its mark is."""


def partial_name(final: Path, number: int = 1) -> str:
    """The temporary name of an output: `NAME.partial.EXT`, shortened where a file system would refuse it.

    From the second on they are numbered: `NAME.partial-2.EXT`.
    """
    ending = (".partial" if number == 1 else f".partial-{number}") + final.suffix
    return shortened_name(final.stem, ending)


def shortened_name(name: str, ending: str) -> str:
    """A name with an ending, shortened where a file system would refuse it."""
    stem = os.fsencode(name)
    if len(stem) + len(os.fsencode(ending)) > _LONGEST_NAME:
        # Long names of one folder may begin alike, and may be written at the same time.
        ending = f"~{hashlib.sha256(stem).hexdigest()[:8]}{ending}"
        stem = stem[: _LONGEST_NAME - len(os.fsencode(ending))]
        with contextlib.suppress(UnicodeEncodeError):
            name.encode()  # valid UTF-8 stays valid where it is cut
            stem = stem.decode(errors="ignore").encode()
    return os.fsdecode(stem) + ending


def is_partial_name(name: str) -> bool:
    """Whether a file name is one that `partial_name` gives."""
    return re.search(r"\.partial(-\d+)?\.", name) is not None


def create_partial(final: Path) -> Path:
    """Creates an empty file under the first temporary name of an output that is free.

    What exists under such a name is left as it is: it may be a file of the user's, or in use by another run.

    Raises:
        OSError: it can't be created.
    """
    for number in count(1):
        path = final.with_name(partial_name(final, number))
        try:
            with path.open("xb"):  # fails where the name is taken, by a dangling link too
                return path
        except FileExistsError:
            continue
    raise AssertionError


@contextlib.contextmanager
def utf8_path(path: Path, beside: Callable[[], Iterable[Path]] = tuple) -> Iterator[Path]:
    """A path of a file or folder for libraries that take UTF-8 alone: the path itself, or else a link to it while this lasts.

    Args:
        path: the file or folder.
        beside: gives further files that must be in its folder.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="rtseg-") as folder:
            for file in beside():
                (Path(folder) / file.name).symlink_to(file.resolve())
            link = Path(folder) / f"link{path.suffix}"
            link.symlink_to(path.resolve())
            yield link
    else:
        yield path


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file under a partial name and renames it; makes its folder. Devices and pipes are written directly.

    Raises:
        SinkError: it can't be written; nothing is left then, and an existing file stays as it was.
    """
    try:
        if path.is_relative_to("/dev") or (path.exists() and not path.is_file() and not path.is_dir()):
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = create_partial(path)
        try:
            partial.write_bytes(data)
            partial.replace(path)
        except BaseException:  # an interrupt too leaves no half file
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
    except (OSError, ValueError) as error:
        raise SinkError(f"'{path}' can't be written: {getattr(error, 'strerror', None) or error}") from error


def write_json(data: dict[str, Any], file: str) -> None:
    """Writes a JSON object for machines; `-` is stdout, in ASCII, which every terminal's encoding holds.

    The field `rtseg`, a version, says that rtseg wrote it.

    Bytes of a file name that are not UTF-8 are written as Python keeps them, `"caf\\udce9.mp4"`; `os.fsencode` gives them back.

    Raises:
        SinkError: the file can't be written.
    """
    data = {"rtseg": __version__} | data
    text = json.dumps(data, indent=2, ensure_ascii=file == "-") + "\n"
    if file == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_whole(Path(file), escaped_json(text).encode())


def mark_image(data: bytes) -> bytes:
    """An encoded PNG, JPEG or WebP with a comment that says that rtseg wrote it; other formats are returned as they are."""
    if data.startswith(b"\x89PNG"):
        body = _PNG_MARK
        chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        return (
            data[:33] + chunk + data[33:]
        )  # behind the signature (8 bytes) and IHDR (25), where readers expect it first
    if data.startswith(b"\xff\xd8\xff\xe0"):
        end = 4 + int.from_bytes(data[4:6], "big")
        return data[:end] + _JPEG_MARK + data[end:]
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        data += _WEBP_MARK  # a chunk that is unknown to readers, which ignore it
        return data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]
    return data


def is_marked_image(path: str | Path) -> bool:
    """Whether a file is a PNG, JPEG or WebP that rtseg wrote. False where it can't be read."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(_MARK_WITHIN)
            if head.startswith(b"RIFF"):
                file.seek(max(0, os.fstat(file.fileno()).st_size - len(_WEBP_MARK)))
                return file.read() == _WEBP_MARK
    except (OSError, ValueError):
        return False
    return (head.startswith(b"\x89PNG") and _PNG_MARK in head) or (head.startswith(b"\xff\xd8") and _JPEG_MARK in head)
