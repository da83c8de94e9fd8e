"""A pipeline stage in its own threads, a few items ahead of its consumer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Prefetcher(Iterator[U], Generic[U]):
    """Iterator whose items are produced in threads, with at most `capacity` items in flight.

    Items stay in order for any number of threads. An exception of the iterator or of `work` is raised again at the item's
    position, with its original traceback. Both ends block on a condition and never poll: a spinning Python thread slows down
    native threads considerably.
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
        """Start the threads.

        Args:
            items: input items, read by one thread at a time.
            name: suffix of the threads' name, after `rtseg-`.
            work: function applied to each item; None: the item is passed on unchanged.
            workers: number of threads that call `work`.
            capacity: maximum number of items in flight; with several workers at least `workers + 1`, so that no worker waits
                for the consumer.
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
        """Stop producing items and wake up both ends. May be called from any thread, more than once."""
        with self._changed:
            self._canceled = True
            self._ready.clear()
            self._changed.notify_all()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for each thread; return False if one still runs after the timeout, blocked in an uninterruptible read."""
        for thread in self._threads:
            thread.join(timeout_seconds)
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (entry := self._take()) is not None:
            number, item = entry
            try:
                self._put(number, item if self._work is None else self._work(item))
            except BaseException as error:  # raised again by the consumer
                self._put(number, None, error)

    def _take(self) -> tuple[int, Any] | None:
        """Return the next item and its position; None if there are no more items or after `cancel`."""
        with self._taking:
            with self._changed:
                self._changed.wait_for(lambda: self._taken - self._given < self._capacity or self._canceled)
                if self._canceled or self._ended:
                    return None
            failure: BaseException | None = None
            item: Any = None
            try:
                item = next(self._items)
            except BaseException as error:  # raised again by the consumer
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
