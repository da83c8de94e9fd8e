"""Lossless class masks at the source's size: a folder of PNGs or one video.

A mask is uint8 `[height, width]`: the class index of each pixel, nearest neighbor from the network's class map
(`rtseg.core.letterbox.resize_classes`), and 255 for no class.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange

from rtseg.core.errors import OptionError, SinkError
from rtseg.core.files import shortened_name
from rtseg.core.frame import ClassMap, Passthrough, SegmentedFrame, StreamInfo
from rtseg.core.letterbox import resize_classes
from rtseg.core.palette import NO_CLASS
from rtseg.io.outputs import Sink
from rtseg.io.outputs.partial_file import Partial, reason

DESCRIPTION = "masks.json"
"""File in a folder of masks that describes them. It also marks the folder as replaceable."""

FILE_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".webm", ".avi", ".ts", ".png", ".jpg", ".jpeg", ".webp", ".gif"})
"""Suffixes that are neither a lossless video nor a folder name."""


def open_mask_sink(
    path: str,
    info: StreamInfo,
    *,
    only: Sequence[int] | None = None,
    classes: Sequence[str] = (),
    overwrite: bool = True,
) -> Sink:
    """Open the sink for `--masks PATH`: `MaskVideo` for .mkv, `MaskFolder` for a name without a file suffix.

    Args:
        path: file or folder.
        info: the source.
        only: class indices to keep; all others become 255. None: keep all.
        classes: class names of the model, stored with the masks.
        overwrite: replace an existing result, once the new one is complete.

    Raises:
        OptionError: the suffix is that of a lossy video or an image.
        SinkError: the file or folder can't be created or must not be replaced.
    """
    if Path(path).suffix.lower() == ".mkv":
        return MaskVideo(path, info, only=only, classes=classes, overwrite=overwrite)
    check_mask_path(path, overwrite=overwrite)
    return MaskFolder(path, info, only=only, classes=classes, overwrite=overwrite)


def check_mask_path(path: str, *, overwrite: bool = True) -> None:
    """Check that a folder of masks can be created or replaced, without changing anything. Does not check .mkv files.

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


