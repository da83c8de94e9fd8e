"""What is already done and proven, so that `--resume` need not do it again.

Each folder of outputs has a list, `.rtseg-done.jsonl`: a line for each video that passed its fidelity check and got its name.
A line ties the output (name, size, time of change) to its input (the same) and to all that decides how it looks. What differs
in any of it is done again, and so is what has no line. Lines are only ever added; the last one of a name counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtseg._version import __version__
from rtseg.core.errors import SinkError

NO_OUTPUT = "there is no output yet"
"""The one reason to process an input that needs no telling."""

LIST_NAME = ".rtseg-done.jsonl"
"""The list in a folder of outputs."""

_CLOCK_SECONDS = 2.0
"""How far apart two times of the same change may be: some file systems round to two seconds when they are unplugged."""

State = list[float]
"""Size and time of change of a file; see `state_of`."""


class DoneList:
    """The lists of a run's output folders.

    Args:
        made_with: all that decides how an output looks: names and values that JSON knows.
    """

    def __init__(self, made_with: Mapping[str, Any]) -> None:
        self._made_with = json.loads(json.dumps(made_with))
        self._lists: dict[Path, dict[str, Any]] = {}

    def why_again(self, source: str, output: str, masks: str | None = None) -> str | None:
        """Why an input has to be processed, for people; None: its output is done and proven.

        Args:
            source: the input file.
            output: its output file.
            masks: where its masks belong, if they are wanted.
        """
        path = Path(output)
        now = state_of(output)
        if now is None:
            return NO_OUTPUT
        entry = self._read(path.parent).get(path.name)
        if entry is None:
            return f"{output} is not in the list of what is done and checked"
        if not _same(entry.get("output_state"), now):
            return f"{output} is not the file that was checked"
        if entry.get("input") != Path(source).name or not _same(entry.get("input_state"), state_of(source)):
            return "the input is another one"
        made_with = entry.get("made_with")
        for name, value in self._made_with.items():
            before = made_with.get(name) if isinstance(made_with, dict) else None
            if before != value:
                return f"{name} was {_short(before)}, and is {_short(value)}"
        if masks is not None and (entry.get("masks") != masks or not Path(masks).exists()):
            return f"its masks {masks} are not there"
        return None

    def is_listed(self, output: Path) -> bool:
        """Whether a file is a result in the list of its folder, unchanged since."""
        entry = self._read(output.parent).get(output.name)
        return entry is not None and _same(entry.get("output_state"), state_of(str(output)))

    def note(self, source: str, before: State | None, output: str, masks: str | None = None) -> None:
        """Adds a video that was checked and has its name.

        Args:
            source: the input file.
            before: its `state_of` before it was read: one that changed since then is not what was processed.
            output: its output file.
            masks: where its masks were written, if they were.

        Raises:
            SinkError: the list can't be written.
        """
        path = Path(output)
        entry = {
            "output": path.name,
            "output_state": state_of(output),
            "input": Path(source).name,
            "input_state": before,
            "masks": masks,
            "made_with": self._made_with,
            "rtseg": __version__,
        }
        line = json.dumps(entry, ensure_ascii=True) + "\n"
        try:
            with (path.parent / LIST_NAME).open("a+b") as file:
                # What a kill or a full disk left of a line must not swallow this one.
                torn = file.tell() > 0 and _last_byte(file) != b"\n"
                file.write((b"\n" if torn else b"") + line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SinkError(
                f"{output} is done, but {path.parent / LIST_NAME} can't be written ({error.strerror}): "
                "--resume would do it again"
            ) from error

    def _read(self, folder: Path) -> dict[str, Any]:
        if folder not in self._lists:
            self._lists[folder] = _entries(folder / LIST_NAME)
        return self._lists[folder]


def _entries(file: Path) -> dict[str, Any]:
    """The last line of each output; what is no such line counts as not done."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError:
        return {}  # no list, or one that can't be read: everything is done again, and `why_again` says so
    found: dict[str, Any] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("output"), str):
            found[entry["output"]] = entry
    return found


def state_of(file: str) -> State | None:
    """Size in bytes and time of the last change in seconds; None: no such file."""
    try:
        facts = Path(file).stat()
    except OSError:
        return None
    return [facts.st_size, facts.st_mtime]


def _same(before: Any, now: State | None) -> bool:
    if now is None or not isinstance(before, list) or len(before) != 2:
        return False
    size, changed = before
    if not isinstance(size, int) or not isinstance(changed, int | float):
        return False
    return size == now[0] and abs(changed - now[1]) <= _CLOCK_SECONDS


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return bytes(file.read(1))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
