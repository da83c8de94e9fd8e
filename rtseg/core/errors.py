"""The errors a user can meet, each told in one line: what was wrong, with the value, and what to do.

    RtsegError
    ├── OptionError      an option, palette or class name that makes no sense            exit 1
    ├── SourceError      the input is missing, unreadable, not a video, or refused        exit 1
    │   └── Disconnected     a live source went away; it may come back
    ├── SinkError        the output can't be written: folder, disk, codec, container      exit 1
    ├── ModelError       the model file is missing, damaged or not of rtseg's contract    exit 1
    │   └── EngineMismatch   an engine built for another version, GPU or program
    ├── BackendError     the run-time is not installed, finds no device, or failed        exit 1
    ├── DataError        training or evaluation data that can't be used                   exit 1
    └── FidelityError    what came out is not what went in                                exit 1

Errors of other libraries (PyAV, OpenVINO, TensorRT, torch, OSError) are turned into these at the one place where rtseg
calls them, with `raise ... from error`, so that `-v` can still show the cause. A bug stays what it is: a traceback.
"""

from __future__ import annotations

import re


class RtsegError(Exception):
    """Base of every error that the user can mend. `str(error)` is one line that says how."""


class OptionError(RtsegError):
    """An option's value makes no sense: a class, palette, size or range that does not exist."""


class SourceError(RtsegError):
    """The input is missing, unreadable, not a video, or refused."""


class Disconnected(SourceError):
    """A live source went away. Whoever reads it may try again."""


class SinkError(RtsegError):
    """The output can't be written: no such folder, no space, no such codec, or the container refuses it."""


class ModelError(RtsegError):
    """The model file is missing, damaged, or does not follow rtseg's model contract."""


class EngineMismatch(ModelError):
    """The engine was built for another version, GPU or program. The message names the field and the rebuilding command."""


class BackendError(RtsegError):
    """The run-time that computes class maps is not installed, finds no device, or failed."""


class DataError(RtsegError):
    """Training or evaluation data that can't be used. The message names the file."""


class FidelityError(RtsegError):
    """What came out is not what went in. The output stays under its `.partial` name."""


def printable(text: str) -> str:
    """Text for a terminal: what could steer it, or can't be encoded, is made visible; line ends stay.

    File names of strangers hold control characters, marks that turn the direction of writing, and bytes that are not UTF-8.
    """
    return re.sub(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff]", _visible, text
    )


def printable_name(name: str) -> str:
    """A file name for a line of text: like `printable`, and line ends and tabs are made visible too."""
    return re.sub(r"[\t\n]", _visible, printable(name))


def escaped_json(text: str) -> str:
    """JSON that UTF-8 can hold: bytes of a file name that are not UTF-8 as `"caf\\udce9.mp4"`; `os.fsencode` gives them back."""
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8, as Python keeps it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
