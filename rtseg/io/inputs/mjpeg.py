"""Reader for MJPEG streams of cameras, which detects JPEGs by their markers, regardless of the data between them.

Some cameras send boundaries with or without dashes, in quotes, none at all, or not the announced one; missing or wrong
lengths; empty parts, text parts or blank lines. FFmpeg's demuxer stops at the first of these, and returns half a JPEG as a
whole frame.
"""

from __future__ import annotations

import re
from collections import deque
from fractions import Fraction
from typing import Any

import av
from av import Packet

from rtseg.core.errors import Disconnected, SourceError
from rtseg.io.inputs.byte_stream import ByteStream
from rtseg.io.inputs.packets import Packets

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_START = b"\xff\xd8\xff"
_MAX_JPEG_BYTES = 64 << 20
_MAX_TEXT_BYTES = 1 << 16
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_READ_BYTES = 1 << 16


class JpegSplitter:
    """Splitter of a byte stream into JPEGs. Each is returned as soon as it is complete."""

    def __init__(self, boundary: str | None = None) -> None:
        """Create a splitter. `boundary` is that of the Content-Type header; None: it is detected in the stream."""
        self.corrupt = 0
        """Number of image parts so far without a complete JPEG."""
        self.parts = 0
        """Number of parts that have begun so far."""
        self._buffer = bytearray()
        self._inside = False  # whether the buffer begins with a JPEG
        self._position = 0  # of the next marker, or of data that may contain one
        self._scanning = False  # whether the data at the position is entropy-coded
        self._is_image: bool | None = None  # type of the current part by its header; None: no header
        self._ends_seen = False
        self._boundary: re.Pattern[bytes] | None = None
        self._token = b""
        self._searched = 0
        self._ended = False
        if boundary is not None:
            self._set_boundary(boundary.encode("latin-1", "replace"))

    def feed(self, data: bytes) -> list[bytes]:
        """Add data to the buffer, and return the JPEGs that are now complete."""
        self._buffer += data
        jpegs: list[bytes] = []
        while self._scan_jpeg(jpegs) if self._inside else self._scan_text():
            pass
        return jpegs

    def finish(self) -> list[bytes]:
        """Return the JPEGs that are complete at the end of the stream. An incomplete one is counted as corrupt."""
        self._ended = True
        jpegs = self.feed(b"")
        if self._inside:
            self._end_without_marker(len(self._buffer), jpegs)
        return jpegs

    def _set_boundary(self, line: bytes) -> None:
        token = line.strip().strip(b"-")
        if len(token) < 2 or token == self._token:
            return
        self._token = token
        self._boundary = re.compile(rb"(?:\r?\n-*|--)" + re.escape(token))

    # Between JPEGs

    def _scan_text(self) -> bool:
        """Read lines up to the next JPEG; return True if it has begun."""
        start = self._buffer.find(_START)
        end = len(self._buffer) if start < 0 else start
        while (line_end := self._buffer.find(b"\n", 0, end)) >= 0:
            self._parse_line(bytes(self._buffer[:line_end]))
            del self._buffer[: line_end + 1]
            end -= line_end + 1
        if start < 0:
            if len(self._buffer) > _MAX_TEXT_BYTES:
                del self._buffer[: -len(_START)]
            return False
        del self._buffer[:end]
        self._inside, self._position, self._scanning, self._searched = True, len(_SOI), False, 0
        self._is_image = False  # the announced image has arrived
        return True

    def _parse_line(self, line: bytes) -> None:
        line = line.strip()
        name, _, value = line.partition(b":")
        if (line.startswith(b"--") and b":" not in line) or (self._token and line.strip(b"-") == self._token):
            self._end_part()
            self._set_boundary(line)
            self.parts += 1
        elif name.lower() == b"content-type":
            self._is_image = b"image" in value.lower()
        elif name.lower() == b"content-length" and self._is_image is None:
            self._is_image = True

    def _end_part(self) -> None:
        self.corrupt += self._is_image is True
        self._is_image = None

    # Inside a JPEG

    def _scan_jpeg(self, jpegs: list[bytes]) -> bool:
        """Scan to the end of the JPEG; return True if it was reached."""
        buffer = self._buffer
        limit, at_boundary = self._part_end()
        while True:
            if self._scanning:
                marker = _MARKER.search(buffer, self._position, limit)
                if marker is None:
                    self._position = max(self._position, limit - 1)
                    break
                self._position, self._scanning = marker.start(), False
            if self._position + 2 > limit:
                break
            kind = buffer[self._position + 1]
            if kind == 0xD8:
                return self._discard(self._position)
            if buffer[self._position] != 0xFF:
                # The length of a segment is wrong; the next JPEG may have begun inside the skipped bytes.
                following = buffer.find(_START, len(_SOI), self._position)
                return self._discard(self._position if following < 0 else following)
            if kind == 0xFF:
                self._position += 1
            elif kind == 0xD9:
                self._ends_seen = True
                jpegs.append(bytes(buffer[: self._position + 2]))
                return self._remove(self._position + 2)
            elif kind <= 0x01 or 0xD0 <= kind <= 0xD7:
                self._position += 2
            elif self._position + 4 > limit:
                break
            else:
                length = int.from_bytes(buffer[self._position + 2 : self._position + 4], "big")
                end = self._position + 2 + max(2, length)
                if end + 2 > len(buffer) and not self._ended:
                    return False
                if at_boundary and end > limit:  # a boundary inside a segment belongs to it if its length is right
                    if kind == 0xDA or buffer[end : end + 1] != b"\xff" or buffer[end + 1 : end + 2] < b"\xc0":
                        break
                    self._searched = end
                    limit, at_boundary = self._part_end()
                self._scanning = kind == 0xDA
                self._position = end
        if at_boundary:
            return self._end_without_marker(limit, jpegs)
        return limit > _MAX_JPEG_BYTES and self._discard(limit)

    def _part_end(self) -> tuple[int, bool]:
        """Return the position of the next boundary, else the end of the buffer, and whether there is a boundary."""
        if self._boundary is None:
            return len(self._buffer), False
        match = self._boundary.search(self._buffer, self._searched)
        if match:
            return match.start(), True
        self._searched = max(self._searched, len(self._buffer) - len(self._token) - 8)
        return len(self._buffer), False

    def _end_without_marker(self, end: int, jpegs: list[bytes]) -> bool:
        """End a JPEG that has no end marker. It is corrupt, unless this camera never sends that marker."""
        if self._ends_seen or not self._scanning:
            return self._discard(end)
        jpegs.append(bytes(self._buffer[:end]).rstrip(b"\r\n") + _EOI)
        return self._remove(end)

    def _discard(self, end: int) -> bool:
        self.corrupt += 1
        return self._remove(end)

    def _remove(self, end: int) -> bool:
        del self._buffer[:end]
        self._inside, self._searched = False, 0
        return True


