"""Messages and status line of `rtseg live`."""

from __future__ import annotations

import logging
import sys
import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from rtseg.cli.progress import PLAIN_SECONDS
from rtseg.core.errors import printable

_LOGGER = logging.getLogger("rtseg.live")


class LiveStatus(logging.Handler):
    """Display of a live run on stderr while the context is open: messages of the log, and the metrics of each second.

    On a terminal, the metrics are one line below the messages. Otherwise they are a plain line every ten seconds, and all lines
    have the time of day.

    Args:
        quiet: display only warnings.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__()
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._shown = 0.0
        self._line = Live(console=Console(stderr=True), auto_refresh=False, transient=True, redirect_stdout=False)

    def __enter__(self) -> LiveStatus:
        _LOGGER.addHandler(self)
        _LOGGER.setLevel(logging.WARNING if self._quiet else logging.INFO)
        _LOGGER.propagate = False
        if self._terminal:
            self._line.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._line.stop()
        _LOGGER.removeHandler(self)
        _LOGGER.setLevel(logging.NOTSET)
        _LOGGER.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        self._print(record.getMessage())

    def show(self, line: str) -> None:
        """Show the metrics of the last second."""
        if self._quiet:
            return
        if self._terminal:
            self._line.update(Text(printable(line)), refresh=True)
        elif time.monotonic() - self._shown >= PLAIN_SECONDS:
            self._shown = time.monotonic()
            self._print(line)

    def _print(self, line: str) -> None:
        stamp = "" if self._terminal else time.strftime("%H:%M:%S ")
        print(stamp + printable(line), file=sys.stderr, flush=True)
