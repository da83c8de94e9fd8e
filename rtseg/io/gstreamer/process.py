"""The process `gst-launch-1.0`: started, watched, stopped, and what it said when it failed."""

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
from types import TracebackType

from rtseg.core.errors import OptionError, RtsegError
from rtseg.core.secrets import contains_secret, redacted_pipeline, remember_pipeline, without_urls
from rtseg.io.gstreamer import launch

LAUNCHER = "gst-launch-1.0"
OPTIONS = ("-q", "--no-fault")
"""Quiet; and without its own handler of crashes, which would keep a crashed pipeline waiting for a debugger."""

INSPECTOR = "gst-inspect-1.0"
INSTALL = (
    "apt-get install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good "
    "gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly"
)

_INSPECT_SECONDS = 60.0  # The first call after an installation scans all plugins; on a board that takes a while.
_SAID = re.compile(
    r"^(?:ERROR: (?:from element \S+: |pipeline could not be constructed: )?|WARNING: erroneous pipeline: )"
)
_SOURCE_LINE = re.compile(r"^\S+\.(?:c|cpp|cc|rs)\(\d+\)")


@lru_cache(maxsize=256)
def has_element(name: str) -> bool:
    """Whether GStreamer is installed here and has the element."""
    inspector = shutil.which(INSPECTOR)
    if inspector is None:
        return False
    asked = subprocess.run(
        [inspector, "--exists", name],
        check=False,
        timeout=_INSPECT_SECONDS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return asked.returncode == 0


def words_of(pipeline: str) -> list[str]:
    """A pipeline as a shell would hand it to gst-launch-1.0.

    Raises:
        OptionError: empty, or a quote that is not closed.
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

    Its standard input is a pipe of ours for `fdsrc fd=0`, or nothing. What elements print to standard output and
    standard error (NVIDIA's print a lot) is kept for `reason`, so frames leave through a descriptor of their own.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        error: type[RtsegError],
        reads_stdin: bool = False,
        output_fd: int | None = None,
    ) -> None:
        """Starts it.

        Args:
            words: the pipeline, as `words_of` gives it.
            error: what is raised where GStreamer is missing.
            reads_stdin: whether `stdin` is to be a pipe.
            output_fd: a descriptor that the process inherits under the same number.

        Raises:
            RtsegError: of the kind `error`: GStreamer is not installed.
        """
        launcher = shutil.which(LAUNCHER)
        if launcher is None:
            raise error(f"{LAUNCHER} is not installed: `{INSTALL}`")
        command, variables = [launcher, *OPTIONS, *words], {}
        pipeline = shlex.join(words)
        if contains_secret(pipeline):  # Every user of the machine can read arguments, but not environment variables.
            remember_pipeline(pipeline)
            command = [sys.executable, "-I", "-S", launch.__file__]
            variables = {launch.VARIABLE: json.dumps(list(words))}
        # In a session of its own, so that Ctrl-C in the terminal ends the run in order: first us, then it.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if reads_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=() if output_fd is None else (output_fd,),
            start_new_session=True,
            env={**os.environ, "GST_DEBUG_NO_COLOR": "1", "LC_ALL": "C.UTF-8", **variables},
        )
        self._said: deque[str] = deque(maxlen=200)
        self._listener = threading.Thread(target=self._listen, name="rtseg-gstreamer-log", daemon=True)
        self._listener.start()

    @property
    def stdin_fd(self) -> int:
        """Where frames are written to."""
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def end_input(self) -> None:
        """Nothing more is written: the pipeline sees its end and finishes."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def wait(self, timeout_seconds: float) -> int | None:
        """Its exit status, negative for a signal; None if it still runs after that time."""
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, patience_seconds: float = 1.0) -> None:
        """Ends it: asked first, then killed. May be called twice and from any thread."""
        if self._process.poll() is None:
            self._process.terminate()
            if self.wait(patience_seconds) is None:
                self._process.kill()
                self._process.wait()
        self.end_input()
        self._listener.join(1.0)

    def reason(self) -> str:
        """Why it ended, in its own words where it had any, without passwords."""
        status = self.wait(1.0)
        self._listener.join(1.0)
        return explain(list(self._said), status)

    def __enter__(self) -> GStreamerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._said.append(line.decode(errors="replace").rstrip())


def explain(said: Sequence[str], status: int | None) -> str:
    """One line of what gst-launch-1.0 said.

    Args:
        said: the lines it printed.
        status: its exit status, negative for a signal; None: it still runs.
    """
    for number, line in enumerate(said):
        if _SAID.match(line):
            text = _SAID.sub("", line)
            details = said[number + 1 : number + 4]
            if details[:1] == ["Additional debug info:"]:
                detail = next(
                    (each for each in details[1:] if each and not (_SOURCE_LINE.match(each) or _SAID.match(each))), ""
                )
                text = f"{text} {detail}" if detail else text
            return without_urls(" ".join(text.split()))
    if status is None:
        return "it does not answer"
    if status < 0:
        return f"it was ended by signal {-status}"
    return "the stream ended" if status == 0 else f"it ended with status {status}"
