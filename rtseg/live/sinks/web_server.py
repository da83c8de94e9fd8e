"""HTTP server of the web page."""

from __future__ import annotations

import contextlib
import hmac
import json
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from rtseg._version import __version__
from rtseg.core.errors import OptionError
from rtseg.live.controls import VIEWS
from rtseg.live.sinks.prometheus import exposition

if TYPE_CHECKING:
    from rtseg.live.sinks.web import WebSink

MAX_CONNECTIONS = 32
_COOKIE = "rtseg_token"
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_MAX_BODY_BYTES = 512  # more than all settings, and too few for nested JSON to exceed the recursion limit
_REPEAT_SECONDS = 5.0
_ALIVE_SECONDS = 3.0
_SEND_BUFFER = 1 << 17
_FIELDS: Mapping[str, type | tuple[type, ...]] = {"view": str, "alpha": (int, float), "legend": bool, "paused": bool}
_HEADERS = {
    # Only this page, its style and its script; no embedding in frames; no caching; no referrer to other sites.
    "Content-Security-Policy": "default-src 'none'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Server(ThreadingHTTPServer):
    """HTTP server with a limited number of connections, which are closed with it."""

    def __init__(self, address: tuple[str, int], page: WebSink) -> None:
        """Bind the address. Raises OSError."""
        self.page = page
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind without the DNS lookup of `HTTPServer`, which may take long."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a new thread, or close it if there are too many."""
        with self._lock:
            full = len(self._connections) >= MAX_CONNECTIONS
            if not full:
                self._connections.add(request)
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        """Remove a closed connection."""
        with self._lock:
            self._connections.discard(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect during a response."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """Close the server and all connections immediately."""
        super().server_close()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # already closed
                    connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """Handles the requests of one connection, one after the other."""

    server_version = "rtseg"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 20.0
    """A connection without data in either direction is closed after this time in seconds."""

    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests: their paths may contain the token."""

    def parse_request(self) -> bool:
        """Parse request line, headers and URL. Returns False if one of them is invalid."""
        if not super().parse_request():
            return False
        try:
            url = urlsplit(self.path)
        except ValueError:
            self._refuse(400, "the URL is invalid")
            return False
        self._path, self._tokens = url.path, parse_qs(url.query).get("token", [])
        return True

    def do_GET(self) -> None:
        """Serve the page, frames, metrics and settings."""
        if not self._is_admitted():
            return
        match self._path:
            case "/" if self._tokens:
                self._set_token_cookie()
            case path if path in _FILES:
                name, content_type = _FILES[path]
                self._respond(200, content_type, (files("rtseg.live.sinks") / "web_page" / name).read_bytes())
            case "/stream.mjpg":
                self._stream()
            case "/snapshot.png":
                png = self.server.page.png()
                if png is None:
                    self._refuse(503, "there is no frame yet")
                else:
                    self._respond(200, "image/png", png, {"Content-Disposition": 'inline; filename="rtseg.png"'})
            case "/stats":
                report = self.server.page.metrics.latest
                self._json(200, report.to_dict() if report else {})
            case "/metrics":
                report = self.server.page.metrics.latest
                text = exposition(report) if report else ""
                self._respond(200, "text/plain; version=0.0.4; charset=utf-8", text.encode(errors="replace"))
            case "/controls":
                self._json(200, asdict(self.server.page.controls.settings))
            case "/about":
                self._json(200, {"rtseg": __version__, "views": list(VIEWS), **self.server.page.about()})
            case "/healthz":
                self._health()
            case _:
                self._refuse(404, "there is no such page")

    def do_POST(self) -> None:
        """Change the display settings or request a snapshot."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
            self._refuse(413, "the request is too large")
            return
        body = self.rfile.read(int(length))
        if not self._is_admitted():
            return
        # A form of another site can't send this type; its scripts need a CORS preflight, which is not answered.
        if self.headers.get_content_type() != "application/json":
            self._refuse(415, "send JSON")
        elif self._path == "/controls":
            self._change_settings(body)
        elif self._path == "/controls/snapshot":
            self.server.page.controls.request_snapshot()
            self._json(202, {"snapshot": "requested"})
        else:
            self._refuse(404, "there is no such page")

    # Access

    def _is_admitted(self) -> bool:
        host = self.headers.get("Host", "")
        if not self.server.page.accepts_host(_without_port(host)):
            self._refuse(421, "this page is not served under that name")
            return False
        origin = self.headers.get("Origin")
        cross_site = self.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and self._path != "/"
        if cross_site or (origin is not None and origin != f"http://{host}"):
            self._refuse(403, "requests from other sites are refused")
            return False
        if self._path == "/healthz" or self.server.page.token is None or self._has_token(self.server.page.token):
            return True
        self._refuse(401, "the token is missing: open the link that rtseg printed")
        return False

    def _has_token(self, token: str) -> bool:
        given = [*self._tokens, self.headers.get("Authorization", "").removeprefix("Bearer ")]
        with contextlib.suppress(CookieError):
            given += [
                cookie.value for name, cookie in SimpleCookie(self.headers.get("Cookie")).items() if name == _COOKIE
            ]
        return any(hmac.compare_digest(text.encode(), token.encode()) for text in given)

    def _set_token_cookie(self) -> None:
        """Move the token from the URL, which appears in the history and in screenshots, to a cookie."""
        headers = {"Location": "/"}
        if self.server.page.token is not None:
            headers["Set-Cookie"] = f"{_COOKIE}={self.server.page.token}; HttpOnly; SameSite=Strict; Path=/"
        self._respond(303, "text/plain; charset=utf-8", b"", headers)

    # Responses

    def _stream(self) -> None:
        """Send the latest frame repeatedly until the client disconnects. Frames too many for a slow connection are skipped."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._send_head(200, "multipart/x-mixed-replace; boundary=frame", None)
        self.wfile.write(b"--frame\r\n")
        serial = 0
        while not self.server.page.closed:
            serial, jpeg = self.server.page.wait_newer_jpeg(serial, _REPEAT_SECONDS)
            if jpeg and not self.server.page.closed:
                # Send the next boundary with this part: browsers show a part only when they have received its end.
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n--frame\r\n")

    def _change_settings(self, body: bytes) -> None:
        try:
            changes = json.loads(body)
            if not isinstance(changes, dict) or not changes or not changes.keys() <= _FIELDS.keys():
                raise OptionError(f"send an object with some of {', '.join(_FIELDS)}")
            for name, value in changes.items():
                if not isinstance(value, _FIELDS[name]) or (name == "alpha" and isinstance(value, bool)):
                    raise OptionError(f"{name} can't be {json.dumps(value)}")
            self.server.page.controls.set(**changes)
        except (OptionError, ValueError) as error:  # invalid JSON is a ValueError
            self._refuse(400, str(error))
        else:
            self._json(200, asdict(self.server.page.controls.settings))

    def _health(self) -> None:
        """Report the state of the run: it is alive if it publishes a new report soon, as it does every second."""
        before = self.server.page.metrics.latest
        report = self.server.page.metrics.wait_newer(before, _ALIVE_SECONDS)
        if report is None or report is before:
            self._json(503, {"status": "stalled", "why": f"no new report for {_ALIVE_SECONDS:g} s"})
        else:
            self._json(200, {"status": "ok", "connected": report.totals.disconnects.connected})

    def _json(self, status: int, data: Mapping[str, Any]) -> None:
        self._respond(status, "application/json", json.dumps(dict(data)).encode())

    def _refuse(self, status: int, reason: str) -> None:
        self.close_connection = True
        self._json(status, {"error": reason})

    def _respond(self, status: int, content_type: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._send_head(status, content_type, len(body), headers)
        self.wfile.write(body)

    def _send_head(
        self, status: int, content_type: str, length: int | None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, **_HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


def _without_port(host: str) -> str:
    """Return the host of `[::1]:8080` or `localhost:8080`."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
