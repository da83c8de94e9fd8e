"""Byte streams from HTTP and TCP servers, with passwords, redirects, chunked transfer and a strict time limit."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from email.message import Message
from functools import partial
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import (
    AbstractHTTPHandler,
    HTTPBasicAuthHandler,
    HTTPDefaultErrorHandler,
    HTTPDigestAuthHandler,
    HTTPErrorProcessor,
    HTTPPasswordMgrWithDefaultRealm,
    HTTPRedirectHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from rtseg.core.errors import Disconnected
from rtseg.core.secrets import parse_url

_ADVICE = {
    401: "give user and password in the URL, as in http://USER:PASSWORD@HOST/",
    403: "this user has no access",
    404: "check the path of the URL",
    503: "the camera may have too many viewers",
}


class ByteStream:
    """Bytes from a server.

    A read that exceeds the time limit raises `Disconnected`, even if single bytes keep arriving.
    """

    content_type = ""
    """MIME type, such as `multipart/x-mixed-replace`; empty: not stated."""
    multipart = False
    """Whether the body has several parts, according to the MIME type."""
    boundary: str | None = None
    """Stated boundary between parts."""
    length: int | None = None
    """Total number of bytes; None: not stated."""
    accepts_ranges = False
    """Whether the server states that it sends byte ranges of a file."""
    is_requested_range = False
    """Whether it is the requested byte range."""

    def __init__(self, url: str, name: str, timeout_seconds: float) -> None:
        """Connect.

        Args:
            url: may contain user and password.
            name: for messages, without passwords.
            timeout_seconds: limit up to the first byte of the body; afterwards see `set_time_limit`.

        Raises:
            Disconnected: no response arrives in time, or the response is an error.
        """
        self._url, self.name, self._timeout = url, name, timeout_seconds
        self._limit = _TimeLimit(timeout_seconds)
        self._peeked = b""
        self._received = 0
        self._opening = True
        self._arrivals: list[tuple[int, int]] = []  # number of bytes received and its time, while the stream is opened
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
        """Set the time limit for all reads from now on, in seconds from now."""
        self._limit.set(seconds)

    def read(self, count: int) -> bytes:
        """Return 1 to `count` bytes, as soon as any are available; none at the end.

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
            # Among others, the stream was closed during the read.
            raise Disconnected(f"{self.name}: the connection failed ({self._reason(error)})") from None
        if not data and self._limit.expired:
            raise Disconnected(f"{self.name}: the connection failed (no data arrived in time)")
        self._received += len(data)
        if self._opening:
            self._arrivals.append((self._received, time.monotonic_ns()))
        if not data and self.length is not None and self._received < self.length:
            raise Disconnected(f"{self.name}: the connection broke off at {self._received} of {self.length} bytes")
        return data

    def peek(self, count: int) -> bytes:
        """Return the next bytes, up to `count`, without removing them."""
        while len(self._peeked) < count:
            peeked, self._peeked = self._peeked, b""
            data = self.read(count)
            self._peeked = peeked + data
            if not data:
                break
        return self._peeked[:count]

    def finish_opening(self) -> None:
        """Stop recording arrival times: bytes that are read from now on are used immediately."""
        self._opening = False

    def arrival_ns(self, offset: int | None) -> int | None:
        """Return the arrival time of the byte at an offset, by `time.monotonic_ns()`; None: after the opening."""
        if offset is None or offset < 0:
            return None
        return next((when for end, when in self._arrivals if offset < end), None)

    def reconnect(self) -> ByteStream:
        """Close this stream and return a new one from the same URL."""
        self.close()
        return type(self)(self._url, self.name, self._timeout)

    def check(self) -> None:
        """Raise Disconnected if the end was caused by a failure. Here `read` raises it."""

    def close(self) -> None:
        """Close the connection. From another thread, end a blocked read."""
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
        if isinstance(cause, str):  # from `UnknownHandler`, on a redirect
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
            return cause.strerror[:1].lower() + cause.strerror[1:]
        if isinstance(cause, (http.client.HTTPException, ValueError)):
            return "the response is not valid HTTP"
        return type(cause).__name__


def _has_bad_chunk_size(error: http.client.IncompleteRead) -> bool:
    """Return whether a chunk size was invalid, rather than missing at the end of the connection."""
    return isinstance(error.__context__, ValueError) and not str(error.__context__).endswith(": b''")


class TcpStream(ByteStream):
    """Bytes from a TCP server that needs no request."""

    def _open(self, url: str, timeout_seconds: float) -> Any:
        parts = parse_url(url)
        connection = self._limit.connect((parts.host.strip("[]"), parts.port or 0), timeout_seconds)
        connection.settimeout(None)  # the time limit shuts it down
        with connection:
            return connection.makefile("rb")


