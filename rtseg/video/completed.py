"""List of verified outputs, which `--resume` skips.

Each output folder has a list, `.rtseg-done.jsonl`, with a line for each video that passed its fidelity check and has its final
name. A line records name, size and modification time of output and input, and a hash of all settings that affect the output. A
video without a line, or with a difference in any of these, is processed again. The file is append-only; for each name the last
line is valid.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtseg._version import __version__
from rtseg.core.errors import SinkError, reason

NO_OUTPUT = "there is no output yet"
"""Reason to process an input that is not reported to the user."""

LIST_NAME = ".rtseg-done.jsonl"
"""File name of the list in an output folder."""

_MTIME_TOLERANCE_SECONDS = 2.0
"""Maximum difference between two modification times of an unchanged file: some file systems (FAT) round to two seconds."""

FileState = list[float]
"""Size in bytes and modification time in seconds; see `state_of`."""


class DoneList:
    """Lists of verified outputs in the output folders of a run.

    `settings` are all settings that affect an output, by name; the values are JSON values.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._lists: dict[Path, dict[str, Any]] = {}

    def reason_to_process(self, source: str, output: str, masks: str | None = None) -> str | None:
        """Return a human-readable reason to process an input; None if its output is complete and verified.

        `masks` is the file or folder of the masks, if masks are requested.
        """
        path = Path(output)
        state = state_of(output)
        if state is None:
            return NO_OUTPUT
        entry = self._read(path.parent).get(path.name)
        if entry is None:
            return f"{output} is not in the list of verified outputs"
        if not _same(entry.get("output_state"), state):
            return f"{output} changed after it was verified"
        if entry.get("input") != Path(source).name or not _same(entry.get("input_state"), state_of(source)):
            return "the input is not the same file"
        if entry.get("settings") != self._settings:
            return "the settings are not the same"
        if masks is not None and (entry.get("masks") != masks or not Path(masks).exists()):
            return f"its masks {masks} are missing"
        return None

    def is_listed(self, output: Path) -> bool:
        """Return whether a file is in the list of its folder and has not changed since."""
        entry = self._read(output.parent).get(output.name)
        return entry is not None and _same(entry.get("output_state"), state_of(str(output)))

    def add(self, source: str, state_before: FileState | None, output: str, masks: str | None = None) -> None:
        """Append a verified output that has its final name, and its masks, if there are any.

        `state_before` is `state_of` the input before it was read; a later change is not part of the output.

        Raises:
            SinkError: the list can't be written.
        """
        path = Path(output)
        entry = {
            "output": path.name,
            "output_state": state_of(output),
            "input": Path(source).name,
            "input_state": state_before,
            "masks": masks,
            "settings": self._settings,
            "rtseg": __version__,
        }
        line = json.dumps(entry, ensure_ascii=True) + "\n"
        try:
            with (path.parent / LIST_NAME).open("a+b") as file:
                # An incomplete last line (after a kill or on a full disk) must not merge with this one.
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read() == b"\n" else f"\n{line}"
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SinkError(
                f"{output} is complete, but {path.parent / LIST_NAME} can't be written ({reason(error)}): "
                "--resume would process it again"
            ) from error

    def _read(self, folder: Path) -> dict[str, Any]:
        if folder not in self._lists:
            self._lists[folder] = _entries(folder / LIST_NAME)
        return self._lists[folder]


def _entries(file: Path) -> dict[str, Any]:
    """Return the last entry of each output by its name; invalid lines are ignored."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError:
        return {}  # no readable list: every input is processed
    entries: dict[str, Any] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("output"), str):
            entries[entry["output"]] = entry
    return entries


def state_of(file: str) -> FileState | None:
    """Return size in bytes and modification time in seconds of a file; None if it does not exist."""
    try:
        stat = Path(file).stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime]


def _same(before: Any, now: FileState | None) -> bool:
    try:
        size, modified = before
        return now is not None and size == now[0] and abs(modified - now[1]) <= _MTIME_TOLERANCE_SECONDS
    except (TypeError, ValueError):
        return False  # a damaged line, or a file that did not exist
