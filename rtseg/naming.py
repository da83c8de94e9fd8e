"""What the command line names: the videos that go in, and where each comes out."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from rtseg.errors import OptionError, SinkError, SourceError, printable_name
from rtseg.files import is_partial_name
from rtseg.path_conflicts import Input, Output, check_paths
from rtseg.resume import DoneList
from rtseg.secrets import shown_name, shown_url
from rtseg.sources.demux import VIDEO_SUFFIXES

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

_KEPT_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".webm", ".ts", ".avi"})
"""Containers that rtseg writes too; for others it writes MP4."""

RESULT_MARK = ".rtseg"
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


def name_tasks(
    inputs: Sequence[str], output: str | None, masks: str | None = None, say: Callable[[str], None] = lambda _: None
) -> list[Task]:
    """The videos that the command line names, each with its own output.

    Args:
        inputs: files, folders, globs, `-`.
        output: a file for one input, a folder for several; None: beside each input.
        masks: where masks go: a file or folder for one input; for several a folder with a folder for each.
        say: called with a line for each folder of which files are left out.

    Raises:
        SourceError: nothing matches one of them.
        SinkError: no folder to put several outputs in, two that would get the same name, or one that would replace an input.
        OptionError: masks of several inputs can't go to one file.
    """
    found = find_inputs(inputs, results=[folder for folder in (output, masks) if folder], say=say)
    several = len(found) > 1 or (any(map(_is_group, inputs)) and not (output and _is_file_name(output)))
    outputs = name_outputs(found, output, into_folder=several, say=say)
    if masks is None or not several or (len(found) == 1 and Path(masks).suffix.lower() == ".mkv"):
        return [Task(source, target, masks) for source, target in zip(found, outputs, strict=True)]
    if Path(masks).suffix.lower() == ".mkv":
        raise OptionError(f"--masks is one file '{masks}', but there are {len(found)} inputs; name a folder")
    folders = [str(Path(masks) / Path(target).stem) for target in outputs]
    check_paths((), [Output(*names) for names in zip(folders, found, strict=True)])
    return [Task(*names) for names in zip(found, outputs, folders, strict=True)]


def find_inputs(
    patterns: Sequence[str], *, results: Sequence[str] = (), say: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Files that the command line names: files as they are, folders searched for videos, globs expanded, `-` for stdin.

    Of folders and globs are left out: rtseg's own results (`NAME.rtseg.EXT`, partial files, what is in `results`) and what
    operating systems leave behind (`is_system_file`).

    Args:
        patterns: as the user wrote them.
        results: folders of this run's outputs; those below what is searched hold no inputs.
        say: called with a line for each folder of which files with other endings are left out.

    Raises:
        SourceError: nothing matches one of them, or a folder can't be read.
    """
    found: list[str] = []
    for pattern in patterns:
        if "://" in pattern and _kind(pattern) != "file":
            address = shown_url(pattern)
            raise SourceError(
                f"'{address}' is a URL, and `rtseg video` reads files: download it first, "
                f"or use `rtseg live --url {address} --record FILE`"
            )
        kind = _kind(pattern)
        if pattern == "-" or kind == "file":
            found.append(pattern)
        elif kind == "folder":
            found += _in_folder(pattern, say)
        elif glob.has_magic(pattern):
            matches = expand_glob(pattern, results)
            if not matches:
                raise SourceError(f"nothing matches '{shown_name(pattern)}'")
            found += [match for match in matches if not _is_result(Path(match))]
        else:
            found.append(pattern)  # the source says what is wrong with it
    return list({Path(path).absolute() if path != "-" else path: path for path in reversed(found)}.values())[::-1]


def expand_glob(pattern: str, results: Sequence[str] = ()) -> list[str]:
    """The files that a glob matches, in order, without system files and what is in folders of results below its fixed part."""
    base = Path(pattern)
    while glob.has_magic(str(base)):
        base = base.parent
    matches = []
    for match in sorted(glob.glob(pattern, recursive=True)):
        inner = Path(os.path.relpath(match, base))
        if _kind(match) == "file" and not any(is_system_file(part) for part in inner.parts[:-1]):
            matches.append(match)
    below = [os.path.realpath(folder) for folder in results]
    below = [folder for folder in below if Path(os.path.realpath(base)) in Path(folder).parents]
    return [match for match in matches if not any(Path(os.path.realpath(match)).is_relative_to(each) for each in below)]


