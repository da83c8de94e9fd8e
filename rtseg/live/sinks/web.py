"""Web page with the live video, metrics and controls, served by `http.server` in a separate thread.

Access: on the loopback address, programs and browsers of this machine; on any other address, clients with the token. Pages of
other sites have no access, even in a browser on this machine: the `Host` header is checked against DNS rebinding, `Origin` and
`Sec-Fetch-Site` against cross-site requests.

Clients do not slow down the run: the sink only stores the latest frame. A frame is encoded on demand, once for all clients, in
the thread of the first client that waits for it.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from rtseg.core.errors import OptionError, SinkError, reason
from rtseg.core.frame import Frame, ProcessedFrame
from rtseg.core.palette import Palette
from rtseg.io.outputs import Sink
from rtseg.live.controls import Controls, LiveMetrics
from rtseg.live.sinks.snapshot import encode
from rtseg.live.sinks.web_server import Server

STREAM_WIDTH = 1280
"""Maximum width of the frames on the page in pixels; `/snapshot.png` has the full size."""

_POLL_SECONDS = 0.1
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class WebSink(Sink):
    """Web page with the latest frame.

    Paths: `/` the page, `/stream.mjpg` the video as MJPEG, `/snapshot.png` the latest frame at full size, `/stats` the metrics
    as JSON, `/metrics` the metrics for Prometheus, `/controls` the display settings (GET, or POST JSON to change them),
    `/about` class names and colors, `/healthz` the state of the run.

    Args:
        controls: controls that the buttons of the page change.
        metrics: metrics that the page shows.
        palette: class names and their colors, for the class list of the page.
        address: `HOST:PORT`, `[IPv6]:PORT`, `PORT`, or `:PORT` for the loopback; port 0 selects a free one.
        token: access token. None: no token on loopback; a random token on other addresses.

    Raises:
        OptionError: the address is invalid, or the token is empty or has characters that are not allowed in a URL.
        SinkError: the address can't be bound: the port is in use or not permitted.
    """

    name = "web"
    written = 0

    def __init__(
        self,
        controls: Controls,
        metrics: LiveMetrics,
        palette: Palette,
        *,
        address: str,
        token: str | None,
    ) -> None:
        host, port = parse_address(address)
        if token is not None and not (token and token.isascii() and token.replace("-", "").replace("_", "").isalnum()):
            raise OptionError("the token of the web page must be letters, digits, - and _, at least one of them")
        self.controls = controls
        self.metrics = metrics
        self._palette = palette
        self.is_loopback = _is_loopback(host)
        self.token = token if token or self.is_loopback else secrets.token_urlsafe(16)
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._jpeg: tuple[int, bytes] = (0, b"")
        self._encoding = threading.Lock()
        self.closed = False
        try:
            self._server = Server((host, port), self)
        except OSError as error:
            raise SinkError(
                f"the web page can't be served at {address}: {reason(error)}; give another --address"
            ) from error
        self.host, self.port = host, int(self._server.server_address[1])
        threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="rtseg-web", daemon=True
        ).start()

    @property
    def url(self) -> str:
        """URL of the page, with the token if there is one."""
        host = self.host
        if host in ("", "0.0.0.0", "::"):
            host = socket.gethostname()
        url_host = f"[{host}]" if ":" in host else host
        return f"http://{url_host}:{self.port}/" + (f"?token={quote(self.token)}" if self.token else "")

    def write(self, item: ProcessedFrame) -> None:
        """Store the frame until the next one."""
        with self._changed:
            self._frame = item.rendered
            self.written += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Stop the server and close all connections."""
        with self._changed:
            if self.closed:
                return
            self.closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    abort = close

    # Used by the request handlers

    def wait_newer_jpeg(self, serial: int, timeout_seconds: float) -> tuple[int, bytes]:
        """Block until there is a frame newer than `serial` (0: any), at most `timeout_seconds`.

        Returns:
            The serial number and the JPEG of the latest frame; the last one again after a timeout, empty before the first.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.written > serial or self.closed, timeout_seconds)
        with self._encoding:
            with self._changed:
                frame, serial = self._frame, self.written
            if frame is not None and self._jpeg[0] != serial:
                self._jpeg = (serial, encode(frame, ".jpg", STREAM_WIDTH))
            return self._jpeg

    def png(self) -> bytes | None:
        """Return the latest frame at full size as PNG; None before the first."""
        frame = self._frame
        return encode(frame, ".png") if frame is not None else None

    def about(self) -> Mapping[str, Any]:
        """Return the constant properties of the run: colors by class name."""
        colors = zip(self._palette.classes, self._palette.colors, strict=True)
        return {"colors": {name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in colors}}

    def accepts_host(self, host: str) -> bool:
        """Return True if a request for `host` (without port) is a request for this page.

        With DNS rebinding, another site can resolve its name to this machine, but it can't use one of this machine's names.
        """
        name = host.strip("[]").rstrip(".").lower()
        if self.is_loopback:
            return name in _LOOPBACK_NAMES or name == self.host.lower()
        machine = socket.gethostname().lower()
        own_names = {self.host.lower(), machine, machine.split(".")[0], f"{machine.split('.')[0]}.local", "localhost"}
        return name in own_names or _is_ip(name)


def parse_address(address: str) -> tuple[str, int]:
    """Return `127.0.0.1:8080`, `[::1]:8080`, `myhost:8080`, `:8080` or `8080` as (host, port).

    Raises:
        OptionError: the address has another form.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535 or (":" in host and not address.startswith("[")):
        raise OptionError(f"the page's address is '{address}'; write it HOST:PORT, such as 127.0.0.1:8080")
    return host, int(port)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
