"""Search for the input files that a command line names: files, folders and globs, without rtseg's own results."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from rtseg.core.errors import SourceError, printable_name, reason
from rtseg.core.files import is_partial_name
from rtseg.core.secrets import redacted_name

_SIDECAR_SUFFIXES = frozenset({
    ".srt", ".vtt", ".ass", ".ssa", ".sub", ".idx", ".json", ".jsonl", ".xml", ".nfo", ".gpx", ".fit", ".kml", ".nmea",
    ".gps", ".thm", ".lrv", ".lrf", ".xmp", ".aae", ".cpi",
})  # fmt: skip
"""Metadata files next to videos, and low-resolution copies of them by cameras (.lrv, .lrf): skipped in folders without a
message."""

_SYSTEM_NAMES = frozenset({
    "@eadir", "#recycle", "@recycle", "$recycle.bin", "recycler", "__macosx", "lost+found", "thumbs.db", "desktop.ini",
    "#snapshot", "@recently-snapshot", "system volume information",
})  # fmt: skip
"""Files and folders of operating systems and network disks, in lower case. Names that begin with a dot count as well."""

RESULT_MARK = ".rtseg"
"""Part of an output's file name before the suffix, if the output is in the folder of its input."""


@dataclass(frozen=True)
class FileFilter:
    """Selection of input files."""

    label: str
    """`videos` or `images`, for messages."""

    suffixes: Collection[str]
    """Suffixes of inputs in folders, in lower case."""

    is_result: Callable[[Path], bool]
    """Return whether a file is a verified result of rtseg."""


class _SkippedResults:
    """Skipped files: verified results, and files with the name of a result."""

    def __init__(self, file_filter: FileFilter) -> None:
        self._filter = file_filter
        self._verified: list[Path] = []
        self._by_name: list[Path] = []

    def skip(self, path: Path, *, named: bool = False) -> bool:
        """Return whether to skip a file, and record it if so. Of files that the user `named`, only verified results are."""
        if self._filter.is_result(path):
            self._verified.append(path)
        elif not named and (is_partial_name(path.name) or path.stem.endswith(RESULT_MARK)):
            self._by_name.append(path)
        else:
            return False
        return True

    def describe(self) -> list[str]:
        """Return human-readable counts, with file names for files that are skipped by their name."""
        parts = [f"{_count(len(self._verified), 'result')} of rtseg"] if self._verified else []
        if self._by_name:
            like = "a result" if len(self._by_name) == 1 else "results"
            parts.append(f"{_count(len(self._by_name), 'file')} named like {like} of rtseg ({_names(self._by_name)})")
        return parts


