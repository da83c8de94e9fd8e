"""MJPEG as cameras send it: the JPEGs are found by their own markers, whatever stands between them.

Boundaries with and without dashes, in quotes, missing or other than announced; lengths that are missing or wrong; empty
parts, text parts, blank lines: all occur. FFmpeg's demuxer ends at the first of them, and shows half a JPEG as a whole one.
"""

from __future__ import annotations

import re
from collections import deque
from fractions import Fraction
from typing import Any

import av
from av import Packet

from rtseg.core.errors import Disconnected, SourceError
from rtseg.io.inputs.byte_stream import Answer

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_START = b"\xff\xd8\xff"
_LARGEST_JPEG = 64 << 20
_LONGEST_TEXT = 1 << 16
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_READ_BYTES = 1 << 16


class JpegSplitter:
    """Cuts a byte stream into JPEGs as soon as each is complete."""

    def __init__(self, boundary: str | None = None) -> None:
        """Start with the boundary that the Content-Type header names; None: it is found in the stream, if there is one."""
        self.corrupt = 0
        """Image parts so far that held no JPEG, or half of one."""
        self.parts = 0
        """Parts begun so far."""
        self._buffer = bytearray()
        self._inside = False  # whether the buffer begins with a JPEG
        self._position = 0  # of the next marker, or of what may hold one
        self._scanning = False  # whether that is entropy-coded data
        self._image: bool | None = None  # what the present part is by its header; None: no header
        self._ends_seen = False
        self._boundary: re.Pattern[bytes] | None = None
        self._token = b""
        self._searched = 0
        self._ended = False
        if boundary is not None:
            self._set_boundary(boundary.encode("latin-1", "replace"))

    def feed(self, data: bytes) -> list[bytes]:
        """Return the JPEGs that this data completes."""
        self._buffer += data
        found: list[bytes] = []
        while self._jpeg(found) if self._inside else self._text():
            pass
        return found

    def finish(self) -> list[bytes]:
        """Return the JPEGs that the end of the stream completes, if any; what is left of half a one is counted."""
        self._ended = True
        found = self.feed(b"")
        if self._inside:
            self._unfinished(len(self._buffer), found)
        return found

    def _set_boundary(self, line: bytes) -> None:
        token = line.strip().strip(b"-")
        if len(token) < 2 or token == self._token:
            return
        self._token = token
        self._boundary = re.compile(rb"(?:\r?\n-*|--)" + re.escape(token))

    # Between JPEGs

    def _text(self) -> bool:
        """Look at lines up to the next JPEG; True where it has begun."""
        start = self._buffer.find(_START)
        end = len(self._buffer) if start < 0 else start
        while (line_end := self._buffer.find(b"\n", 0, end)) >= 0:
            self._line(bytes(self._buffer[:line_end]))
            del self._buffer[: line_end + 1]
            end -= line_end + 1
        if start < 0:
            if len(self._buffer) > _LONGEST_TEXT:
                del self._buffer[: -len(_START)]
            return False
        del self._buffer[:end]
        self._inside, self._position, self._scanning, self._searched = True, len(_SOI), False, 0
        self._image = False  # what was announced has come
        return True

    def _line(self, line: bytes) -> None:
        line = line.strip()
        name, _, value = line.partition(b":")
        if (line.startswith(b"--") and b":" not in line) or (self._token and line.strip(b"-") == self._token):
            self._end_part()
            self._set_boundary(line)
            self.parts += 1
        elif name.lower() == b"content-type":
            self._image = b"image" in value.lower()
        elif name.lower() == b"content-length" and self._image is None:
            self._image = True

    def _end_part(self) -> None:
        self.corrupt += self._image is True
        self._image = None

    # In a JPEG

    def _jpeg(self, found: list[bytes]) -> bool:
        """Go on to the end of the JPEG; True where it was reached."""
        buffer = self._buffer
        limit, cut = self._part_end()
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
                return self._damaged(self._position)
            if (
                buffer[self._position] != 0xFF
            ):  # a segment's length led out of it, perhaps beyond the next one's beginning
                following = buffer.find(_START, len(_SOI), self._position)
                return self._damaged(self._position if following < 0 else following)
            if kind == 0xFF:
                self._position += 1
            elif kind == 0xD9:
                self._ends_seen = True
                return self._whole(self._position + 2, found)
            elif kind <= 0x01 or 0xD0 <= kind <= 0xD7:
                self._position += 2
            elif self._position + 4 > limit:
                break
            else:
                length = int.from_bytes(buffer[self._position + 2 : self._position + 4], "big")
                end = self._position + 2 + max(2, length)
                if end + 2 > len(buffer) and not self._ended:
                    return False
                if cut and end > limit:  # a boundary inside a segment: its bytes, if the segment ends where it says
                    if kind == 0xDA or buffer[end : end + 1] != b"\xff" or buffer[end + 1 : end + 2] < b"\xc0":
                        break
                    self._searched = end
                    limit, cut = self._part_end()
                self._scanning = kind == 0xDA
                self._position = end
        if cut:
            return self._unfinished(limit, found)
        return limit > _LARGEST_JPEG and self._damaged(limit)

    def _part_end(self) -> tuple[int, bool]:
        """Return where the next boundary is, else the end of what has come, and whether there is a boundary."""
        if self._boundary is None:
            return len(self._buffer), False
        match = self._boundary.search(self._buffer, self._searched)
        if match:
            return match.start(), True
        self._searched = max(self._searched, len(self._buffer) - len(self._token) - 8)
        return len(self._buffer), False

    def _whole(self, end: int, found: list[bytes]) -> bool:
        found.append(bytes(self._buffer[:end]))
        return self._leave(end)

    def _unfinished(self, end: int, found: list[bytes]) -> bool:
        """A JPEG without an end marker: half a one, unless this camera never sends that marker; then the decoder tells."""
        if self._ends_seen or not self._scanning:
            return self._damaged(end)
        found.append(bytes(self._buffer[:end]).rstrip(b"\r\n") + _EOI)
        return self._leave(end)

    def _damaged(self, end: int) -> bool:
        self.corrupt += 1
        return self._leave(end)

    def _leave(self, end: int) -> bool:
        del self._buffer[:end]
        self._inside, self._searched = False, 0
        return True


