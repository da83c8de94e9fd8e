"""Access control of the web page: host names, sites, tokens, addresses."""

from __future__ import annotations

import pytest
from web_client import Page

from rtseg.core.errors import OptionError, SinkError
from rtseg.live.sinks.web import parse_address

ORIGIN = {"Host": "localhost", "Origin": "http://localhost"}


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        *((421, {"Host": host}) for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example")),
        *((421, {"Host": host}) for host in ("192.0.2.7", "", "[::2]")),
        *((200, {"Host": host}) for host in ("localhost", "localhost:9000", "LOCALHOST:1", "127.0.0.1", "[::1]:8080")),
        *((403, {**ORIGIN, "Origin": site}) for site in ("http://evil.example", "null", "https://localhost")),
        (403, {**ORIGIN, "Origin": "http://localhost:1"}),
        (403, {**ORIGIN, "Sec-Fetch-Site": "cross-site"}),
        (403, {**ORIGIN, "Sec-Fetch-Site": "same-site"}),
        (200, {**ORIGIN, "Sec-Fetch-Site": "same-origin"}),
    ],
)
def test_access_by_host_name_and_origin(page: Page, status: int, headers: dict[str, str]) -> None:
    for path in ("/page.js", "/stats", "/metrics", *(() if status == 200 else ("/stream.mjpg", "/healthz"))):
        assert page.request(path, headers)[0] == status
    assert page.request("/controls", headers, {"view": "mask"})[0] == status
    assert page.controls.settings.view == ("mask" if status == 200 else "overlay")
    assert (page.request("/", headers)[0] == 421) == (status == 421), "a link from another site opens the page"


def test_token_is_required_outside_loopback() -> None:
    page = Page(address="0.0.0.0:0")
    try:
        token = page.sink.token
        assert token is not None
        assert len(token) >= 16
        assert page.sink.url.endswith(f"/?token={token}")
        for path in (
            "",
            "stats",
            "stream.mjpg",
            "metrics",
            "controls",
            "snapshot.png",
            "page.js",
            "?token=",
            "?token=no",
        ):
            assert page.request(f"/{path}")[0] == 401
        assert page.request("/controls", body={"view": "mask"})[0] == 401
        assert page.controls.settings.view == "overlay"
        assert page.request("/healthz")[0] in (200, 503)
        assert page.request(f"/stats?token={token}")[0] == 200
        assert page.request("/stats", {"Authorization": f"Bearer {token}"})[0] == 200
        assert page.request("/stats", {"Host": "evil.example", "Authorization": f"Bearer {token}"})[0] == 421
        status, headers, _ = page.request(f"/?token={token}")
        assert (status, headers["Location"]) == (303, "/")
        assert "HttpOnly; SameSite=Strict" in headers["Set-Cookie"]
        cookie = {"Cookie": headers["Set-Cookie"].split(";")[0]}
        assert page.request("/", cookie)[0] == 200
        assert page.request("/stats", cookie)[0] == 200
    finally:
        page.sink.close()


def test_custom_token_is_required() -> None:
    page = Page(token="abc-123_x")
    try:
        assert page.sink.url.endswith("/?token=abc-123_x")
        assert page.request("/stats")[0] == 401
        assert page.request("/stats?token=abc-123_x")[0] == 200
    finally:
        page.sink.close()
    for token in ("", "a b", "a;b", "ä"):
        with pytest.raises(OptionError, match="token"):
            Page(token=token)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("8080", ("127.0.0.1", 8080)),
        (":80", ("127.0.0.1", 80)),
        ("[::1]:8080", ("::1", 8080)),
        ("car.local:1", ("car.local", 1)),
    ],
)
def test_parse_address(address: str, expected: tuple[str, int]) -> None:
    assert parse_address(address) == expected


@pytest.mark.parametrize("address", ["", "localhost", "1.2.3.4:x", "::1:80", "1.2.3.4:70000", "1.2.3.4:-1"])
def test_parse_address_rejects_invalid_text(address: str) -> None:
    with pytest.raises(OptionError, match="HOST:PORT"):
        parse_address(address)


def test_port_in_use_raises_sink_error(page: Page) -> None:
    with pytest.raises(SinkError, match=f"127.0.0.1:{page.sink.port}.*address already in use"):
        Page(address=f"127.0.0.1:{page.sink.port}")