def find_files(
    patterns: Sequence[str],
    file_filter: FileFilter,
    *,
    results: Sequence[str] = (),
    log: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Return the input files that the command line names: files, files in folders, matches of globs, `-` for stdin.

    In folders and globs these are skipped: verified results of rtseg, files with the name of a result (`NAME.rtseg.EXT`, partial
    files), files in `results`, and system files (`_is_system_file`). Among several named files (such as a glob that the shell
    expanded), verified results and the sidecar files of a video (`.thm`, `.lrv`) are skipped. A single named file is never
    skipped.

    Args:
        patterns: names as the user wrote them.
        file_filter: selection of input files.
        results: output folders of this run; they contain no inputs.
        log: called with one line for each folder or glob with skipped files, and one for all other skipped files.

    Raises:
        SourceError: a glob matches no input, a folder can't be read, a folder contains no input, or all named files are
            results.
    """
    found: list[str] = []
    skipped_named = _SkippedResults(file_filter)
    for pattern in patterns:
        kind = None if pattern == "-" else path_kind(pattern)
        if kind == "folder":
            found += [str(path) for path in _find_in_folder(pattern, file_filter, results, log)]
        elif kind is None and glob.has_magic(pattern):
            matches = _expand_glob(pattern, results)
            skipped = _SkippedResults(file_filter)
            inputs = [match for match in matches if not skipped.skip(Path(match))]
            if not inputs:
                but = f" but {', '.join(skipped.describe())}" if matches else ""
                raise SourceError(f"nothing matches '{redacted_name(pattern)}'{but}")
            if matches != inputs:
                log(f"{printable_name(redacted_name(pattern))}: left out {', '.join(skipped.describe())}")
            found += inputs
        elif kind is None or len(patterns) == 1 or not skipped_named.skip(Path(pattern), named=True):
            found.append(pattern)  # for a missing file, opening it raises the error
    videos = {Path(path).with_suffix("") for path in found if Path(path).suffix.lower() in file_filter.suffixes}
    side_files = [Path(path) for path in found if Path(path).suffix.lower() in _SIDECAR_SUFFIXES]
    if sidecars := [path for path in side_files if path.with_suffix("") in videos]:
        log(f"left out {_count(len(sidecars), 'sidecar file')} ({_names(sidecars)})")
        found = [path for path in found if Path(path) not in sidecars]
    if skipped_text := ", ".join(skipped_named.describe()):
        if not found:
            raise SourceError(
                f"no {file_filter.label} but {skipped_text}, which are no inputs; name a single one to use it as an input"
            )
        log(f"left out {skipped_text}")
    return list({Path(path).absolute() if path != "-" else path: path for path in reversed(found)}.values())[::-1]


def _expand_glob(pattern: str, results: Sequence[str]) -> list[str]:
    """Return the files that a glob matches, sorted, without system files and files in the folders `results`."""
    base = Path(pattern)
    while glob.has_magic(str(base)):
        base = base.parent
    excluded = [Path(os.path.realpath(folder)) for folder in results]
    excluded = [folder for folder in excluded if Path(os.path.realpath(base)) in folder.parents]

    def is_input(match: str) -> bool:
        folders = Path(os.path.relpath(match, base)).parts[:-1]
        real = Path(os.path.realpath(match))
        return path_kind(match) == "file" and not (
            any(map(_is_system_file, folders)) or any(map(real.is_relative_to, excluded))
        )

    return [match for match in sorted(glob.glob(pattern, recursive=True)) if is_input(match)]


def _is_system_file(name: str) -> bool:
    """Return whether a file or folder is hidden or created by an operating system: `._a.mp4`, `Thumbs.db`, `@eaDir`."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _find_in_folder(
    folder: str, file_filter: FileFilter, results: Sequence[str], log: Callable[[str], None]
) -> list[Path]:
    """Return the inputs in a folder, without its subfolders, and log one line about everything that is skipped.

    Raises:
        SourceError: the folder can't be read or contains no input.
    """
    try:
        with os.scandir(folder) as entries:
            visible = sorted((entry for entry in entries if not _is_system_file(entry.name)), key=attrgetter("name"))
            files = [Path(entry) for entry in visible if entry.is_file()]
            folders = [Path(entry) for entry in visible if entry.is_dir()]
    except OSError as error:
        raise SourceError(f"can't read the folder '{folder}': {reason(error)}") from error
    skipped = _SkippedResults(file_filter)
    matching = [path for path in files if path.suffix.lower() in file_filter.suffixes]
    found = [path for path in matching if not skipped.skip(path)]
    others = [path.suffix.lower() for path in files if path.suffix.lower() not in file_filter.suffixes]
    endings = Counter(ending or "no ending" for ending in others if ending not in _SIDECAR_SUFFIXES)
    ending_counts = ", ".join(f"{printable_name(ending)} {count}" for ending, count in endings.most_common())
    left_out = []
    if endings:
        left_out.append(f"{_count(endings.total(), 'file')} with other endings ({ending_counts})")
        if sidecars := len(others) - endings.total():
            left_out.append(_count(sidecars, "sidecar file"))
    result_folders = {os.path.realpath(result) for result in results}
    if folders := [path for path in folders if os.path.realpath(path) not in result_folders]:
        left_out.append(f"{_count(len(folders), 'folder')} ({_names(folders)})")
    left_out += skipped.describe()
    if not found:
        contents = f"; it contains {', '.join(left_out)}" if left_out else ""
        suffixes = ", ".join(sorted(file_filter.suffixes))
        raise SourceError(f"no {file_filter.label} in the folder '{folder}'{contents} (supported endings: {suffixes})")
    if left_out:
        log(f"{printable_name(folder)}: left out {', '.join(left_out)}")
    return found


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(printable_name(path.name) for path in paths[:3]) + ", …" * (len(paths) > 3)


def path_kind(path: str) -> str | None:
    """Return `file` or `folder`; None if the path does not exist, is something else, or is not a valid name."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else None
