"""A file behind http, in which a demuxer goes to and fro.

FFmpeg's own reader takes wrong bytes behind a seek where a server closes, or keeps open, a connection without saying so.
"""

from __future__ import annotations

import io
import time
from pathlib import PurePosixPath

from rtseg.core.errors import Disconnected
from rtseg.core.secrets import parse_url
from rtseg.io.inputs.byte_stream import HttpAnswer

_READ_ON_BYTES = 1 << 18
"""Up to this far ahead it reads on rather than ask again."""

_PAUSE_SECONDS = 1e6
"""Between two reads no time limit holds: a file may be read as slowly as it plays."""

_PIECE_BYTES = 1 << 16


class HttpFile:
    """What PyAV reads a file with.

    Args:
        answer: to a request for the whole file, nothing of it taken yet; closed by this object.
        url: of the file; the end of its path tells the demuxer what kind of file it may be.
        timeout_seconds: until `allow` is called.

    A connection that fails is the end for the demuxer, so that what came before it can be used; `check` tells.
    """

    def __init__(self, answer: HttpAnswer, url: str, timeout_seconds: float) -> None:
        self._answer = answer
        self._length = answer.length or 0
        self._position = self._at = 0  # where to read, and where the answer is
        self.failure: Disconnected | None = None
        self._failed_at: int | None = None
        self.name = PurePosixPath(parse_url(url).path).name
        self.allow(timeout_seconds)

    def allow(self, seconds: float) -> None:
        """Let what is read from now on take so long."""
        self._until = time.monotonic() + seconds
        self._answer.allow(_PAUSE_SECONDS)

    def read(self, count: int) -> bytes:
        """Return 1 to `count` bytes; none at the end, and where the connection failed."""
        if self._position >= self._length or self._position == self._failed_at:
            return b""
        try:
            self._answer.allow(max(0.0, self._until - time.monotonic()))
            data = self._read(count)
            self._answer.allow(_PAUSE_SECONDS)
        except Disconnected as error:
            self.failure, self._failed_at = error, self._position
            self._at = self._length  # of another place it has to be asked for again
            return b""
        self.failure = self._failed_at = None
        return data

    def check(self) -> None:
        """Raise Disconnected where the connection failed."""
        if self.failure is not None:
            raise self.failure

    def _read(self, count: int) -> bytes:
        if not 0 <= self._position - self._at <= _READ_ON_BYTES:
            self._answer.close()
            self._answer = self._answer.part(self._position, max(0.1, self._until - time.monotonic()))
            self._at = self._position
        while self._at < self._position:
            self._take(min(self._position - self._at, _PIECE_BYTES))
        data = self._take(count)
        self._position = self._at
        return data

    def _take(self, count: int) -> bytes:
        data = self._answer.read(count)
        if not data:
            raise Disconnected(f"{self._answer.name}: the connection broke off at {self._at} of {self._length} bytes")
        self._at += len(data)
        return data

    def close(self) -> None:
        """End the connection."""
        self._answer.close()


class SeekableHttpFile(HttpFile):
    """The same of a server that sends parts of files: one is asked for where the next read is somewhere else."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set where the next read begins."""
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, begin + offset)
        return self._position

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._position
