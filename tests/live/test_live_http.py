"""HTTP of live sources: chunks, redirects, passwords, errors, responses without video."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import pytest
from http_server import HttpServer, http_response
from media import number_of
from test_live_mjpeg import TIMEOUT, jpeg, length, part, read

from rtseg.core.errors import Disconnected, SourceError
from rtseg.io.inputs.network import open_stream
from rtseg.live.reconnect import ReconnectingSource


def test_http_chunks_redirect_and_basic_password() -> None:
    def answer(request: str) -> Iterator[bytes]:
        if request.startswith("GET /old"):
            yield http_response("text/html", "302 Found", "Location: /video?size=1", "Content-Length: 0")
        elif "Authorization: Basic bWU6cyBjcmV0" not in request:
            yield http_response(
                "text/html", "401 Unauthorized", 'WWW-Authenticate: Basic realm="cam"', "Content-Length: 0"
            )
        else:
            yield http_response("multipart/x-mixed-replace;boundary=next", "200 OK", "Transfer-Encoding: chunked")
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
def test_password_is_sent_on_request_also_after_a_redirect(scheme: str, door_credentials: str) -> None:
    expected = {"Basic": "Authorization: Basic bWU6cyBjcmV0", "Digest": 'Authorization: Digest username="me"'}[scheme]
    requests: list[str] = []

    def camera(request: str) -> Iterator[bytes]:
        requests.append(request)
        if expected not in request:
            challenge = f'WWW-Authenticate: {scheme} realm="cam", nonce="abc", qop="auth", algorithm=MD5'
            yield http_response("text/html", "401 Unauthorized", challenge, "Content-Length: 0")
        else:
            yield http_response("multipart/x-mixed-replace;boundary=next")
            yield from (part(jpeg(number)) for number in range(3))

    def door(_: str) -> Iterator[bytes]:
        address = there.url.replace("//", "//me:s%20cret@")
        yield http_response("text/html", "302 Found", f"Location: {address}/video", "Content-Length: 0")

    with HttpServer(camera) as there, HttpServer(door) as here:
        results = [
            read(here.url.replace("//", f"//{door_credentials}")),
            read(there.url.replace("//", "//me:s%20cret@")),
        ]
    for frames, _, error in results:
        assert [number_of(frame) for frame in frames] == [0, 1, 2]
        assert "cret" not in error
    assert not any("eW91OjB0aGVy" in request or '"you"' in request for request in requests), (
        "the password of another host"
    )


def test_redirect_with_wrong_password_error_contains_no_password() -> None:
    def camera(request: str) -> Iterator[bytes]:
        if request.startswith("GET /old"):
            host = request.lower().partition("host: ")[2].split()[0]
            yield http_response("text/html", "302 Found", f"Location: http://me:s3cret@{host}/new", "Content-Length: 0")
        yield http_response("text/html", "401 Unauthorized", 'WWW-Authenticate: Basic realm="cam"', "Content-Length: 0")

    with HttpServer(camera) as server, pytest.raises(SourceError, match="401 Unauthorized") as caught:
        open_stream(f"{server.url}/old", timeout_seconds=30)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("end", "message"),
    [(b"", "the server closed it"), (b"40\r\nhalf a chunk", "the server closed it"), (b"video\r\n", "not valid HTTP")],
)
def test_truncated_http_chunks_are_a_disconnect(end: bytes, message: str) -> None:
    def answer(_: str) -> Iterator[bytes]:
        yield http_response("multipart/x-mixed-replace;boundary=next", "200 OK", "Transfer-Encoding: chunked")
        for number in range(4):
            data = part(jpeg(number))
            yield b"%x\r\n%s\r\n" % (len(data), data)
        yield end

    with HttpServer(answer) as server:
        frames, corrupt, error = read(server.url)
    assert [number_of(frame) for frame in frames] == list(range(4))
    assert corrupt == 0
    assert message in error


def test_server_that_closes_after_each_part_is_requested_again() -> None:
    numbers = iter(range(6))

    def answer(_: str) -> Iterator[bytes]:
        number = next(numbers, None)
        if number is not None:
            yield http_response("multipart/x-mixed-replace;boundary=next")
            yield part(jpeg(number))

    with HttpServer(answer) as server:
        frames, corrupt, error = read(server.url)
    assert [number_of(frame) for frame in frames] == list(range(6))
    assert corrupt == 0
    assert "ended" in error


def test_server_with_one_image_per_connection_is_logged_once() -> None:
    def answer(_: str) -> Iterator[bytes]:
        yield http_response("multipart/x-mixed-replace;boundary=next")
        yield part(jpeg(len(server.requests) % 8))

    log: list[str] = []
    with HttpServer(answer) as server:
        connect = partial(open_stream, server.url, timeout_seconds=TIMEOUT)
        source = ReconnectingSource("door", connect, longest_pause_seconds=0, log=log.append)
        assert len(list(itertools.islice(source, 6))) == 6
        source.close()
    assert source.disconnects.count == 0
    assert len(log) == len(source.warnings) == 1
    assert "reconnects for the next" in log[0]


def test_wrong_content_length_of_stream_is_ignored() -> None:
    head = http_response("multipart/x-mixed-replace;boundary=next", "200 OK", "Content-Length: 0")
    with HttpServer(lambda _: [head, *(part(jpeg(number)) for number in range(4))]) as server:
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
    answer = http_response("text/html", status, "Content-Length: 0")
    with HttpServer(lambda _: [answer]) as server, pytest.raises(Disconnected, match=words) as caught:
        open_stream(f"{server.url}/cam?token=s3cret", timeout_seconds=TIMEOUT)
    assert str(caught.value).startswith(f"can't open {server.url}/cam: ")
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([http_response("image/jpeg"), jpeg(0)], "one image .* not a stream"),
        ([http_response("image/jpeg", "200 OK", length(jpeg(0))), jpeg(0)], "one image .* not a stream"),
        ([http_response("text/html"), b"<!DOCTYPE html><html><body>Login</body></html>"], "web page"),
        ([http_response("text/xml"), b"<?xml version='1.0'?><a/>"], "not a video that rtseg reads"),
        ([http_response("application/json", "200 OK", "Content-Length: 2"), b"{}"], "not a video that rtseg reads"),
        ([http_response("multipart/x-mixed-replace; boundary=next"), part(b"PNG", kind="image/png")], "without a JPEG"),
        (
            [http_response("text/plain", "302 Found", "Location: ftp://127.0.0.1/x", "Content-Length: 0")],
            "redirects to",
        ),
        ([b"hello\r\n\r\n"], "the response is not valid HTTP"),
        ([], "closed before a response"),
    ],
)
def test_response_without_video_is_reported_in_one_line(chunks: list[bytes], words: str) -> None:
    with HttpServer(lambda _: chunks) as server, pytest.raises(SourceError, match=words) as caught:
        list(open_stream(server.url, timeout_seconds=TIMEOUT))
    assert "\n" not in str(caught.value)
    assert "came within" not in str(caught.value), "not a timeout"
