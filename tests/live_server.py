"""Camera servers on the loopback interface. A script determines the data and the failures of each connection."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import av
from media import numbered_image, to_pix_fmt

RATE = 30


def encode_ts(
    frames: int,
    *,
    size: tuple[int, int] = (96, 64),
    first: int = 0,
    start_seconds: float = 0.0,
    pix_fmt: str = "yuv420p",
    container_format: str = "mpegts",
) -> list[bytes]:
    """Encode numbered frames (from `first`), by default to MPEG-TS, one chunk per frame, with a key frame every ten frames."""
    sink = ChunkWriter()
    muxer_options = {"flush_packets": "1"} | ({"flvflags": "no_duration_filesize"} if container_format == "flv" else {})
    container = av.open(sink, "w", format=container_format, options=muxer_options)
    options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "scenecut=0"}
    stream = container.add_stream("libx264", rate=RATE, options=options)
    stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
    stream.codec_context.gop_size = 10
    stream.time_base = stream.codec_context.time_base = Fraction(1, RATE)
    chunks = []
    for number in range(frames):
        frame = to_pix_fmt(numbered_image((first + number) % 256, *size), pix_fmt, 6, False)
        frame.pts, frame.time_base = number + round(start_seconds * RATE), Fraction(1, RATE)
        for packet in stream.encode(frame):
            container.mux(packet)
        chunks.append(sink.take())
    for packet in stream.encode(None):
        container.mux(packet)
    container.close()
    chunks[-1] += sink.take()
    return chunks


def paced(chunks: Iterable[bytes], speed: float = 1.0) -> Iterator[bytes]:
    """Yield the chunks at the frame rate."""
    for chunk in chunks:
        yield chunk
        time.sleep(1 / RATE / speed)


Script = Callable[[int], Iterable[bytes]]
"""Function that returns the chunks for a connection, given its number from 0. The connection is closed after the last one."""


class TcpServer:
    """TCP server on 127.0.0.1 for one client at a time."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.port = 0
        self.connections = 0
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the same port as before."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Close the listening socket and the connection."""
        for connection in (self._listener, self._client):
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._client = client
            number, self.connections = self.connections, self.connections + 1
            with contextlib.suppress(OSError), client:
                self._respond(client, number)

    def _respond(self, client: socket.socket, number: int) -> None:
        for chunk in self._script(number):
            client.sendall(chunk)

    def __enter__(self) -> TcpServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class RtspServer(TcpServer):
    """RTSP camera that requires a password and sends H.264 interleaved over TCP (RFC 2326, RFC 6184)."""

    USER, PASSWORD = "me", "s3cret"
    requires_password = True

    @property
    def url(self) -> str:
        if not self.requires_password:
            return f"rtsp://127.0.0.1:{self.port}/cam"
        return f"rtsp://{self.USER}:{self.PASSWORD}@127.0.0.1:{self.port}/cam"

    def _respond(self, client: socket.socket, number: int) -> None:
        expected = b64encode(f"{self.USER}:{self.PASSWORD}".encode()).decode()
        sdp = (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=door\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\n"
            "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
        )
        reader = client.makefile("rb")
        while request := reader.readline().decode():
            headers = {}
            while line := reader.readline().decode().strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            method, response, body = request.split()[0], ["RTSP/1.0 200 OK", f"CSeq: {headers.get('cseq', 0)}"], ""
            if self.requires_password and method != "OPTIONS" and headers.get("authorization") != f"Basic {expected}":
                response[0] = "RTSP/1.0 401 Unauthorized"
                response.append('WWW-Authenticate: Basic realm="door"')
            elif method == "OPTIONS":
                response.append("Public: DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif method == "DESCRIBE":
                body = sdp
                response += ["Content-Type: application/sdp", f"Content-Length: {len(sdp)}"]
            elif method == "SETUP":
                response += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
            elif method == "PLAY":
                response += ["Session: 1", "RTP-Info: url=track1;seq=0;rtptime=0"]
            client.sendall(("\r\n".join(response) + "\r\n\r\n" + body).encode())
            if method == "PLAY":
                for chunk in self._script(number):
                    client.sendall(chunk)
                return


def encode_rtp(
    frames: int,
    *,
    size: tuple[int, int] = (96, 64),
    first: int = 0,
    without: tuple[int, ...] = (),
    stamp_of: Callable[[int], int] = lambda number: number * 90_000 // RATE,
) -> list[bytes]:
    """Encode numbered frames to RTP packets as interleaved in an RTSP connection, one chunk per frame.

    Args:
        frames: number of frames.
        size: (width, height) in pixels.
        first: number of the first frame.
        without: types of NAL units to omit, such as 7 and 8, the parameter sets.
        stamp_of: returns the timestamp of a frame, by its number.
    """
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = *size, "yuv420p", Fraction(1, RATE)  # type: ignore[attr-defined]
    codec.framerate, codec.gop_size = RATE, 10  # type: ignore[attr-defined]
    codec.options = {"preset": "ultrafast", "tune": "zerolatency"}
    chunks, sequence = [], 0
    for number in range(frames):
        frame = to_pix_fmt(numbered_image((first + number) % 256, *size), "yuv420p", 6, False)
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        data = b"".join(bytes(packet) for packet in codec.encode(frame))  # type: ignore[attr-defined]
        units = [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1") if unit.strip(b"\0")]
        pieces = [piece for unit in units if unit[0] & 31 not in without for piece in _rtp_payloads(unit)]
        chunk = b""
        for index, piece in enumerate(pieces):
            marker = 0x80 if index == len(pieces) - 1 else 0
            stamp = stamp_of(number) % 2**32
            header = struct.pack(">BBHII", 0x80, marker | 96, sequence & 0xFFFF, stamp, 7)
            sequence += 1
            chunk += struct.pack(">BBH", 0x24, 0, len(header) + len(piece)) + header + piece
        chunks.append(chunk)
    return chunks


def _rtp_payloads(unit: bytes, max_bytes: int = 1200) -> list[bytes]:
    """Return the payloads of one NAL unit: the whole unit, or fragments (FU-A)."""
    if len(unit) <= max_bytes:
        return [unit]
    parts = [unit[begin : begin + max_bytes] for begin in range(1, len(unit), max_bytes)]
    indicator, kind = unit[0] & 0xE0 | 28, unit[0] & 0x1F
    flags = [(0x80 if i == 0 else 0) | (0x40 if i == len(parts) - 1 else 0) for i in range(len(parts))]
    return [bytes((indicator, flag | kind)) + part for flag, part in zip(flags, parts, strict=True)]


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(type=kind) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class UdpSender:
    """Sender of datagrams with seven TS packets to a port of 127.0.0.1."""

    def __init__(self, script: Iterable[bytes]) -> None:
        self.port = free_port(socket.SOCK_DGRAM)
        self._script = script
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    @property
    def url(self) -> str:
        return f"udp://127.0.0.1:{self.port}"

    def _send(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for chunk in self._script:
                for begin in range(0, len(chunk), 1316):
                    if self._stop.is_set():
                        return
                    with contextlib.suppress(ConnectionRefusedError):
                        out.sendto(chunk[begin : begin + 1316], ("127.0.0.1", self.port))

    def __enter__(self) -> UdpSender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)


class ChunkWriter(io.RawIOBase):
    """File in memory whose new content can be taken out repeatedly."""

    def __init__(self) -> None:
        super().__init__()
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._data += data
        return len(data)

    def take(self) -> bytes:
        """Return the data that was written since the last call."""
        data, self._data = bytes(self._data), bytearray()
        return data


def raise_disconnected() -> bytes:
    """Raise ConnectionError. Used in place of an empty result of `recv`."""
    raise ConnectionError("the client disconnected")
