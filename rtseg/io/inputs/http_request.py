"""GET requests with passwords, redirects and a deadline for the whole response."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from functools import partial
from typing import Any
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

from rtseg.core.secrets import parse_url


def send_request(url: str, timeout_seconds: float, limit: TimeLimit, *, first: int | None = None) -> Any:
    """Send a GET request and return the response.

    Args:
        url: may contain user and password.
        timeout_seconds: limit for each operation on the socket.
        limit: deadline for the whole response.
        first: first byte of the requested range; None: the request has no range.
    """
    parts = parse_url(url)
    query = parts.tail[len(parts.path) :].partition("#")[0].removeprefix("?")
    plain = urlunsplit((parts.scheme, parts.address, quote(parts.path, safe="/%:=&~+!$,;'@()*"), query, ""))
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        UnknownHandler(),
        _Handler(limit),
        HTTPDefaultErrorHandler(),
        _RedirectHandler(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    if parts.user_info is not None:
        _add_password(opener, parts.user_info, f"{parts.scheme}://{parts.address}/")
    headers = {"User-Agent": "rtseg", "Accept": "*/*"} | ({} if first is None else {"Range": f"bytes={first}-"})
    request = Request(plain.replace(" ", "%20"), headers=headers)
    return opener.open(request, timeout=timeout_seconds)


def _add_password(opener: OpenerDirector, user_info: str, root: str) -> None:
    """Let an opener send a quoted `user:password` to the server at the URL `root` if it requests them."""
    user, _, password = user_info.partition(":")
    passwords = HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, root, unquote(user), unquote(password))
    opener.add_handler(HTTPDigestAuthHandler(passwords))
    opener.add_handler(HTTPBasicAuthHandler(passwords))


class _RedirectHandler(HTTPRedirectHandler):
    """Handler for redirects, including those to addresses with user and password."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        parts = urlsplit(newurl)
        user_info, _, address = parts.netloc.rpartition("@")
        if user_info:
            _add_password(self.parent, user_info, f"{parts.scheme}://{address}/")
            newurl = urlunsplit(parts._replace(netloc=address))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class TimeLimit:
    """Deadline after which connections are shut down."""

    def __init__(self, seconds: float) -> None:
        self.expired = False
        """True if the deadline has passed."""
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
        """Set the deadline, in seconds from now."""
        with self._changed:
            self._end = time.monotonic() + seconds
            self._changed.notify_all()

    def close(self) -> None:
        """Shut all connections down."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._shut()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                remaining = self._end - time.monotonic()
                if remaining <= 0:
                    self.expired = True
                    self._shut()
                    return
                self._changed.wait(remaining)

    def _shut(self) -> None:
        for connection in self._sockets:
            with contextlib.suppress(OSError):  # the peer may have closed it
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._sockets.clear()


class _Handler(AbstractHTTPHandler):
    """Handler for http:// and https://. Like FFmpeg, it does not check certificates: those of cameras are self-signed."""

    def __init__(self, limit: TimeLimit) -> None:
        super().__init__()
        self._limit = limit
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE

    def http_open(self, request: Request) -> Any:
        return self.do_open(partial(self._connection, http.client.HTTPConnection), request)

    def https_open(self, request: Request) -> Any:
        return self.do_open(partial(self._connection, http.client.HTTPSConnection, context=self._tls), request)

    def _connection(self, kind: Any, host: str, **options: Any) -> Any:
        connection = kind(host, **options)
        connection._create_connection = self._limit.connect
        return connection

    http_request = https_request = AbstractHTTPHandler.do_request_
