"""The secrets of a command line: hidden in the list of processes, and known so that no message repeats them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from rtseg.core.errors import OptionError
from rtseg.core.secrets import (
    HIDDEN,
    holds_secret,
    looks_like_file,
    parse_url,
    redacted_name,
    redacted_url,
    remember,
    remember_pipeline,
)

_SECRET_OPTIONS = ("--token",)
_URL_OPTIONS = ("--url", "--push")
_SECRET_VARIABLES = ("RTSEG_URL", "RTSEG_PUSH", "RTSEG_TOKEN")

_ARG_START, _ARG_END = 45, 46
"""Fields of /proc/PID/stat behind the program's name, from 0: where the arguments are in memory (proc_pid_stat(5))."""


def remember_arguments(arguments: Sequence[str]) -> None:
    """Keep the secrets of a command line, and of the environment variables that stand for options, for `redact`."""
    for name in _SECRET_VARIABLES:
        for value in os.environ.get(name, "").split():
            remember(value)
    for option, value in _options_and_values(arguments):
        if option == "--gst":
            remember_pipeline(value)
        elif is_secret(option, value):
            remember(value)


def hide_passwords() -> bool:
    """Overwrite the secrets in this process's arguments as the system shows them.

    Returns:
        Whether none is visible now. Only Linux lets a process do this; elsewhere give the URL by environment variable.
    """
    try:
        arguments = Path("/proc/self/cmdline").read_bytes()
        # Behind the program's name, which may hold spaces and brackets itself.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    except (OSError, IndexError, ValueError):
        return False
    given = [os.fsdecode(each) for each in arguments.split(b"\0")]
    hidden = b"\0".join(os.fsencode(each) for each in masked(given))
    if hidden == arguments:
        return True
    if not start or end - start != len(arguments) or len(hidden) != len(arguments):
        return False
    ctypes.memmove(start, hidden, len(hidden))
    return True


def masked(arguments: Sequence[str]) -> list[str]:
    """A command line whose secrets are asterisks, each argument as many bytes long as before."""
    result = []
    for argument, (option, value) in zip(arguments, _options_and_values(arguments), strict=True):
        hidden = _masked_value(option, value) if is_secret(option, value) else value
        result.append(argument[: len(argument) - len(value)] + hidden)
    return result


def _options_and_values(arguments: Sequence[str]) -> Iterable[tuple[str, str]]:
    """For each argument the option that it belongs to, and what of it is a value."""
    before = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("--") and equals:
            yield name, value
        else:
            yield before, argument
        before = argument if argument.startswith("--") else ""


def is_secret(option: str, value: str) -> bool:
    """Whether an option's value must not be shown as it is."""
    if option in _SECRET_OPTIONS:
        return True
    if option == "--gst":
        return holds_secret(value)
    if option in _URL_OPTIONS and "://" not in value:
        return not value.startswith("-") and not looks_like_file(value)
    return "@" in value or redacted_name(value) != value


def _masked_value(option: str, value: str) -> str:
    if option in (*_SECRET_OPTIONS, "--gst") or redacted_url(value) == HIDDEN:
        return _stars(value)
    scheme, _, rest = value.partition("://")
    try:
        url = parse_url(value)
    except OptionError:
        return f"{scheme}://{_stars(rest)}"
    user_info = "" if url.user_info is None else f"{_stars(url.user_info)}@"
    kept = url.harmless_path
    if url.tail[len(kept) :].startswith("?"):
        kept += "?"
    return f"{scheme}://{user_info}{url.address}{kept}{_stars(url.tail[len(kept) :])}"


def _stars(text: str) -> str:
    return "*" * len(os.fsencode(text))
