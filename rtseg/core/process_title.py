"""Secrets of the command line: masked in the process list, and registered for redaction in messages."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from rtseg.core.errors import OptionError
from rtseg.core.secrets import (
    HIDDEN,
    contains_secret,
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
"""Index of the fields `arg_start` and `arg_end` of /proc/PID/stat, counted after the program name (proc_pid_stat(5))."""


def remember_arguments(arguments: Sequence[str]) -> None:
    """Register the secrets of a command line, and of the environment variables for its options, for `redact`."""
    for name in _SECRET_VARIABLES:
        for value in os.environ.get(name, "").split():
            remember(value)
    for option, value in _options_and_values(arguments):
        if option == "--gst":
            remember_pipeline(value)
        elif is_secret(option, value):
            remember(value)


def hide_passwords() -> bool:
    """Overwrite the secrets in this process's arguments, which other users can see in the process list.

    Returns True if no secret is visible now. This works on Linux only; elsewhere pass the URL as an environment variable.
    """
    try:
        arguments = Path("/proc/self/cmdline").read_bytes()
        # After the program name, which may contain spaces and parentheses.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    except (OSError, IndexError, ValueError):
        return False
    decoded = [os.fsdecode(argument) for argument in arguments.split(b"\0")]
    replacement = b"\0".join(os.fsencode(argument) for argument in masked(decoded))
    if replacement == arguments:
        return True
    if not start or end - start != len(arguments) or len(replacement) != len(arguments):
        return False
    ctypes.memmove(start, replacement, len(replacement))
    return True


def masked(arguments: Sequence[str]) -> list[str]:
    """Return a command line with asterisks in place of its secrets. The length of each argument in bytes does not change."""
    result = []
    for argument, (option, value) in zip(arguments, _options_and_values(arguments), strict=True):
        masked_value = _masked_value(option, value) if is_secret(option, value) else value
        result.append(argument[: len(argument) - len(value)] + masked_value)
    return result


def _options_and_values(arguments: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Yield, for each argument, the name of its option and the part of the argument that is the value."""
    previous = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("--") and equals:
            yield name, value
        else:
            yield previous, argument
        previous = argument if argument.startswith("--") else ""


def is_secret(option: str, value: str) -> bool:
    """Return whether an option's value must not be displayed unchanged."""
    if option in _SECRET_OPTIONS:
        return True
    if option == "--gst":
        return contains_secret(value)
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
    visible = url.harmless_path
    if url.tail[len(visible) :].startswith("?"):
        visible += "?"
    return f"{scheme}://{user_info}{url.address}{visible}{_stars(url.tail[len(visible) :])}"


def _stars(text: str) -> str:
    return "*" * len(os.fsencode(text))
