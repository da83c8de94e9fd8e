"""Video files: written under a temporary name, completed, read back, and renamed. The encoders are strategies."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import av
from av.container import InputContainer

from rtseg.core.errors import SinkError, reason
from rtseg.core.files import create_partial, partial_name
from rtseg.core.frame import Passthrough, ProcessedFrame
from rtseg.io.outputs import Sink
from rtseg.io.outputs.containers import STDOUT

_FINISH_SECONDS, _ABORT_SECONDS = 30.0, 1.5
"""Time limits for an encoder in another process to write its last frames."""

_END_SECONDS = 2.0
"""Number of seconds that are read at the end of a file if `last_seconds` is set; contains a key frame."""

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""Errors of `os.link` on file systems without hard links, such as exFAT."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """Completed file before it is renamed to its final name, for `rtseg.video.verify.compare`."""

    path: Path | None
    """Path of the file; None: standard output."""

    frames: int
    """Number of encoded frames."""

    size: tuple[int, int]
    """(width, height) of the encoded frames, pixels."""

    copied: dict[int, int] = field(default_factory=dict)
    """Mapping of the index in the input to the index in the output, for copied streams."""

    reencoded: dict[int, int] = field(default_factory=dict)
    """Mapping of the index in the input to the index in the output, for transcoded streams."""


class FileWriter(Protocol):
    """Encoder and container of one file.

    All methods may raise SinkError, av.FFmpegError or OSError. `write` and `pass_through` are not called after `finish`.
    """

    encoder: str
    """Name of the encoder, for statistics."""

    size: tuple[int, int]
    """(width, height) of the encoded frames, pixels."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages about differences between output and input, one line each."""
        return ()

    @property
    def last_seconds(self) -> float | None:
        """Time of the last frame, if reading the end of the file is check enough; None: the whole file must be read."""
        return None

    def write(self, item: ProcessedFrame) -> bool:
        """Encode one frame; return False if it was dropped."""

    def pass_through(self, packet: Passthrough) -> None:
        """Write a packet of another stream. Writers of video only ignore it."""
        return

    def finish(self, timeout_seconds: float) -> None:
        """Write the remaining frames, within the time if the encoder is another process, and close the file in any case."""

    def written_file(self, path: Path | None, frames: int) -> WrittenFile:
        """Return the description of the file with this path and number of frames."""
        return WrittenFile(path, frames, self.size)


