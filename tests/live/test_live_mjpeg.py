"""MJPEG over HTTP and TCP: all variants that cameras send; damaged images are counted and skipped."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import cv2
import numpy as np
import pytest
from http_server import HttpServer, http_response
from live_server import TcpServer
from media import number_of, numbered_image
from test_live_sources import read_until_disconnected

from rtseg.core.frame import Frame
from rtseg.io.inputs.mjpeg import JpegSplitter
from rtseg.io.inputs.network import open_stream

TIMEOUT = 20.0
MULTIPART = "multipart/x-mixed-replace; boundary=next"


@cache
def jpeg(number: int, width: int = 160, height: int = 96) -> bytes:
    return cv2.imencode(".jpg", numbered_image(number, width, height)[..., ::-1])[1].tobytes()


def without_tables(data: bytes) -> bytes:
    """Return a JPEG without its Huffman tables, as sent by USB cameras."""
    out, position = data[:2], 2
    while True:
        kind, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if kind != 0xC4:
            out += data[position : position + 2 + length]
        position += 2 + length
        if kind == 0xDA:
            return out + data[position:]


def part(data: bytes, *headers: str, boundary: str = "--next", line: str = "\r\n", kind: str = "image/jpeg") -> bytes:
    lines = [boundary, f"Content-Type: {kind}", *headers, "", ""]
    return line.join(lines).encode() + data + line.encode()


def numbers_and_corrupt(chunks: Iterable[bytes], content_type: str = MULTIPART) -> tuple[list[int], int]:
    """Return the frame numbers and the number of corrupt frames of a response body, after which the server disconnects."""

    def answer(_: str) -> Iterator[bytes]:
        yield http_response(content_type)
        yield from chunks

    with HttpServer(answer) as server:
        frames, corrupt, _ = read(f"{server.url}/video.mjpg")
    return [number_of(frame) for frame in frames], corrupt


def read(url: str) -> tuple[list[Frame], int, str]:
    source = open_stream(url, timeout_seconds=TIMEOUT)
    frames, message = read_until_disconnected(source)
    return frames, source.corrupt, message


def length(data: bytes) -> str:
    return f"Content-Length: {len(data)}"


FORMS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "plain": (MULTIPART, lambda data: part(data, length(data))),
    "no length": (MULTIPART, part),
    "length too small": (MULTIPART, lambda data: part(data, "Content-Length: 100")),
    "length too large": (MULTIPART, lambda data: part(data, "Content-Length: 99999")),
    "quoted boundary": ('multipart/x-mixed-replace; boundary="next"', part),
    "dashes in the header": ("multipart/x-mixed-replace;boundary=--next", part),
    "four dashes in the body": ("multipart/x-mixed-replace;boundary=--next", lambda d: part(d, boundary="----next")),
    "no dashes in the body": (MULTIPART, lambda data: part(data, boundary="next")),
    "another boundary": ("multipart/x-mixed-replace; boundary=other", part),
    "no boundary named": ("multipart/x-mixed-replace", part),
    "type not multipart": ("application/octet-stream", part),
    "type of one image": ("image/jpeg", part),
    "line feeds only": (MULTIPART, lambda data: part(data, line="\n")),
    "more headers": (MULTIPART, lambda data: part(data, "X-Timestamp: 12.5", "X-Framerate: 15", length(data))),
    "blank lines between": (MULTIPART, lambda data: b"\r\n\r\n" + part(data) + b"\r\n"),
    "zero padding": (MULTIPART, lambda data: part(data + bytes(40))),
    "text parts": (
        MULTIPART,
        lambda data: part(b"motion: 0", "Content-Length: 9", kind="text/plain") + part(data, length(data)),
    ),
    "no line end after the image": (MULTIPART, lambda data: part(data)[:-2]),
    "no part headers": (MULTIPART, lambda data: b"--next\r\n\r\n" + data + b"\r\n"),
    "no Huffman tables": (MULTIPART, lambda data: part(without_tables(data))),
    "no end markers": (MULTIPART, lambda data: part(data[:-2])),
    "JPEGs only": ("video/x-motion-jpeg", lambda data: data),
}


@pytest.mark.parametrize("form", FORMS)
def test_mjpeg_variant_yields_every_frame(form: str) -> None:
    content_type, made = FORMS[form]
    numbers, corrupt = numbers_and_corrupt((made(jpeg(number)) for number in range(12)), content_type)
    assert (numbers, corrupt) == (list(range(12)), 0)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("no end markers", "JPEGs only")])
@pytest.mark.parametrize("share", [0.02, 0.4, 0.99])
def test_truncated_jpeg_is_counted_and_skipped(form: str, share: float) -> None:
    content_type, made = FORMS[form]
    parts = [made(jpeg(number)) for number in range(8)]
    whole = jpeg(4)
    body = without_tables(whole) if form == "no Huffman tables" else whole
    at = parts[4].index(body)
    cut = max(3, int(len(body) * share))
    parts[4] = parts[4][: at + cut] + parts[4][at + len(body) :]
    splitter = JpegSplitter("next" if "boundary" in content_type and "other" not in content_type else None)
    found = [data for part_data in parts for data in splitter.feed(part_data)]
    assert len(found) == 7
    assert splitter.corrupt == 1


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_truncated_jpeg_over_http_is_corrupt(share: float, end: bytes) -> None:
    half = jpeg(3)[: int(len(jpeg(3)) * share)] + end
    parts = [part(half if number == 3 else jpeg(number)) for number in range(8)]
    assert numbers_and_corrupt(parts) == ([0, 1, 2, 4, 5, 6, 7], 1)


def test_truncated_jpeg_hides_no_following_jpeg() -> None:
    half, others = jpeg(3)[: len(jpeg(3)) // 2], [part(jpeg(number)) for number in range(4)]
    in_long_segment = jpeg(0)[:2] + b"\xff\xe1\xff\xf0" + bytes(50)
    assert numbers_and_corrupt([part(half), *others]) == ([0, 1, 2, 3], 1)
    assert numbers_and_corrupt([part(in_long_segment), *others]) == ([0, 1, 2, 3], 1)
    assert numbers_and_corrupt([jpeg(0), jpeg(1), half, jpeg(2), jpeg(3)], "video/x-motion-jpeg") == ([0, 1, 2, 3], 1)


def test_missing_first_boundary_or_rest_of_previous_jpeg_loses_no_frame() -> None:
    head = part(jpeg(0), length(jpeg(0))).partition(b"\r\n")[2]
    parts = [part(jpeg(number)) for number in range(1, 6)]
    assert numbers_and_corrupt([head, *parts]) == (list(range(6)), 0)
    assert numbers_and_corrupt([jpeg(0), b"\r\n", *parts]) == (list(range(6)), 0)
    assert numbers_and_corrupt([jpeg(9)[-200:], b"\r\n", *parts]) == (list(range(1, 6)), 0)


def test_empty_parts_are_counted_and_skipped() -> None:
    parts = [part(jpeg(number)) for number in range(6)]
    assert numbers_and_corrupt([*parts[:3], part(b"", "Content-Length: 0"), *parts[3:]]) == (list(range(6)), 1)
    assert numbers_and_corrupt([*parts[:3], part(b"no JPEG at all"), *parts[3:]]) == (list(range(6)), 1)


def test_splitter_result_is_independent_of_chunk_size() -> None:
    data = b"".join(part(jpeg(number)) + b"--next\r\nContent-Type: text/plain\r\n\r\nalive\r\n" for number in range(4))
    for size in (1, 7, 100, 1000, len(data)):
        splitter = JpegSplitter("next")
        found = [one for begin in range(0, len(data), size) for one in splitter.feed(data[begin : begin + size])]
        assert found == [jpeg(number) for number in range(4)]
        assert splitter.corrupt == 0


def test_jpeg_is_complete_with_its_last_byte() -> None:
    splitter = JpegSplitter("next")
    data = part(jpeg(0))[:-2]
    assert splitter.feed(data[:-1]) == []
    assert splitter.feed(data[-1:]) == [jpeg(0)]


def test_jpeg_thumbnail_is_not_a_frame() -> None:
    small = jpeg(9, 32, 32)
    header = b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small
    assert numbers_and_corrupt(part(jpeg(number)[:2] + header + jpeg(number)[2:]) for number in range(4)) == (
        [0, 1, 2, 3],
        0,
    )


@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.parametrize(
    "junk", [b"\r\n--next\r\n", b"--next", b"\r\n--next\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff"]
)
def test_boundary_inside_jpeg_segment_is_ignored(junk: bytes, headers: bool) -> None:
    segment = b"\xff\xe1" + (len(junk) + 302).to_bytes(2, "big") + bytes(100) + junk + bytes(200)
    images = [jpeg(number)[:2] + segment + jpeg(number)[2:] for number in range(6)]
    data = b"".join(part(one, *([length(one)] if headers else [])) for one in images)
    for size in (1, 61, len(data)):
        splitter = JpegSplitter("next")
        found = [one for begin in range(0, len(data), size) for one in splitter.feed(data[begin : begin + size])]
        assert (found, splitter.corrupt) == (images, 0)
    assert numbers_and_corrupt([data]) == (list(range(6)), 0)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("end", ["silence", "reset"])
def test_truncated_jpeg_before_connection_error_is_corrupt(share: float, end: str, never: threading.Event) -> None:
    class Camera(HttpServer):
        def _respond(self, client: socket.socket, number: int) -> None:
            client.sendall(http_response(MULTIPART))
            client.sendall(b"".join(part(jpeg(number)) for number in range(4)))
            client.sendall(part(jpeg(4)[: int(len(jpeg(4)) * share)])[:-2])
            if end == "silence":
                never.wait(60)
            else:
                time.sleep(0.3)  # a reset discards data that the client has not read
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()

    with Camera(lambda _: []) as server:
        source = open_stream(server.url, timeout_seconds=1.0 if end == "silence" else TIMEOUT)
        _, message = read_until_disconnected(source)
    assert "no data arrived in time" in message or "reset" in message
    assert source.corrupt == 1


def test_mjpeg_size_change_changes_frames() -> None:
    sizes = [(160, 96)] * 3 + [(320, 192)] * 3
    answer = [http_response(MULTIPART), *(part(jpeg(number, *size)) for number, size in enumerate(sizes))]
    with HttpServer(lambda _: answer) as server:
        frames, corrupt, _ = read(server.url)
    assert [(frame.width, frame.height) for frame in frames] == sizes
    assert corrupt == 0


def test_truncated_jpeg_over_tcp_is_corrupt() -> None:
    images = [jpeg(number, 640, 384) for number in range(8)]
    images[3] = images[3][: len(images[3]) * 3 // 4]
    with TcpServer(lambda _: images) as server:
        frames, corrupt, _ = read(server.url)
    assert [number_of(frame) for frame in frames] == [0, 1, 2, 4, 5, 6, 7]
    assert corrupt == 1
    assert not np.array_equal(frames[0].planes[0], frames[1].planes[0])
