"""Class masks as a folder of PNGs."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import cv2

from rtseg.core.errors import OptionError, SinkError, reason
from rtseg.core.files import shortened_name
from rtseg.core.frame import ProcessedFrame, StreamInfo
from rtseg.core.palette import NO_CLASS
from rtseg.io.outputs import Sink
from rtseg.io.outputs.mask_values import class_mask, filter_table

DESCRIPTION = "masks.json"
"""File that describes the masks in a folder. Of folders with content, only those with this file are replaced."""

FILE_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".webm", ".avi", ".ts", ".png", ".jpg", ".jpeg", ".webp", ".gif"})
"""Suffixes of lossy videos and images, which are not accepted."""


def check_mask_path(path: str, *, overwrite: bool = True) -> None:
    """Check that a folder of masks can be created or replaced. Changes nothing, and does not check .mkv files.

    Raises:
        OptionError: the suffix is that of a lossy video or an image.
        SinkError: the folder or its temporary folder contains other files or must not be replaced.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".mkv":
        return
    if suffix in FILE_SUFFIXES and not Path(path).is_dir():
        raise OptionError(f"masks can't go to '{path}': name an .mkv file, or a folder for one PNG a frame")
    folder = Path(os.path.realpath(path))
    _check_replaceable(folder, overwrite)
    for ending in (".partial", ".earlier.partial"):
        _check_replaceable(folder.with_name(shortened_name(folder.name, ending)), overwrite=True)


class MaskFolder(Sink):
    """Sink that writes a folder of one-channel PNGs, named by frame number (`000000.png`), and `masks.json`.

    The folder is written as `NAME.partial` and renamed by `close`. An existing folder is replaced only if it is empty or contains
    nothing but an earlier result.
    """

    written = 0

    def __init__(
        self,
        path: str,
        info: StreamInfo,
        *,
        only: Sequence[int] | None = None,
        classes: Sequence[str] = (),
        overwrite: bool = True,
    ) -> None:
        """Create the folder with its temporary name.

        Args:
            path: the folder. Missing parent folders are created.
            info: the source.
            only: class indices to keep; None: keep all classes.
            classes: class names of the model, for `masks.json`.
            overwrite: replace an earlier result at `path`.

        Raises:
            SinkError: `path` is a file, contains other files, must not be replaced, or can't be created.
        """
        self.name = Path(path).name
        self._lookup_table = filter_table(only)
        self._folder = Path(os.path.realpath(path))
        self._partial = self._folder.with_name(shortened_name(self._folder.name, ".partial"))
        _check_replaceable(self._folder, overwrite)
        _check_replaceable(self._partial, overwrite=True)
        description = {
            "format": "rtseg masks",
            "version": 1,
            "source": info.name,
            "width": info.width,
            "height": info.height,
            "classes": list(classes),
            "only": None if only is None else sorted(only),
            "no_class": NO_CLASS,
        }
        try:
            _remove(self._partial)
            self._partial.mkdir(parents=True)
            (self._partial / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise SinkError(f"can't create the folder {self._partial}: {reason(error)}") from error

    def write(self, item: ProcessedFrame) -> None:
        """Write one PNG.

        Raises:
            SinkError: the file can't be written.
        """
        file = self._partial / f"{item.frame.index:06d}.png"
        encoded, data = cv2.imencode(".png", class_mask(item, self._lookup_table))
        if not encoded:
            raise SinkError(f"can't encode {file} as PNG")
        try:
            file.write_bytes(data.tobytes())
        except OSError as error:
            file.unlink(missing_ok=True)
            raise SinkError(f"can't write {file}: {reason(error)}") from error
        self.written += 1

    def close(self) -> None:
        """Rename the folder to its final name, replacing an earlier result.

        Raises:
            SinkError: the folder contains new files that are not masks, or can't be renamed.
        """
        _check_replaceable(self._folder, overwrite=True)
        earlier = self._folder.with_name(shortened_name(self._folder.name, ".earlier.partial"))
        _check_replaceable(earlier, overwrite=True)
        try:
            _remove(earlier)
            if self._folder.exists():
                self._folder.rename(earlier)
            self._partial.rename(self._folder)
            _remove(earlier)
        except OSError as error:
            message = f"{self._partial} is complete but can't be renamed to {self._folder}: {reason(error)}"
            raise SinkError(message) from error

    def abort(self) -> None:
        """Keep the folder under its temporary name. Remove it if it contains no masks."""
        if self.written == 0:
            with contextlib.suppress(OSError):
                _remove(self._partial)


def _check_replaceable(folder: Path, overwrite: bool) -> None:
    """Raise SinkError unless the folder is missing, is empty, or contains only masks that may be replaced."""
    try:
        names = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise SinkError(
            f"can't create the folder {folder}: a file has that name; name a folder or an .mkv file"
        ) from None
    except OSError as error:
        raise SinkError(f"can't read the folder {folder}: {reason(error)}") from error
    if names and not overwrite:
        raise SinkError(f"{folder} exists; leave out --no-overwrite to replace it, or name another")
    sorted_names = sorted(names, key=lambda name: (name.startswith("."), name))
    others = [name for name in sorted_names if name != DESCRIPTION and not re.fullmatch(r"\d{6,}\.png", name)]
    if names and (others or DESCRIPTION not in names):
        example = (others or sorted_names)[0]
        raise SinkError(f"{folder} contains files other than masks, such as {example}; name a new or an empty folder")


def _remove(folder: Path) -> None:
    """Remove a folder that `_check_replaceable` accepted. Raise OSError if it contains subfolders."""
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
