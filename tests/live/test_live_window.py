"""Window on a virtual display: frames and keys."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import MODEL
from live_doubles import wait_for
from media import write_video

pytestmark = [pytest.mark.timeout(180), pytest.mark.system("Xvfb", "xdotool")]


@contextmanager
def virtual_display(folder: Path, width: int, height: int) -> Iterator[dict[str, str]]:
    """Yield the environment of a virtual display, whose pixels are in `folder/Xvfb_screen0`."""
    read_end, write_end = os.pipe()
    explicit = f":{100 + os.getpid() % 20_000}"  # two servers that start together may select the same number
    command = ["Xvfb", explicit, "-displayfd", str(write_end), "-screen", "0", f"{width}x{height}x24"]
    command += ["-fbdir", str(folder), "-nocursor"]
    with subprocess.Popen(command, pass_fds=[write_end], stderr=subprocess.DEVNULL) as server:
        os.close(write_end)
        with os.fdopen(read_end) as display_pipe:
            number = display_pipe.readline().strip()
        yield {**os.environ, "DISPLAY": f":{number}", "QT_X11_NO_MITSHM": "1"}
        server.terminate()


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[dict[str, str]]:
    with virtual_display(tmp_path, 400, 300) as environment:
        yield environment


def pixels(folder: Path) -> np.ndarray:
    """Return the display as RGB, uint8 `[height, width, 3]`. It is an XWD file with a big-endian header."""
    data = (folder / "Xvfb_screen0").read_bytes()
    header = np.frombuffer(data[:100], ">u4")
    size, colors, row, height, width = header[0], header[19], header[12], header[5], header[4]
    begin = int(size) + int(colors) * 12
    rows = np.frombuffer(data[begin : begin + int(row) * int(height)], np.uint8).reshape(int(height), int(row))
    return rows.reshape(int(height), -1, 4)[:, : int(width), 2::-1]


def map_again(screen: dict[str, str]) -> None:
    """Hide and show the window: if several start together, OpenCV's Qt windows sometimes stay black, also without rtseg."""
    for action in ("windowunmap", "windowmap"):
        command = ["xdotool", "search", "--name", "rtseg live", action]
        subprocess.run(command, env=screen, timeout=120, check=False)
        time.sleep(0.5)


def test_window_shows_frames_and_handles_keys(screen: dict[str, str], tmp_path: Path) -> None:
    from rtseg.live.sinks.window import has_display

    drive = write_video(tmp_path / "drive.mp4", size=(192, 128), frames=50)
    command = [sys.executable, "-m", "rtseg", "live", "--url", str(drive), "--realtime", "--loop"]
    command += ["--model", str(MODEL), "--size", "96x64", "--alpha", "0", "--snapshots", str(tmp_path / "snapshots")]
    if "GUI:                           NONE" in cv2.getBuildInformation():
        pytest.skip("this OpenCV is headless")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=screen) as process:
        try:
            wait_for(
                lambda: np.abs(pixels(tmp_path).astype(int) - (200, 30, 30)).max(axis=2).min() < 25,
                process,
                lambda: map_again(screen),
            )
            found = subprocess.run(
                ["xdotool", "search", "--onlyvisible", "--name", "rtseg live"],
                env=screen,
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
            ).stdout.split()

            def press(key: str) -> None:
                subprocess.run(["xdotool", "windowfocus", found[-1]], env=screen, timeout=120, check=False)
                subprocess.run(["xdotool", "key", key], env=screen, timeout=120, check=True)

            press("s")
            wait_for(lambda: len(list((tmp_path / "snapshots").glob("rtseg-*.png"))) == 1, process)
            press("m")
            press("s")
            wait_for(lambda: len(list((tmp_path / "snapshots").glob("rtseg-*.png"))) == 2, process)
            first, second = sorted((tmp_path / "snapshots").iterdir())
            assert cv2.imread(str(first)).shape == (128, 192, 3)
            assert not np.array_equal(cv2.imread(str(first)), cv2.imread(str(second)))
            press("q")
            stderr = process.communicate(timeout=120)[1]
        finally:
            process.kill()
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr
    assert has_display() is False or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
