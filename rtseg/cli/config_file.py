"""Configuration file `rtseg.toml`: the options of a command, checked like the command line.

    [live]
    camera = ["/dev/video0"]
    record = "drive.mp4"
    split-every = "60"
    keep = "10GB"
    legend = true

Keys are the long options without dashes. `rtseg service run` converts the table to command-line arguments.
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
    """Option that a configuration can contain."""

    name: str
    """Long name without dashes: `max-age-ms`."""

    is_flag: bool = False
    """True for an option without a value; its value in the file is true or false."""

    negative: str | None = None
    """Option that switches a flag off, with its dashes: `--no-overwrite`. None: there is none, and false omits the flag."""

    multiple: bool = False
    """True if the option is repeatable; its value in the file can be a list."""


def read_config(path: Path, command: str = "live") -> dict[str, Any]:
    """Read the table of a command.

    Raises:
        OptionError: the file can't be read, is not valid TOML, has no table of the command, or has other tables.
    """
    try:
        data = tomllib.loads(read_text(path))
    except OSError as error:
        raise OptionError(f"can't read the configuration {path}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise OptionError(f"{path} is not valid TOML: {error}") from error
    for name in data:
        if name != command:
            raise OptionError(f"{path}: '{name}' is not allowed there; put the options under [{command}]")
    table = data.get(command)
    if not isinstance(table, dict):
        raise OptionError(f"{path} has no table [{command}]")
    return table


def to_arguments(table: Mapping[str, Any], options: Iterable[Option]) -> list[str]:
    """Convert a table to command-line arguments.

    Raises:
        OptionError: a key is not an option (the message names the closest one), or a value has the wrong type.
    """
    known = {option.name: option for option in options}
    arguments: list[str] = []
    for key, value in table.items():
        option = known.get(key)
        if option is None:
            closest = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean '{closest[0]}'?" if closest else f"; there are {', '.join(sorted(known))}"
            raise OptionError(f"there is no option '{key}'{hint}")
        if option.is_flag:
            arguments += _flag(option, value)
            continue
        values = value if isinstance(value, list) else [value]
        if len(values) > 1 and not option.multiple:
            raise OptionError(f"'{key}' takes one value, not a list of {len(values)}")
        for each in values:
            if isinstance(each, bool) or not isinstance(each, (str, int, float)):
                raise OptionError(f"'{key}' can't be {_quote_value(each)}; write a string or a number")
            arguments.append(f"--{key}={each}")
    return arguments


def to_toml(table: Mapping[str, Any], command: str = "live") -> str:
    """Convert a table to TOML text. The inverse of `read_config`.

    Raises:
        OptionError: a value is not a string, number, boolean or list of them.
    """
    return "\n".join([f"[{command}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]) + "\n"


def _flag(option: Option, value: Any) -> list[str]:
    if not isinstance(value, bool):
        raise OptionError(f"'{option.name}' is {_quote_value(value)}; write true or false")
    if value:
        return [f"--{option.name}"]
    return [option.negative] if option.negative else []


def _quote_value(value: Any) -> str:
    """Return an invalid value for a message. A value that can contain a URL or a password is hidden."""
    text = _toml(value)
    return HIDDEN if re.search(r"://|@", text) else text


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        escaped = "".join(_ESCAPES.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in value)
        return f'"{escaped}"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    raise OptionError(f"a configuration can't contain {type(value).__name__}")
