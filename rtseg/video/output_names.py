"""Inputs and output names of the videos that a command line names."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from rtseg.core.errors import OptionError, SinkError, SourceError, printable_name, reason
from rtseg.core.output_content import is_mask_video
from rtseg.core.path_conflicts import Input, Output, check_paths
from rtseg.core.secrets import redacted_url
from rtseg.io.inputs.safe_open import VIDEO_SUFFIXES
from rtseg.video.completed import DoneList
from rtseg.video.input_search import RESULT_MARK, FileFilter, find_files, path_kind

_OUTPUT_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".webm", ".ts", ".avi"})
"""Containers of inputs that are kept for the output; the output of any other is MP4."""


@dataclass(frozen=True)
class Task:
    """Video to process, with its output."""

    source: str
    """The input, `-` for stdin."""

    output: str
    """The output, `-` for stdout."""

    masks: str | None = None
    """File or folder of the class indices; None: not written."""

    auto_named: bool = False
    """True if rtseg, not the user, chose the name of the output."""


def name_tasks(
    inputs: Sequence[str], output: str | None, masks: str | None = None, log: Callable[[str], None] = lambda _: None
) -> list[Task]:
    """Return the videos that the command line names, each with its output.

    Args:
        inputs: files, folders, globs, `-`.
        output: a file for one input, a folder for several; None: next to each input.
        masks: a file or folder for one input; for several a folder, with a subfolder for each input.
        log: called with a line for each folder with skipped files.

    Raises:
        SourceError: an input is a URL, a folder or glob has no videos, or all named files are results.
        SinkError: there are several outputs but no folder, two outputs have the same name, or an output would replace an
            input.
        OptionError: `masks` is one file but there are several inputs.
    """
    found = find_inputs(inputs, results=[folder for folder in (output, masks) if folder], log=log)
    # A folder or glob has several outputs, even if it contains one video, unless the output is named as one file.
    is_file = output == "-" or (output and not _is_folder(output) and Path(output).suffix.lower() in VIDEO_SUFFIXES)
    several = len(found) > 1 or (found != list(inputs) and not is_file)
    outputs = name_outputs(found, output, into_folder=several, log=log)
    if masks is None or not several or (len(found) == 1 and Path(masks).suffix.lower() == ".mkv"):
        return [Task(source, target, masks, target != output) for source, target in zip(found, outputs, strict=True)]
    if Path(masks).suffix.lower() == ".mkv":
        raise OptionError(f"--masks is one file '{masks}', but there are {len(found)} inputs; name a folder")
    folders = [str(Path(masks) / Path(target).stem) for target in outputs]
    check_paths((), [Output(*names) for names in zip(folders, found, strict=True)])
    return [Task(*names, auto_named=True) for names in zip(found, outputs, folders, strict=True)]


def find_inputs(
    patterns: Sequence[str], *, results: Sequence[str] = (), log: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Return the videos that the command line names; see `rtseg.video.input_search.find_files`.

    Raises:
        SourceError: an input is a URL, a folder or glob has no videos, or all named files are results.
    """
    for pattern in patterns:
        if "://" in pattern and path_kind(pattern) != "file":
            address = redacted_url(pattern)
            raise SourceError(
                f"'{address}' is a URL, and `rtseg video` reads files: download it first, "
                f"or use `rtseg live --url {address} --record FILE`"
            )
    done = DoneList({})
    videos = FileFilter("videos", VIDEO_SUFFIXES, lambda path: done.is_listed(path) or is_mask_video(path))
    return find_files(patterns, videos, results=results, log=log)


def name_outputs(
    inputs: Sequence[str],
    output: str | None,
    *,
    into_folder: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Return one output for each input: `output` for one input, files in the folder `output` for several.

    Args:
        inputs: the input files.
        output: as the user wrote it; None: next to each input, with a name that replaces only an earlier result.
        into_folder: whether `output` is a folder for one input too.
        log: called with a line for each output whose usual name is taken.

    Raises:
        SinkError: there are several inputs but no folder, two outputs have the same name, or an output would replace an
            input.
        OptionError: the input is stdin and there is no output name.
    """
    if output is None:
        names = _names_next_to_inputs(inputs, log)
    elif len(inputs) == 1 and not into_folder and not _is_folder(output):
        names = [output]
    else:
        names = _names_in_folder(inputs, output)
    check_paths(map(Input, inputs), [Output(name, path) for path, name in zip(inputs, names, strict=True)])
    if output is not None and names != [output]:
        try:
            Path(output).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"the output folder '{output}' can't be created: {reason(error)}") from error
    return names


def _names_in_folder(inputs: Sequence[str], folder: str) -> list[str]:
    if folder == "-":
        raise SinkError(f"{len(inputs)} inputs can't be written to standard output; name a folder with -o")
    if len(inputs) > 1 and not _is_folder(folder) and Path(folder).suffix:
        raise SinkError(
            f"{len(inputs)} inputs but one output file '{folder}'; name a folder instead, such as {Path(folder).stem}/"
        )
    return [str(Path(folder) / (Path(path).stem + _suffix(path))) for path in inputs]


def _is_folder(output: str) -> bool:
    """Return whether an output is a folder, or is written as one."""
    return path_kind(output) == "folder" or output.endswith(("/", os.sep))


def unused_name(path: Path, is_result: Callable[[Path], bool] = lambda _: False) -> Path:
    """Return the first name of `NAME.EXT`, `NAME-2.EXT`, `NAME-3.EXT` and so on that is unused or an earlier result.

    `NAME.rtseg.EXT` becomes `NAME-2.rtseg.EXT`. `is_result` returns whether an existing file is an earlier result.
    """
    mark = RESULT_MARK if path.stem.endswith(RESULT_MARK) else ""
    stem = path.stem.removesuffix(mark)
    names = chain([path], (path.with_name(f"{stem}-{number}{mark}{path.suffix}") for number in count(2)))
    return next(name for name in names if not os.path.lexists(name) or is_result(name))


def _names_next_to_inputs(inputs: Sequence[str], log: Callable[[str], None]) -> list[str]:
    done = DoneList({})
    names: list[Path] = []
    for path in inputs:
        if path == "-":
            raise OptionError("input from stdin has no file name; name the output with -o")
        usual = Path(str(Path(path).with_suffix("")) + RESULT_MARK + _suffix(path))
        names.append(unused_name(usual, done.is_listed))
        if os.path.lexists(usual) and names[-1] != usual:
            existing, name = printable_name(str(usual)), printable_name(str(names[-1]))
            log(f"{existing} exists and is not a known result of rtseg: it is kept, the output is {name}")
    return [str(name) for name in names]


def _suffix(path: str) -> str:
    """Return the suffix of the input if its container is kept for the output, else `.mp4`."""
    suffix = Path(path).suffix.lower()
    return suffix if suffix in _OUTPUT_SUFFIXES else ".mp4"
