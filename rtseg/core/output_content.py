"""Content of output files: detection of the existing files that a new output may replace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from rtseg.core.files import is_marked_image

Content = Literal["any", "json", "jsonl", "image", "mask video", "folder"]
"""Content of an output. It determines which existing file the output may replace.

`any`: a main output, which may replace any regular file. `json`, `jsonl`, `image`: a JSON object, JSON lines or an image that
rtseg wrote. `mask video`: an .mkv that `--masks` wrote. `folder`: a folder that is replaced as a whole
(`rtseg.io.outputs.masks` checks its content).
"""

DESCRIPTIONS = {
    "json": "a report that rtseg wrote",
    "jsonl": "JSON lines that rtseg wrote",
    "image": "an image that rtseg wrote",
    "mask video": "an .mkv that --masks wrote",
}
"""Description of each checked content, for messages."""

HEAD_BYTES = 65536
"""Number of bytes at the beginning of a file that `has_content` needs."""

_MAX_JSON_BYTES = 256 * 2**20


def has_content(path: Path, head: bytes, content: Content) -> bool:
    """Return whether an existing file, whose first `HEAD_BYTES` bytes are `head`, has a content of `DESCRIPTIONS`."""
    if content == "image":
        return is_marked_image(path)
    if content == "mask video":
        return _is_mask_video(head)
    if content == "jsonl":
        return b"\n" in head and _has_fields(head.split(b"\n", 1)[0], {"camera", "index", "latency_ms", "classes"})
    return path.stat().st_size <= _MAX_JSON_BYTES and _has_fields(path.read_bytes(), {"rtseg"})


def is_mask_video(path: Path) -> bool:
    """Return whether a file is a video that `--masks` wrote. False if it can't be read."""
    if path.suffix.lower() != ".mkv":
        return False
    try:
        with path.open("rb") as file:
            return _is_mask_video(file.read(HEAD_BYTES))
    except (OSError, ValueError):
        return False


def _is_mask_video(head: bytes) -> bool:
    # FFmpeg writes the codec and the tag into the header, before the first frame.
    return head.startswith(b"\x1a\x45\xdf\xa3") and b"V_FFV1" in head and b"CLASSES" in head


def _has_fields(data: bytes, fields: set[str]) -> bool:
    """Return whether data is a JSON object with these fields."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and fields <= value.keys()
