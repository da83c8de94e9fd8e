"""Atomic file writes, temporary file names, and the marker in images that rtseg wrote."""

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
from rtseg.core.errors import SinkError, escaped_json, reason

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".jp2", ".avif",
    ".pbm", ".pgm", ".ppm", ".pnm", ".pxm", ".pam", ".ras", ".sr", ".hdr", ".pic",
})  # fmt: skip
"""File name suffixes of the images that OpenCV reads, in lower case. They select the images of a folder. (A single image file
is recognized by its content.)"""

_MAX_NAME_BYTES = 255
"""Maximum length of a file name on Linux, macOS and Windows file systems."""

_PNG_MARK = b"tEXtSoftware\0rtseg"
_JPEG_MARK = b"\xff\xfe\x00\x07rtseg"
_WEBP_MARK = b"RTSG\x06\x00\x00\x00rtseg\x00"
_MARK_SEARCH_BYTES = 1024
"""Number of bytes at the beginning of an image that contain the marker."""


def partial_name(final: Path, number: int = 1) -> str:
    """Return the temporary name of an output: `NAME.partial.EXT`, or `NAME.partial-2.EXT` for number 2 and so on.

    The name is shortened if it is too long for a file system.
    """
    ending = (".partial" if number == 1 else f".partial-{number}") + final.suffix
    return shortened_name(final.stem, ending)


def shortened_name(name: str, ending: str) -> str:
    """Return a name with an ending, shortened if it is too long for a file system."""
    stem = os.fsencode(name)
    if len(stem) + len(os.fsencode(ending)) > _MAX_NAME_BYTES:
        # The hash keeps long names with the same beginning apart.
        ending = f"~{hashlib.sha256(stem).hexdigest()[:8]}{ending}"
        stem = stem[: _MAX_NAME_BYTES - len(os.fsencode(ending))]
        with contextlib.suppress(UnicodeEncodeError):
            name.encode()  # cut valid UTF-8 at a character boundary
            stem = stem.decode(errors="ignore").encode()
    return os.fsdecode(stem) + ending


def numbered_names(path: Path) -> Iterator[Path]:
    """Yield `NAME.EXT`, `NAME-2.EXT`, `NAME-3.EXT` and so on, without end."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


def is_partial_name(name: str) -> bool:
    """Return whether a file name is a temporary name of `partial_name`."""
    return re.search(r"\.partial(-\d+)?\.", name) is not None


def create_partial(final: Path) -> Path:
    """Create an empty file under the first unused temporary name of an output.

    Existing files with such names are not touched: they may belong to the user or to another run.
    """
    for number in count(1):
        path = final.with_name(partial_name(final, number))
        try:
            with path.open("xb"):  # fails if the name exists, even as a dangling link
                return path
        except FileExistsError:
            continue
    raise AssertionError


@contextlib.contextmanager
def utf8_path(path: Path, siblings: Callable[[], Iterable[Path]] = tuple) -> Iterator[Path]:
    """Provide a UTF-8 path of a file or folder, for libraries that accept no other encoding.

    Yields the path, or a temporary symbolic link to it if its name is not valid UTF-8, next to links to its `siblings`.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="rtseg-") as folder:
            for file in siblings():
                (Path(folder) / file.name).symlink_to(file.resolve())
            link = Path(folder) / f"link{path.suffix}"
            link.symlink_to(path.resolve())
            yield link
    else:
        yield path


@contextlib.contextmanager
def whole_file(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Provide an empty file to write, which replaces the file at `path` at the end of the block. Create its folder.

    After an error no partial file remains, and an existing file is not changed. `sync` waits until the data is on the disk, so
    that a power failure loses neither file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = create_partial(path)
    try:
        yield partial
        if sync:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # KeyboardInterrupt too
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically, as `whole_file` does; devices and pipes directly. Raises SinkError if it can't be written."""
    try:
        if path.is_relative_to("/dev") or (path.exists() and not path.is_file() and not path.is_dir()):
            path.write_bytes(data)
            return
        with whole_file(path) as partial:
            partial.write_bytes(data)
    except (OSError, ValueError) as error:
        raise SinkError(f"'{path}' can't be written: {reason(error)}") from error


def write_json(data: dict[str, Any], file: str) -> None:
    """Write a JSON object to a file, with the version of rtseg as the field `rtseg`.

    The file `-` is stdout, in ASCII, which every terminal encoding contains. Bytes of a file name that are not UTF-8 are written
    as lone surrogates, `"caf\\udce9.mp4"`; `os.fsencode` restores them.

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
    """Add rtseg's marker to an encoded PNG, JPEG or WebP image. Return other formats unchanged."""
    if data.startswith(b"\x89PNG"):
        body = _PNG_MARK
        chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        return data[:33] + chunk + data[33:]  # after the signature (8 bytes) and IHDR (25), which must be first
    if data.startswith(b"\xff\xd8\xff\xe0"):
        end = 4 + int.from_bytes(data[4:6], "big")
        return data[:end] + _JPEG_MARK + data[end:]
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        data += _WEBP_MARK  # readers ignore unknown chunks
        return data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]
    return data


def is_marked_image(path: str | Path) -> bool:
    """Return whether a file is a PNG, JPEG or WebP image that rtseg wrote. False if it can't be read."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(_MARK_SEARCH_BYTES)
            if head.startswith(b"RIFF"):
                file.seek(max(0, os.fstat(file.fileno()).st_size - len(_WEBP_MARK)))
                return file.read() == _WEBP_MARK
    except (OSError, ValueError):
        return False
    return (head.startswith(b"\x89PNG") and _PNG_MARK in head) or (head.startswith(b"\xff\xd8") and _JPEG_MARK in head)
