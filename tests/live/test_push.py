"""Push: received frames, and reconnecting to missing receivers without blocking the run."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from live_server import free_port
from media import numbered_image, rgb_at

from rtseg.core.errors import OptionError, SourceError
from rtseg.core.frame import Color, Frame, ProcessedFrame, StreamInfo
from rtseg.io.gstreamer.pipelines import srt_pipeline
from rtseg.io.inputs.gstreamer import GStreamerSource
from rtseg.live.sinks import push
from rtseg.live.sinks.push import PushSink

INFO = StreamInfo("camera", 160, 96, "yuv420p", Color("bt709", False), Fraction(1, 90_000), Fraction(30))

COLORS = {(20, 12): (200, 30, 30), (140, 12): (30, 180, 40), (20, 85): (40, 50, 200)}
"""RGB color of some pixels of `rendered`, by (x, y)."""


def children() -> list[Path]:
    """Return the `cmdline` files of the child processes."""
    numbers = [
        number for task in Path("/proc/self/task").iterdir() for number in (task / "children").read_text().split()
    ]
    return [Path(f"/proc/{number}/cmdline") for number in numbers if Path(f"/proc/{number}").exists()]


def rendered(number: int, width: int = 160, height: int = 96, pixel_format: str = "yuv420p") -> ProcessedFrame:
    """Return a frame of a BT.709 camera; in `gbrp` a mosaic of BT.601 cameras."""
    coded = av.VideoFrame.from_ndarray(numbered_image(1, width, height), "rgb24").reformat(
        format=pixel_format, dst_colorspace=1, dst_color_range=1
    )
    planes = tuple(np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width].copy() for p in coded.planes)
    color, stream = INFO.color, INFO
    if pixel_format == "gbrp":
        color, stream = Color("rgb", True, 0, range_tag=2), replace(INFO, color=Color("bt601", False))
    frame = Frame(planes, pixel_format, color, 9000 + 3000 * number, INFO.time_base, number)  # type: ignore[arg-type]
    return ProcessedFrame(frame, np.zeros((4, 4), np.uint8), frame, stream)


class Receiver:
    """Receiver that listens for a stream and stores the decoded frames."""

    def __init__(self, url: str, *, max_frames: int = 10_000, **options: str) -> None:
        self._max_frames = max_frames
        self.images: list[np.ndarray] = []
        self.times: list[float] = []
        self._thread = threading.Thread(target=self._run, args=(url, options), daemon=True)
        self._thread.start()

    def _run(self, url: str, options: dict[str, str]) -> None:
        try:
            with av.open(url, options=options) as container:
                for frame in container.decode(video=0):
                    if len(self.images) >= self._max_frames:
                        return
                    self.images.append(frame.to_ndarray(format="rgb24"))
                    if frame.pts is not None:
                        self.times.append(float(frame.pts * frame.time_base))
        except (av.FFmpegError, OSError):
            return  # the sender has disconnected


def send_until(
    sink: PushSink, enough: object, size: tuple[int, int] = (160, 96), pixel_format: str = "yuv420p"
) -> None:
    deadline = time.monotonic() + 120
    number = 0
    while not enough():  # type: ignore[operator]
        assert time.monotonic() < deadline, sink.warnings
        sink.write(rendered(number, *size, pixel_format))
        number += 1
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("kind", "pixel_format"), [("rtmp", "yuv420p"), ("rtmp", "gbrp"), ("rtsp", "yuv420p"), ("udp", "yuv420p")]
)
def test_receiver_gets_frames(kind: str, pixel_format: str) -> None:
    port = free_port(socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    url = f"{kind}://127.0.0.1:{port}" + ("" if kind == "udp" else "/live/street")
    listen = {
        "rtmp": {"listen": "1"},
        "rtsp": {"rtsp_flags": "listen", "listen_timeout": "100"},
        "udp": {"probesize": "20000", "analyzeduration": "500000"},
    }[kind]
    receiver = Receiver(url, **listen)
    sink = PushSink(url)
    send_until(sink, lambda: len(receiver.times) >= 20, (161, 97), pixel_format)
    sink.close()
    assert receiver.images[5].shape == (98, 162, 3)
    for (x, y), color in COLORS.items():
        assert np.abs(receiver.images[5][y, x].astype(int) - color).max() < 14
    steps = np.diff(receiver.times[2:20])
    assert (steps > 0).all()
    assert np.median(steps) == pytest.approx(1 / 30, abs=0.002)


@pytest.mark.system("gst-launch-1.0")
@pytest.mark.parametrize("secret", ["", "&passphrase=s3cret-passphrase&streamid=s3cret"])
@pytest.mark.parametrize(
    ("mode", "reads", "pixel_format"), [("listener", "caller", "yuv420p"), ("caller", "listener", "gbrp")]
)
def test_srt_push(secret: str, mode: str, reads: str, pixel_format: str) -> None:
    port = free_port(socket.SOCK_DGRAM)
    sink = PushSink(f"srt://127.0.0.1:{port}?mode={mode}{secret}")
    frames: list[Frame] = []
    stopped = threading.Event()

    def read() -> None:
        while not stopped.is_set():
            with contextlib.suppress(SourceError):  # the sender is not connected
                source = GStreamerSource(srt_pipeline(f"srt://127.0.0.1:{port}?mode={reads}{secret}"), timeout=30)
                for frame in itertools.takewhile(lambda _: not stopped.is_set(), source):
                    assert isinstance(frame, Frame)
                    frames.append(frame)
                source.close()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        send_until(sink, lambda: len(frames) >= 5 and sink.written, pixel_format=pixel_format)
        listed = b"".join(path.read_bytes() for path in children())
    finally:
        stopped.set()
        sink.close()
    reader.join(60)
    assert b"srtsink" in listed or secret
    assert b"s3cret" not in listed
    assert (frames[0].width, frames[0].height) == (160, 96)
    for (x, y), color in COLORS.items():
        assert np.abs(rgb_at(frames[4], x, y) - color).max() < 16


@pytest.mark.system("gst-launch-1.0")
def test_srt_without_receiver_counts_no_frame_as_written() -> None:
    """GStreamer accepts frames while it connects."""
    sink = PushSink(f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}")
    offered = itertools.count()
    send_until(sink, lambda: sink.disconnects or next(offered) < 0)
    assert sink.written == 0
    assert sink.dropped == next(offered) > 1
    (line,) = sink.warnings
    assert line.startswith(f"{sink.name}: 1 disconnect; last reason: GStreamer ended: ")
    sink.close()


def test_push_connects_to_late_receiver_and_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "_LONGEST_PAUSE_SECONDS", 0.5)
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/live/street"
    sink = PushSink(url)
    sink.write(rendered(0))
    sink.write(rendered(1))
    assert (sink.written, sink.dropped, sink.disconnects) == (0, 2, 1)  # no attempt for the second frame
    first = Receiver(url, max_frames=5, listen="1")
    send_until(sink, lambda: len(first.times) >= 5 and sink.disconnects >= 2)
    assert sink.written >= 5
    second = Receiver(url, listen="1")
    send_until(sink, lambda: len(second.times) >= 5)
    sink.close()
    assert "disconnects" in sink.warnings[0]


def test_push_connects_again_for_frames_of_another_size(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = []

    class Connection:
        has_receiver = True

        def send(self, frame: Frame) -> None:
            connections[-1].append(frame.width)

        def close(self) -> None: ...

    monkeypatch.setattr(PushSink, "_connect", lambda *_: connections.append([]) or Connection())
    sink = PushSink("rtmp://127.0.0.1/live/street")
    for width in (160, 160, 192, 160):
        sink.write(rendered(0, width))
    assert connections == [[160, 160], [192], [160]]
    assert (sink.written, sink.dropped, sink.warnings) == (4, 0, ())


def test_push_times_out_on_unresponsive_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "_TIMEOUT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = PushSink(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live/x")
        sink.write(rendered(0))
        assert (sink.written, sink.disconnects) == (0, 1)
        sink.close()


def test_push_name_and_warnings_contain_no_secrets() -> None:
    sink = PushSink(f"rtmp://me:secret@127.0.0.1:{free_port()}/live/secret-key")
    sink.write(rendered(0))
    text = sink.name + "".join(sink.warnings)
    assert "1 disconnect;" in text
    assert "secret" not in text


@pytest.mark.parametrize("url", ["http://host/x", "rtsp:///x", "file.mp4", ""])
def test_unsupported_push_urls_are_refused(url: str) -> None:
    with pytest.raises(OptionError, match="--push"):
        PushSink(url)
