"""Small files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from rtseg.errors import SinkError


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file under a partial name and renames it; makes its folder.

    Raises:
        SinkError: it can't be written; nothing is left then.
    """
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(
            OSError
        ):  # what could not be made can't be removed; the error above is the one to tell
            partial.unlink()
        raise SinkError(f"'{path}' can't be written: {error.strerror}") from error


def write_json(data: dict[str, Any], file: str) -> None:
    """Writes a JSON object for machines; `-` is stdout.

    Raises:
        SinkError: the file can't be written.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    if file == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_whole(Path(file), text.encode())
