"""Files of a run without end: one, or one for every so many seconds, the oldest removed when there are too many."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from fractions import Fraction
from itertools import chain, count
from pathlib import Path

from rtseg.core.errors import SinkError
from rtseg.core.files import partial_name
from rtseg.core.frame import Frame, Passthrough, SegmentedFrame
from rtseg.io.outputs import Sink
from rtseg.live.live_frame import LiveFrame

OpenFile = Callable[[str, LiveFrame], Sink]
"""Opens a file of a name for frames like this first one."""


class Record:
    """A recording as files that each begin at 0. Implements `rtseg.io.outputs.Sink`; takes `rtseg.live.live_frame.LiveFrame`.

    A file holds pictures of one size: where the size changes, by the camera or by the view, the next file begins. With
    `segment_seconds` files are called by their beginning, `out-20261122T144012Z.mp4`; without, they are `out.mp4`, `out-2.mp4`
    and so on. Of all these only `out.mp4` may replace an existing file, and only where that is the name that the user gave: the
    others take the next free name.
    """

    late = "not complete in time; what was written lies under its partial name"

    def __init__(
        self,
        path: str,
        open_file: OpenFile,
        *,
        segment_seconds: float | None = None,
        keep_bytes: int | None = None,
        replace_first: bool = True,
    ) -> None:
        """Opens nothing yet: the first frame says what size the pictures have.

        Args:
            path: of the recording, or what the names of its segments are made of.
            open_file: opens one file.
            segment_seconds: length of a file, by the stream's time; None: one file as long as the size stays.
            keep_bytes: the segments of this name are at most this large together: the oldest are removed.
            replace_first: the first file may be called `path` though that exists.

        Raises:
            SinkError: there is no such folder, or it can't be written.
        """
        self._path = Path(path)
        self._open_file = open_file
        self._segment = None if segment_seconds is None else Fraction(segment_seconds)
        self._keep = keep_bytes
        self._replace_first = replace_first
        self._file: Sink | None = None
        self._shape: object = None
        self._begin = 0
        self._files = 0
        self._written_before = self._dropped_before = 0
        self._warnings_before: tuple[str, ...] = ()
        self.removed = 0
        """Old segments removed so far."""
        folder = self._path.parent
        if not folder.is_dir():
            raise SinkError(f"can't write {path}: no such folder: {folder}")

    @property
    def name(self) -> str:
        """The recording's name without its folder."""
        return self._path.name

    @property
    def written(self) -> int:
        """Frames written so far, in all files."""
        return self._written_before + (self._file.written if self._file else 0)

    @property
    def dropped(self) -> int:
        """Frames that the files left out themselves."""
        return self._dropped_before + int(getattr(self._file, "dropped", 0))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the files do not hold as it was shown, each line once."""
        return tuple(dict.fromkeys((*self._warnings_before, *getattr(self._file, "warnings", ()))))

    def write(self, item: SegmentedFrame) -> None:
        """Writes a frame, into the next file where that is due. Raises SinkError."""
        assert isinstance(item, LiveFrame)
        frame, rendered = item.frame, item.rendered
        shape = (rendered.width, rendered.height, frame.width, frame.height, rendered.pixel_format, rendered.color)
        full = self._segment is not None and (frame.pts - self._begin) * frame.time_base >= self._segment
        if self._file is None or shape != self._shape or full:
            self._close_file()
            self._begin, self._shape = frame.pts, shape
            self._files += 1
            self._make_room()
            self._file = self._open_file(str(self._next_name()), item)
        self._file.write(replace(item, frame=self._moved(frame), rendered=self._moved(rendered)))

    def pass_through(self, packet: Passthrough) -> None:
        """Live recordings hold the picture alone."""

    def close(self) -> None:
        """Completes the last file. Raises SinkError."""
        self._close_file()

    def abort(self) -> None:
        """Keeps what was written of the last file under its partial name."""
        if self._file is not None:
            self._file.abort()

    def _moved(self, frame: Frame) -> Frame:
        return replace(frame, pts=frame.pts - self._begin)

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._written_before += self._file.written
            self._dropped_before = self.dropped
            self._warnings_before = self.warnings
            self._file = None
            gc.collect()  # PyAV's containers and streams hold each other: without this each segment would stay in memory

    def _next_name(self) -> Path:
        if self._segment is None:
            if self._files == 1 and (self._replace_first or _is_free(self._path)):
                return self._path
            return next(name for number in count(max(2, self._files)) if _is_free(name := self._named(str(number))))
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        names = chain([stamp], (f"{stamp}-{number}" for number in count(2)))
        return next(name for ending in names if _is_free(name := self._named(ending)))

    def _named(self, ending: str) -> Path:
        return self._path.with_name(f"{self._path.stem}-{ending}{self._path.suffix}")

    def _make_room(self) -> None:
        """Removes the oldest segments; an old partial one, which a power cut left, is one of them."""
        if self._keep is None:
            return
        stem, suffix = re.escape(self._path.stem), re.escape(self._path.suffix)
        pattern = re.compile(rf"{stem}-\d{{8}}T\d{{6}}Z(-\d+)?(\.partial(-\d+)?)?{suffix}")
        # Regular files alone: folders and links of such a name are not recordings.
        with os.scandir(self._path.parent) as entries:
            found = sorted(
                Path(entry.path)
                for entry in entries
                if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            )
        sizes = {path: path.stat().st_size for path in found}
        total = sum(sizes.values())
        # Room for the file that begins now, about as large as the largest.
        while found and total + max(sizes[path] for path in found) > self._keep:
            oldest = found.pop(0)
            total -= sizes[oldest]
            try:
                oldest.unlink(missing_ok=True)  # someone else removed it: that is what was wanted
            except OSError as error:
                raise SinkError(f"the old segment {oldest} can't be removed: {error.strerror}") from error
            self.removed += 1


def _is_free(path: Path) -> bool:
    """Whether neither a file of this name exists nor what a run that was killed left of it."""
    partial = path.with_name(partial_name(path))
    return not (os.path.lexists(path) or os.path.lexists(partial))


def numbered_folder_or_file(path: str, camera: str | None) -> str:
    """`path` for one camera of several: `out.mp4` and `camera0` make `out-camera0.mp4`; None leaves it as it is."""
    if camera is None:
        return path
    plain = Path(path)
    return str(plain.with_name(f"{plain.stem}-{camera}{plain.suffix}"))
