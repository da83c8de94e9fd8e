"""The picture in a window, and the keys that control the run."""

from __future__ import annotations

import os
import sys

import cv2

from rtseg.core.errors import SinkError
from rtseg.core.frame import Passthrough, SegmentedFrame
from rtseg.core.letterbox import Letterbox
from rtseg.live.controls import Controls

KEYS = "q quit, space pause, m view, l legend, + and - opacity, s snapshot"
"""What the keys do, for the help and the log."""

_TITLE = "rtseg live"
_LARGEST = (1280, 720)
"""Pixels of the window at first; larger pictures are shrunk into it. It may be dragged to any size."""


def has_display() -> bool:
    """Whether there is a screen that a window could be on, and an OpenCV that can open one."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    return any("NONE" not in line for line in cv2.getBuildInformation().splitlines() if line.strip().startswith("GUI:"))


class Window:
    """A window. Implements `rtseg.io.outputs.Sink`; all its methods are called by the process's main thread."""

    name = "window"

    def __init__(self, controls: Controls) -> None:
        """Opens it.

        Raises:
            SinkError: there is no screen, or this OpenCV has no windows.
        """
        self.written = 0
        self._controls = controls
        self._size: tuple[int, int] | None = None
        if not has_display():
            raise SinkError("no window can be opened: there is no display, or OpenCV is headless; try --show web")
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise SinkError(f"no window can be opened ({_first_line(error)}); try --show web") from error

    def write(self, item: SegmentedFrame) -> None:
        """Shows a picture."""
        rendered = item.rendered
        size = rendered.width, rendered.height
        picture = Letterbox(size, size).network_input(rendered)
        if size != self._size:
            shrink = min(1.0, _LARGEST[0] / size[0], _LARGEST[1] / size[1])
            cv2.resizeWindow(_TITLE, round(size[0] * shrink), round(size[1] * shrink))
            self._size = size
        cv2.imshow(_TITLE, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self.written += 1

    def poll(self) -> None:
        """Does what keys ask for; a window that was closed by hand ends the run."""
        key = cv2.waitKey(1) & 0xFF
        controls = self._controls
        match chr(key):
            case "q" | "\x1b":
                controls.quit()
            case " ":
                controls.toggle_paused()
            case "m":
                controls.next_view()
            case "l":
                controls.toggle_legend()
            case "+" | "=":
                controls.add_alpha(1)
            case "-":
                controls.add_alpha(-1)
            case "s":
                controls.ask_snapshot()
            case _:
                if self.written and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
                    controls.quit()

    def pass_through(self, packet: Passthrough) -> None:
        """A window has no sound."""

    def close(self) -> None:
        """Closes it."""
        cv2.destroyAllWindows()

    def abort(self) -> None:
        """Closes it."""
        cv2.destroyAllWindows()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
