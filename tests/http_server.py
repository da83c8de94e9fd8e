"""HTTP server on the loopback interface, with the responses of cameras and file servers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator

from live_server import TcpServer, raise_disconnected


class HttpServer(TcpServer):
    """HTTP server for concurrent clients. The script receives the text of a GET request and returns the whole response."""

    def __init__(self, script: Callable[[str], Iterable[bytes]]) -> None:
        self.requests: list[str] = []
        self._response = script
        super().__init__(lambda _: ())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            number, self.connections = self.connections, self.connections + 1
            threading.Thread(target=self._serve_client, args=(client, number), daemon=True).start()

    def _serve_client(self, client: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), client:
            self._respond(client, number)
            client.shutdown(socket.SHUT_WR)

    def _respond(self, client: socket.socket, number: int) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += client.recv(4096) or raise_disconnected()
        self.requests.append(request.decode())
        for chunk in self._response(self.requests[-1]):
            client.sendall(chunk)


def http_response(content_type: str, status: str = "200 OK", *headers: str) -> bytes:
    """Return the header of an HTTP response."""
    return "\r\n".join((f"HTTP/1.1 {status}", f"Content-Type: {content_type}", *headers, "", "")).encode()


def file_response(request: str, data: bytes, content_type: str = "video/mp4") -> Iterator[bytes]:
    """Yield the response of a file server, with support for ranges."""
    begin = 0
    for line in request.splitlines():
        if line.lower().startswith("range: bytes="):
            begin = int(line.partition("=")[2].partition("-")[0])
    status = "206 Partial Content" if begin else "200 OK"
    content_range = f"Content-Range: bytes {begin}-{len(data) - 1}/{len(data)}"
    yield http_response(
        content_type,
        status,
        f"Content-Length: {len(data) - begin}",
        "Accept-Ranges: bytes",
        *([content_range] if begin else []),
    )
    yield data[begin:]
