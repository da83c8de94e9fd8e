"""`rtseg.toml`: the options of a command in a file, checked as the command line checks them.

    [live]
    camera = ["/dev/video0"]
    record = "drive.mp4"
    split-every = "60"
    keep = "10GB"
    legend = true

Keys are the long options without their dashes. Each run of `rtseg service run` turns the table into those options.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtseg.core.errors import OptionError
from rtseg.core.secrets import HIDDEN
from rtseg.core.text_file import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Option:
    """An option that a configuration may hold."""

    name: str
    """Long name without dashes: `max-age-ms`."""

    is_flag: bool = False
    """Takes no value on the command line; true or false here."""

    negative: str | None = None
    """What switches a flag off, with its dashes: `--no-overwrite`; None: nothing does, false leaves it out."""

    multiple: bool = False
    """May be given several times: a list here."""


def read_config(path: Path, command: str = "live") -> dict[str, Any]:
    """The table of a command.

    Raises:
        OptionError: no such file, not TOML, or no such table in it.
    """
    try:
        data = tomllib.loads(read_text(path))
    except OSError as error:
        raise OptionError(f"can't read the configuration {path}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise OptionError(f"{path} is not valid TOML: {error}") from error
    for name in data:
        if name != command:
            raise OptionError(f"{path}: '{name}' does not belong there; its options stand under [{command}]")
    table = data.get(command)
    if not isinstance(table, dict):
        raise OptionError(f"{path} has no table [{command}]")
    return table


def to_arguments(table: Mapping[str, Any], options: Iterable[Option]) -> list[str]:
    """The command line that a table stands for.

    Raises:
        OptionError: a key that is no option (the nearest is named), or a value of a kind that the option does not take.
    """
    known = {option.name: option for option in options}
    arguments: list[str] = []
    for key, value in table.items():
        option = known.get(key)
        if option is None:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(sorted(known))}"
            raise OptionError(f"there is no option '{key}'{hint}")
        if option.is_flag:
            arguments += _flag(option, value)
            continue
        values = value if isinstance(value, list) else [value]
        if len(values) > 1 and not option.multiple:
            raise OptionError(f"'{key}' takes one value, not a list of {len(values)}")
        for each in values:
            if isinstance(each, bool) or not isinstance(each, (str, int, float)):
                raise OptionError(f"'{key}' can't be {_shown(each)}; write a string or a number")
            arguments.append(f"--{key}={each}")
    return arguments


def to_toml(table: Mapping[str, Any], command: str = "live") -> str:
    """A table as text; the inverse of `read_config`.

    Raises:
        OptionError: a value that is no string, number, truth value or list of them.
    """
    return "\n".join([f"[{command}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]) + "\n"


def _flag(option: Option, value: Any) -> list[str]:
    if not isinstance(value, bool):
        raise OptionError(f"'{option.name}' is {_shown(value)}; write true or false")
    if value:
        return [f"--{option.name}"]
    return [option.negative] if option.negative else []


def _shown(value: Any) -> str:
    """A wrong value for a message; one that may hold a URL or a password is not repeated."""
    text = _toml(value)
    return HIDDEN if re.search(r"://|@", text) else text


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        inside = "".join(_ESCAPES.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in value)
        return f'"{inside}"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    raise OptionError(f"a configuration can't hold {type(value).__name__}")
