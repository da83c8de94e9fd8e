"""Source for local cameras: V4L2 on Linux, OpenCV's VideoCapture on other platforms."""

from __future__ import annotations

import os
import platform
import select
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from rtseg.core.errors import Disconnected, OptionError, SourceError
from rtseg.core.frame import Color, Frame, Passthrough, StreamInfo
from rtseg.io.inputs import Source
from rtseg.io.inputs.connection import Connection
from rtseg.io.inputs.packets import DemuxedPackets, safe_error_text

FORMATS = {"mjpeg": ("mjpeg", "MJPG"), "yuyv": ("yuyv422", "YUY2"), "h264": ("h264", "H264")}
"""Values of `--camera-format`, and for each the name in FFmpeg and the FourCC code."""

TIMEOUT_SECONDS = 5.0
"""Longest time without a frame."""

_LINUX = platform.system() == "Linux"
_DEVICES = Path("/dev")


@dataclass(frozen=True)
class CameraMode:
    """Requested mode of a camera. None selects the camera's default."""

    size: tuple[int, int] | None = None
    """Width and height in pixels."""

    fps: float | None = None
    """Frames per second."""

    format: str | None = None
    """Transfer format: `mjpeg`, `yuyv` or `h264`."""


def camera_path(camera: str) -> str:
    """Return the device path of a camera: `0`, `/dev/video0` or a link such as `/dev/v4l/by-id/...`.

    Raises:
        OptionError: it is neither a number nor a path.
    """
    if camera.isdecimal():
        return str(_DEVICES / f"video{camera}")
    if camera.startswith("/"):
        return camera
    raise OptionError(f"no camera '{camera}': give its number (0) or device (/dev/video0); see --list-cameras")


