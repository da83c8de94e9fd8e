"""CPU properties and thread priorities."""

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

_LOW_PRIORITY_NICENESS = 5
"""Increase of the niceness for low priority: about a third of the CPU time of a thread with normal priority."""


def usable_cores() -> int:
    """Return the number of cores that this process may use. `taskset` and the CPU set of a container reduce it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_with_low_priority(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function such that the threads it starts have a lower priority than the other threads of this process.

    Only Linux has per-thread priorities that new threads inherit. On other systems the function is called directly.
    """
    if sys.platform != "linux":
        return function(*arguments)
    with ThreadPoolExecutor(1, "rtseg-low-priority", _lower_priority) as executor:
        return executor.submit(function, *arguments).result()


def _lower_priority() -> None:
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):  # a sandbox may forbid it; the priority stays normal then
        niceness = os.getpriority(os.PRIO_PROCESS, thread) + _LOW_PRIORITY_NICENESS
        os.setpriority(os.PRIO_PROCESS, thread, min(19, niceness))


@contextlib.contextmanager
def without_real_time_priority() -> Iterator[None]:
    """Reset the real-time priority of every thread that received one during the `with` block.

    SVT-AV1, when root opens it, sets the calling thread and its own threads to SCHED_FIFO 99. Threads and processes that are
    started later inherit that: nothing else on the machine gets CPU time while one of them computes.
    """
    if sys.platform != "linux":
        yield
        return
    before = _real_time_threads()
    try:
        yield
    finally:
        for thread in _real_time_threads() - before:
            with contextlib.suppress(ProcessLookupError):  # the thread has ended
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _real_time_threads() -> set[int]:
    threads = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            if os.sched_getscheduler(int(task.name)) in (os.SCHED_FIFO, os.SCHED_RR):
                threads.add(int(task.name))
    return threads


def has_vnni() -> bool:
    """Return whether the CPU has VNNI (fast INT8 dot products, Intel and AMD). False without `/proc/cpuinfo`."""
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(_cpu_info("flags").split())


def cpu_name() -> str:
    """Return the name of the CPU as reported by the operating system."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_info(name: str) -> str:
    """Return a field of the first core in `/proc/cpuinfo`; empty if it is missing."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