class PartialFile:
    """Output file with a temporary name (`create_partial`) until it is complete. The input `source` is not overwritten.

    Raises:
        SinkError: `output` is a folder, is the input, exists and must not be replaced, or its folder can't be written.
    """

    def __init__(self, output: str, *, source: str | None = None, overwrite: bool = True) -> None:
        self.final = Path(output)
        self._overwrite = overwrite
        try:
            self._check(source)
            self.path = create_partial(self.final)
        except (OSError, ValueError) as error:
            raise SinkError(f"can't write {output}: {reason(error)}") from error

    def _check(self, source: str | None) -> None:
        final, folder = self.final, self.final.parent
        if final.is_dir():
            raise SinkError(f"can't write {final}: it is a folder; name a file in it")
        if not folder.exists():
            raise SinkError(f"can't write {final}: no such folder: {folder}")
        if not folder.is_dir():
            raise SinkError(f"can't write {final}: {folder} is not a folder")
        if source is not None and Path(source).exists() and final.exists() and final.samefile(source):
            raise SinkError(f"{final} would overwrite the input {source}; give the output another name")
        if final.exists() and not self._overwrite:
            raise SinkError(f"{final} exists; leave out --no-overwrite to replace it, or give the output another name")
        if final.exists() and not final.is_file():
            raise SinkError(f"can't write {final}: it exists and is not a regular file")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Message about an existing file with the default temporary name, if any."""
        default_path = self.final.with_name(partial_name(self.final))
        if self.path == default_path:
            return ()
        return (f"{default_path} existed before and was not changed; if it is the rest of an earlier run, remove it",)

    def publish(self) -> None:
        """Rename the complete file to its final name.

        Raises:
            SinkError: the file can't be renamed, or the final name exists now and must not be replaced.
        """
        try:
            if self._overwrite:
                self.path.replace(self.final)
            else:
                self._rename_to_free_name()
        except OSError as error:
            raise SinkError(f"{self.path} is complete but can't be renamed to {self.final}: {reason(error)}") from error

    def _rename_to_free_name(self) -> None:
        try:
            os.link(self.path, self.final)  # unlike a rename, this fails if the name exists now
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if os.path.lexists(self.final):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            self.path.rename(self.final)
            return
        self.path.unlink()

    def discard(self) -> None:
        """Remove the temporary file. Does not raise."""
        with contextlib.suppress(OSError):  # the folder was removed
            self.path.unlink(missing_ok=True)


class FileSink(Sink):
    """Sink that writes one file; `-` is standard output. The input `source` is not overwritten.

    `open_writer` opens the encoder for the temporary name, or None for standard output.

    Raises:
        SinkError: the file or the encoder can't be opened.
    """

    written = dropped = 0

    def __init__(
        self, output: str, open_writer: Callable[[Path | None], FileWriter], *, source: str, overwrite: bool = True
    ) -> None:
        self.name = "standard output" if output == STDOUT else Path(output).name
        self._output = output
        self._finished: WrittenFile | None = None
        self._ended = False
        self._partial = None if output == STDOUT else PartialFile(output, source=source, overwrite=overwrite)
        try:
            with self._sink_errors():
                self._writer = open_writer(self.partial_path)
        except BaseException:
            self._discard_empty()
            raise

    @property
    def encoder(self) -> str:
        """Name of the encoder, for statistics."""
        return self._writer.encoder

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages about differences between output and input, one line each."""
        return (*self._writer.warnings, *(self._partial.warnings if self._partial else ()))

    @property
    def partial_path(self) -> Path | None:
        """Path of the file until it is renamed; None for standard output."""
        return self._partial.path if self._partial else None

    def write(self, item: ProcessedFrame) -> None:
        """Encode one frame."""
        with self._sink_errors():
            if self._writer.write(item):
                self.written += 1
            else:
                self.dropped += 1

    def pass_through(self, packet: Passthrough) -> None:
        """Copy a packet of another stream."""
        with self._sink_errors():
            self._writer.pass_through(packet)

    def finish(self) -> WrittenFile:
        """Complete the file under its `.partial` name and read it back. Further calls return the same result.

        Raises:
            SinkError: the file can't be written or read back.
        """
        if self._finished is None:
            self._ended = True
            with self._sink_errors():
                self._writer.finish(_FINISH_SECONDS)
            if self._partial is not None:
                read_back(self._partial.path, self.written, self._writer.last_seconds)
            self._finished = self._writer.written_file(self.partial_path, self.written)
        return self._finished

    def close(self) -> None:
        """Complete the file, read it back, and rename it to its final name."""
        self.finish()
        if self._partial:
            self._partial.publish()

    def abort(self) -> None:
        """Keep the playable unfinished file under its `.partial` name. Does not raise."""
        if not self._ended:
            self._ended = True
            # An error here loses the last frames or the end of the file. A fragmented file plays without them.
            with contextlib.suppress(SinkError, av.FFmpegError, OSError):
                self._writer.finish(_ABORT_SECONDS)
            self._discard_empty()

    def _discard_empty(self) -> None:
        if self._partial and not self.written:
            self._partial.discard()

    @contextlib.contextmanager
    def _sink_errors(self) -> Iterator[None]:
        """Convert the errors of a writer to SinkError."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            kept = f"; the unfinished output is {self.partial_path}" if self._partial and self.written else ""
            raise SinkError(f"can't write {self._output}: {reason(error)}{kept}") from error


def read_back(path: Path, written: int, last_seconds: float | None) -> None:
    """Read a video file and check its number of frames, because a full disk is not always reported.

    With `last_seconds`, the time of the last frame, only the index and the last seconds are read, so the duration of the check
    does not depend on the length of the file.

    Raises:
        SinkError: the file can't be read, or has another number of frames.
    """
    try:
        with av.open(f"file:{path}") as container:
            if last_seconds is None:
                packets = container.demux(video=0)
                count = sum(1 for packet in packets if packet.size and not packet.is_discard)
            else:
                count = _count_by_index(container, written, last_seconds)
    except (av.FFmpegError, OSError, IndexError) as error:
        raise SinkError(f"{path} was written but can't be read back: {reason(error)}") from error
    if count != written:
        raise SinkError(f"{path} contains {count} of {written} frames")


def _count_by_index(container: InputContainer, written: int, last_seconds: float) -> int:
    """Return the number of frames in the index, or a number below `written` if the last frame is missing."""
    video = container.streams.video[0]
    container.seek(round((last_seconds - _END_SECONDS) * 1_000_000))
    timestamps = [packet.pts for packet in container.demux(video) if packet.size and packet.pts is not None]
    tick_seconds = float(video.time_base or 0)
    if not timestamps or max(timestamps) * tick_seconds < last_seconds - max(tick_seconds, 0.001):
        return min(video.frames, written - 1)
    return video.frames or written  # not every container has an index
