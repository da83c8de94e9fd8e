"""A web page with the live picture, its numbers and its controls, served from a thread with Python's own `http.server`.

Who may look: on the loopback address, programs and browsers of this machine; on any other address, who has the token. A page
of another site that a browser on this machine has open may not: requests name the host they were meant for (`Host`, against
DNS rebinding) and the site they come from (`Origin` and `Sec-Fetch-Site`), and both are checked.

Nobody who looks slows the run: a frame is only kept here, the newest replacing the last; it is encoded when somebody waits
for it, once for all, in the thread of the first who does.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
import sys
import threading
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import OptionError, SinkError
from rtseg.core.frame import Frame, Passthrough, SegmentedFrame
from rtseg.core.letterbox import Letterbox
from rtseg.core.palette import Palette
from rtseg.live.controls import Controls, LiveNumbers
from rtseg.live.sinks.web_handler import Handler, WebPage

STREAM_PIXELS = 1280
"""Larger pictures are made this wide for the page; `/snapshot.png` has their full size."""

JPEG_QUALITY = 80
MAX_CONNECTIONS = 32
_POLL_SECONDS = 0.1
_PRIVATE_NAMES = ("localhost", "127.0.0.1", "::1")


class WebSink:
    """Shows the newest frame on a web page. Implements `rtseg.io.outputs.Sink`; named `web`.

    Paths: `/` the page, `/stream.mjpg` the picture as MJPEG, `/snapshot.png` one picture at its full size, `/stats` the numbers
    as JSON, `/metrics` the same for Prometheus, `/controls` what is wanted (GET) or changed (POST, JSON), `/about` names and
    colors, `/healthz` whether the run is alive.

    Args:
        controls: what the page's buttons set.
        numbers: what the page shows beside the picture.
        address: `HOST:PORT`, `[IPv6]:PORT`, `PORT`, or `:PORT` for the loopback; port 0 picks a free one.
        token: who knows it may look. None: nobody needs one on loopback; elsewhere one is made up.
        palette: class names and their colors, for the bars on the page.

    Raises:
        OptionError: an address that is none, or a token that is empty or has characters that do not fit a URL.
        SinkError: the address can't be bound: the port is taken, or not allowed.
    """

    name = "web"

    def __init__(
        self,
        controls: Controls,
        numbers: LiveNumbers,
        *,
        address: str = "127.0.0.1:8080",
        token: str | None = None,
        palette: Palette | None = None,
    ) -> None:
        host, port = parse_address(address)
        if token is not None and not (token and token.isascii() and token.replace("-", "").replace("_", "").isalnum()):
            raise OptionError("the token of the web page must be letters, digits, - and _, at least one of them")
        self.controls = controls
        self.numbers = numbers
        self.palette = palette
        self.private = _is_loopback(host)
        self.token = token if token or self.private else secrets.token_urlsafe(16)
        self.written = 0
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._serial = 0
        self._jpeg: tuple[int, bytes] = (0, b"")
        self._encoding = threading.Lock()
        self._closed = threading.Event()
        try:
            self._server = Server((host, port), self)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise SinkError(f"the web page can't be served at {address}: {why}; give another --address") from error
        self.host, self.port = host, int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="rtseg-web", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """What to open in a browser, with the token if one is needed."""
        host = self.host
        if host in ("", "0.0.0.0", "::"):
            host = socket.gethostname()
        rendered = f"[{host}]" if ":" in host else host
        return f"http://{rendered}:{self.port}/" + (f"?token={quote(self.token)}" if self.token else "")

    def write(self, item: SegmentedFrame) -> None:
        """Keeps the frame until the next one comes."""
        with self._changed:
            self._frame = item.rendered
            self._serial += 1
            self.written += 1
            self._changed.notify_all()

    def pass_through(self, packet: Passthrough) -> None:
        """The page has no sound."""

    def close(self) -> None:
        """Stops serving, whoever looks."""
        if self._closed.is_set():
            return
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._server.drop_all()

    def abort(self) -> None:
        """The same: nothing is left behind."""
        self.close()

    # For the requests

    @property
    def closed(self) -> bool:
        """Whether nothing is served any more."""
        return self._closed.is_set()

    def newer_jpeg(self, serial: int, timeout_seconds: float) -> tuple[int, bytes]:
        """Waits for a picture newer than that of `serial` (0: any), at most so long.

        Returns:
            Its serial number and the picture as JPEG; the last one again where the time ran out, nothing before the first.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._serial > serial or self.closed, timeout_seconds)
        with self._encoding:
            with self._changed:
                frame, newest = self._frame, self._serial
            if frame is not None and self._jpeg[0] != newest:
                self._jpeg = (newest, encode(frame, ".jpg", STREAM_PIXELS))
            return self._jpeg

    def png(self) -> bytes | None:
        """The newest picture at its full size as PNG; None before the first."""
        frame = self._frame
        return encode(frame, ".png") if frame is not None else None

    def about(self) -> Mapping[str, Any]:
        """What does not change during a run."""
        palette = self.palette
        colors = {} if palette is None else dict(zip(palette.classes, palette.colors, strict=True))
        return {"colors": {name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in colors.items()}}

    def admits_host(self, host: str) -> bool:
        """Whether a request that was meant for `host` (without port) was meant for this page.

        A page of another site can make a browser resolve the site's own name to this machine; it can't choose our names.
        """
        name = host.strip("[]").rstrip(".").lower()
        if self.private:
            return name in _PRIVATE_NAMES or name == self.host.lower()
        machine = socket.gethostname().lower()
        own = {self.host.lower(), machine, machine.split(".")[0], f"{machine.split('.')[0]}.local", "localhost"}
        return name in own or _is_ip(name)


