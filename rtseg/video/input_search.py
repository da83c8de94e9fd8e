"""Which files a command line names: files, what is in folders, what globs match; rtseg's own results are no inputs."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtseg.core.errors import SourceError, printable_name
from rtseg.core.files import is_partial_name
from rtseg.core.secrets import redacted_name

_SIDECAR_SUFFIXES = frozenset({
    ".srt", ".vtt", ".ass", ".ssa", ".sub", ".idx", ".json", ".jsonl", ".xml", ".nfo", ".gpx", ".fit", ".kml", ".nmea",
    ".gps", ".thm", ".lrv", ".lrf", ".xmp", ".aae", ".cpi",
})  # fmt: skip
"""What cameras and programs put next to videos, and the small copies that cameras make of them (.lrv, .lrf): left out of a
folder without a line."""

_NOT_THE_USERS = frozenset({
    "@eadir", "#recycle", "@recycle", "$recycle.bin", "recycler", "__macosx", "lost+found", "thumbs.db", "desktop.ini",
    "#snapshot", "@recently-snapshot", "system volume information",
})  # fmt: skip
"""Files and folders that operating systems and network disks make, in lower case; those that begin with a dot are too."""

RESULT_MARK = ".rtseg"
"""Stands before the ending of an output that lies beside its input."""


@dataclass(frozen=True)
class Wanted:
    """What is looked for."""

    what: str
    """`videos` or `pictures`."""

    suffixes: Collection[str]
    """Endings of inputs, in lower case, by which files in a folder are chosen."""

    is_own: Callable[[Path], bool]
    """Whether it is proven that rtseg wrote a file."""


class _LeftOut:
    """Results among what was found: those that are proven, and files that only have the name of one."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._own: list[Path] = []
        self._alike: list[Path] = []

    def takes(self, path: Path, *, named: bool = False) -> bool:
        """Whether a file is left out; one that the user named is only where it is proven."""
        if self._wanted.is_own(path):
            self._own.append(path)
        elif not named and (is_partial_name(path.name) or path.stem.endswith(RESULT_MARK)):
            self._alike.append(path)
        else:
            return False
        return True

    def told(self) -> list[str]:
        """For people: how many of each, and their names where it is only the name."""
        told = [f"{_counted(len(self._own), 'result')} of rtseg"] if self._own else []
        if self._alike:
            like = "a result" if len(self._alike) == 1 else "results"
            told.append(f"{_counted(len(self._alike), 'file')} named like {like} of rtseg ({_names(self._alike)})")
        return told


