"""One line of JSON for each frame: when it was, how old it is, and what it shows."""

from __future__ import annotations

import json
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from rtseg.core.errors import SinkError
from rtseg.core.frame import Passthrough, SegmentedFrame
from rtseg.live.live_frame import LiveFrame, class_shares


class LinesFile:
    """A file of lines that several cameras write into, each line whole; `-` is standard output."""

    def __init__(self, path: str) -> None:
        """Opens it. What was in it is replaced by the first line: a run that fails before leaves it as it was.

        Raises:
            SinkError: it can't be written.
        """
        self.path = path
        self._lock = threading.Lock()
        self._users = 0
        try:
            self._file: IO[str] = sys.stdout if path == "-" else Path(path).open("a", encoding="utf-8")  # noqa: SIM115
            # A device or a pipe holds nothing that could be replaced.
            self._empties = path != "-" and Path(path).is_file()
        except OSError as error:
            raise SinkError(f"can't write {path}: {error.strerror}") from error

    def add(self) -> None:
        """One more writes into it."""
        self._users += 1

    def write(self, line: str) -> None:
        """Writes a line so that a reader has it at once. Raises SinkError."""
        try:
            with self._lock:
                if self._empties:
                    self._empties = False
                    self._file.truncate(0)
                self._file.write(line + "\n")
                self._file.flush()
        except (OSError, ValueError) as error:
            text = getattr(error, "strerror", None) or str(error)
            raise SinkError(f"can't write {self.path}: {text}") from error

    def close(self) -> None:
        """One less writes into it; after the last it is closed."""
        with self._lock:
            self._users -= 1
            if not self._users and self._file is not sys.stdout:
                self._file.close()


class JsonLines:
    """A camera's lines. Implements `rtseg.io.outputs.Sink`; takes `rtseg.live.live_frame.LiveFrame`.

    Fields: `camera`; `index` of the frame among those decoded; `pts`, seconds of the stream; `time`, when the line was
    written, UTC; `age_ms`, how old the picture was when the network took it; `infer_ms`; `latency_ms`, how old it was when
    the line was written; `classes`, the share of each class in the picture, those that are there.
    """

    def __init__(self, file: LinesFile, classes: tuple[str, ...]) -> None:
        """Writes into `file`, with these names of the classes."""
        self.name = "standard output" if file.path == "-" else Path(file.path).name
        self.written = 0
        self._file, self._classes = file, classes
        file.add()

    def write(self, item: SegmentedFrame) -> None:
        """Writes one line. Raises SinkError."""
        assert isinstance(item, LiveFrame)
        line = {
            "camera": item.camera,
            "index": item.frame.index,
            "pts": round(item.frame.pts_seconds, 6),
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "age_ms": round(item.waited_ms, 2),
            "infer_ms": round(item.infer_ms, 2),
            "latency_ms": round(item.age_ms, 2),
            "classes": class_shares(item.classes, self._classes),
        }
        self._file.write(json.dumps(line))
        self.written += 1

    def pass_through(self, packet: Passthrough) -> None:
        """Lines hold no other streams."""

    def close(self) -> None:
        """The file stays as it is."""
        self._file.close()

    def abort(self) -> None:
        """The file stays as it is."""
        self._file.close()