class Server(ThreadingHTTPServer):
    """Accepts connections, a limited number of them, and drops all at the end."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], page: WebPage) -> None:
        """Binds the address. Raises OSError."""
        self.page = page
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Binds without asking the network for this machine's name, which may take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serves a connection in a thread of its own, or closes it where there are too many."""
        with self._lock:
            full = len(self._connections) >= MAX_CONNECTIONS
            if not full:
                self._connections.add(request)
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        """A connection has ended."""
        with self._lock:
            self._connections.discard(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in mid-answer is no error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def drop_all(self) -> None:
        """Ends all connections, whatever they are in the middle of."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):  # it ended by itself meanwhile
                connection.shutdown(socket.SHUT_RDWR)


def parse_address(address: str) -> tuple[str, int]:
    """`127.0.0.1:8080`, `[::1]:8080`, `myhost:8080`, `:8080` or `8080` as (host, port).

    Raises:
        OptionError: not of that form.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535 or (":" in host and not address.startswith("[")):
        raise OptionError(f"the page's address is '{address}'; write it HOST:PORT, such as 127.0.0.1:8080")
    return host, int(port)


def encode(frame: Frame, suffix: str, widest: int | None = None) -> bytes:
    """A frame as JPEG or PNG.

    Args:
        frame: of any layout, color matrix and range.
        suffix: `.jpg` or `.png`.
        widest: larger pictures are scaled down to this width; None: none are.

    Raises:
        SinkError: it can't be encoded.
    """
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else []
    done, data = cv2.imencode(suffix, bgr_of(frame, widest), settings)
    if not done:
        raise SinkError(f"a frame of {frame.width}x{frame.height} can't be encoded as {suffix}")
    return data.tobytes()


def bgr_of(frame: Frame, widest: int | None = None) -> npt.NDArray[np.uint8]:
    """The frame's picture, uint8 `[height, width, 3]`, blue, green, red, at most `widest` across."""
    width, height = frame.width, frame.height
    if widest is not None and width > widest:
        width, height = widest, max(1, round(height * widest / width))
    rgb = Letterbox((frame.width, frame.height), (width, height), "stretch").network_input(frame)
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