class MaskFolder:
    """A folder of one-channel PNGs named by frame number (`000000.png`), and `masks.json`, which describes them.

    Written as `NAME.partial` and renamed by `close`. An existing folder is replaced only if it is empty or contains only an
    earlier result.
    """

    def __init__(
        self,
        path: str,
        info: StreamInfo,
        *,
        only: Sequence[int] | None = None,
        classes: Sequence[str] = (),
        overwrite: bool = True,
    ) -> None:
        """Create the folder under its partial name.

        Args:
            path: the folder; parent folders are created too.
            info: the source.
            only: class indices to keep; None: all.
            classes: class names of the model, for `masks.json`.
            overwrite: replace an earlier result at `path`.

        Raises:
            SinkError: `path` is a file, contains other files, must not be replaced, or can't be created.
        """
        self.name = Path(path).name
        self.written = 0
        self._table = _filter_table(only)
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

    def write(self, item: SegmentedFrame) -> None:
        """Write one PNG.

        Raises:
            SinkError: the file can't be written.
        """
        file = self._partial / f"{item.frame.index:06d}.png"
        done, data = cv2.imencode(".png", _mask(item, self._table))
        if not done:
            raise SinkError(f"can't encode {file} as PNG")
        try:
            file.write_bytes(data.tobytes())
        except OSError as error:
            file.unlink(missing_ok=True)
            raise SinkError(f"can't write {file}: {reason(error)}") from error
        self.written += 1

    def pass_through(self, packet: Passthrough) -> None:
        """Ignore the packet: masks have no other streams."""

    def close(self) -> None:
        """Rename the folder to its final name, replacing an earlier result.

        Raises:
            SinkError: other files were created there meanwhile, or the folders can't be renamed.
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
        """Keep the folder under its partial name; remove it if it has no masks."""
        if self.written == 0:
            with contextlib.suppress(OSError):
                _remove(self._partial)


class MaskVideo:
    """One video of class indices: gray, 8 bits, FFV1 (lossless) in Matroska, at the source's times.

    Matroska has a resolution of one millisecond, to which the source's times are rounded. Written as `NAME.partial.mkv` and
    renamed by `close`; after a kill all but the last second is readable.
    """

    def __init__(
        self,
        path: str,
        info: StreamInfo,
        *,
        only: Sequence[int] | None = None,
        classes: Sequence[str] = (),
        overwrite: bool = True,
    ) -> None:
        """Open the file under its partial name.

        Args:
            path: the .mkv file.
            info: the source: size, time base, frame rate.
            only: class indices to keep; None: all.
            classes: class names of the model, for the tag CLASSES.
            overwrite: replace an existing file.

        Raises:
            SinkError: `path` is a folder or the source itself, must not be replaced, or can't be written.
        """
        self.name = Path(path).name
        self.written = 0
        self._table = _filter_table(only)
        self._size = info.width, info.height
        self._partial = Partial(path, source=info.name, overwrite=overwrite)
        self._open = True
        try:
            # Clusters of one second: a kill loses at most one.
            options = {"cluster_time_limit": "1000", "flush_packets": "1"}
            self._container = av.open(f"file:{self._partial.path}", "w", format="matroska", options=options)
            self._container.metadata["CLASSES"] = ",".join(classes)
            self._stream = self._add_stream(info)
        except (OSError, av.FFmpegError) as error:
            self._partial.discard()
            raise SinkError(f"can't write {path}: {reason(error)}") from error

    def _add_stream(self, info: StreamInfo) -> Any:
        # On masks the Golomb-Rice coder (0) is faster than the range coder and its files are smaller.
        options = {"level": "3", "coder": "0", "slicecrc": "1"}
        stream = self._container.add_stream("ffv1", rate=info.frame_rate or Fraction(25), options=options)
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, "gray"
        stream.codec_context.time_base = info.time_base
        # Every frame is a key frame, at no cost in size: players seek to any, and a kill loses only the last few.
        stream.codec_context.gop_size = 1
        stream.codec_context.color_range = ColorRange.JPEG
        stream.codec_context.sample_aspect_ratio = info.sample_aspect_ratio
        return stream

    def write(self, item: SegmentedFrame) -> None:
        """Encode one mask.

        Raises:
            SinkError: the frame size changed, or the mask can't be written.
        """
        size = item.frame.width, item.frame.height
        if size != self._size:
            raise SinkError(
                f"{self.name}: frame {item.frame.index} is {size[0]}x{size[1]}, not {self._size[0]}x{self._size[1]}"
            )
        frame = av.VideoFrame.from_ndarray(_mask(item, self._table), format="gray")
        frame.pts, frame.time_base = item.frame.pts, item.frame.time_base
        self._mux(frame)
        self.written += 1

    def _mux(self, frame: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (OSError, av.FFmpegError) as error:
            raise SinkError(f"can't write {self._partial.path}: {reason(error)}") from error

    def pass_through(self, packet: Passthrough) -> None:
        """Ignore the packet: masks have no other streams."""

    def close(self) -> None:
        """Complete the file, read it back, and rename it to its final name.

        Raises:
            SinkError: the file can't be completed, or frames are missing.
        """
        self._mux(None)
        try:
            self._container.close()
            self._open = False
            with av.open(f"file:{self._partial.path}") as container:
                found = sum(packet.size > 0 for packet in container.demux(video=0))
            if found != self.written:
                raise SinkError(f"{self._partial.path} contains {found} of {self.written} frames; is the disk full?")
        except (OSError, av.FFmpegError) as error:
            raise SinkError(f"can't finish {self._partial.path}: {reason(error)}") from error
        self._partial.publish()

    def abort(self) -> None:
        """Complete the file under its partial name; remove it if it has no frames."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(OSError, av.FFmpegError, SinkError):
            if self.written:
                self._mux(None)
        with contextlib.suppress(OSError, av.FFmpegError):
            self._container.close()
        if not self.written:
            self._partial.discard()


def _filter_table(only: Sequence[int] | None) -> npt.NDArray[np.uint8] | None:
    """Return a lookup table, uint8 `[256]`, that maps all other classes to 255; None if all are kept."""
    if only is None:
        return None
    table = np.full(256, NO_CLASS, dtype=np.uint8)
    table[list(only)] = list(only)
    return table


def _mask(item: SegmentedFrame, table: npt.NDArray[np.uint8] | None) -> ClassMap:
    """Return the class indices of a frame at its size."""
    classes = item.classes if table is None else cv2.LUT(item.classes, table)
    return resize_classes(classes, item.frame.width, item.frame.height)


def _check_replaceable(folder: Path, overwrite: bool) -> None:
    """Raise SinkError unless the folder is missing, empty, or a result of this module that may be replaced."""
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
    inside = sorted(names, key=lambda name: (name.startswith("."), name))
    others = [name for name in inside if name != DESCRIPTION and not re.fullmatch(r"\d{6,}\.png", name)]
    if names and (others or DESCRIPTION not in names):
        example = (others or inside)[0]
        raise SinkError(f"{folder} contains files other than masks, such as {example}; name a new or an empty folder")


def _remove(folder: Path) -> None:
    """Remove a folder that `_check_replaceable` accepted, file by file; fails if it has subfolders."""
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
