"""Reader for text files of users: UTF-8, with or without a byte order mark."""

from __future__ import annotations

import codecs
from pathlib import Path


def read_text(path: Path, errors: str = "strict") -> str:
    """Return the text of a UTF-8 file without its byte order mark, with `\\n` as line end.

    `errors` is the decoder's error handler: `surrogateescape` keeps bytes that are not UTF-8, as in Python's file names.

    Raises:
        ValueError: the file is not UTF-8. The message contains the encoding, if it is detected, and the remedy.
    """
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("it is UTF-16; save it as UTF-8")
    if b"\0" in data:
        raise ValueError("it contains NUL bytes; save it as UTF-8 text")
    try:
        text = data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8; save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
