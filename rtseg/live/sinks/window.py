"""Window that shows the rendered frames, with keys that control the run."""

from __future__ import annotations

import os
import sys

import cv2

from rtseg.core.errors import SinkError
from rtseg.core.frame import ProcessedFrame
from rtseg.io.outputs import Sink
from rtseg.live.controls import Controls
from rtseg.live.sinks.snapshot import to_bgr

_TITLE = "rtseg live"
_MAX_INITIAL_SIZE = (1280, 720)
"""Maximum initial size of the window in pixels; larger frames are scaled down. The user may resize it."""


def has_display() -> bool:
    """Return True if there is a display and this OpenCV can open windows."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    return any("NONE" not in line for line in cv2.getBuildInformation().splitlines() if line.strip().startswith("GUI:"))


class WindowSink(Sink):
    """Window. Only the main thread may call its methods."""

    name = "window"
    written = 0

    def __init__(self, controls: Controls) -> None:
        """Open the window.

        Raises:
            SinkError: there is no display, or this OpenCV has no windows.
        """
        self._controls = controls
        self._size: tuple[int, int] | None = None
        if not has_display():
            raise SinkError("no window can be opened: there is no display, or OpenCV is headless; try --show web")
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise SinkError(
                f"no window can be opened ({str(error).strip().splitlines()[0]}); try --show web"
            ) from error

    def write(self, item: ProcessedFrame) -> None:
        """Show a frame."""
        size = item.rendered.width, item.rendered.height
        if size != self._size:
            shrink = min(1.0, _MAX_INITIAL_SIZE[0] / size[0], _MAX_INITIAL_SIZE[1] / size[1])
            cv2.resizeWindow(_TITLE, round(size[0] * shrink), round(size[1] * shrink))
            self._size = size
        cv2.imshow(_TITLE, to_bgr(item.rendered))
        self.written += 1

    def poll(self) -> None:
        """Handle pressed keys; end the run if the user closed the window."""
        self._controls.press(chr(cv2.waitKey(1) & 0xFF))
        if self.written and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
            self._controls.quit()

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()

    abort = close
