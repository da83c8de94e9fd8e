"""Runs the command line in a separate process."""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from rtseg.cli.app import app

MODEL = Path(__file__).parent / "data" / "nearest-color.onnx"
"""Model without weights: the class of a pixel is that of the nearest color."""

LIMIT_SECONDS = 400

_SERVER = """
import json, os, runpy, sys, warnings
import av, cv2, numpy, openvino
import rtseg.cli.app, rtseg.cli.doctor_checks, rtseg.live.run
import rtseg.video.batch, rtseg.inference.segmenter, rtseg.video.image, rtseg.video.process

for line in sys.stdin:
    folder, out, err, arguments = json.loads(line)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of threads, which NumPy has started; they are idle
        child = os.fork()
    if child == 0:
        break
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
os.chdir(folder)
for number, name, mode in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
    os.dup2(os.open(name, mode), number)
sys.argv = ["rtseg", *arguments]
runpy.run_module("rtseg", run_name="__main__", alter_sys=True)
"""


class _Server:
    """Process that has imported the modules of all commands and forks for each call. This saves 1 s of CPU time per call."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", _SERVER]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        self._lock = threading.Lock()
        atexit.register(self.close)

    def close(self) -> None:
        self._process.communicate()

    def run(self, arguments: list[str], folder: str) -> subprocess.CompletedProcess[str]:
        with self._lock, tempfile.TemporaryDirectory() as output_folder:
            out, err = Path(output_folder, "out"), Path(output_folder, "err")
            out.touch()
            err.touch()
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps([folder, str(out), str(err), arguments]) + "\n")
            child = self._read_number()
            assert self._process.stdout is not None
            if not select.select([self._process.stdout], [], [], LIMIT_SECONDS)[0]:
                os.kill(child, 9)
                self._read_number()
                raise subprocess.TimeoutExpired(["rtseg", *arguments], LIMIT_SECONDS, out.read_text(), err.read_text())
            code = self._read_number()
            texts = [path.read_bytes().decode().replace("\r\n", "\n") for path in (out, err)]
            return subprocess.CompletedProcess(["rtseg", *arguments], code, *texts)

    def _read_number(self) -> int:
        assert self._process.stdout is not None
        number = ""
        while not number.endswith("\n"):  # byte by byte, because `select` does not see buffered data
            byte = os.read(self._process.stdout.fileno(), 1).decode()
            if not byte:
                raise RuntimeError(f"the process that runs commands ended with {self._process.wait()}")
            number += byte
        return int(number)


_server: _Server | None = None


def interpreter_command(setup: str = "pass") -> list[str]:
    """Return a command that runs Python statements and then `rtseg` with the arguments that follow.

    Use it instead of `preexec_fn`, which can deadlock in a process with threads (Python's `subprocess` documentation).
    """
    start = "import runpy, sys; sys.argv[0] = 'rtseg'; runpy.run_module('rtseg', run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", f"{setup}\n{start}"]


ENABLE_SIGINT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""Setup for `interpreter_command`: processes in the background ignore SIGINT."""


def rtseg(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `rtseg ARGUMENTS` for at most `LIMIT_SECONDS`.

    Args:
        arguments: arguments of the command line.
        options: `cwd` and other arguments of `subprocess.run`, and `setup` (see `interpreter_command`). Any except `cwd`
            starts a new interpreter.
    """
    global _server
    words = [str(argument) for argument in arguments]
    if set(options) <= {"cwd"} and hasattr(os, "fork"):
        _server = _server or _Server()
        return _server.run(words, str(options.get("cwd", Path.cwd())))
    command = [*interpreter_command(options.pop("setup", "pass")), *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=LIMIT_SECONDS, check=False, **options)


def invoke(*arguments: object) -> Result:
    """Run `rtseg ARGUMENTS` in this process, which shares its imports, torch's first export, and patches."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def assert_one_error_line(result: subprocess.CompletedProcess[str] | Result, *words: str) -> None:
    """Assert that stderr contains exactly one error line, which contains the words, and no traceback."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("rtseg:")]
    assert "Traceback" not in result.stderr
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]
