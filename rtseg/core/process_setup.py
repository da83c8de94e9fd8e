"""Process-wide settings for long runs: memory allocation and OpenCV's threads."""

from __future__ import annotations

import ctypes
import platform

_MMAP_THRESHOLD = -3
"""glibc's M_MMAP_THRESHOLD, from malloc.h (mallopt(3))."""

_FRAME_BYTES = 256 * 1024
"""Minimum size of the blocks that are returned to the system as soon as they are freed: the frames."""


def keep_memory_flat() -> None:
    """Configure the C library to return every freed frame to the system at once. For long-running processes; glibc only.

    Otherwise the heap of each thread keeps frame-sized holes, and their number grows for minutes:
    `benchmarks/live_soak.py --no-keep-flat` shows it.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _FRAME_BYTES)


def set_up_pipeline() -> None:
    """Configure the process to run a pipeline: `keep_memory_flat`, and no thread pool of OpenCV.

    The pipeline stages have their own threads. OpenCV's pool would compete with them for the cores: 5 % of the throughput of
    the whole pipeline on two cores.
    """
    import cv2

    keep_memory_flat()
    cv2.setNumThreads(1)
