"""Passwords on the command line, taken out of what `ps` shows."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

_ARG_START, _ARG_END = 45, 46
"""Fields of /proc/PID/stat behind the program's name, from 0: where the arguments lie in memory (proc_pid_stat(5))."""

_SECRET = re.compile(rb"(?<=://)[^/@\s\0]*(?=@)|(?<=\?)[^\s\0]*")


def hide_passwords() -> bool:
    """Overwrites user names, passwords and queries of URLs in this process's arguments as the system shows them.

    Returns:
        Whether none is visible now. Only Linux lets a process do this; elsewhere give the URL by environment variable.
    """
    try:
        arguments = Path("/proc/self/cmdline").read_bytes()
        if not _SECRET.search(arguments):
            return True
        # Behind the program's name, which may hold spaces and brackets itself.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    except (OSError, IndexError, ValueError):
        return False
    if not start or end - start != len(arguments):
        return False
    hidden = _SECRET.sub(lambda match: b"*" * len(match[0]), arguments)
    ctypes.memmove(start, hidden, len(hidden))
    return True
