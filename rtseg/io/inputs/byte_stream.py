"""Bytes from HTTP and TCP servers, read as they come: with passwords, redirections, chunks, and a time limit that holds."""

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
    403: "this user may not see it",
    404: "check the path of the URL",
    503: "the camera may have too many viewers",
}


class Answer:
    """Bytes of a server, read piece by piece.

    Whatever takes longer than was allowed ends in `Disconnected`, even where single bytes keep coming.
    """

    content_type = ""
    """Such as `multipart/x-mixed-replace`; empty: not told."""
    multipart = False
    """Whether it says that parts follow each other."""
    boundary: str | None = None
    """What it says that stands between parts."""
    length: int | None = None
    """Bytes in all; None: not told."""
    sends_ranges = False
    """Whether it says that it sends parts of a file."""
    is_part = False
    """Whether it is the part of a file that was asked for."""

    def __init__(self, url: str, name: str, timeout_seconds: float) -> None:
        """Connect.

        Args:
            url: may hold user and password.
            name: for messages, without passwords.
            timeout_seconds: for all up to the first byte of the body; later `allow` says.

        Raises:
            Disconnected: nobody answers in time, or the answer is an error.
        """
        self._url, self.name, self._timeout = url, name, timeout_seconds
        self._limit = _TimeLimit(timeout_seconds)
        self._kept = b""
        self._received = 0
        self._opening = True
        self._pieces: list[tuple[int, int]] = []  # how much was there, and since when, while it was opened
        try:
            self._body: Any = self._open(url, timeout_seconds)
        except BaseException as error:
            self._limit.close()
            if isinstance(error, (HTTPError, URLError, OSError, http.client.HTTPException, ValueError)):
                # The cause is left out: its text may hold the URL with its password.
                raise Disconnected(f"can't open {name}: {self._reason(error)}") from None
            raise

    def _open(self, url: str, timeout_seconds: float) -> Any:
        """Return what has `read1`."""
        raise NotImplementedError

    def allow(self, seconds: float) -> None:
        """Let what is read from now on take so long."""
        self._limit.allow(seconds)

    def read(self, count: int) -> bytes:
        """Return 1 to `count` bytes, as soon as any are there; none at the end.

        Raises:
            Disconnected: the connection failed, or the time is over.
        """
        if self._kept:
            data, self._kept = self._kept[:count], self._kept[count:]
            return data
        if self.length is not None:
            count = min(count, self.length - self._received)
        try:
            data = self._body.read1(count) if count else b""
        except (
            OSError,
            ValueError,
            AttributeError,
            http.client.HTTPException,
        ) as error:  # closed in mid-read, among others
            raise Disconnected(f"{self.name}: the connection failed ({self._reason(error)})") from None
        if not data and self._limit.expired:
            raise Disconnected(f"{self.name}: the connection failed (nothing came in time)")
        self._received += len(data)
        if self._opening:
            self._pieces.append((self._received, time.monotonic_ns()))
        if not data and self.length is not None and self._received < self.length:
            raise Disconnected(f"{self.name}: the connection broke off at {self._received} of {self.length} bytes")
        return data

    def peek(self, count: int) -> bytes:
        """Return the first bytes, up to `count`, without taking them away."""
        while len(self._kept) < count:
            kept, self._kept = self._kept, b""
            data = self.read(count)
            self._kept = kept + data
            if not data:
                break
        return self._kept[:count]

    def opened(self) -> None:
        """End the opening: what is read from now on is used at once."""
        self._opening = False

    def arrival_ns(self, offset: int | None) -> int | None:
        """Return when the byte at an offset came, by `time.monotonic_ns()`; None: after the opening."""
        if offset is None or offset < 0:
            return None
        return next((when for end, when in self._pieces if offset < end), None)

    def again(self) -> Answer:
        """Close this answer and ask for another."""
        self.close()
        return type(self)(self._url, self.name, self._timeout)

    def check(self) -> None:
        """Raise Disconnected where a failure was taken for the end: here `read` raises it."""

    def close(self) -> None:
        """End the connection; from another thread it ends a blocked read."""
        self._limit.close()

    def _reason(self, error: BaseException) -> str:
        if self._limit.expired:
            return "nothing came in time"
        if isinstance(error, HTTPError):
            with contextlib.suppress(OSError):
                error.close()
            advice = _ADVICE.get(error.code, "the server reports an error of its own" if error.code >= 500 else "")
            if error.code == 401 and parse_url(self._url).user_info is not None:
                advice = "the user or the password is wrong"
            words = http.client.responses.get(error.code, "")
            return f"the server answers {error.code} {words}".rstrip() + (f"; {advice}" if advice else "")
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, str):  # `UnknownHandler`, of a redirection
            return "it leads to an address that is not http or https"
        if isinstance(cause, TimeoutError):
            return "nothing came in time"
        if isinstance(cause, ssl.SSLError):
            return f"no TLS connection ({cause.reason or 'failed'})"
        if isinstance(cause, http.client.RemoteDisconnected):
            return "it was closed before an answer came"
        if isinstance(cause, http.client.IncompleteRead) and not _no_chunk(cause):
            return "the server closed it"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror[:1].lower() + cause.strerror[1:]
        if isinstance(cause, (http.client.HTTPException, ValueError)):
            return "this is no HTTP that can be understood"
        return type(cause).__name__


