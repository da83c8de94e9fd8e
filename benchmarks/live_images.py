"""Write docs/images/live-page.jpg and live-window.jpg: `rtseg live` on a synthetic scene, in a browser and in a window.

    python benchmarks/live_images.py [FOLDER]

Needs chromium, chromedriver and Xvfb.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from rtseg.synthetic import SyntheticDrive
from rtseg.synthetic.video_file import write_video

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "live")]

from browser import Browser  # noqa: E402  # the WebDriver client of the page's test
from test_live_window import pixels, virtual_display  # noqa: E402

PAGE, SCREEN = (1280, 880), (1000, 600)
WIDTH = 960
"""Width of both images, pixels."""
SETTLED_SECONDS = 20


@contextmanager
def live(folder: Path, *arguments: str, environment: Mapping[str, str] = os.environ) -> Iterator[subprocess.Popen[str]]:
    """Run `rtseg live` on the video in `folder`."""
    command = [sys.executable, "-m", "rtseg", "live", "--url", "drive.mp4", "--realtime", "--loop", *arguments]
    env = {**environment, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env, cwd=folder) as process:
        yield process
        process.terminate()


def page(folder: Path) -> np.ndarray:
    """Return a screenshot of the web page, uint8 BGR."""
    with live(folder, "--show", "web", "--address", "127.0.0.1:0") as process:
        assert process.stderr is not None
        url = next(found[1] for line in process.stderr if (found := re.search(r"page: (\S+)", line)))
        with Browser(folder / "profile", PAGE) as browser:
            browser.open(url)
            browser.wait_for("return document.getElementById('frame').naturalWidth > 0")
            time.sleep(SETTLED_SECONDS)
            browser.screenshot(folder / "page.png")
    return cv2.imread(str(folder / "page.png"))


def window(folder: Path) -> np.ndarray:
    """Return the window on a virtual screen, uint8 BGR."""
    with (
        virtual_display(folder, *SCREEN) as environment,
        live(folder, "--show", "window", "--legend", "--hud", environment=environment),
    ):
        time.sleep(SETTLED_SECONDS)
        rendered = pixels(folder)[..., ::-1].copy()
    nonzero = np.argwhere(rendered.any(axis=2))
    (top, left), (bottom, right) = nonzero.min(axis=0), nonzero.max(axis=0)
    return rendered[top : bottom + 1, left : right + 1]


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scene = SyntheticDrive(960, 540, frames=240, seed=2, fps=30)
        write_video(scene, str(folder / "drive.mp4"))
        for name, image in (("page", page(folder)), ("window", window(folder))):
            height = round(image.shape[0] * WIDTH / image.shape[1])
            resized = cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(target / f"live-{name}.jpg"), resized, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
