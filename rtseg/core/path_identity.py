"""Identity of files: comparison of paths that may be spelled differently or do not exist yet."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

STDIN = STDOUT = "-"

FileKey = tuple[int, int, str]
"""Device and inode number of an existing file or folder, and the normalized path below it."""


def file_key(path: str) -> FileKey:
    """Return a key that is equal for all paths of one file.

    The key consists of the device and inode number of the deepest existing parent (or of the file) and the rest of the path.
    The rest is compared without case and in Unicode form NFC: on many disks, names that differ only in that are one file.
    """
    try:
        existing = Path(os.path.realpath(path))
    except (OSError, ValueError):
        return 0, 0, path  # an invalid name; opening it raises an error
    missing: list[str] = []
    while True:
        try:
            status = existing.stat()
        except (OSError, ValueError):
            if existing.parent == existing:
                return 0, 0, path
            missing.insert(0, existing.name)
            existing = existing.parent
        else:
            return status.st_dev, status.st_ino, unicodedata.normalize("NFC", "/".join(missing)).casefold()


def redirected_file(descriptor: int) -> FileKey | None:
    """Return the key of the file behind standard input (0) or output (1); None: it is a terminal, pipe or device."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None  # closed
    return (status.st_dev, status.st_ino, "") if stat.S_ISREG(status.st_mode) else None


def parent_keys(path: str) -> Iterator[FileKey]:
    """Yield the keys of the folders above a path."""
    try:
        parents = Path(os.path.realpath(path)).parents
    except (OSError, ValueError):
        return
    for folder in parents:
        yield file_key(str(folder))


def local_paths(path: str) -> Iterator[str]:
    """Yield a path, and the path in it if it is a `file:` URL."""
    if path == STDOUT:
        return
    yield path
    url = re.match(r"file:(?://(?:localhost)?(?=/))?", path)
    if url:
        yield path[url.end() :]


def is_file(path: str) -> bool:
    """Return whether a path is an existing regular file. False for an invalid path."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_device(path: str) -> bool:
    """Return whether a path is a device, pipe or socket. Several outputs may write to it, and no data in it is lost."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
