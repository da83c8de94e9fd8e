"""Runs a stage in threads of its own, a few items ahead of whoever takes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Prefetcher(Iterator[U], Generic[U]):
    """An iterator whose items are made in threads, at most `capacity` of them waiting or in the making.

    Items come in order, however many threads make them. What the iterator or the work raises is raised again where the item
    would have been, with its own traceback. Both ends block on a condition and never poll: a spinning Python thread slows the
    native ones down many times.
    """

    def __init__(
        self,
        items: Iterator[T],
        name: str,
        work: Callable[[T], U] | None = None,
        *,
        workers: int = 1,
        capacity: int = 4,
    ) -> None:
        """Starts the threads.

        Args:
            items: taken one after the other, by one thread at a time.
            name: of the threads, after `rtseg-`.
            work: makes of an item what is handed on; None: the item itself.
            workers: threads that do so at the same time.
            capacity: items made or in the making at most; raised to `workers + 1`, so that none of them waits for the taker.
        """
        self._items = items
        self._work = work
        self._capacity = capacity if workers == 1 else max(capacity, workers + 1)
        self._ready: dict[int, tuple[Any, BaseException | None]] = {}
        self._changed = threading.Condition()
        self._taking = threading.Lock()
        self._taken = 0
        self._given = 0
        self._ended = False
        self._canceled = False
        self._threads = [
            threading.Thread(target=self._run, name=f"rtseg-{name}", daemon=True) for _ in range(max(1, workers))
        ]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[U]:
        return self

    def __next__(self) -> U:
        with self._changed:
            self._changed.wait_for(
                lambda: self._given in self._ready or self._canceled or (self._ended and self._given == self._taken)
            )
            if self._canceled or self._given not in self._ready:
                raise StopIteration
            result, error = self._ready.pop(self._given)
            self._given += 1
            self._changed.notify_all()
        if error is not None:
            self.cancel()
            raise error
        return result  # type: ignore[no-any-return]

    def cancel(self) -> None:
        """No more items are wanted: both ends wake up. May be called from any thread, more than once."""
        with self._changed:
            self._canceled = True
            self._ready.clear()
            self._changed.notify_all()

    def join(self, timeout_seconds: float) -> bool:
        """Waits for the threads; False if one still runs after that time (blocked in a read that can't be interrupted)."""
        for thread in self._threads:
            thread.join(timeout_seconds)
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (ticket := self._take()) is not None:
            number, item = ticket
            try:
                self._put(number, item if self._work is None else self._work(item))
            except BaseException as error:  # carried to the taker, which raises it
                self._put(number, None, error)

    def _take(self) -> tuple[int, Any] | None:
        """The next item and its place in the order; None: there are no more, or none are wanted."""
        with self._taking:
            with self._changed:
                self._changed.wait_for(lambda: self._taken - self._given < self._capacity or self._canceled)
                if self._canceled or self._ended:
                    return None
            failure: BaseException | None = None
            item: Any = None
            try:
                item = next(self._items)
            except BaseException as error:  # carried to the taker, which raises it
                failure = error
            with self._changed:
                if isinstance(failure, StopIteration):
                    self._ended = True
                    self._changed.notify_all()
                    return None
                number, self._taken = self._taken, self._taken + 1
                if failure is None:
                    return number, item
                self._ended = True
        self._put(number, None, failure)
        return None

    def _put(self, number: int, result: Any, error: BaseException | None = None) -> None:
        with self._changed:
            if not self._canceled:
                self._ready[number] = (result, error)
                self._changed.notify_all()
