"""From the capture threads to the network: of each camera the newest frame alone, the cameras in turn."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from rtseg.core.frame import Frame, StreamInfo

EVERY_FRAME_WAITS = 32
"""Frames of one camera that may wait with `every_frame`, before its capture has to wait: a second of video, 45 MB at 720p."""


@dataclass(frozen=True, slots=True)
class Captured:
    """A decoded frame and where it comes from."""

    camera: int
    """Number of the camera in this run, from 0."""

    frame: Frame
    """The picture."""

    info: StreamInfo
    """What was known of its stream when it was decoded; it changes with a reconnection."""


class LatestFrameQueue:
    """Takes frames from one thread per camera and gives them to those that run the network.

    A frame that is still waiting when its camera's next one comes is dropped and counted: the network always gets the
    newest. Cameras are served in turn, so that a fast one does not starve a slow one, and each camera's frames one after the
    other, so that they stay in order.

    A frame is in exactly one state: waiting, in work, segmented or dropped. It ends as one of the last two, once: what is
    neither when nobody works on it any more (`done`, `close`, `abandon`) is dropped.
    """

    def __init__(self, cameras: int, *, every_frame: bool = False) -> None:
        """Opens it.

        Args:
            cameras: how many there are.
            every_frame: drop nothing; `put` waits while `EVERY_FRAME_WAITS` frames of that camera are waiting.
        """
        self._changed = threading.Condition()
        self._waiting: list[deque[Captured]] = [deque() for _ in range(cameras)]
        self._running = set(range(cameras))
        self._busy: set[int] = set()
        self._in_work: dict[int, Captured] = {}
        self._every_frame = every_frame
        self._next = 0
        self._closed = False
        self.captured = [0] * cameras
        """Frames put, by camera, whatever became of them."""
        self._segmented = [0] * cameras
        self._dropped = [0] * cameras

    def counts(self, camera: int) -> tuple[int, int]:
        """Return how many frames of a camera were segmented and how many were dropped, at one moment."""
        with self._changed:
            return self._segmented[camera], self._dropped[camera]

    def put(self, item: Captured) -> bool:
        """Gives a frame; False when nobody takes frames any more, and then it counts nowhere."""
        camera = item.camera
        with self._changed:
            waiting = self._waiting[camera]
            if self._every_frame:
                self._changed.wait_for(lambda: len(waiting) < EVERY_FRAME_WAITS or self._closed)
            if self._closed:
                return False
            self.captured[camera] += 1
            if not self._every_frame:
                self._dropped[camera] += len(waiting)
                waiting.clear()
            waiting.append(item)
            self._changed.notify_all()
            return True

    def leave_out(self, camera: int) -> None:
        """A frame of that camera that the network shall not get: read and dropped at once, so that no sum is off."""
        with self._changed:
            self.captured[camera] += 1
            self._dropped[camera] += 1

    def end(self, camera: int) -> None:
        """That camera gives no more frames."""
        with self._changed:
            self._running.discard(camera)
            self._changed.notify_all()

    def take(self) -> Captured | None:
        """The next frame, waited for; None once all cameras have ended and nothing waits, or after `close`.

        None of that camera's frames is given to anybody until `done` was called.
        """
        with self._changed:
            while not self._closed and (self._running or any(self._waiting)):
                count = len(self._waiting)
                for step in range(count):
                    camera = (self._next + step) % count
                    if self._waiting[camera] and camera not in self._busy:
                        self._next = camera + 1
                        self._busy.add(camera)
                        self._in_work[camera] = item = self._waiting[camera].popleft()
                        self._changed.notify_all()
                        return item
                self._changed.wait()
            return None

    def segmented(self, item: Captured) -> bool:
        """Count a frame that was taken as segmented; False where it has been dropped meanwhile (`abandon`)."""
        with self._changed:
            if self._in_work.get(item.camera) is not item:
                return False
            del self._in_work[item.camera]
            self._segmented[item.camera] += 1
            return True

    def done(self, item: Captured) -> None:
        """Nobody works on a frame any more: it is dropped unless it was segmented, and its camera's next one may be taken."""
        with self._changed:
            if self._in_work.get(item.camera) is item:
                del self._in_work[item.camera]
                self._dropped[item.camera] += 1
            self._busy.discard(item.camera)
            self._changed.notify_all()

    def abandon(self) -> None:
        """Close, and drop the frames in work too: whoever still works on one is not waited for."""
        self.close()
        with self._changed:
            for camera in self._in_work:
                self._dropped[camera] += 1
            self._in_work.clear()

    def close(self) -> None:
        """Nobody takes frames any more: what waits is dropped, and both ends wake up. May be called twice."""
        with self._changed:
            self._closed = True
            for camera, waiting in enumerate(self._waiting):
                self._dropped[camera] += len(waiting)
                waiting.clear()
            self._changed.notify_all()
