"""Byte streams from HTTP and TCP servers, with passwords, redirects, chunked transfer and a strict time limit."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
from collections import deque
from email.message import Message
from typing import Any
from urllib.error import HTTPError, URLError

from rtseg.core.errors import Disconnected, reason
from rtseg.core.secrets import parse_url
from rtseg.io.inputs.http_request import TimeLimit, send_request

_ADVICE = {
    401: "give user and password in the URL, as in http://USER:PASSWORD@HOST/",
    403: "this user has no access",
    404: "check the path of the URL",
    503: "the camera may have too many viewers",
}


_MAX_ARRIVALS = 1 << 14
"""Largest number of reads whose arrival times are stored."""


class ByteStream:
    """Bytes from a server.

    A read that exceeds the time limit raises `Disconnected`, even while single bytes arrive.
    """

    content_type = ""
    """MIME type, such as `multipart/x-mixed-replace`; empty: not stated."""
    multipart = False
    """True if the MIME type is multipart."""
    boundary: str | None = None
    """Stated boundary between parts."""
    length: int | None = None
    """Total number of bytes; None: not stated."""
    accepts_ranges = False
    """True if the server states that it sends byte ranges of a file."""
    is_requested_range = False
    """True if the response is the requested byte range."""

    def __init__(self, url: str, name: str, timeout_seconds: float) -> None:
        """Connect.

        Args:
            url: URL, which may contain user and password.
            name: name for messages, without passwords.
            timeout_seconds: limit up to the first byte of the body; see `set_time_limit` for later reads.

        Raises:
            Disconnected: no response arrives in time, or the response is an error.
        """
        self._url, self.name, self._timeout = url, name, timeout_seconds
        self._limit = TimeLimit(timeout_seconds)
        self._peeked = b""
        self._received = 0
        self._arrivals: deque[tuple[int, int]] = deque(maxlen=_MAX_ARRIVALS)
        """Total number of bytes and arrival time of each read."""
        try:
            self._body: Any = self._open(url, timeout_seconds)
        except BaseException as error:
            self._limit.close()
            if isinstance(error, (HTTPError, URLError, OSError, http.client.HTTPException, ValueError)):
                # The cause is left out: its text may contain the URL with the password.
                raise Disconnected(f"can't open {name}: {self._reason(error)}") from None
            raise

    def _open(self, url: str, timeout_seconds: float) -> Any:
        """Return an object with a method `read1`."""
        raise NotImplementedError

    def set_time_limit(self, seconds: float) -> None:
        """Set the time limit for all following reads, in seconds from now."""
        self._limit.set(seconds)

    def read(self, count: int) -> bytes:
        """Block until data is available, and return 1 to `count` bytes; at the end, none.

        Raises:
            Disconnected: the connection failed, or the time limit is exceeded.
        """
        if self._peeked:
            data, self._peeked = self._peeked[:count], self._peeked[count:]
            return data
        if self.length is not None:
            count = min(count, self.length - self._received)
        try:
            data = self._body.read1(count) if count else b""
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            # This includes a call of `close` during the read.
            raise Disconnected(f"{self.name}: the connection failed ({self._reason(error)})") from None
        if not data and self._limit.expired:
            raise Disconnected(f"{self.name}: the connection failed (no data arrived in time)")
        self._received += len(data)
        self._arrivals.append((self._received, time.monotonic_ns()))
        if not data and self.length is not None and self._received < self.length:
            raise Disconnected(f"{self.name}: the connection broke off at {self._received} of {self.length} bytes")
        return data

    def peek(self, count: int) -> bytes:
        """Return up to `count` bytes without removing them from the stream."""
        while len(self._peeked) < count:
            peeked, self._peeked = self._peeked, b""
            data = self.read(count)
            self._peeked = peeked + data
            if not data:
                break
        return self._peeked[:count]

    def arrival_ns(self, offset: int | None) -> int | None:
        """Return the arrival time of the byte at an offset, as `time.monotonic_ns()` measures it; None: unknown.

        Offsets must not fall from call to call.
        """
        if offset is None or offset < 0:
            return None
        while self._arrivals and self._arrivals[0][0] <= offset:
            self._arrivals.popleft()
        return self._arrivals[0][1] if self._arrivals else None

    def reconnect(self) -> ByteStream:
        """Close this stream and return a new one from the same URL."""
        self.close()
        return type(self)(self._url, self.name, self._timeout)

    def close(self) -> None:
        """Close the connection. A call from another thread ends a blocked read."""
        self._limit.close()

    def _reason(self, error: BaseException) -> str:
        if self._limit.expired:
            return "no data arrived in time"
        if isinstance(error, HTTPError):
            with contextlib.suppress(OSError):
                error.close()
            advice = _ADVICE.get(error.code, "the server reports an internal error" if error.code >= 500 else "")
            if error.code == 401 and parse_url(self._url).user_info is not None:
                advice = "the user or the password is wrong"
            phrase = http.client.responses.get(error.code, "")
            return f"the server responds with {error.code} {phrase}".rstrip() + (f"; {advice}" if advice else "")
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, str):  # from `UnknownHandler`, for a redirect
            return "it redirects to an address that is not http or https"
        if isinstance(cause, TimeoutError):
            return "no data arrived in time"
        if isinstance(cause, ssl.SSLError):
            return f"no TLS connection ({cause.reason or 'failed'})"
        if isinstance(cause, http.client.RemoteDisconnected):
            return "it was closed before a response arrived"
        if isinstance(cause, http.client.IncompleteRead) and not _has_bad_chunk_size(cause):
            return "the server closed it"
        if isinstance(cause, OSError) and cause.strerror:
            return reason(cause)
        if isinstance(cause, (http.client.HTTPException, ValueError)):
            return "the response is not valid HTTP"
        return type(cause).__name__


class DemuxerInput:
    """File-like object that PyAV reads.

    If the connection fails, `read` returns no more bytes, so that the demuxer returns the frames that it has.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.failure: Disconnected | None = None
        """Error of the last read."""

    def read(self, count: int) -> bytes:
        """Block until data is available, and return 1 to `count` bytes; at the end or after a failure, none."""
        try:
            return self._stream.read(count)
        except Disconnected as error:
            self.failure = error
            return b""

    def set_time_limit(self, seconds: float) -> None:
        """Set the time limit for all following reads, in seconds from now."""
        self._stream.set_time_limit(seconds)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()


