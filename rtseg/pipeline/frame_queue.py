"""Bounded queues between the threads of a pipeline."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

Policy = Literal["block", "latest"]
"""What `FrameQueue.put` does when the queue is full: `block` waits for space, `latest` drops the oldest item."""

T = TypeVar("T")


class FrameQueue(Generic[T]):
    """Bounded first-in-first-out queue. Thread-safe; both ends block on a condition and never poll."""

    def __init__(
        self,
        capacity: int,
        policy: Policy = "block",
        *,
        on_drop: Callable[[T], None] = lambda _: None,
        changed: threading.Condition | None = None,
    ) -> None:
        """Open the queue.

        Args:
            capacity: maximum number of waiting items.
            policy: see `Policy`.
            on_drop: called with each item that leaves the queue without being taken, by the thread that caused it. Must not
                block: the queue is locked meanwhile.
            changed: condition that is notified of every change; None: one of its own.
        """
        self._capacity, self._policy, self._on_drop = capacity, policy, on_drop
        self._changed = changed or threading.Condition()
        self._items: deque[T] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def ended(self) -> bool:
        """True if the queue is closed and empty."""
        return self._closed and not self._items

    def put(self, item: T) -> bool:
        """Add an item; return False, without adding it, if the queue is closed."""
        with self._changed:
            if self._policy == "block":
                self._changed.wait_for(lambda: len(self._items) < self._capacity or self._closed)
            if self._closed:
                return False
            if len(self._items) == self._capacity:
                self._on_drop(self._items.popleft())
            self._items.append(item)
            self._changed.notify_all()
        return True

    def get(self, timeout_seconds: float | None = None) -> T | None:
        """Return the oldest item, blocking until there is one; None after the timeout, or if the queue has `ended`."""
        with self._changed:
            if timeout_seconds != 0.0:  # a wait of no length unlocks too: `CameraQueues.take` would miss items
                self._changed.wait_for(lambda: self._items or self._closed, timeout_seconds)
            if not self._items:
                return None
            self._changed.notify_all()
            return self._items.popleft()

    def close(self, *, discard: bool = False) -> None:
        """Accept no more items and, with `discard`, drop the waiting ones. May be called more than once."""
        with self._changed:
            self._closed = True
            while discard and self._items:
                self._on_drop(self._items.popleft())
            self._changed.notify_all()


class CameraQueues(Generic[T]):
    """A queue for each camera, and one end that serves the cameras in round-robin order, so that none starves another.

    Frames of one camera are processed one at a time, so that they stay in order.
    """

    def __init__(self, cameras: int, capacity: int, policy: Policy, on_drop: Callable[[int, T], None]) -> None:
        """Open the queues.

        Args:
            cameras: number of cameras.
            capacity: maximum number of waiting items of a camera.
            policy: see `Policy`.
            on_drop: called with the camera and the item for each item that is dropped.
        """
        self._changed = threading.Condition()

        def open_queue(camera: int) -> FrameQueue[T]:
            return FrameQueue(capacity, policy, on_drop=lambda item: on_drop(camera, item), changed=self._changed)

        self._queues = [open_queue(camera) for camera in range(cameras)]
        self._busy: set[int] = set()
        self._next = 0

    def put(self, camera: int, item: T) -> bool:
        """Add an item of a camera; return False, without adding it, if the camera's queue is closed."""
        return self._queues[camera].put(item)

    def take(self) -> tuple[int, T] | None:
        """Block until an item is available and return its camera and the item; None if all queues have ended.

        The camera's next item is available only after `done`.
        """
        count = len(self._queues)
        with self._changed:
            while not all(queue.ended for queue in self._queues):
                for step in range(count):
                    camera = (self._next + step) % count
                    if camera not in self._busy and (item := self._queues[camera].get(0.0)) is not None:
                        self._next = camera + 1
                        self._busy.add(camera)
                        return camera, item
                self._changed.wait()
        return None

    def done(self, camera: int) -> None:
        """Make the next item of a camera available."""
        with self._changed:
            self._busy.discard(camera)
            self._changed.notify_all()

    def close(self, camera: int | None = None, *, discard: bool = False) -> None:
        """Close the queue of a camera (None: all queues); see `FrameQueue.close`."""
        for queue in self._queues if camera is None else [self._queues[camera]]:
            queue.close(discard=discard)
