"""Runs a stage in a thread of its own, a few items ahead of whoever takes them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _Cancelled(Exception):
    """Nobody takes the items any more."""


class Ahead(Iterator[T], Generic[T]):
    """An iterator whose items are made in a thread, at most `capacity` of them waiting.

    Items come in order. What the iterator raises is raised again where the items are taken, with its own traceback. Both ends
    block on a condition and never poll: a spinning Python thread slows the native ones down many times.
    """

    def __init__(self, items: Iterator[T], name: str, capacity: int = 4) -> None:
        self._items = items
        self._capacity = capacity
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._cancelled = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"rtseg-{name}", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended or self._cancelled)
            if self._cancelled:
                raise StopIteration
            if self._ready:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
        if self._error is not None:
            raise self._error
        raise StopIteration

    def cancel(self) -> None:
        """No more items are wanted: both ends wake up. May be called from any thread, more than once."""
        with self._changed:
            self._cancelled = True
            self._ready.clear()
            self._changed.notify_all()

    def join(self, timeout_seconds: float) -> bool:
        """Waits for the thread; False if it still runs after that time (blocked in a read that can't be interrupted)."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            for item in self._items:
                self._put(item)
        except _Cancelled:
            pass
        except BaseException as error:  # carried to the taker, which raises it
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < self._capacity or self._cancelled)
            if self._cancelled:
                raise _Cancelled
            self._ready.append(item)
            self._changed.notify_all()
