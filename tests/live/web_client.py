"""Web page of a live run with an HTTP client, for its tests."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import cv2
import numpy as np

from rtseg.core.frame import Frame, ProcessedFrame, StreamInfo, rgb_frame
from rtseg.core.live_report import CameraReport, DisconnectReport, IntervalReport, LiveReport, SinkReport
from rtseg.core.palette import load_palette
from rtseg.core.report import FrameCounts, Percentiles, PipelineReport, RunIdentity, StageReport
from rtseg.live.controls import Controls, LiveMetrics
from rtseg.live.sinks.web import WebSink
from rtseg.synthetic import SyntheticDrive

PALETTE = load_palette("street", SyntheticDrive.classes)
HTML_NAME = '<img src=x onerror="document.title=1">'


AGE = Percentiles(p50=71.0, p95=90.0, p99=93.0, max=95.0)
TOTALS = CameraReport(
    input=HTML_NAME,
    pipeline=PipelineReport(
        frames=FrameCounts(read=30, segmented=20, written=20, dropped=10, corrupt=0),
        seconds=12.5,
        fps=1.6,
        cpu_seconds=9.0,
        peak_rss_mib=200.0,
        warmup_ms=80.0,
        latency_ms=AGE,
        stages={"infer": StageReport(p50=60.0, p95=61.0, p99=62.0, busy=0.9)},
        bottleneck="infer",
        classes={"road": 0.31},
    ),
    sinks={"web": SinkReport(written=20, dropped=3, mean_ms=0.1)},
    disconnects=DisconnectReport(count=1, seconds=4.2, connected=True),
    now=IntervalReport(
        capture_fps=30.0,
        shown_fps=16.4,
        dropped=14,
        age_ms=AGE,
        bottleneck="infer",
        engine_ms=60.2,
        work_ms=62.0,
        stale=0,
        classes={"road": 0.31, HTML_NAME: 0.2},
    ),
)
IDENTITY = RunIdentity(
    command="live",
    input=HTML_NAME,
    output="web",
    model="small",
    backend="openvino",
    precision="f32",
    device="CPU",
    input_size=(480, 360),
)
REPORT = LiveReport(identity=IDENTITY, totals=TOTALS)


class Page:
    """Running page with an HTTP client that behaves like a browser on this machine."""

    def __init__(self, *, address: str = "127.0.0.1:0", token: str | None = None) -> None:
        self.controls, self.metrics = Controls(), LiveMetrics()
        self.sink = WebSink(self.controls, self.metrics, PALETTE, address=address, token=token)

    def request(
        self, path: str, headers: dict[str, str] | None = None, body: Any = None, method: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.sink.port, timeout=120)
        data = json.dumps(body).encode() if body is not None and not isinstance(body, bytes) else body
        default_headers = {"Content-Type": "application/json"} if data is not None else {}
        connection.request(
            method or ("GET" if data is None else "POST"), path, data, {**default_headers, **(headers or {})}
        )
        response = connection.getresponse()
        result = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return result


def item(red: int = 0, size: tuple[int, int] = (160, 96)) -> ProcessedFrame:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[:, :, 0] = red
    return processed(rgb_frame(image))


def processed(frame: Frame) -> ProcessedFrame:
    info = StreamInfo("web", frame.width, frame.height, frame.pixel_format, frame.color, frame.time_base)
    return ProcessedFrame(frame, np.zeros((4, 4), np.uint8), frame, info)


class Stream:
    """Client of the MJPEG stream."""

    def __init__(self, page: Page) -> None:
        self.socket = socket.create_connection(("127.0.0.1", page.sink.port), timeout=120)
        self.socket.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.file = self.socket.makefile("rb")
        head = self._until_empty_line()
        assert head[0].startswith(b"HTTP/1.1 200")
        assert any(b"multipart/x-mixed-replace; boundary=frame" in line for line in head)

    def read_image(self) -> np.ndarray:
        while self.file.readline() != b"--frame\r\n":
            pass
        head = dict(line.decode().strip().split(": ") for line in self._until_empty_line())
        assert head["Content-Type"] == "image/jpeg"
        data = self.file.read(int(head["Content-Length"]))
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    def _until_empty_line(self) -> list[bytes]:
        lines = []
        while (line := self.file.readline()) not in (b"\r\n", b""):
            lines.append(line)
        return lines

    def close(self) -> None:
        self.file.close()
        self.socket.close()
