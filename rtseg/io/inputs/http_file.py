"""File-like objects for files on HTTP servers, in which a demuxer may seek.

After a seek, FFmpeg's HTTP reader uses wrong bytes if a server closes a connection, or keeps it open, without announcing it.
"""

from __future__ import annotations

import io
import time
from pathlib import PurePosixPath

from rtseg.core.errors import Disconnected
from rtseg.core.secrets import parse_url
from rtseg.io.inputs.byte_stream import HttpResponse

_MAX_DISCARDED_BYTES = 1 << 18
"""Longest forward seek for which bytes are read and discarded. A longer one needs a new request."""

_PAUSE_SECONDS = 1e6
"""Time limit between two reads: in effect none, because a file may be read as slowly as it plays."""

_CHUNK_BYTES = 1 << 16


class HttpFile:
    """File-like object that PyAV reads.

    If the connection fails, `read` returns no more bytes, so that the demuxer can use the data before the failure.

    Args:
        response: unread response to a request for the whole file; closed by this object.
        url: URL of the file. The demuxer may use the suffix of its path to detect the format.
        timeout_seconds: time limit until `set_time_limit` is called.
    """

    def __init__(self, response: HttpResponse, url: str, timeout_seconds: float) -> None:
        self._response = response
        self._length = response.length or 0
        self._position = self._response_position = 0
        self.failure: Disconnected | None = None
        """Error of the last read."""
        self._failed_at: int | None = None
        self.name = PurePosixPath(parse_url(url).path).name
        self.set_time_limit(timeout_seconds)

    def set_time_limit(self, seconds: float) -> None:
        """Set the time limit for all following reads, in seconds from now."""
        self._deadline = time.monotonic() + seconds
        self._response.set_time_limit(_PAUSE_SECONDS)

    def read(self, count: int) -> bytes:
        """Block until data is available, and return 1 to `count` bytes; at the end or after a failure, none."""
        if self._position >= self._length or self._position == self._failed_at:
            return b""
        try:
            self._response.set_time_limit(max(0.0, self._deadline - time.monotonic()))
            data = self._read(count)
            self._response.set_time_limit(_PAUSE_SECONDS)
        except Disconnected as error:
            self.failure, self._failed_at = error, self._position
            self._response_position = self._length  # the next read at another position sends a new request
            return b""
        self.failure = self._failed_at = None
        return data

    def _read(self, count: int) -> bytes:
        if not 0 <= self._position - self._response_position <= _MAX_DISCARDED_BYTES:
            self._response.close()
            self._response = self._response.request_from(self._position, max(0.1, self._deadline - time.monotonic()))
            self._response_position = self._position
        while self._response_position < self._position:
            self._read_response(min(self._position - self._response_position, _CHUNK_BYTES))
        data = self._read_response(count)
        self._position = self._response_position
        return data

    def _read_response(self, count: int) -> bytes:
        data = self._response.read(count)
        if not data:
            position = f"{self._response_position} of {self._length} bytes"
            raise Disconnected(f"{self._response.name}: the connection broke off at {position}")
        self._response_position += len(data)
        return data

    def close(self) -> None:
        """Close the connection."""
        self._response.close()

    def seekable(self) -> bool:
        """Return whether the server sends byte ranges: a seek sends a new request."""
        return self._response.accepts_ranges

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position of the next read."""
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, begin + offset)
        return self._position

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._position
