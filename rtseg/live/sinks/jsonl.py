"""JSON Lines output: timestamp, age and class shares of each frame."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from rtseg.core.errors import SinkError, reason
from rtseg.core.frame import ProcessedFrame
from rtseg.core.stats import class_shares
from rtseg.io.outputs import Sink


class JsonLinesFile:
    """File of lines that several cameras may write to, one whole line at a time; `-` is standard output."""

    def __init__(self, path: str, writers: int) -> None:
        """Open the file. The first line replaces its contents; a run that fails earlier leaves it unchanged.

        It is closed when all `writers` have closed it.

        Raises:
            SinkError: the file can't be written.
        """
        self.path = path
        self._lock = threading.Lock()
        self._writers = writers
        try:
            self._file: IO[str] = sys.stdout if path == "-" else Path(path).open("a", encoding="utf-8")  # noqa: SIM115
            # A device or a pipe has no contents to replace.
            self._truncate_first = path != "-" and Path(path).is_file()
        except OSError as error:
            raise SinkError(f"can't write {path}: {reason(error)}") from error

    def write(self, line: str) -> None:
        """Write a line and flush it. Raises SinkError."""
        try:
            with self._lock:
                if self._truncate_first:
                    self._truncate_first = False
                    self._file.truncate(0)
                self._file.write(line + "\n")
                self._file.flush()
        except (OSError, ValueError) as error:
            raise SinkError(f"can't write {self.path}: {reason(error)}") from error

    def close(self) -> None:
        """Close the file for one writer."""
        with self._lock:
            self._writers -= 1
            if not self._writers and self._file is not sys.stdout:
                with contextlib.suppress(OSError):  # the rest of a line whose error `write` has raised
                    self._file.close()


class JsonLinesSink(Sink):
    """JSON lines of one camera.

    Fields: `camera`; `index` of the frame among the decoded ones; `pts`, stream time in seconds; `time`, UTC time of the
    line; `age_ms`, age of the frame at the start of the inference; `infer_ms`; `latency_ms`, age of the frame when the line
    is written; `classes`, the share of each class that is in the frame.
    """

    written = 0

    def __init__(self, file: JsonLinesFile, classes: tuple[str, ...]) -> None:
        """Write to `file`; `classes` are the class names of the model."""
        self.name = "standard output" if file.path == "-" else Path(file.path).name
        self._file, self._classes = file, classes

    def write(self, item: ProcessedFrame) -> None:
        """Write one line. Raises SinkError."""
        line = {
            "camera": item.camera,
            "index": item.frame.index,
            "pts": round(item.frame.pts_seconds, 6),
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "age_ms": round(item.age_at_inference_ms, 2),
            "infer_ms": round(item.infer_seconds * 1e3, 2),
            "latency_ms": round(item.age_ms, 2),
            "classes": class_shares(item.classes, self._classes),
        }
        self._file.write(json.dumps(line))
        self.written += 1

    def close(self) -> None:
        """Close the file, which keeps its lines."""
        self._file.close()

    abort = close
