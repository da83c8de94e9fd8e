"""What the command line names: the videos that go in, and where each comes out."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from rtseg.core.errors import OptionError, SinkError, SourceError, printable_name
from rtseg.core.path_conflicts import Input, Output, check_paths, is_mask_video
from rtseg.core.secrets import redacted_url
from rtseg.io.inputs.safe_open import VIDEO_SUFFIXES
from rtseg.video.completed import DoneList
from rtseg.video.input_search import RESULT_MARK, Wanted, find_files, kind_of

_KEPT_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".webm", ".ts", ".avi"})
"""Containers that rtseg writes too; for others it writes MP4."""


@dataclass(frozen=True)
class Task:
    """One video to do."""

    source: str
    """The input, `-` for stdin."""

    output: str
    """The output, `-` for stdout."""

    masks: str | None = None
    """Where its class indices go, if anywhere."""

    made_up: bool = False
    """Whether rtseg chose the output's name; False: the user did."""


def name_tasks(
    inputs: Sequence[str], output: str | None, masks: str | None = None, log: Callable[[str], None] = lambda _: None
) -> list[Task]:
    """The videos that the command line names, each with its own output.

    Args:
        inputs: files, folders, globs, `-`.
        output: a file for one input, a folder for several; None: beside each input.
        masks: where masks go: a file or folder for one input; for several a folder with a folder for each.
        log: called with a line for each folder of which files are left out.

    Raises:
        SourceError: nothing matches one of them.
        SinkError: no folder to put several outputs in, two that would get the same name, or one that would replace an input.
        OptionError: masks of several inputs can't go to one file.
    """
    found = find_inputs(inputs, results=[folder for folder in (output, masks) if folder], log=log)
    group = len(inputs) > 1 or any(map(_is_group, inputs))
    several = len(found) > 1 or (group and not (output and _is_file_name(output)))
    outputs = name_outputs(found, output, into_folder=several, log=log)
    if masks is None or not several or (len(found) == 1 and Path(masks).suffix.lower() == ".mkv"):
        return [Task(source, target, masks, target != output) for source, target in zip(found, outputs, strict=True)]
    if Path(masks).suffix.lower() == ".mkv":
        raise OptionError(f"--masks is one file '{masks}', but there are {len(found)} inputs; name a folder")
    folders = [str(Path(masks) / Path(target).stem) for target in outputs]
    check_paths((), [Output(*names) for names in zip(folders, found, strict=True)])
    return [Task(*names, made_up=True) for names in zip(found, outputs, folders, strict=True)]


def find_inputs(
    patterns: Sequence[str], *, results: Sequence[str] = (), log: Callable[[str], None] = lambda _: None
) -> list[str]:
    """The videos that the command line names; see `rtseg.video.input_search.find_files`.

    Raises:
        SourceError: as it says; or a URL.
    """
    for pattern in patterns:
        if "://" in pattern and kind_of(pattern) != "file":
            address = redacted_url(pattern)
            raise SourceError(
                f"'{address}' is a URL, and `rtseg video` reads files: download it first, "
                f"or use `rtseg live --url {address} --record FILE`"
            )
    done = DoneList({})
    wanted = Wanted("videos", VIDEO_SUFFIXES, lambda path: done.is_listed(path) or is_mask_video(path))
    return find_files(patterns, wanted, results=results, log=log)


def name_outputs(
    inputs: Sequence[str],
    output: str | None,
    *,
    into_folder: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """One output for each input: `output` itself for one input, files in the folder `output` for several.

    Args:
        inputs: the input files.
        output: as the user wrote it; None: beside each input, under a name that replaces nothing but an earlier result.
        into_folder: `output` is a folder for one input too.
        log: called with a line for each output that gets another name because the usual one is taken.

    Raises:
        SinkError: several inputs but no folder to put them in, two that would get the same name, or one that would replace
            an input.
    """
    if output is None:
        names = _beside(inputs, log)
    elif len(inputs) == 1 and not into_folder and kind_of(output) != "folder" and not output.endswith(("/", os.sep)):
        names = [output]
    else:
        names = _inside(inputs, output)
    check_paths(map(Input, inputs), [Output(name, path) for path, name in zip(inputs, names, strict=True)])
    if output is not None and names != [output]:
        try:
            Path(output).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"the output folder '{output}' can't be made: {error.strerror}") from error
    return names


def _inside(inputs: Sequence[str], folder: str) -> list[str]:
    if folder == "-":
        raise SinkError(f"{len(inputs)} inputs can't go to standard output together; name a folder with -o")
    if len(inputs) > 1 and kind_of(folder) != "folder" and not folder.endswith(("/", os.sep)) and Path(folder).suffix:
        raise SinkError(
            f"{len(inputs)} inputs but one output file '{folder}'; name a folder instead, such as {Path(folder).stem}/"
        )
    return [str(Path(folder) / (Path(path).stem + _suffix(path))) for path in inputs]


def _is_group(pattern: str) -> bool:
    """Whether an input stands for any number of files: a folder or a glob."""
    return pattern != "-" and (kind_of(pattern) == "folder" or (kind_of(pattern) is None and glob.has_magic(pattern)))


def _is_file_name(output: str) -> bool:
    """Whether an output for the videos of a folder is one file: a video's ending, or standard output."""
    is_folder = kind_of(output) == "folder" or output.endswith(("/", os.sep))
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


def _beside(inputs: Sequence[str], log: Callable[[str], None]) -> list[str]:
    done = DoneList({})
    names: list[Path] = []
    for path in inputs:
        if path == "-":
            raise OptionError("input from stdin has no name to call the output after; name it with -o")
        usual = Path(str(Path(path).with_suffix("")) + RESULT_MARK + _suffix(path))
        names.append(unused_name(usual, done.is_listed))
        if os.path.lexists(usual) and names[-1] != usual:
            kept, name = printable_name(str(usual)), printable_name(str(names[-1]))
            log(f"{kept} exists and is not known as a result of rtseg: it is left as it is, the output is {name}")
    return [str(name) for name in names]


def _suffix(path: str) -> str:
    """The input's container where rtseg writes it, else MP4."""
    suffix = Path(path).suffix.lower()
    return suffix if suffix in _KEPT_SUFFIXES else ".mp4"
