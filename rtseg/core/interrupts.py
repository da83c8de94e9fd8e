"""Deferral of Ctrl-C and SIGTERM.

While a frame is written: an encoded packet must not be lost between encoder and file. While a native module is imported:
an interrupt there looks like a module that is missing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

LONGEST_SECONDS = 5.0
"""Longest time for which a signal is deferred: a pipe or disk may be blocked."""


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Call the handlers of SIGINT and SIGTERM at the end of the block, or after `LONGEST_SECONDS`, or at a second signal.

    Only the main thread receives signals; in other threads nothing is deferred.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    timers: list[threading.Timer] = []

    def defer(number: int, frame: FrameType | None) -> None:
        pending.append(number)
        if len(pending) > 1:
            handlers[number](number, frame)
        timers.append(threading.Timer(LONGEST_SECONDS, _send, (number,)))
        timers[-1].daemon = True
        timers[-1].start()

    numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, defer)
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if pending:
        handlers[pending[0]](pending[0], None)


def _send(number: int) -> None:
    if os.name == "posix":
        os.kill(os.getpid(), number)  # also ends a blocked system call
    else:
        signal.raise_signal(number)
