"""Queue between the capture threads and the network: the latest frame of each camera, cameras in round-robin order."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from rtseg.core.frame import Frame, StreamInfo

MAX_WAITING_FRAMES = 32
"""Frames of one camera that wait with `every_frame` before `put` blocks: one second of video, 45 MB at 720p."""


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """Decoded frame with its camera and stream information."""

    camera: int
    """Number of the camera in this run, from 0."""

    frame: Frame
    """The decoded frame."""

    info: StreamInfo
    """Information about the stream at the time of decoding; it changes with a reconnection."""


class LatestFrameQueue:
    """Queue from one capture thread per camera to the threads that run the network.

    A frame that is still waiting when its camera's next frame arrives is dropped and counted: the network always gets the
    latest frame. Cameras are served in round-robin order, so that a fast one does not starve a slow one. Frames of one camera
    are processed one at a time, so that they stay in order.

    A frame is in exactly one state: waiting, in work, segmented or dropped. It ends as segmented or dropped, exactly once:
    a frame in another state is dropped when its work ends (`done`, `close`, `abandon`).
    """

    def __init__(self, cameras: int, *, every_frame: bool = False) -> None:
        """Open the queue.

        Args:
            cameras: number of cameras.
            every_frame: drop nothing; `put` blocks while `MAX_WAITING_FRAMES` frames of the camera wait.
        """
        self._changed = threading.Condition()
        self._waiting: list[deque[CapturedFrame]] = [deque() for _ in range(cameras)]
        self._running = set(range(cameras))
        self._busy: set[int] = set()
        self._in_work: dict[int, CapturedFrame] = {}
        self._every_frame = every_frame
        self._next = 0
        self._closed = False
        self.captured = [0] * cameras
        """Number of frames put or skipped, by camera."""
        self._segmented = [0] * cameras
        self._dropped = [0] * cameras

    def counts(self, camera: int) -> tuple[int, int]:
        """Return the numbers of segmented and of dropped frames of a camera, as one consistent pair."""
        with self._changed:
            return self._segmented[camera], self._dropped[camera]

    def put(self, item: CapturedFrame) -> bool:
        """Add a frame; return False, without counting it, if the queue is closed."""
        camera = item.camera
        with self._changed:
            waiting = self._waiting[camera]
            if self._every_frame:
                self._changed.wait_for(lambda: len(waiting) < MAX_WAITING_FRAMES or self._closed)
            if self._closed:
                return False
            self.captured[camera] += 1
            if not self._every_frame:
                self._dropped[camera] += len(waiting)
                waiting.clear()
            waiting.append(item)
            self._changed.notify_all()
            return True

    def skip(self, camera: int) -> None:
        """Count a frame of a camera as captured and dropped, without queueing it."""
        with self._changed:
            self.captured[camera] += 1
            self._dropped[camera] += 1

    def end(self, camera: int) -> None:
        """Mark a camera as ended: it puts no more frames."""
        with self._changed:
            self._running.discard(camera)
            self._changed.notify_all()

    def take(self) -> CapturedFrame | None:
        """Block until a frame is available and return it; None after `close`, or when all cameras have ended and no frame waits.

        The camera's next frame is available only after `done`.
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

    def segmented(self, item: CapturedFrame) -> bool:
        """Count a taken frame as segmented; return False if `abandon` has dropped it."""
        with self._changed:
            if self._in_work.get(item.camera) is not item:
                return False
            del self._in_work[item.camera]
            self._segmented[item.camera] += 1
            return True

    def done(self, item: CapturedFrame) -> None:
        """End the work on a frame: drop it unless it was segmented, and make its camera's next frame available."""
        with self._changed:
            if self._in_work.get(item.camera) is item:
                del self._in_work[item.camera]
                self._dropped[item.camera] += 1
            self._busy.discard(item.camera)
            self._changed.notify_all()

    def abandon(self) -> None:
        """Close the queue and drop the frames in work too, without waiting for their threads."""
        self.close()
        with self._changed:
            for camera in self._in_work:
                self._dropped[camera] += 1
            self._in_work.clear()

    def close(self) -> None:
        """Drop the waiting frames and wake up both ends. May be called twice."""
        with self._changed:
            self._closed = True
            for camera, waiting in enumerate(self._waiting):
                self._dropped[camera] += len(waiting)
                waiting.clear()
            self._changed.notify_all()