def open_camera(camera: str, mode: CameraMode | None = None, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Source:
    """Open a camera by its number, or on Linux by its device. `timeout_seconds` is the longest time without a frame.

    Raises:
        OptionError: the camera or the format is unknown.
        SourceError: the camera does not exist, is in use, can't be read, or does not support the mode.
    """
    mode = mode or CameraMode()
    if mode.format is not None and mode.format not in FORMATS:
        raise OptionError(f"no camera format '{mode.format}': there are {', '.join(FORMATS)}")
    name = f"camera {camera}"
    if _LINUX:
        return _open_v4l2(camera_path(camera), mode, name, timeout_seconds)
    if not camera.isdecimal():
        raise OptionError(f"no camera '{camera}': on this platform cameras have numbers, from 0")
    return OpenCvCamera(int(camera), mode, name)


def list_cameras() -> list[tuple[str, str]]:
    """Return the cameras of this machine as pairs of device and name."""
    if not _LINUX:
        cameras = []
        for number in range(8):
            capture = cv2.VideoCapture(number)
            if capture.isOpened():
                cameras.append((str(number), f"camera {number}"))
            capture.release()
        return cameras
    paths = sorted(_DEVICES.glob("video[0-9]*"), key=lambda path: int(path.name.removeprefix("video")))
    return [(str(path), _name_of(path)) for path in paths if _captures_video(path)]


# Linux


def _open_v4l2(path: str, mode: CameraMode, name: str, timeout_seconds: float) -> Connection:
    if not Path(path).exists():
        cameras = ", ".join(device for device, _ in list_cameras()) or "none"
        raise Disconnected(f"{name}: there is no {path} (cameras here: {cameras})")
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceError(f"{name}: {path} can't be read; join the group `video` (`sudo usermod -aG video $USER`)")
    options: dict[str, str] = {}
    if mode.size is not None:
        options["video_size"] = f"{mode.size[0]}x{mode.size[1]}"
    if mode.fps is not None:
        options["framerate"] = f"{mode.fps:g}"
    if mode.format is not None:
        options["input_format"] = FORMATS[mode.format][0]
    before = _descriptors(path)
    try:
        container = av.open(path, format="video4linux2", options=options, timeout=(timeout_seconds, timeout_seconds))
    except (av.FFmpegError, OSError, ValueError) as error:
        requested = ", ".join(f"{key} {value}" for key, value in options.items())
        text = safe_error_text(error) + (f" (requested {requested})" if requested else "")
        raise Disconnected(f"can't open {name}: {text}") from error
    own_descriptors = sorted(_descriptors(path) - before)
    wait = partial(_wait_for_frame, own_descriptors[0], name, timeout_seconds) if own_descriptors else None
    return Connection(DemuxedPackets(container, name, wait_readable=wait), name, copies_raw_frames=True)


def _descriptors(path: str) -> set[int]:
    """Return the file descriptors by which this process has a device open."""
    target = Path(os.path.realpath(path))
    descriptors = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if entry.readlink() == target:
                descriptors.add(int(entry.name))
        except OSError:
            continue  # the descriptor of this listing, already closed
    return descriptors


def _wait_for_frame(descriptor: int, name: str, timeout_seconds: float) -> None:
    """Wait for a frame. FFmpeg's read of a device has no timeout and can't be interrupted."""
    ready, _, _ = select.select([descriptor], [], [], timeout_seconds)
    if not ready:
        raise Disconnected(f"{name}: no frame for {timeout_seconds:g} s")


def _name_of(path: Path) -> str:
    file = Path("/sys/class/video4linux") / path.name / "name"
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "without a name"


def _captures_video(path: Path) -> bool:
    """Return whether a device captures video. The second device of most webcams captures metadata."""
    import fcntl

    # VIDIOC_QUERYCAP, V4L2_CAP_DEVICE_CAPS, V4L2_CAP_VIDEO_CAPTURE(_MPLANE) of videodev2.h.
    query_capabilities, has_device_capabilities, captures = 0x80685600, 0x80000000, 0x00001000 | 0x00000001
    buffer = bytearray(104)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return True  # it may be in use
    try:
        fcntl.ioctl(descriptor, query_capabilities, buffer)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    whole, device = int.from_bytes(buffer[84:88], sys.byteorder), int.from_bytes(buffer[88:92], sys.byteorder)
    return bool((device if whole & has_device_capabilities else whole) & captures)


# Other platforms


class OpenCvCamera(Source):
    """Source for a camera that OpenCV reads."""

    def __init__(self, number: int, mode: CameraMode, name: str) -> None:
        """Open the camera and read its first frame. Raise Disconnected if no frame is available."""
        self._name = name
        self._capture: Any = cv2.VideoCapture(number)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._index = 0
        if mode.format is not None:
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*FORMATS[mode.format][1]))
        if mode.size is not None:
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, mode.size[0])
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, mode.size[1])
        if mode.fps is not None:
            self._capture.set(cv2.CAP_PROP_FPS, mode.fps)
        first = self._next()
        if first is None:
            self.close()
            raise Disconnected(f"can't open {name}: it delivers no frame")
        self._first = first
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.info = StreamInfo(
            name,
            self._first.width,
            self._first.height,
            self._first.pixel_format,
            self._first.color,
            self._first.time_base,
            Fraction(rate).limit_denominator(1000) if rate > 0 else None,
        )

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        """Yield frames until `close`. Raise Disconnected if the camera delivers no more frames."""
        yield self._first
        while not self._closing.is_set():
            frame = self._next()
            if frame is not None:
                yield frame
            elif not self._closing.is_set():
                raise Disconnected(f"{self._name}: it delivers no more frames")

    def close(self) -> None:
        """Close the camera. A call from another thread takes effect at the next frame."""
        self._closing.set()
        if self._lock.acquire(blocking=False):
            try:
                self._capture.release()
            finally:
                self._lock.release()

    def _next(self) -> Frame | None:
        with self._lock:
            if self._closing.is_set():
                self._capture.release()
                return None
            success, bgr = self._capture.read()
        now_ns = time.monotonic_ns()
        if not success:
            return None
        bgr = bgr[: bgr.shape[0] // 2 * 2, : bgr.shape[1] // 2 * 2]
        frame = bgr_frame(np.ascontiguousarray(bgr), self._index, now_ns)
        self._index += 1
        self.decode_seconds = (time.monotonic_ns() - now_ns) / 1e9
        return frame


def bgr_frame(bgr: Any, index: int, captured_ns: int) -> Frame:
    """Convert a BGR image with even sides to a frame in YUV 4:2:0, BT.601, limited range, the format that OpenCV produces."""
    height, width = bgr.shape[:2]
    planes = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420).reshape(-1)
    luma, chroma = width * height, width * height // 4
    return Frame(
        (
            planes[:luma].reshape(height, width),
            planes[luma : luma + chroma].reshape(height // 2, width // 2),
            planes[luma + chroma :].reshape(height // 2, width // 2),
        ),
        "yuv420p",
        Color("bt601", full_range=False, space_tag=6, primaries_tag=2, transfer_tag=2, range_tag=1),
        captured_ns,
        Fraction(1, 1_000_000_000),
        index,
        captured_ns=captured_ns,
    )
