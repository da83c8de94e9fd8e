"""Lossless class masks at the source's size: a folder of PNGs or a video.

A mask is uint8 `[height, width]` and contains the class index of each pixel; 255 means no class. It is resized from the network's
class map by nearest neighbor (`rtseg.core.letterbox.resize_classes`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from rtseg.core.errors import OptionError, SinkError, reason
from rtseg.core.files import shortened_name
from rtseg.core.frame import ClassMap, ProcessedFrame, StreamInfo
from rtseg.core.letterbox import resize_classes
from rtseg.core.palette import NO_CLASS
from rtseg.io.outputs import Sink
from rtseg.io.outputs.containers import CONTAINERS
from rtseg.io.outputs.file_sink import FileSink, FileWriter

DESCRIPTION = "masks.json"
"""File that describes the masks in a folder. Of folders with content, only those with this file are replaced."""

FILE_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".webm", ".avi", ".ts", ".png", ".jpg", ".jpeg", ".webp", ".gif"})
"""Suffixes of lossy videos and images, which are not accepted."""


def open_mask_sink(
    path: str,
    info: StreamInfo,
    *,
    only: Sequence[int] | None = None,
    classes: Sequence[str] = (),
    overwrite: bool = True,
) -> Sink:
    """Open the sink for `--masks PATH`: a video for .mkv, a folder for a name without a file suffix.

    Missing parent folders of a folder are created. `only` are the class indices to keep (None: all classes); all others become
    255. `classes` are the class names of the model, which are stored with the masks. `overwrite` replaces an existing result
    when the new one is complete.

    Raises:
        OptionError: the suffix is that of a lossy video or an image.
        SinkError: the file or folder can't be created or must not be replaced.
    """
    if Path(path).suffix.lower() == ".mkv":
        open_writer = partial(MaskVideoWriter, info=info, only=only, classes=classes)
        return FileSink(path, open_writer, source=info.name, overwrite=overwrite)
    check_mask_path(path, overwrite=overwrite)
    return MaskFolder(path, info, only, classes)


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


def class_mask(item: ProcessedFrame, only: Sequence[int] | None) -> ClassMap:
    """Return the mask of a frame at the size of the frame; all classes except `only` become 255. None: all are kept."""
    classes = item.classes
    if only is not None:
        table = np.full(256, NO_CLASS, dtype=np.uint8)
        table[list(only)] = list(only)
        classes = cv2.LUT(classes, table)
    return resize_classes(classes, item.frame.width, item.frame.height)


class MaskVideoWriter(FileWriter):
    """Writer of a video of class indices: 8-bit gray, FFV1 (lossless) in Matroska, with the source's timestamps.

    Timestamps are rounded to one millisecond, the resolution of Matroska. If the process is killed, all but the last second is
    readable. The class names are in the tag CLASSES.

    Raises:
        av.FFmpegError, OSError: the file can't be written.
    """

    encoder = "ffv1"

    def __init__(self, path: Path | None, info: StreamInfo, only: Sequence[int] | None, classes: Sequence[str]) -> None:
        self.size = info.width, info.height
        self._only = only
        kind = CONTAINERS[".mkv"]
        self._container = av.open(f"file:{path}", "w", format=kind.format, options=dict(kind.options))
        self._container.metadata["CLASSES"] = ",".join(classes)
        # For masks the Golomb-Rice coder (0) is faster than the range coder and its files are smaller.
        options = {"level": "3", "coder": "0", "slicecrc": "1"}
        stream = self._container.add_stream("ffv1", rate=info.frame_rate or Fraction(25), options=options)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = info.width, info.height, "gray"
        context.time_base = info.time_base
        # Every frame is a key frame, which does not increase the size. Players can seek to any frame, and a killed process loses
        # only the last few.
        context.gop_size = 1
        context.color_range = ColorRange.JPEG
        context.sample_aspect_ratio = info.sample_aspect_ratio
        self._stream = stream

    def write(self, item: ProcessedFrame) -> bool:
        """Encode one mask. Raises SinkError if the frame size changed."""
        width, height = item.frame.width, item.frame.height
        if (width, height) != self.size:
            raise SinkError(f"frame {item.frame.index} is {width}x{height}, not {self.size[0]}x{self.size[1]}")
        frame = av.VideoFrame.from_ndarray(class_mask(item, self._only), format="gray")
        frame.pts, frame.time_base = item.frame.pts, item.frame.time_base
        self._container.mux(self._stream.encode(frame))
        return True

    def finish(self, timeout_seconds: float) -> None:
        """Write the remaining masks, and close the file in any case."""
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


class MaskFolder(Sink):
    """Sink that writes a folder of one-channel PNGs, named by frame number (`000000.png`), and `masks.json`.

    The folder is written as `NAME.partial` and renamed by `close`. An existing folder is replaced only if it is empty or contains
    nothing but an earlier result.
    """

    written = 0
    partial_path: Path = Path()
    """Path of the folder until it is complete."""

    def __init__(self, path: str, info: StreamInfo, only: Sequence[int] | None, classes: Sequence[str]) -> None:
        """Create the folder with its temporary name, after `check_mask_path`; see `open_mask_sink`.

        Raises:
            SinkError: the folder can't be created.
        """
        self.name = Path(path).name
        self._only = only
        self._folder = Path(os.path.realpath(path))
        self.partial_path = self._folder.with_name(shortened_name(self._folder.name, ".partial"))
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
            _remove(self.partial_path)
            self.partial_path.mkdir(parents=True)
            (self.partial_path / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise SinkError(f"can't create the folder {self.partial_path}: {reason(error)}") from error

    def write(self, item: ProcessedFrame) -> None:
        """Write one PNG."""
        file = self.partial_path / f"{item.frame.index:06d}.png"
        encoded, data = cv2.imencode(".png", class_mask(item, self._only))
        if not encoded:
            raise SinkError(f"can't encode {file} as PNG")
        try:
            file.write_bytes(data.tobytes())
        except OSError as error:
            file.unlink(missing_ok=True)
            raise SinkError(f"can't write {file}: {reason(error)}") from error
        self.written += 1

    def close(self) -> None:
        """Rename the folder to its final name, replacing an earlier result without new files that are not masks."""
        _check_replaceable(self._folder, overwrite=True)
        earlier = self._folder.with_name(shortened_name(self._folder.name, ".earlier.partial"))
        _check_replaceable(earlier, overwrite=True)
        try:
            _remove(earlier)
            if self._folder.exists():
                self._folder.rename(earlier)
            self.partial_path.rename(self._folder)
            _remove(earlier)
        except OSError as error:
            message = f"{self.partial_path} is complete but can't be renamed to {self._folder}: {reason(error)}"
            raise SinkError(message) from error

    def abort(self) -> None:
        """Keep the folder under its temporary name. Remove it if it contains no masks."""
        if self.written == 0:
            with contextlib.suppress(OSError):
                _remove(self.partial_path)


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