class HttpResponse(ByteStream):
    """Response to a GET request.

    Args:
        first: first byte of the requested range; None: the request has no range.
    """

    def __init__(self, url: str, name: str, timeout_seconds: float, *, first: int | None = None) -> None:
        self._first = first
        super().__init__(url, name, timeout_seconds)

    def request_from(self, first: int, timeout_seconds: float) -> HttpResponse:
        """Return the response to a request for the file from a byte on.

        Raises:
            Disconnected: no response arrives in time, the response is an error, or it is another byte range.
        """
        response = HttpResponse(self._url, self.name, timeout_seconds, first=first)
        response.finish_opening()
        if first and not response.is_requested_range:
            response.close()
            raise Disconnected(f"{self.name}: the server does not send the requested part of the file")
        return response

    def _open(self, url: str, timeout_seconds: float) -> Any:
        response = _request(url, timeout_seconds, self._limit, self._first)
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


def _request(url: str, timeout_seconds: float, limit: _TimeLimit, first: int | None) -> Any:
    parts = parse_url(url)
    query = parts.tail[len(parts.path) :].partition("#")[0].removeprefix("?")
    plain = urlunsplit((parts.scheme, parts.address, quote(parts.path, safe="/%:=&~+!$,;'@()*"), query, ""))
    opener = OpenerDirector()
    handlers: list[Any] = [
        ProxyHandler(),
        UnknownHandler(),
        _Handler(limit),
        HTTPDefaultErrorHandler(),
        _RedirectHandler(),
        HTTPErrorProcessor(),
    ]
    if parts.user_info is not None:
        user, _, password = parts.user_info.partition(":")
        passwords = HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, f"{parts.scheme}://{parts.address}/", unquote(user), unquote(password))
        handlers += [HTTPDigestAuthHandler(passwords), HTTPBasicAuthHandler(passwords)]
    for handler in handlers:
        opener.add_handler(handler)
    headers = {"User-Agent": "rtseg", "Accept": "*/*"} | ({} if first is None else {"Range": f"bytes={first}-"})
    request = Request(plain.replace(" ", "%20"), headers=headers)
    return opener.open(request, timeout=timeout_seconds)


class _RedirectHandler(HTTPRedirectHandler):
    """Handler for redirects, including those to addresses with user and password."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        parts = urlsplit(newurl)
        user_info, _, address = parts.netloc.rpartition("@")
        if user_info:
            user, _, password = user_info.partition(":")
            passwords = HTTPPasswordMgrWithDefaultRealm()
            passwords.add_password(None, f"{parts.scheme}://{address}/", unquote(user), unquote(password))
            for handler in (HTTPDigestAuthHandler(passwords), HTTPBasicAuthHandler(passwords)):
                self.parent.add_handler(handler)
            newurl = urlunsplit(parts._replace(netloc=address))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _TimeLimit:
    """Deadline after which connections are shut down."""

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._changed = threading.Condition()
        self._end = time.monotonic() + seconds
        self._closed = False
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._watch, name="http-time-limit", daemon=True).start()

    def connect(self, address: tuple[str, int], *arguments: Any) -> socket.socket:
        """Return a connection that is shut down at the deadline. Arguments as for `socket.create_connection`."""
        connection = socket.create_connection(address, *arguments)
        with self._changed:
            if self._closed or self.expired:
                connection.close()
                raise TimeoutError
            self._sockets.append(connection.dup())  # TLS takes ownership of the socket itself
        return connection

    def set(self, seconds: float) -> None:
        with self._changed:
            self._end = time.monotonic() + seconds
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._shut()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                left = self._end - time.monotonic()
                if left <= 0:
                    self.expired = True
                    self._shut()
                    return
                self._changed.wait(left)

    def _shut(self) -> None:
        for connection in self._sockets:
            with contextlib.suppress(OSError):  # the peer may have closed it
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._sockets.clear()


class _HttpConnection(http.client.HTTPConnection):
    def __init__(self, *arguments: Any, limit: _TimeLimit, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._create_connection = limit.connect


class _HttpsConnection(http.client.HTTPSConnection):
    def __init__(self, *arguments: Any, limit: _TimeLimit, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._create_connection = limit.connect


class _Handler(AbstractHTTPHandler):
    """Handler for http:// and https://. Like FFmpeg, it does not check certificates: those of cameras are self-signed."""

    def __init__(self, limit: _TimeLimit) -> None:
        super().__init__()
        self._limit = limit
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE

    def http_open(self, request: Request) -> Any:
        return self.do_open(partial(_HttpConnection, limit=self._limit), request)

    def https_open(self, request: Request) -> Any:
        return self.do_open(partial(_HttpsConnection, limit=self._limit, context=self._tls), request)

    http_request = https_request = AbstractHTTPHandler.do_request_
