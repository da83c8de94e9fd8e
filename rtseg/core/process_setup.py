"""What a process sets for itself before a long run: memory that does not creep up, threads that do not get in each other's way."""

from __future__ import annotations

import ctypes
import platform

_MMAP_THRESHOLD = -3
"""glibc's M_MMAP_THRESHOLD, from malloc.h (mallopt(3))."""

_PICTURE_BYTES = 256 * 1024
"""Blocks of this size and more, which are pictures, are given back to the system when they are freed."""


def keep_memory_flat() -> bool:
    """Asks the C library to give back every freed picture at once. For processes that run long; glibc alone has this.

    Otherwise each thread's heap keeps holes of the size of pictures, and they become more for minutes:
    `benchmarks/live_soak.py --no-keep-flat` shows it.

    Returns:
        Whether the C library took it.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _PICTURE_BYTES))


def keep_opencv_single() -> None:
    """OpenCV works in the thread that calls it. For processes whose stages have threads of their own: its pool would only take
    the cores from them, 5 % of the whole road on two cores."""
    import cv2

    cv2.setNumThreads(1)
