"""Start, monitor and stop a `gst-launch-1.0` process."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from subprocess import DEVNULL, PIPE, STDOUT

from rtseg.core.errors import OptionError, RtsegError
from rtseg.core.secrets import contains_secret, redacted_pipeline, remember_pipeline, without_urls
from rtseg.io.gstreamer import launch

LAUNCHER = "gst-launch-1.0"
OPTIONS = ("-q", "--no-fault")
"""Quiet, and without the crash handler that would keep a crashed pipeline waiting for a debugger."""

INSPECTOR = "gst-inspect-1.0"
INSTALL = (
    "apt-get install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good "
    "gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly"
)

_INSPECT_SECONDS = 60.0  # The first call after an installation scans all plugins, which is slow on a board.
_ERROR_LINE = re.compile(
    r"^(?:ERROR: (?:from element \S+: |pipeline could not be constructed: )?|WARNING: erroneous pipeline: )"
)
_SOURCE_LINE = re.compile(r"^\S+\.(?:c|cpp|cc|rs)\(\d+\)")


@lru_cache(maxsize=256)
def has_element(name: str) -> bool:
    """Return True if GStreamer is installed and has the element."""
    inspector = shutil.which(INSPECTOR)
    if inspector is None:
        return False
    command = [inspector, "--exists", name]
    return not subprocess.call(command, timeout=_INSPECT_SECONDS, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)


def words_of(pipeline: str) -> list[str]:
    """Split a pipeline into the arguments that a shell would pass to gst-launch-1.0.

    Raises:
        OptionError: the pipeline is empty, or a quote is not closed.
    """
    try:
        words = shlex.split(pipeline)
    except ValueError as error:
        raise OptionError(
            f"the GStreamer pipeline can't be read ({str(error).lower()}): {redacted_pipeline(pipeline)}"
        ) from error
    if not words:
        raise OptionError("the GStreamer pipeline is empty; write one such as 'v4l2src ! video/x-raw,width=1280'")
    return words


class GStreamerProcess:
    """A running pipeline.

    With `reads_stdin`, its standard input is a pipe for `fdsrc fd=0`, else it is closed. Standard output and error (NVIDIA's
    elements print a lot) are stored for `reason`; frames use `output_fd`, which the process inherits under the same number.

    Raises the exception `error` if GStreamer is not installed.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        error: type[RtsegError],
        reads_stdin: bool = False,
        output_fd: int | None = None,
    ) -> None:
        """Start a pipeline, which is given as `words_of` returns it."""
        launcher = shutil.which(LAUNCHER)
        if launcher is None:
            raise error(f"{LAUNCHER} is not installed: `{INSTALL}`")
        command, variables = [launcher, *OPTIONS, *words], {}
        pipeline = shlex.join(words)
        if contains_secret(pipeline):  # Every user of the machine can read arguments, but not environment variables.
            remember_pipeline(pipeline)
            command = [sys.executable, "-I", "-S", launch.__file__]
            variables = {launch.VARIABLE: json.dumps(list(words))}
        # In a new session, so that Ctrl-C in the terminal ends rtseg first and GStreamer after it.
        self._process = subprocess.Popen(
            command,
            stdin=PIPE if reads_stdin else DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            pass_fds=() if output_fd is None else (output_fd,),
            start_new_session=True,
            env={**os.environ, "GST_DEBUG_NO_COLOR": "1", "LC_ALL": "C.UTF-8", **variables},
        )
        self._output: deque[str] = deque(maxlen=200)
        self._listener = threading.Thread(target=self._listen, name="rtseg-gstreamer-log", daemon=True)
        self._listener.start()

    @property
    def stdin_fd(self) -> int:
        """File descriptor that frames are written to."""
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def end_input(self) -> None:
        """Close the input, so that the pipeline finishes."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def wait(self, timeout_seconds: float) -> int | None:
        """Return the exit status, negative for a signal; None if the process still runs after the timeout."""
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """Terminate the process, and kill it after the timeout. May be called twice and from any thread."""
        if self._process.poll() is None:
            self._process.terminate()
            if self.wait(timeout_seconds) is None:
                self._process.kill()
                self._process.wait()
        self.end_input()
        self._listener.join(1.0)

    def reason(self) -> str:
        """Return why the process ended: its error message, or its exit status, without passwords."""
        status = self.wait(1.0)
        self._listener.join(1.0)
        return explain(list(self._output), status)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._output.append(line.decode(errors="replace").rstrip())


def explain(output: Sequence[str], status: int | None) -> str:
    """Return the error in the lines that gst-launch-1.0 printed, or its exit status (see `wait`), in one line."""
    for number, line in enumerate(output):
        if _ERROR_LINE.match(line):
            text = _ERROR_LINE.sub("", line)
            details = output[number + 1 : number + 4]
            if details[:1] == ["Additional debug info:"]:
                useful = (each for each in details[1:] if not (_SOURCE_LINE.match(each) or _ERROR_LINE.match(each)))
                text += " " + next(filter(None, useful), "")
            return without_urls(" ".join(text.split()))
    if status is None:
        return "it does not respond"
    if status < 0:
        return f"it was ended by signal {-status}"
    return "the stream ended" if status == 0 else f"it ended with status {status}"
