"""MJPEG over HTTP and TCP: all variants that cameras send; damaged images are counted and skipped."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

import cv2
import numpy as np
import pytest
from live_server import HttpServer, TcpServer, http_answer
from media import number_of, picture

from rtseg.core.errors import Disconnected, SourceError
from rtseg.core.frame import Frame
from rtseg.io.inputs.mjpeg import JpegSplitter
from rtseg.io.inputs.network import open_stream
from rtseg.live.reconnect import ReconnectingSource

pytestmark = pytest.mark.timeout(60)

TIMEOUT = 20.0


@cache
def jpeg(number: int, width: int = 160, height: int = 96) -> bytes:
    return cv2.imencode(".jpg", picture(number, width, height)[..., ::-1])[1].tobytes()


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


def numbers_and_corrupt(
    chunks: Iterable[bytes], content_type: str = "multipart/x-mixed-replace; boundary=next"
) -> tuple[list[int], int]:
    """Return the frame numbers and the number of corrupt frames of a response body, after which the server disconnects."""

    def answer(_: str) -> Iterator[bytes]:
        yield http_answer(content_type)
        yield from chunks

    with HttpServer(answer) as server:
        frames, corrupt, _ = read(f"{server.url}/video.mjpg")
    return [number_of(frame) for frame in frames], corrupt


def read(url: str) -> tuple[list[Frame], int, str]:
    source = open_stream(url, timeout_seconds=TIMEOUT)
    frames: list[Frame] = []
    try:
        frames.extend(item for item in source if isinstance(item, Frame))
    except Disconnected as error:
        return frames, source.corrupt, str(error)
    finally:
        source.close()
    pytest.fail("a live source must end with Disconnected")


def length(data: bytes) -> str:
    return f"Content-Length: {len(data)}"


FORMS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "plain": ("multipart/x-mixed-replace; boundary=next", lambda data: part(data, length(data))),
    "no length": ("multipart/x-mixed-replace; boundary=next", part),
    "length too small": ("multipart/x-mixed-replace; boundary=next", lambda data: part(data, "Content-Length: 100")),
    "length too large": ("multipart/x-mixed-replace; boundary=next", lambda data: part(data, "Content-Length: 99999")),
    "quoted boundary": ('multipart/x-mixed-replace; boundary="next"', part),
    "dashes in the header": ("multipart/x-mixed-replace;boundary=--next", part),
    "four dashes in the body": ("multipart/x-mixed-replace;boundary=--next", lambda d: part(d, boundary="----next")),
    "no dashes in the body": ("multipart/x-mixed-replace; boundary=next", lambda data: part(data, boundary="next")),
    "another boundary": ("multipart/x-mixed-replace; boundary=other", part),
    "no boundary named": ("multipart/x-mixed-replace", part),
    "type not multipart": ("application/octet-stream", part),
    "type of one image": ("image/jpeg", part),
    "line feeds only": ("multipart/x-mixed-replace; boundary=next", lambda data: part(data, line="\n")),
    "more headers": (
        "multipart/x-mixed-replace; boundary=next",
        lambda data: part(data, "X-Timestamp: 12.5", "X-Framerate: 15", length(data)),
    ),
    "blank lines between": (
        "multipart/x-mixed-replace; boundary=next",
        lambda data: b"\r\n\r\n" + part(data) + b"\r\n",
    ),
    "zero padding": ("multipart/x-mixed-replace; boundary=next", lambda data: part(data + bytes(40))),
    "text parts": (
        "multipart/x-mixed-replace; boundary=next",
        lambda data: part(b"motion: 0", "Content-Length: 9", kind="text/plain") + part(data, length(data)),
    ),
    "no line end after the image": ("multipart/x-mixed-replace; boundary=next", lambda data: part(data)[:-2]),
    "no part headers": ("multipart/x-mixed-replace; boundary=next", lambda data: b"--next\r\n\r\n" + data + b"\r\n"),
    "no Huffman tables": ("multipart/x-mixed-replace; boundary=next", lambda data: part(without_tables(data))),
    "no end markers": ("multipart/x-mixed-replace; boundary=next", lambda data: part(data[:-2])),
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


def test_truncated_first_jpeg_is_corrupt() -> None:
    half = jpeg(3)[: len(jpeg(3)) // 2]
    assert numbers_and_corrupt([part(half), *(part(jpeg(number)) for number in range(4))]) == ([0, 1, 2, 3], 1)


def test_truncated_jpeg_in_concatenated_jpegs_is_corrupt() -> None:
    half = jpeg(3)[: len(jpeg(3)) // 2]
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


def test_jpeg_truncated_in_long_segment_hides_no_following_jpeg() -> None:
    cut = jpeg(0)[:2] + b"\xff\xe1\xff\xf0" + bytes(50)
    assert numbers_and_corrupt([part(cut), *(part(jpeg(number)) for number in range(4))]) == ([0, 1, 2, 3], 1)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("end", ["silence", "reset"])
def test_truncated_jpeg_before_connection_error_is_corrupt(share: float, end: str) -> None:
    over = threading.Event()

    class Camera(HttpServer):
        def _talk(self, client: socket.socket, number: int) -> None:
            client.sendall(http_answer("multipart/x-mixed-replace; boundary=next"))
            client.sendall(b"".join(part(jpeg(number)) for number in range(4)))
            client.sendall(part(jpeg(4)[: int(len(jpeg(4)) * share)])[:-2])
            if end == "silence":
                over.wait(60)
            else:
                time.sleep(0.3)  # a reset discards data that the client has not read
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()

    with Camera(lambda _: []) as server:
        source = open_stream(server.url, timeout_seconds=1.0 if end == "silence" else TIMEOUT)
        numbers: list[int] = []
        with pytest.raises(Disconnected, match=r"nothing came in time|reset"):
            numbers.extend(number_of(item) for item in source if isinstance(item, Frame))
        over.set()
        source.close()
    assert source.corrupt == 1


def test_mjpeg_size_change_changes_frames() -> None:
    def answer(_: str) -> Iterator[bytes]:
        yield http_answer("multipart/x-mixed-replace; boundary=next")
        yield from (part(jpeg(number)) for number in range(3))
        yield from (part(jpeg(number, 320, 192)) for number in range(3))

    with HttpServer(answer) as server:
        frames, corrupt, _ = read(server.url)
    assert [(frame.width, frame.height) for frame in frames] == [(160, 96)] * 3 + [(320, 192)] * 3
    assert corrupt == 0


def test_http_chunks_redirect_and_basic_password() -> None:
    def answer(request: str) -> Iterator[bytes]:
        if request.startswith("GET /old"):
            yield http_answer("text/html", "302 Found", "Location: /video?size=1", "Content-Length: 0")
        elif "Authorization: Basic bWU6cyBjcmV0" not in request:
            yield http_answer(
                "text/html", "401 Unauthorized", 'WWW-Authenticate: Basic realm="cam"', "Content-Length: 0"
            )
        else:
            yield http_answer("multipart/x-mixed-replace;boundary=next", "200 OK", "Transfer-Encoding: chunked")
            for number in range(5):
                data = part(jpeg(number))
                for piece in (data[:50], data[50:]):
                    yield b"%x\r\n%s\r\n" % (len(piece), piece)
            yield b"0\r\n\r\n"

    with HttpServer(answer) as server:
        frames, _, error = read(server.url.replace("//", "//me:s%20cret@") + "/old")
    assert [number_of(frame) for frame in frames] == list(range(5))
    assert "cret" not in error


@pytest.mark.parametrize("scheme", ["Basic", "Digest"])
@pytest.mark.parametrize("door_credentials", ["", "you:0ther@"])
def test_redirect_to_url_with_password_is_followed(scheme: str, door_credentials: str) -> None:
    expected = {"Basic": "Authorization: Basic bWU6cyBjcmV0", "Digest": 'Authorization: Digest username="me"'}[scheme]
    requests: list[str] = []

    def camera(request: str) -> Iterator[bytes]:
        requests.append(request)
        if expected not in request:
            challenge = f'WWW-Authenticate: {scheme} realm="cam", nonce="abc", qop="auth", algorithm=MD5'
            yield http_answer("text/html", "401 Unauthorized", challenge, "Content-Length: 0")
        else:
            yield http_answer("multipart/x-mixed-replace;boundary=next")
            yield from (part(jpeg(number)) for number in range(3))

    def door(_: str) -> Iterator[bytes]:
        address = there.url.replace("//", "//me:s%20cret@")
        yield http_answer("text/html", "302 Found", f"Location: {address}/video", "Content-Length: 0")

    with HttpServer(camera) as there, HttpServer(door) as here:
        frames, _, error = read(here.url.replace("//", f"//{door_credentials}"))
    assert [number_of(frame) for frame in frames] == [0, 1, 2]
    assert "cret" not in error
    assert not any("eW91OjB0aGVy" in request or '"you"' in request for request in requests), (
        "the password of another host"
    )


def test_redirect_with_wrong_password_error_contains_no_password() -> None:
    def camera(request: str) -> Iterator[bytes]:
        if request.startswith("GET /old"):
            host = request.lower().partition("host: ")[2].split()[0]
            yield http_answer("text/html", "302 Found", f"Location: http://me:s3cret@{host}/new", "Content-Length: 0")
        yield http_answer("text/html", "401 Unauthorized", 'WWW-Authenticate: Basic realm="cam"', "Content-Length: 0")

    with HttpServer(camera) as server, pytest.raises(SourceError, match="401 Unauthorized") as caught:
        open_stream(f"{server.url}/old", timeout_seconds=30)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("end", "message"),
    [(b"", "the server closed it"), (b"40\r\nhalf a chunk", "the server closed it"), (b"video\r\n", "no HTTP")],
)
def test_truncated_http_chunks_are_a_disconnect(end: bytes, message: str) -> None:
    def answer(_: str) -> Iterator[bytes]:
        yield http_answer("multipart/x-mixed-replace;boundary=next", "200 OK", "Transfer-Encoding: chunked")
        for number in range(4):
            data = part(jpeg(number))
            yield b"%x\r\n%s\r\n" % (len(data), data)
        yield end

    with HttpServer(answer) as server:
        frames, corrupt, error = read(server.url)
    assert [number_of(frame) for frame in frames] == list(range(4))
    assert corrupt == 0
    assert message in error


def test_http_digest_password() -> None:
    def answer(request: str) -> Iterator[bytes]:
        if 'Authorization: Digest username="me"' not in request:
            challenge = 'WWW-Authenticate: Digest realm="cam", nonce="abc", qop="auth", algorithm=MD5'
            yield http_answer("text/html", "401 Unauthorized", challenge, "Content-Length: 0")
        else:
            yield http_answer("multipart/x-mixed-replace;boundary=next")
            yield from (part(jpeg(number)) for number in range(3))

    with HttpServer(answer) as server:
        frames, _, _ = read(server.url.replace("//", "//me:s3cret@"))
    assert [number_of(frame) for frame in frames] == [0, 1, 2]


def test_server_that_closes_after_each_part_is_requested_again() -> None:
    numbers = iter(range(6))

    def answer(_: str) -> Iterator[bytes]:
        number = next(numbers, None)
        if number is not None:
            yield http_answer("multipart/x-mixed-replace;boundary=next")
            yield part(jpeg(number))

    with HttpServer(answer) as server:
        frames, corrupt, error = read(server.url)
    assert [number_of(frame) for frame in frames] == list(range(6))
    assert corrupt == 0
    assert "ended" in error


def test_server_with_one_image_per_connection_is_logged_once() -> None:
    def answer(_: str) -> Iterator[bytes]:
        yield http_answer("multipart/x-mixed-replace;boundary=next")
        yield part(jpeg(len(server.requests) % 8))

    log: list[str] = []
    with HttpServer(answer) as server:
        connect = partial(open_stream, server.url, timeout_seconds=TIMEOUT)
        source = ReconnectingSource("door", connect, longest_pause_seconds=0, log=log.append)
        assert len(list(itertools.islice(source, 6))) == 6
        source.close()
    assert source.disconnects.count == 0
    assert len(log) == len(source.warnings) == 1
    assert "is asked again for the next" in log[0]


def test_wrong_content_length_of_stream_is_ignored() -> None:
    def answer(_: str) -> Iterator[bytes]:
        yield http_answer("multipart/x-mixed-replace;boundary=next", "200 OK", "Content-Length: 0")
        yield from (part(jpeg(number)) for number in range(4))

    with HttpServer(answer) as server:
        frames, _, _ = read(server.url)
    assert [number_of(frame) for frame in frames] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("401 Unauthorized", "401 Unauthorized; give user and password"),
        ("403 Forbidden", "403 Forbidden"),
        ("404 Not Found", "404 Not Found; check the path"),
        ("500 Internal Server Error", "500 Internal Server Error"),
        ("503 Service Unavailable", "503 Service Unavailable; the camera may have too many viewers"),
    ],
)
def test_http_error_is_one_line_with_code_and_advice(status: str, words: str) -> None:
    answer = http_answer("text/html", status, "Content-Length: 0")
    with HttpServer(lambda _: [answer]) as server, pytest.raises(Disconnected, match=words) as caught:
        open_stream(f"{server.url}/cam?token=s3cret", timeout_seconds=TIMEOUT)
    assert str(caught.value).startswith(f"can't open {server.url}/cam: ")
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("with_length", [True, False])
def test_single_image_is_reported(with_length: bool) -> None:
    headers = [length(jpeg(0))] if with_length else []
    answer = [http_answer("image/jpeg", "200 OK", *headers), jpeg(0)]
    with HttpServer(lambda _: answer) as server, pytest.raises(SourceError, match=r"one image .* not a stream"):
        list(open_stream(f"{server.url}/snapshot.jpg", timeout_seconds=TIMEOUT))


def test_web_page_is_reported() -> None:
    answer = [http_answer("text/html"), b"<!DOCTYPE html><html><body>Login</body></html>"]
    with HttpServer(lambda _: answer) as server, pytest.raises(SourceError, match="web page"):
        open_stream(server.url, timeout_seconds=TIMEOUT)


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([http_answer("text/xml"), b"<?xml version='1.0'?><a/>"], "not a video that rtseg reads"),
        ([http_answer("application/json", "200 OK", "Content-Length: 2"), b"{}"], "not a video that rtseg reads"),
        ([http_answer("multipart/x-mixed-replace; boundary=next"), part(b"PNG", kind="image/png")], "no JPEG came"),
        ([http_answer("text/plain", "302 Found", "Location: ftp://127.0.0.1/x", "Content-Length: 0")], "leads to"),
        ([b"hello\r\n\r\n"], "no HTTP that can be understood"),
        ([], "closed before an answer"),
    ],
    ids=["XML", "JSON", "PNG parts", "another protocol", "no HTTP", "nothing"],
)
def test_response_without_video_is_reported_in_one_line(chunks: list[bytes], words: str) -> None:
    with HttpServer(lambda _: chunks) as server, pytest.raises(SourceError, match=words) as caught:
        list(open_stream(server.url, timeout_seconds=TIMEOUT))
    assert "\n" not in str(caught.value)
    assert "came within" not in str(caught.value), "not a timeout"


def test_truncated_jpeg_over_tcp_is_corrupt() -> None:
    images = [jpeg(number, 640, 384) for number in range(8)]
    images[3] = images[3][: len(images[3]) * 3 // 4]
    with TcpServer(lambda _: images) as server:
        frames, corrupt, _ = read(server.url)
    assert [number_of(frame) for frame in frames] == [0, 1, 2, 4, 5, 6, 7]
    assert corrupt == 1
    assert not np.array_equal(frames[0].planes[0], frames[1].planes[0])
