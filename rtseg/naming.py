"""What the command line names: the videos that go in, and where each comes out."""

from __future__ import annotations

import glob
import os
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rtseg.errors import OptionError, SinkError, SourceError
from rtseg.secrets import shown_name, shown_url

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".gif", ".h264", ".264"}
)
"""What a folder is searched for."""

_KEPT_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".webm", ".ts", ".avi"})
"""Containers that rtseg writes too; for others it writes MP4."""

_MARK = ".rtseg"
"""Stands before the ending of an output that lies beside its input."""


@dataclass(frozen=True)
class Task:
    """One video to do."""

    source: str
    """The input, `-` for stdin."""

    output: str
    """The output, `-` for stdout."""

    masks: str | None = None
    """Where its class indices go, if anywhere."""


def name_tasks(inputs: Sequence[str], output: str | None, masks: str | None = None) -> list[Task]:
    """The videos that the command line names, each with its own output.

    Args:
        inputs: files, folders, globs, `-`.
        output: a file for one input, a folder for several; None: beside each input.
        masks: where masks go: a file or folder for one input; for several a folder with a folder for each.

    Raises:
        SourceError: nothing matches one of them.
        SinkError: no folder to put several outputs in, two that would get the same name, or one that would replace an input.
        OptionError: masks of several inputs can't go to one file.
    """
    found = find_inputs(inputs)
    outputs = name_outputs(found, output)
    if masks is None or len(found) == 1:
        return [Task(source, target, masks) for source, target in zip(found, outputs, strict=True)]
    if Path(masks).suffix.lower() == ".mkv":
        raise OptionError(f"--masks is one file '{masks}', but there are {len(found)} inputs; name a folder")
    folders = [str(Path(masks) / Path(target).stem) for target in outputs]
    _refuse_clashes(found, folders)
    return [Task(*names) for names in zip(found, outputs, folders, strict=True)]


def find_inputs(patterns: Sequence[str]) -> list[str]:
    """Files that the command line names: files as they are, folders searched for videos, globs expanded, `-` for stdin.

    A folder's own partial files and results (`NAME.rtseg.EXT`) are left out.

    Raises:
        SourceError: nothing matches one of them.
    """
    found: list[str] = []
    for pattern in patterns:
        if "://" in pattern:
            address = shown_url(pattern)
            raise SourceError(f"'{address}' is a stream, which has no end: use `rtseg live --url {address}`")
        kind = _kind(pattern)
        if pattern == "-" or kind == "file":
            found.append(pattern)
        elif kind == "folder":
            inside = sorted(str(path) for path in Path(pattern).iterdir() if _is_input(path))
            if not inside:
                raise SourceError(
                    f"no videos in the folder '{pattern}' ({', '.join(sorted(VIDEO_SUFFIXES))} are looked for)"
                )
            found += inside
        elif glob.has_magic(pattern):
            matches = sorted(match for match in glob.glob(pattern, recursive=True) if _kind(match) == "file")
            if not matches:
                raise SourceError(f"nothing matches '{shown_name(pattern)}'")
            found += matches
        else:
            found.append(pattern)  # the source says what is wrong with it
    return list(dict.fromkeys(found))


def name_outputs(inputs: Sequence[str], output: str | None) -> list[str]:
    """One output for each input: `output` itself for one input, files in the folder `output` for several.

    Raises:
        SinkError: several inputs but no folder to put them in, two that would get the same name, or one that would replace
            an input.
    """
    if output is None:
        names = [_beside(path) for path in inputs]
    elif len(inputs) == 1 and _kind(output) != "folder" and not output.endswith(("/", os.sep)):
        names = [output]
    else:
        names = _inside(inputs, output)
    _refuse_inputs(inputs, names)
    _refuse_clashes(inputs, names)
    return names


def _inside(inputs: Sequence[str], folder: str) -> list[str]:
    if folder == "-":
        raise SinkError(f"{len(inputs)} inputs can't go to standard output together; name a folder with -o")
    if _kind(folder) != "folder" and not folder.endswith(("/", os.sep)) and Path(folder).suffix:
        raise SinkError(
            f"{len(inputs)} inputs but one output file '{folder}'; name a folder instead, such as {Path(folder).stem}/"
        )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"the output folder '{folder}' can't be made: {error.strerror}") from error
    return [str(Path(folder) / (Path(path).stem + _suffix(path))) for path in inputs]


def _refuse_clashes(inputs: Sequence[str], names: Sequence[str]) -> None:
    """Names that differ in case or in the form of their accents alone are one file on many disks."""
    first: dict[str, str] = {}
    for path, name in zip(inputs, names, strict=True):
        key = unicodedata.normalize("NFC", os.path.realpath(name)).casefold()
        if name != "-" and key in first:
            raise SinkError(
                f"{first[key]} and {path} would both be written to {name}; process them into different folders"
            )
        first[key] = path


def _refuse_inputs(inputs: Sequence[str], names: Sequence[str]) -> None:
    known = {identity: path for path in inputs if (identity := _identity(path))}
    for name in names:
        identity = _identity(name)
        if identity in known:
            raise SinkError(f"{name} would overwrite the input {known[identity]}; give the output another name with -o")


def _is_input(path: Path) -> bool:
    known = path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    return known and ".partial." not in path.name and not path.stem.endswith(_MARK)


def _identity(path: str) -> tuple[int, int] | None:
    """Device and number of a regular file, the same for each of its links; None: no such file."""
    try:
        facts = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (facts.st_dev, facts.st_ino) if stat.S_ISREG(facts.st_mode) else None


def _kind(path: str) -> str | None:
    """`file` or `folder`; None: nothing, something else, or a name that no file can have."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else None


def _beside(path: str) -> str:
    if path == "-":
        raise OptionError("input from stdin has no name to call the output after; name it with -o")
    return str(Path(path).with_suffix("")) + _MARK + _suffix(path)


def _suffix(path: str) -> str:
    """The input's container where rtseg writes it, else MP4."""
    suffix = Path(path).suffix.lower()
    return suffix if suffix in _KEPT_SUFFIXES else ".mp4"