def _has_bad_chunk_size(error: http.client.IncompleteRead) -> bool:
    """Return whether a chunk size is invalid. (At the end of the connection it is missing.)"""
    return isinstance(error.__context__, ValueError) and not str(error.__context__).endswith(": b''")


class TcpStream(ByteStream):
    """Bytes from a TCP server that needs no request."""

    def _open(self, url: str, timeout_seconds: float) -> Any:
        parts = parse_url(url)
        connection = self._limit.connect((parts.host.strip("[]"), parts.port or 0), timeout_seconds)
        connection.settimeout(None)  # `TimeLimit` closes it
        with connection:
            return connection.makefile("rb")


class HttpResponse(ByteStream):
    """Response to a GET request. `first` is the first byte of the requested range; None: the request has no range."""

    def __init__(self, url: str, name: str, timeout_seconds: float, *, first: int | None = None) -> None:
        self._first = first
        super().__init__(url, name, timeout_seconds)

    def request_from(self, first: int, timeout_seconds: float) -> HttpResponse:
        """Request the file from the byte `first` to the end.

        Raises:
            Disconnected: no response arrives in time, or the response is an error or another byte range.
        """
        response = HttpResponse(self._url, self.name, timeout_seconds, first=first)
        if first and not response.is_requested_range:
            response.close()
            raise Disconnected(f"{self.name}: the server does not send the requested part of the file")
        return response

    def _open(self, url: str, timeout_seconds: float) -> Any:
        response = send_request(url, timeout_seconds, self._limit, first=self._first)
        headers: Message = response.headers
        self.content_type = headers.get_content_type() if headers.get("Content-Type") else ""
        self.multipart = self.content_type.startswith("multipart/")
        boundary = headers.get_param("boundary") if self.multipart else None
        self.boundary = boundary if isinstance(boundary, str) else None
        length = headers.get("Content-Length", "")
        chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        self.length = int(length) if length.isdecimal() and not chunked else None
        span = headers.get("Content-Range", "").lower().split()
        self.is_requested_range = (
            response.status == 206 and span[:1] == ["bytes"] and span[-1].startswith(f"{self._first}-")
        )
        self.accepts_ranges = self.is_requested_range or "bytes" in headers.get("Accept-Ranges", "").lower()
        if self.multipart and not chunked:
            self.length = response.length = None  # some cameras send an arbitrary number
        return response
