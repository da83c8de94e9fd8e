"""One request of the web page: checked, then answered."""

from __future__ import annotations

import hmac
import json
import socket
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from rtseg._version import __version__
from rtseg.core.errors import OptionError
from rtseg.live.controls import VIEWS, Controls, LiveNumbers
from rtseg.live.sinks.prometheus import exposition

COOKIE = "rtseg_token"
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_LARGEST_BODY = 4096
_REPEAT_SECONDS = 5.0
_ALIVE_SECONDS = 3.0
_SEND_BUFFER = 1 << 17
_FIELDS: Mapping[str, type | tuple[type, ...]] = {"view": str, "alpha": (int, float), "legend": bool, "paused": bool}
_HEADERS = {
    # Nothing but our own page, style and script; in nobody's frame; nothing kept; no name handed on to other sites.
    "Content-Security-Policy": "default-src 'none'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class WebPage(Protocol):
    """The state that requests read and change."""

    controls: Controls
    numbers: LiveNumbers
    token: str | None

    @property
    def closed(self) -> bool:
        """True once the page is no longer served."""

    def newer_jpeg(self, serial: int, timeout_seconds: float) -> tuple[int, bytes]:
        """Return a frame newer than `serial` with its own serial number, or the last one after the timeout."""

    def png(self) -> bytes | None:
        """Return the latest frame at full size, None before the first."""

    def about(self) -> Mapping[str, Any]:
        """Return what does not change during a run."""

    def admits_host(self, host: str) -> bool:
        """Return True if a request for this host name belongs to this page."""


class Handler(BaseHTTPRequestHandler):
    """Answers what one browser asks, one request after the other."""

    server_version = "rtseg"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 20.0
    """Seconds without a byte, in either direction, after which a connection is dropped."""

    @property
    def page(self) -> WebPage:
        """What is shown."""
        return self.server.page  # type: ignore[attr-defined,no-any-return]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged for each request: paths may hold the token."""

    def do_GET(self) -> None:
        """Pictures, numbers, the page."""
        url = urlsplit(self.path)
        if not self._admitted(url.path, parse_qs(url.query).get("token", [""])[0]):
            return
        if url.path == "/" and "token" in parse_qs(url.query):
            self._keep_token()
            return
        match url.path:
            case "/" | "/page.css" | "/page.js":
                name, kind = _FILES[url.path]
                self._answer(200, kind, (files("rtseg.live.sinks") / "page" / name).read_bytes())
            case "/stream.mjpg":
                self._stream()
            case "/snapshot.png":
                picture = self.page.png()
                if picture is None:
                    self._refuse(503, "there is no picture yet")
                else:
                    self._answer(200, "image/png", picture, {"Content-Disposition": 'inline; filename="rtseg.png"'})
            case "/stats":
                self._json(200, self.page.numbers.latest)
            case "/metrics":
                text = exposition(self.page.numbers.latest)
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", text.encode())
            case "/controls":
                self._controls()
            case "/about":
                self._json(200, {"rtseg": __version__, "views": list(VIEWS), **self.page.about()})
            case "/healthz":
                self._health()
            case _:
                self._refuse(404, "there is no such page")

    def do_POST(self) -> None:
        """The page's buttons."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LARGEST_BODY:
            self._refuse(413, "the request is too large")
            return
        body = self.rfile.read(int(length))
        url = urlsplit(self.path)
        if not self._admitted(url.path, parse_qs(url.query).get("token", [""])[0]):
            return
        # Another site's form can't send this type, and its script can't without asking first (which is not answered).
        if self.headers.get_content_type() != "application/json":
            self._refuse(415, "send JSON")
        elif url.path == "/controls":
            self._change(body)
        elif url.path == "/controls/snapshot":
            self.page.controls.ask_snapshot()
            self._json(202, {"snapshot": "asked for"})
        else:
            self._refuse(404, "there is no such page")

    # Who asks

    def _admitted(self, path: str, token: str) -> bool:
        host = self.headers.get("Host", "")
        if not self.page.admits_host(_without_port(host)):
            self._refuse(421, "this page is not served under that name")
            return False
        origin = self.headers.get("Origin")
        elsewhere = self.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and path != "/"
        if elsewhere or (origin is not None and origin != f"http://{host}"):
            self._refuse(403, "requests of other sites are refused")
            return False
        if path == "/healthz" or self.page.token is None or self._knows(token):
            return True
        self._refuse(401, "the address needs its token: open the link that rtseg printed")
        return False

    def _knows(self, token: str) -> bool:
        assert self.page.token is not None
        given = [token, self.headers.get("Authorization", "").removeprefix("Bearer ")]
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        given.append(cookie.value if cookie else "")
        return any(hmac.compare_digest(each.encode(), self.page.token.encode()) for each in given)

    def _keep_token(self) -> None:
        """Moves the token from the address, where history and screenshots keep it, into a cookie."""
        headers = {"Location": "/"}
        if self.page.token is not None:
            headers["Set-Cookie"] = f"{COOKIE}={self.page.token}; HttpOnly; SameSite=Strict; Path=/"
        self._answer(303, "text/plain; charset=utf-8", b"", headers)

    # What they get

    def _stream(self) -> None:
        """The picture, newest first, for as long as somebody looks. What a slow line can't take is left out, not queued."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._head(200, "multipart/x-mixed-replace; boundary=frame", None)
        self.wfile.write(b"--frame\r\n")
        serial = 0
        while not self.page.closed:
            serial, picture = self.page.newer_jpeg(serial, _REPEAT_SECONDS)
            if picture and not self.page.closed:
                # The boundary that ends this part is sent with it: a browser shows a part when it has seen its end.
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n--frame\r\n")

    def _controls(self) -> None:
        wanted = self.page.controls.wanted
        self._json(200, {"view": wanted.view, "alpha": wanted.alpha, "legend": wanted.legend, "paused": wanted.paused})

    def _change(self, body: bytes) -> None:
        try:
            given = json.loads(body)
            if not isinstance(given, dict) or not given or not given.keys() <= _FIELDS.keys():
                raise OptionError(f"send an object with some of {', '.join(_FIELDS)}")
            for name, value in given.items():
                if not isinstance(value, _FIELDS[name]) or (name == "alpha" and isinstance(value, bool)):
                    raise OptionError(f"{name} can't be {json.dumps(value)}")
            self.page.controls.set(**given)
        except (OptionError, ValueError) as error:  # JSON's own errors are ValueErrors
            self._refuse(400, str(error))
        else:
            self._controls()

    def _health(self) -> None:
        """The run publishes its numbers every second: it is alive if new ones come soon."""
        before, _ = self.page.numbers.wait_newer(0, 0)
        serial, numbers = self.page.numbers.wait_newer(before, _ALIVE_SECONDS)
        if serial == before:
            self._json(503, {"status": "stalled", "why": f"no new numbers for {_ALIVE_SECONDS:g} s"})
        else:
            connected = bool(dict(numbers.get("disconnects", {})).get("connected", True))
            self._json(200, {"status": "ok", "connected": connected})

    def _json(self, status: int, data: Mapping[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(dict(data)).encode())

    def _refuse(self, status: int, why: str) -> None:
        self.close_connection = True
        self._json(status, {"error": why})

    def _answer(self, status: int, kind: str, body: bytes, more: Mapping[str, str] | None = None) -> None:
        self._head(status, kind, len(body), more)
        self.wfile.write(body)

    def _head(self, status: int, kind: str, length: int | None, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **_HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


def _without_port(host: str) -> str:
    """`[::1]:8080` or `localhost:8080` without what follows the name."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