class JpegPackets(Packets):
    """Reader for the packets of an MJPEG stream."""

    codec = "mjpeg"
    aspect = Fraction(1)

    def __init__(self, stream: ByteStream, name: str, timeout_seconds: float) -> None:
        """Take over a byte stream of JPEGs. `timeout_seconds` is the longest time without a new part."""
        self._stream, self._name, self._timeout = stream, name, timeout_seconds
        self._corrupt_before = 0
        self._begin()
        self._ready: deque[bytes] = deque()
        self._failure: Disconnected | None = None
        context: Any = av.CodecContext.create("mjpeg", "r")
        context.options = {"err_detect": "explode"}  # otherwise half a JPEG is decoded as a whole frame, in part gray
        self.codec_context = context

    @property
    def corrupt(self) -> int:
        """Number of parts so far without a complete JPEG."""
        return self._corrupt_before + self._splitter.corrupt

    def read(self) -> Packet[Any] | None:
        """Return the next JPEG; None: the stream ended.

        Raises:
            Disconnected: the connection failed, or no complete JPEG arrived in time.
            SourceError: the URL belongs to a single image.
        """
        self._stream.set_time_limit(self._timeout)
        while not self._ready:
            parts = self._splitter.parts
            data = self._read()
            if not data:
                self._ready.extend(self._splitter.finish())
                self._count += len(self._ready)
                if not self._ready and not self._reconnect():
                    return None
                continue
            self._ready.extend(self._splitter.feed(data))
            self._count += len(self._ready)
            if self._splitter.parts > parts:
                self._stream.set_time_limit(self._timeout)
        packet: Packet[Any] = Packet(self._ready.popleft())
        packet.is_keyframe = True
        return packet

    def _read(self) -> bytes:
        if self._failure is None:
            try:
                return self._stream.read(_READ_BYTES)
            except Disconnected as failure:  # the last JPEG may be complete; an incomplete one is counted
                self._failure = failure
                self._ready.extend(self._splitter.finish())
                if self._ready:
                    return b""
        raise self._failure

    def close(self) -> None:
        """Close the connection. May be called from any thread."""
        self._stream.close()

    def _begin(self) -> None:
        self._splitter = JpegSplitter(self._stream.boundary)
        self._count = 0

    def _reconnect(self) -> bool:
        """Reconnect to a server that closes the connection after each part; return True on success."""
        if self._count == 1 and not self._stream.multipart:
            raise SourceError(f"{self._name}: {SINGLE_IMAGE}")
        if self._count != 1:
            if not self._count and not self._corrupt_before:
                raise Disconnected(f"{self._name}: it ended without a JPEG")
            return False
        try:
            self._stream = self._stream.reconnect()
        except SourceError:
            return False
        self._corrupt_before += self._splitter.corrupt
        self.warnings = (POLLED,)
        self._begin()
        if not self._stream.multipart:
            raise Disconnected(f"{self._name}: the stream ended")
        return True


POLLED = "the server closes the connection after each frame; rtseg reconnects for the next, which is not counted as a disconnect"
SINGLE_IMAGE = "it sends one image (image/jpeg), not a stream; use the address of the camera's MJPEG or RTSP stream"