class JpegPackets:
    """Packets of an MJPEG stream. Implements `rtseg.io.inputs.packets.Packets`."""

    codec = "mjpeg"
    time_base = Fraction(1, 1_000_000)
    aspect = Fraction(1)
    frame_rate: Fraction | None = None
    has_clock = False
    file_seconds: float | None = None
    in_parts = False
    warnings: tuple[str, ...] = ()

    def __init__(self, answer: Answer, name: str, timeout_seconds: float) -> None:
        """Take over an answer whose body holds JPEGs; `timeout_seconds` is how long no part may come."""
        self._answer, self._name, self._timeout = answer, name, timeout_seconds
        self._corrupt_before = 0
        self._begin()
        self._ready: deque[bytes] = deque()
        self._failure: Disconnected | None = None
        context: Any = av.CodecContext.create("mjpeg", "r")
        context.options = {"err_detect": "explode"}  # else half a JPEG comes out as a whole one, gray below
        self.codec_context = context

    @property
    def corrupt(self) -> int:
        """Parts so far that held no whole JPEG."""
        return self._corrupt_before + self._splitter.corrupt

    def read(self) -> Packet[Any] | None:
        """Return the next JPEG; None: the stream ended.

        Raises:
            Disconnected: it failed, or nothing whole came in time.
            SourceError: it is no stream.
        """
        self._answer.allow(self._timeout)
        while not self._ready:
            parts = self._splitter.parts
            data = self._read()
            if not data:
                self._ready.extend(self._splitter.finish())
                self._count += len(self._ready)
                if not self._ready and not self._ask_again():
                    return None
                continue
            self._ready.extend(self._splitter.feed(data))
            self._count += len(self._ready)
            if self._splitter.parts > parts:
                self._answer.allow(self._timeout)
        packet: Packet[Any] = Packet(self._ready.popleft())
        packet.is_keyframe = True
        return packet

    def _read(self) -> bytes:
        if self._failure is None:
            try:
                return self._answer.read(_READ_BYTES)
            except Disconnected as failure:  # what came of the present JPEG counts, or is the last one
                self._failure = failure
                self._ready.extend(self._splitter.finish())
                if self._ready:
                    return b""
        raise self._failure

    def close(self) -> None:
        """End the connection, from any thread."""
        self._answer.close()

    def _begin(self) -> None:
        self._answer.opened()
        self._splitter = JpegSplitter(self._answer.boundary)
        self._count = 0

    def _ask_again(self) -> bool:
        """Connect again to a server that closes behind each part."""
        if self._count == 1 and not self._answer.multipart:
            raise SourceError(f"{self._name}: {SINGLE_IMAGE}")
        if self._count != 1:
            if not self._count and not self._corrupt_before:
                raise Disconnected(f"{self._name}: it ended, and no JPEG came")
            return False
        try:
            self._answer = self._answer.again()
        except SourceError:
            return False
        self._corrupt_before += self._splitter.corrupt
        self.warnings = (POLLED,)
        self._begin()
        if not self._answer.multipart:
            raise Disconnected(f"{self._name}: the stream ended")
        return True


POLLED = "the server closes the connection behind each picture, and is asked again for the next: that counts as no disconnect"
SINGLE_IMAGE = "it sends one image (image/jpeg), not a stream; give the address of the camera's MJPEG or RTSP stream"
