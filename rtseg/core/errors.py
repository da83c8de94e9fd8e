"""Errors that a user can fix. Each message is one line with the wrong value and the remedy; the commands exit with code 1.

Code that calls another library (PyAV, OpenVINO, TensorRT, torch, OSError) converts its errors to these with
`raise ... from error`, so that `-v` can show the cause. All other exceptions are bugs and end in a traceback.
"""

from __future__ import annotations

import re


class RtsegError(Exception):
    """Base class of all errors that a user can fix. `str(error)` is one line with the remedy."""


class OptionError(RtsegError):
    """An invalid option value, such as an unknown class, palette, size or range."""


class SourceError(RtsegError):
    """The input is missing, unreadable, not a video, or refused."""


class Disconnected(SourceError):
    """A live source is disconnected. The caller may reconnect."""


class SinkError(RtsegError):
    """The output can't be written: no such folder, no space, no such codec, or the container refuses it."""


class ModelError(RtsegError):
    """The model file is missing, damaged, or violates rtseg's model contract."""


class EngineMismatch(ModelError):
    """The engine was built for another version, GPU or program. The message contains the field and the build command."""


class BackendError(RtsegError):
    """The inference runtime is not installed, finds no device, or failed."""


class DataError(RtsegError):
    """Unusable training or evaluation data. The message contains the file name."""


class FidelityError(RtsegError):
    """The output does not match the input. The output keeps its `.partial` name."""


def printable(text: str) -> str:
    """Escape the characters of a text that are unsafe to print on a terminal. Line ends are kept.

    Untrusted file names may contain control characters, bidirectional marks, and bytes that are not UTF-8.
    """
    return re.sub(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff]", _escape, text
    )


def printable_name(name: str) -> str:
    """Escape a file name for one line of text: like `printable`, and line ends and tabs are escaped too."""
    return re.sub(r"[\t\n]", _escape, printable(name))


def reason(error: BaseException) -> str:
    """Return what failed, for a message: the system's text, which has no file name, with a small initial letter."""
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return text[:1].lower() + text[1:]


def escaped_json(text: str) -> str:
    """Escape lone surrogates in JSON text, so that it can be encoded as UTF-8.

    A lone surrogate is a byte of a file name that is not UTF-8: `"caf\\udce9.mp4"`. `os.fsencode` restores it.
    """
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8 (surrogateescape)
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
