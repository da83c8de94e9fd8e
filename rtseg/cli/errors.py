"""Error handling of commands: one line on stderr and an exit code."""

from __future__ import annotations

import logging
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from rtseg.core.errors import RtsegError, printable
from rtseg.core.secrets import redact, without_urls


class Terminated(KeyboardInterrupt):
    """Raised at SIGTERM. Handled like Ctrl-C, with another exit code."""


@contextmanager
def error_handler(verbose: bool = False) -> Iterator[None]:
    """Convert exceptions of a command to one line and an exit code: 1 for errors, 130 for SIGINT, 143 for SIGTERM.

    Open files have been closed by the code that opened them before an exception arrives here.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that the terminal can't display
    handler = _LogHandler()
    logger = logging.getLogger("rtseg")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, _terminate) if in_main_thread else None
    try:
        yield
    except RtsegError as error:
        if verbose and error.__cause__ is not None:
            print_line(f"rtseg: caused by {_cause(error.__cause__)}")
        print_line(f"rtseg: {one_line(str(error))}")
        raise typer.Exit(1) from None
    except ImportError as error:
        remedy = _opencv_remedy(error)
        if remedy is None:
            raise
        print_line(f"rtseg: {remedy}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt as interrupt:
        print_line("rtseg: interrupted")
        raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
    finally:
        logger.removeHandler(handler)
        if in_main_thread:
            signal.signal(signal.SIGTERM, previous)


class _LogHandler(logging.Handler):
    """Print records of the library to stderr, one line each; of a bug, whose message is printed as a result, its traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        if record.exc_info:
            sys.stderr.write(redact(logging.Formatter().formatException(record.exc_info)) + "\n")
            return
        name = "rtseg" if record.levelno >= logging.WARNING else record.name
        print_line(f"{name}: {one_line(record.getMessage())}")


def _opencv_remedy(error: ImportError) -> str | None:
    """Return instructions for an OpenCV that can't be imported; None for any other import error."""
    if isinstance(error, ModuleNotFoundError) and error.name == "cv2":
        return "OpenCV is not installed: `pip install opencv-python-headless`"
    if error.name == "cv2" or re.match(r"lib(GL|gthread|glib|X|xcb)", str(error)):
        return (
            f"OpenCV does not load ({one_line(str(error))}): `apt-get install libgl1 libglib2.0-0`, "
            "or `pip install opencv-python-headless` in place of opencv-python"
        )
    return None


def _cause(error: BaseException) -> str:
    """Return the cause of an error in one line, without files and URLs, which the error itself contains."""
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or without_urls(one_line(str(error)))}"


def print_line(line: str) -> None:
    """Print a human-readable line to stderr, without secrets of the command line. Only data is printed to stdout."""
    print(printable(redact(line, words=False)), file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Replace line breaks of a message with spaces."""
    return " ".join(text.split())


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