def find_files(
    patterns: Sequence[str],
    wanted: Wanted,
    *,
    results: Sequence[str] = (),
    log: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Files that the command line names: files as they are, folders searched, globs expanded, `-` for stdin.

    Of folders and globs are left out: rtseg's own results, files that are named like them (`NAME.rtseg.EXT`, partial files),
    what is in `results`, and what operating systems leave behind (`is_system_file`). Of several names, as a shell makes of a
    glob, rtseg's own results are left out, and so is what a camera puts beside a video under its name (`.thm`, `.lrv`). A single
    file is what the user asked for.

    Args:
        patterns: as the user wrote them.
        wanted: what is looked for.
        results: folders of this run's outputs; those below what is searched hold no inputs.
        log: called with a line for each folder of which something is left out, and one for all else that is.

    Raises:
        SourceError: nothing matches one of them, a folder can't be read, or all that is named are results.
    """
    found: list[str] = []
    named = _LeftOut(wanted)
    for pattern in patterns:
        kind = None if pattern == "-" else kind_of(pattern)
        if kind == "folder":
            found += [str(path) for path in _find_in_folder(pattern, wanted, results, log)]
        elif kind is None and glob.has_magic(pattern):
            matches = expand_glob(pattern, results)
            left_out = _LeftOut(wanted)
            inside = [match for match in matches if not left_out.takes(Path(match))]
            if not inside:
                but = f" but {', '.join(left_out.told())}" if matches else ""
                raise SourceError(f"nothing matches '{redacted_name(pattern)}'{but}")
            if matches != inside:
                log(f"{printable_name(redacted_name(pattern))}: left out {', '.join(left_out.told())}")
            found += inside
        elif kind is None or len(patterns) == 1 or not named.takes(Path(pattern), named=True):
            found.append(pattern)  # if it is nothing, the source says what is wrong with it
    videos = {Path(path).with_suffix("") for path in found if Path(path).suffix.lower() in wanted.suffixes}
    sidecars = [path for path in found if _is_sidecar(path) and Path(path).with_suffix("") in videos]
    if sidecars:
        log(f"left out {_counted(len(sidecars), 'sidecar file')} ({_names([Path(path) for path in sidecars])})")
        found = [path for path in found if path not in sidecars]
    if told := ", ".join(named.told()):
        if not found:
            raise SourceError(
                f"no {wanted.what} but {told}, which are no inputs; name a single one to use it as an input"
            )
        log(f"left out {told}")
    return list({Path(path).absolute() if path != "-" else path: path for path in reversed(found)}.values())[::-1]


def expand_glob(pattern: str, results: Sequence[str] = ()) -> list[str]:
    """The files that a glob matches, in order, without system files and what is in folders of results below its fixed part."""
    base = Path(pattern)
    while glob.has_magic(str(base)):
        base = base.parent
    matches = []
    for match in sorted(glob.glob(pattern, recursive=True)):
        inner = Path(os.path.relpath(match, base))
        if kind_of(match) == "file" and not any(is_system_file(part) for part in inner.parts[:-1]):
            matches.append(match)
    below = [os.path.realpath(folder) for folder in results]
    below = [folder for folder in below if Path(os.path.realpath(base)) in Path(folder).parents]
    return [match for match in matches if not any(Path(os.path.realpath(match)).is_relative_to(each) for each in below)]


def list_folder(folder: str, *, folders: bool = False) -> list[Path]:
    """The user's files in a folder, or the folders in it, sorted by name, without those of an operating system.

    Raises:
        SourceError: it can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            fitting = (entry for entry in entries if (entry.is_dir() if folders else entry.is_file()))
            names = sorted(entry.name for entry in fitting if not is_system_file(entry.name))
    except OSError as error:
        raise SourceError(f"can't read the folder '{folder}': {(error.strerror or str(error)).lower()}") from error
    return [Path(folder) / name for name in names]


def _is_sidecar(path: str) -> bool:
    return Path(path).suffix.lower() in _SIDECAR_SUFFIXES


def is_system_file(name: str) -> bool:
    """Whether a file or folder of this name is hidden or made by an operating system: `._a.mp4`, `Thumbs.db`, `@eaDir`."""
    return name.startswith(".") or name.lower() in _NOT_THE_USERS


def _find_in_folder(folder: str, wanted: Wanted, results: Sequence[str], log: Callable[[str], None]) -> list[Path]:
    """The files in a folder that are inputs, not those in folders in it; what else is in it is said in one line.

    Raises:
        SourceError: it can't be read, or there is none.
    """
    inside = list_folder(folder)
    earlier = _LeftOut(wanted)
    fitting = [path for path in inside if path.suffix.lower() in wanted.suffixes]
    found = [path for path in fitting if not earlier.takes(path)]
    others = [path.suffix.lower() for path in inside if path.suffix.lower() not in wanted.suffixes]
    endings = Counter(ending or "no ending" for ending in others if ending not in _SIDECAR_SUFFIXES)
    named = ", ".join(f"{printable_name(ending)} {count}" for ending, count in endings.most_common())
    left_out = []
    if endings:
        left_out.append(f"{_counted(endings.total(), 'file')} with other endings ({named})")
        if sidecars := len(others) - endings.total():
            left_out.append(_counted(sidecars, "sidecar file"))
    own = {os.path.realpath(result) for result in results}
    folders = [path for path in list_folder(folder, folders=True) if os.path.realpath(path) not in own]
    if folders:
        left_out.append(f"{_counted(len(folders), 'folder')} ({_names(folders)})")
    left_out += earlier.told()
    if not found:
        there = f"; it holds {', '.join(left_out)}" if left_out else ""
        endings_looked_for = ", ".join(sorted(wanted.suffixes))
        raise SourceError(f"no {wanted.what} in the folder '{folder}'{there} ({endings_looked_for} are looked for)")
    if left_out:
        log(f"{printable_name(folder)}: left out {', '.join(left_out)}")
    return found


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(printable_name(path.name) for path in paths[:3]) + ", …" * (len(paths) > 3)


def kind_of(path: str) -> str | None:
    """`file` or `folder`; None: nothing, something else, or a name that no file can have."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else None
