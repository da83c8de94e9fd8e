"""What a command says when it ends badly: one line on stderr and the right exit code."""

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
    """SIGTERM: like Ctrl-C, with another exit code."""


@contextmanager
def error_handler(verbose: bool = False) -> Iterator[None]:
    """Turns what a command raises into one line and an exit code: 1 for errors, 130 for SIGINT, 143 for SIGTERM.

    Files were closed and kept by whoever held them before the exception came here.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal can't show is no reason to fail
    handler = _LogHandler()
    logger = logging.getLogger("rtseg")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if in_main else None
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
    except KeyboardInterrupt as stop:
        print_line("rtseg: interrupted")
        raise typer.Exit(143 if isinstance(stop, Terminated) else 130) from None
    finally:
        logger.removeHandler(handler)
        if in_main:
            signal.signal(signal.SIGTERM, before)


class _LogHandler(logging.Handler):
    """Print records of the library to stderr, one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        name = "rtseg" if record.levelno >= logging.WARNING else record.name
        print_line(f"{name}: {one_line(record.getMessage())}")


def _opencv_remedy(error: ImportError) -> str | None:
    """What to do about an OpenCV that does not load; None if it is not OpenCV that failed."""
    if isinstance(error, ModuleNotFoundError) and error.name == "cv2":
        return "OpenCV is not installed: `pip install opencv-python-headless`"
    if error.name == "cv2" or re.match(r"lib(GL|gthread|glib|X|xcb)", str(error)):
        return (
            f"OpenCV does not load ({one_line(str(error))}): `apt-get install libgl1 libglib2.0-0`, "
            "or `pip install opencv-python-headless` in place of opencv-python"
        )
    return None


def _cause(error: BaseException) -> str:
    """The cause of an error in one line; the file or URL that the system's errors repeat is in the error already."""
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or without_urls(one_line(str(error)))}"


def print_line(line: str) -> None:
    """A line for people, without secrets of the command line: to stderr, so that stdout stays free for machines."""
    print(printable(redact(line, words=False)), file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Line breaks in foreign messages become spaces."""
    return " ".join(text.split())


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