def list_folder(folder: str) -> list[Path]:
    """The user's files in a folder, sorted by name, without system files.

    Raises:
        SourceError: it can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file() and not is_system_file(entry.name))
    except OSError as error:
        raise SourceError(f"can't read the folder '{folder}': {(error.strerror or str(error)).lower()}") from error
    return [Path(folder) / name for name in names]


def is_system_file(name: str) -> bool:
    """Whether a file or folder of this name is hidden or made by an operating system: `._a.mp4`, `Thumbs.db`, `@eaDir`."""
    return name.startswith(".") or name.lower() in _NOT_THE_USERS


def name_outputs(
    inputs: Sequence[str],
    output: str | None,
    *,
    into_folder: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """One output for each input: `output` itself for one input, files in the folder `output` for several.

    Args:
        inputs: the input files.
        output: as the user wrote it; None: beside each input, under a name that replaces nothing but an earlier result.
        into_folder: `output` is a folder for one input too.
        say: called with a line for each output that gets another name because the usual one is taken.

    Raises:
        SinkError: several inputs but no folder to put them in, two that would get the same name, or one that would replace
            an input.
    """
    if output is None:
        names = _beside(inputs, say)
    elif len(inputs) == 1 and not into_folder and _kind(output) != "folder" and not output.endswith(("/", os.sep)):
        names = [output]
    else:
        names = _inside(inputs, output)
    check_paths(map(Input, inputs), [Output(name, path) for path, name in zip(inputs, names, strict=True)])
    return names


def _inside(inputs: Sequence[str], folder: str) -> list[str]:
    if folder == "-":
        raise SinkError(f"{len(inputs)} inputs can't go to standard output together; name a folder with -o")
    if len(inputs) > 1 and _kind(folder) != "folder" and not folder.endswith(("/", os.sep)) and Path(folder).suffix:
        raise SinkError(
            f"{len(inputs)} inputs but one output file '{folder}'; name a folder instead, such as {Path(folder).stem}/"
        )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"the output folder '{folder}' can't be made: {error.strerror}") from error
    return [str(Path(folder) / (Path(path).stem + _suffix(path))) for path in inputs]


def _in_folder(folder: str, say: Callable[[str], None]) -> list[str]:
    return [str(path) for path in pick_files(folder, "videos", VIDEO_SUFFIXES, _is_result, say)]


def pick_files(
    folder: str,
    what: str,
    suffixes: frozenset[str],
    is_result: Callable[[Path], bool],
    say: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """The user's files in a folder that have one of these endings, sorted by name.

    Args:
        folder: where to look; not below it.
        what: the files in one word, for messages: `videos`.
        suffixes: in lower case.
        is_result: whether a file is one of rtseg's own results, which are left out without a line.
        say: called with a line where other files are left out.

    Raises:
        SourceError: the folder can't be read, or holds none.
    """
    inside = list_folder(folder)
    found = [path for path in inside if path.suffix.lower() in suffixes and not is_result(path)]
    others = [path for path in inside if path.suffix.lower() not in suffixes]
    sidecars = sum(path.suffix.lower() in _SIDECAR_SUFFIXES for path in others)
    endings = Counter(
        path.suffix.lower() or "no ending" for path in others if path.suffix.lower() not in _SIDECAR_SUFFIXES
    )
    named = ", ".join(f"{printable_name(ending)} {count}" for ending, count in endings.most_common())
    if not found:
        there = f"; it holds {named}" if named else ""
        raise SourceError(f"no {what} in the folder '{folder}'{there} ({', '.join(sorted(suffixes))} are looked for)")
    if endings:
        beside = f", and {sidecars} sidecar files" if sidecars else ""
        say(f"{printable_name(folder)}: left out {sum(endings.values())} files for their ending ({named}){beside}")
    return found


def _is_result(path: Path) -> bool:
    return is_partial_name(path.name) or path.stem.endswith(RESULT_MARK)


def _kind(path: str) -> str | None:
    """`file` or `folder`; None: nothing, something else, or a name that no file can have."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else None


def _is_group(pattern: str) -> bool:
    """Whether an input stands for any number of files: a folder or a glob."""
    return pattern != "-" and (_kind(pattern) == "folder" or (_kind(pattern) is None and glob.has_magic(pattern)))


def _is_file_name(output: str) -> bool:
    """Whether an output for the videos of a folder is one file: a video's ending, or standard output."""
    is_folder = _kind(output) == "folder" or output.endswith(("/", os.sep))
    return output == "-" or (not is_folder and Path(output).suffix.lower() in VIDEO_SUFFIXES)


def unused_name(path: Path, is_own: Callable[[Path], bool] = lambda _: False) -> Path:
    """A name for an output that the user did not name: `path`, or where that would replace something `NAME-2.EXT` and so on.

    Args:
        path: the usual name; the mark of `NAME.rtseg.EXT` stays at its place: `NAME-2.rtseg.EXT`.
        is_own: whether an existing file is an earlier result, which may be replaced.
    """
    mark = RESULT_MARK if path.stem.endswith(RESULT_MARK) else ""
    stem = path.stem.removesuffix(mark)
    names = chain([path], (path.with_name(f"{stem}-{number}{mark}{path.suffix}") for number in count(2)))
    return next(name for name in names if not os.path.lexists(name) or is_own(name))


def _beside(inputs: Sequence[str], say: Callable[[str], None]) -> list[str]:
    done = DoneList({})
    names: list[Path] = []
    for path in inputs:
        if path == "-":
            raise OptionError("input from stdin has no name to call the output after; name it with -o")
        usual = Path(str(Path(path).with_suffix("")) + RESULT_MARK + _suffix(path))
        names.append(unused_name(usual, done.is_listed))
        if os.path.lexists(usual) and names[-1] != usual:
            kept, name = printable_name(str(usual)), printable_name(str(names[-1]))
            say(f"{kept} exists and is not known as a result of rtseg: it is left as it is, the output is {name}")
    return [str(name) for name in names]


def _suffix(path: str) -> str:
    """The input's container where rtseg writes it, else MP4."""
    suffix = Path(path).suffix.lower()
    return suffix if suffix in _KEPT_SUFFIXES else ".mp4"
