"""Runs the command line in a process of its own, as a user does."""

from __future__ import annotations

import subprocess
import sys


def rtseg(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """`rtseg ARGUMENTS`, at most 160 seconds."""
    command = [sys.executable, "-m", "rtseg", *map(str, arguments)]
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command, capture_output=True, encoding="utf-8", timeout=160, check=False, **options
    )


def told_in_one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exactly one line of complaint, without a traceback, holding the words."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("rtseg:")]
    assert "Traceback" not in result.stderr
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]
