"""The processor: its name, how many cores there are to use, and what they are good at."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_GIVING_WAY = 5
"""Added to the niceness of threads that give way: a third of the processor's time beside a thread that does not."""


def usable_cores() -> int:
    """Cores that this process may use: fewer than there are under `taskset` or in a container with a CPU set."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def giving_way(work: Callable[..., T], *arguments: Any) -> T:
    """Calls something whose threads are to give way to this process's other ones wherever both could run.

    Only Linux has a priority for each thread, and lets the threads that a thread starts inherit it; elsewhere it is just called.
    """
    if sys.platform != "linux":
        return work(*arguments)
    with ThreadPoolExecutor(1, "rtseg-giving-way", _lower_priority) as thread:
        return thread.submit(work, *arguments).result()


def _lower_priority() -> None:
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):  # a sandbox may forbid it: then nobody gives way, and all is as right as before
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + _GIVING_WAY))


@contextlib.contextmanager
def without_real_time_priority() -> Iterator[None]:
    """Undo the real-time priority that a library gives to its threads and to the calling thread while the block runs.

    SVT-AV1, when root opens it, puts the calling thread and its own threads into SCHED_FIFO 99. Threads and processes that
    are started later inherit that: nothing else on the machine gets CPU time while one of them computes.
    """
    if sys.platform != "linux":
        yield
        return
    before = _real_time_threads()
    try:
        yield
    finally:
        for thread in _real_time_threads() - before:
            with contextlib.suppress(ProcessLookupError):  # it ended in between
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _real_time_threads() -> set[int]:
    threads = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            if os.sched_getscheduler(int(task.name)) in (os.SCHED_FIFO, os.SCHED_RR):
                threads.add(int(task.name))
    return threads


def has_vnni() -> bool:
    """Whether this processor multiplies INT8 faster than anything else (Intel's and AMD's VNNI); False where nobody tells."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return False
    flags = next((line for line in info.read_text(errors="replace").splitlines() if line.startswith("flags")), "")
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags.split())


def cpu_name() -> str:
    """As the system calls it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