def _no_chunk(error: http.client.IncompleteRead) -> bool:
    """Whether there was something else where the size of a chunk should be, rather than the end of the connection."""
    return isinstance(error.__context__, ValueError) and not str(error.__context__).endswith(": b''")


class TcpAnswer(Answer):
    """What a server sends that nothing has to be said to."""

    def _open(self, url: str, timeout_seconds: float) -> Any:
        parts = parse_url(url)
        made = self._limit.connect((parts.host.strip("[]"), parts.port or 0), timeout_seconds)
        made.settimeout(None)  # the time limit shuts it down
        with made:
            return made.makefile("rb")


class HttpAnswer(Answer):
    """The answer to a GET request.

    Args:
        first: the byte of a file from which on it is asked for; None: nothing is said of parts.
    """

    def __init__(self, url: str, name: str, timeout_seconds: float, *, first: int | None = None) -> None:
        self._first = first
        super().__init__(url, name, timeout_seconds)

    def part(self, first: int, timeout_seconds: float) -> HttpAnswer:
        """Return the answer to a request for the file from a byte on.

        Raises:
            Disconnected: as for any answer, or it is another part.
        """
        answer = HttpAnswer(self._url, self.name, timeout_seconds, first=first)
        answer.opened()
        if first and not answer.is_part:
            answer.close()
            raise Disconnected(f"{self.name}: the server does not send the part of the file that was asked for")
        return answer

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
        self.is_part = response.status == 206 and span[:1] == ["bytes"] and span[-1].startswith(f"{self._first}-")
        self.sends_ranges = self.is_part or "bytes" in headers.get("Accept-Ranges", "").lower()
        if self.multipart and not chunked:
            self.length = response.length = None  # some cameras send any number
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
        _Redirections(),
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


class _Redirections(HTTPRedirectHandler):
    """Follows redirections, those to addresses with user and password included."""

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
    """Shuts connections down when the time that was allowed is over."""

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._changed = threading.Condition()
        self._end = time.monotonic() + seconds
        self._closed = False
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._watch, name="http-time-limit", daemon=True).start()

    def connect(self, address: tuple[str, int], *arguments: Any) -> socket.socket:
        """Return a connection that is shut down in time: as `socket.create_connection`."""
        made = socket.create_connection(address, *arguments)
        with self._changed:
            if self._closed or self.expired:
                made.close()
                raise TimeoutError
            self._sockets.append(made.dup())  # TLS takes the socket itself over
        return made

    def allow(self, seconds: float) -> None:
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
        for one in self._sockets:
            with contextlib.suppress(OSError):  # it may be closed at the other end
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._sockets.clear()


class _Plain(http.client.HTTPConnection):
    def __init__(self, *arguments: Any, limit: _TimeLimit, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._create_connection = limit.connect


class _Tls(http.client.HTTPSConnection):
    def __init__(self, *arguments: Any, limit: _TimeLimit, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._create_connection = limit.connect


class _Handler(AbstractHTTPHandler):
    """Opens http:// and https://. Certificates are not checked, as FFmpeg does not: those of cameras are their own."""

    def __init__(self, limit: _TimeLimit) -> None:
        super().__init__()
        self._limit = limit
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE

    def http_open(self, request: Request) -> Any:
        return self.do_open(partial(_Plain, limit=self._limit), request)

    def https_open(self, request: Request) -> Any:
        return self.do_open(partial(_Tls, limit=self._limit, context=self._tls), request)

    http_request = https_request = AbstractHTTPHandler.do_request_
