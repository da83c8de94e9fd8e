"""Recording of a live run in one file or in segments; the oldest segments can be removed."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path

from rtseg.core.errors import SinkError, reason
from rtseg.core.files import numbered_names, partial_name
from rtseg.core.frame import Frame, ProcessedFrame
from rtseg.io.outputs import Sink

OpenFile = Callable[[str, ProcessedFrame], Sink]
"""Opens a file with this path for frames like this first one."""


class RecordingSink(Sink):
    """Recording in files that each start at time 0.

    All frames of a file have the same size. If the size changes, because of the camera or the view, a new file starts. With
    `segment_seconds` the names contain the start time, `out-20261122T144012Z.mp4`; without it they are `out.mp4`, `out-2.mp4`
    and so on. Only `out.mp4` may replace an existing file, and only if the user gave that name; all others use the next free
    name.
    """

    written = dropped = 0
    unfinished_message = "not complete in time; the frames written so far are in the partial file"

    def __init__(
        self,
        path: str,
        open_file: OpenFile,
        *,
        segment_seconds: float | None = None,
        keep_bytes: int | None = None,
        replace_first: bool = True,
    ) -> None:
        """Check the folder. The first frame opens the first file, whose size it defines.

        Args:
            path: path of the recording; the names of the segments are derived from it.
            open_file: opens one file.
            segment_seconds: length of a file in stream time; None: one file while the size stays the same.
            keep_bytes: maximum total size of the segments of this name; the oldest are removed.
            replace_first: the first file may replace an existing file `path`.

        Raises:
            SinkError: the folder does not exist.
        """
        self._path = Path(path)
        self.name = self._path.name
        self._open_file = open_file
        self._segment = None if segment_seconds is None else Fraction(segment_seconds)
        self._keep_bytes = keep_bytes
        self._replace_first = replace_first
        self._file: Sink | None = None
        self._shape: object = None
        self._begin = 0
        self._warnings_before: tuple[str, ...] = ()
        folder = self._path.parent
        if not folder.is_dir():
            raise SinkError(f"can't write {path}: no such folder: {folder}")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Names other than the requested one, and differences between the files and the displayed frames, one line each."""
        return tuple(dict.fromkeys((*self._warnings_before, *(self._file.warnings if self._file else ()))))

    def write(self, item: ProcessedFrame) -> None:
        """Write a frame, in a new file if necessary. Raises SinkError."""
        frame, rendered = item.frame, item.rendered
        shape = (rendered.width, rendered.height, frame.width, frame.height, rendered.pixel_format, rendered.color)
        full = self._segment is not None and (frame.pts - self._begin) * frame.time_base >= self._segment
        if self._file is None or shape != self._shape or full:
            self.close()
            self._begin, self._shape = frame.pts, shape
            self._remove_old_segments()
            path = self._next_name()
            if self._segment is None and path != self._path:
                reason = f"{self.name} is continued in" if self.written else f"{self.name} exists: the frames are in"
                self._warnings_before += (f"{reason} {path.name}",)
            self._file = self._open_file(str(path), item)
        dropped_before = self._file.dropped
        self._file.write(replace(item, frame=self._rebased(frame), rendered=self._rebased(rendered)))
        if self._file.dropped > dropped_before:
            self.dropped += 1
        else:
            self.written += 1

    def close(self) -> None:
        """Complete the open file. Raises SinkError."""
        if self._file is not None:
            self._file.close()
            self._warnings_before = self.warnings
            self._file = None
            gc.collect()  # PyAV's containers and streams are reference cycles: without this they would stay in memory

    def abort(self) -> None:
        """Keep the last file under its partial name."""
        if self._file is not None:
            self._file.abort()

    def _rebased(self, frame: Frame) -> Frame:
        return replace(frame, pts=frame.pts - self._begin)

    def _next_name(self) -> Path:
        path = self._path
        if self._segment is not None:
            path = path.with_name(f"{path.stem}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}{path.suffix}")
        elif self._replace_first:
            self._replace_first = False
            return path
        return next(filter(_is_free, numbered_names(path)))

    def _remove_old_segments(self) -> None:
        """Remove the oldest segments, including partial ones that a power cut left behind."""
        if self._keep_bytes is None:
            return
        stem, suffix = re.escape(self._path.stem), re.escape(self._path.suffix)
        pattern = re.compile(rf"{stem}-\d{{8}}T\d{{6}}Z(-\d+)?(\.partial(-\d+)?)?{suffix}")
        # Only regular files: folders and links with such names are not recordings.
        with os.scandir(self._path.parent) as entries:
            segments = sorted(
                Path(entry.path)
                for entry in entries
                if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            )
        sizes = {path: path.stat().st_size for path in segments}
        total = sum(sizes.values())
        # Leave room for the file that starts now: about as large as the largest.
        while segments and total + max(sizes[path] for path in segments) > self._keep_bytes:
            oldest = segments.pop(0)
            total -= sizes[oldest]
            try:
                oldest.unlink(missing_ok=True)  # another process may have removed it
            except OSError as error:
                raise SinkError(f"the old segment {oldest} can't be removed: {reason(error)}") from error


def _is_free(path: Path) -> bool:
    """Return True if neither this file exists nor its partial file from a killed run."""
    partial = path.with_name(partial_name(path))
    return not (os.path.lexists(path) or os.path.lexists(partial))


def path_for_camera(path: str, camera: str | None) -> str:
    """Return the path for one of several cameras: `out-camera0.mp4` for `out.mp4` and `camera0`; `path` itself for None."""
    if camera is None:
        return path
    plain = Path(path)
    return str(plain.with_name(f"{plain.stem}-{camera}{plain.suffix}"))
