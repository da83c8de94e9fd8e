"""Web page: content, and independence of the run from its clients."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import Browser
from live_doubles import wait_until
from web_client import HTML_NAME, IDENTITY, REPORT, TOTALS, Page, Stream, item, processed

from rtseg.core.color import rgb_to_planes
from rtseg.core.frame import Color, Frame
from rtseg.core.live_report import CameraReport, DisconnectReport
from rtseg.live.sinks.prometheus import exposition
from rtseg.live.sinks.snapshot import to_bgr
from rtseg.live.sinks.web_server import MAX_CONNECTIONS

# Content


def test_page_files_are_served_with_security_headers(page: Page) -> None:
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        status, headers, body = page.request(path)
        assert (status, headers["Content-Type"].split(";")[0]) == (200, kind)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert len(body) > 500
    assert page.request("/../web.py")[0] == 404
    assert page.request("/page/page.css")[0] == 404
    assert page.sink.url == f"http://127.0.0.1:{page.sink.port}/"


def test_mjpeg_stream_sends_each_frame_immediately(page: Page) -> None:
    page.sink.write(item(200))
    stream = Stream(page)
    assert abs(int(stream.read_image()[48, 80, 2]) - 200) < 8
    for red in (40, 120, 250):
        page.sink.write(item(red, (320, 180)))
        image = stream.read_image()
        assert image.shape == (180, 320, 3)
        assert abs(int(image[90, 160, 2]) - red) < 8
    stream.close()
    assert page.sink.written == 4


def test_to_bgr_for_each_matrix_and_range() -> None:
    for matrix, full in (("bt601", False), ("bt709", False), ("bt709", True)):
        color = Color(matrix, full)  # type: ignore[arg-type]
        y, u, v = (int(value) for value in rgb_to_planes(np.array([[200, 60, 30]], np.uint8), color)[0])
        planes = np.full((96, 160), y, np.uint8), np.full((48, 80), u, np.uint8), np.full((48, 80), v, np.uint8)
        frame = Frame(planes, "yuv420p", color, 0, Fraction(1, 30), 0)
        assert np.abs(to_bgr(frame)[40, 40].astype(int) - (30, 60, 200)).max() <= 3


def test_large_frames_are_scaled_on_page_and_full_size_in_snapshot(page: Page) -> None:
    page.sink.write(item(90, (1600, 900)))
    stream = Stream(page)
    assert stream.read_image().shape == (720, 1280, 3)
    stream.close()
    status, headers, body = page.request("/snapshot.png")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (900, 1600, 3)
    assert (image == (0, 0, 90)).all()


def test_requests_before_first_frame(page: Page) -> None:
    assert page.request("/snapshot.png")[0] == 503
    assert json.loads(page.request("/stats")[2]) == {}
    assert page.request("/metrics")[0] == 200


def test_stats_request_returns_report(page: Page) -> None:
    page.metrics.publish(REPORT)
    status, headers, body = page.request("/stats")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body) == {**REPORT.to_dict(), "input_size": [480, 360]}
    name = os.fsdecode(b"caf\xe9.mp4")  # file names may be invalid UTF-8
    page.metrics.publish(replace(REPORT, totals=replace(TOTALS, input=name)))
    assert json.loads(page.request("/stats")[2])["input"] == name
    assert b'camera="caf?.mp4"' in page.request("/metrics")[2]


def test_controls_request_reads_and_changes_settings(page: Page) -> None:
    assert json.loads(page.request("/controls")[2]) == {
        "view": "overlay",
        "alpha": 0.5,
        "legend": False,
        "paused": False,
    }
    status, _, body = page.request("/controls", body={"view": "mask", "alpha": 0.8, "legend": True})
    assert (status, json.loads(body)["view"]) == (200, "mask")
    settings = page.controls.settings
    assert (settings.view, settings.alpha, settings.legend, settings.paused) == ("mask", 0.8, True, False)
    assert page.request("/controls/snapshot", body={})[0] == 202
    assert page.controls.take_snapshot_request()


@pytest.mark.parametrize(
    "body",
    [
        {"view": "x-ray"},
        {"alpha": 1.5},
        {"alpha": "0.5"},
        {"alpha": True},
        {"legend": "yes"},
        {"quit": True},
        {"alpha": float("nan")},
        {},
        [],
        b"{",
        b"[" * 500,
        b"\xff",
    ],
)
def test_invalid_settings_are_refused(page: Page, body: Any) -> None:
    before = page.controls.settings
    status, _, response = page.request("/controls", body=body)
    assert status == 400
    assert json.loads(response)["error"]
    assert page.controls.settings == before


def test_large_and_unknown_requests_are_refused(page: Page) -> None:
    assert page.request("/controls", body=b"x" * 5000)[0] == 413
    assert page.request("/quit", body={})[0] == 404
    assert page.request("/controls", method="PUT")[0] == 501
    assert page.request("/controls", {"Content-Type": "text/plain"}, {"view": "mask"})[0] == 415
    assert page.controls.settings.view == "overlay"
    with socket.create_connection(("127.0.0.1", page.sink.port), timeout=120) as connection:
        connection.sendall(b"GET http://[ HTTP/1.1\r\n\r\n")  # a URL that can't be parsed
        assert connection.recv(12) == b"HTTP/1.1 400"


def test_metrics_are_prometheus_text(page: Page) -> None:
    page.metrics.publish(replace(REPORT, identity=replace(IDENTITY, device='a "b"\\c\nd')))
    status, headers, body = page.request("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = body.decode().splitlines()
    camera = 'camera="' + HTML_NAME.replace('"', '\\"') + '"'
    assert f'rtseg_frames_total{{{camera},result="dropped"}} 10' in lines
    assert f'rtseg_age_seconds{{{camera},quantile="0.99"}} 0.093' in lines
    assert 'rtseg_sink_frames_total{sink="web",result="dropped"} 3' in lines
    assert any('device="a \\"b\\"\\\\c\\nd"' in line for line in lines)
    for line in lines:
        name = line.split("{")[0].split(" ")[0]
        assert line.startswith("#") or f"# TYPE {name} " in body.decode()


def test_metrics_of_several_cameras() -> None:
    items = (
        replace(TOTALS, camera="camera0"),
        replace(TOTALS, camera="camera1", disconnects=DisconnectReport(count=1, seconds=1.0, connected=False)),
    )
    text = exposition(replace(REPORT, items=items))
    assert 'rtseg_frames_total{camera="camera1",result="read"} 30' in text
    assert 'rtseg_connected{camera="camera0"} 1' in text
    assert 'rtseg_connected{camera="camera1"} 0' in text
    assert text.count("# TYPE rtseg_connected gauge") == 1


def test_healthz_detects_stalled_run(page: Page) -> None:
    totals = replace(TOTALS, disconnects=DisconnectReport(count=1, seconds=1.0, connected=False))
    threading.Timer(0.3, page.metrics.publish, (replace(REPORT, totals=totals),)).start()
    status, _, body = page.request("/healthz")
    assert (status, json.loads(body)) == (200, {"status": "ok", "connected": False})
    status, _, body = page.request("/healthz")
    assert (status, json.loads(body)["status"]) == (503, "stalled")


# Load


def test_client_that_does_not_read_does_not_slow_down_others(page: Page) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 720, 1280), dtype=np.uint8)
    frame = Frame((noise[0], noise[1], noise[2]), "gbrp", Color("rgb", True), 0, Fraction(1, 30), 0)
    large = processed(frame)
    page.sink.write(large)
    blocked, reader = Stream(page), Stream(page)
    # Half a megabyte each, more than any buffer: waiting for the client that does not read would block.
    for _ in range(200):
        page.sink.write(large)
    for red in (10, 200):
        page.sink.write(item(red))
        while (image := reader.read_image()).shape != (96, 160, 3) or abs(int(image[48, 80, 2]) - red) > 8:
            pass
    blocked.close()
    reader.close()


def test_no_frame_is_encoded_without_clients(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    monkeypatch.setattr("rtseg.live.sinks.snapshot.cv2.imencode", lambda *a: encoded.append(a))
    for _ in range(50):
        page.sink.write(item())
    assert encoded == []


def test_excess_connections_are_closed(page: Page) -> None:
    idle = [socket.create_connection(("127.0.0.1", page.sink.port), timeout=120) for _ in range(MAX_CONNECTIONS)]
    wait_until(lambda: len(page.sink._server._connections) == MAX_CONNECTIONS)
    with socket.create_connection(("127.0.0.1", page.sink.port), timeout=120) as more:
        assert more.recv(1) == b""
    for each in idle:
        each.close()
    wait_until(lambda: not page.sink._server._connections)
    assert page.request("/stats")[0] == 200


def test_close_disconnects_clients_immediately(page: Page) -> None:
    page.sink.write(item())
    stream = Stream(page)
    stream.read_image()
    page.sink.close()
    page.sink.close()
    while stream.file.readline():
        pass  # the stream ends
    stream.close()
    with pytest.raises(OSError):
        page.request("/stats")
    Page(address=f"127.0.0.1:{page.sink.port}").sink.close()  # the port is free again


# Browser


@pytest.mark.system("chromium", "chromedriver")
def test_page_in_chromium_shows_video_metrics_and_controls(page: Page, tmp_path: Path) -> None:
    stop = threading.Event()
    items: tuple[CameraReport, ...] = ()

    def run() -> None:
        count = 0
        while not stop.wait(0.1):
            page.sink.write(item(count % 2 * 255))
            count += 1
            if count % 5 == 0:
                now = replace(TOTALS.now, shown_fps=10 + count / 5)
                totals = replace(TOTALS, now=now, disconnects=DisconnectReport(count=0, seconds=0.0, connected=True))
                page.metrics.publish(replace(REPORT, totals=totals, items=items))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with Browser(tmp_path / "profile") as browser:
            browser.open(page.sink.url)
            browser.wait_for("return document.getElementById('frame').naturalWidth === 160")
            pixel = """
                const c = document.createElement('canvas'); c.width = c.height = 1; const x = c.getContext('2d');
                x.drawImage(document.getElementById('frame'), 0, 0, 1, 1); return x.getImageData(0, 0, 1, 1).data[0];"""
            seen: set[bool] = set()
            deadline = time.monotonic() + 120
            while len(seen) < 2:
                assert time.monotonic() < deadline, "the video does not change"
                seen.add(browser.run(pixel) > 128)
            first = browser.wait_for("const t = document.getElementById('shown').textContent; return t !== '–' && t")
            browser.wait_for(f"return document.getElementById('shown').textContent !== '{first}'")
            assert browser.run("return document.getElementById('state').textContent") == "live"
            disconnects = DisconnectReport(count=1, seconds=1.0, connected=False)
            items = replace(TOTALS, camera="yard"), replace(TOTALS, camera="door", disconnects=disconnects)
            browser.wait_for("return document.getElementById('state').textContent === 'live, door disconnected'")
            browser.click("[data-view='mask']")
            browser.wait_for(
                "return document.querySelector('[data-view=mask]').getAttribute('aria-checked') === 'true'"
            )
            assert page.controls.settings.view == "mask"
            browser.run(
                "const a = document.getElementById('alpha'); a.value = 0.75; a.dispatchEvent(new Event('input'))"
            )
            browser.click("#legend")
            browser.click("#pause")
            browser.wait_for("return document.getElementById('pause').textContent === 'Resume'")
            settings = page.controls.settings
            assert (settings.view, settings.alpha, settings.legend, settings.paused) == ("mask", 0.75, True, True)
            # Names of cameras and classes are inserted as text, never as HTML.
            assert browser.run("return document.title") == "rtseg live"
            assert HTML_NAME in browser.run("return document.getElementById('run-info').textContent")
            assert browser.run("return document.querySelectorAll('img').length") == 1
            assert browser.run("return document.querySelectorAll('#classes li').length") == 2
            page.sink.close()
            browser.wait_for("return !document.getElementById('hint').hidden")
    finally:
        stop.set()
        thread.join()
