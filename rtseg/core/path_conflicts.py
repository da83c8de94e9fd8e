"""Check of all paths of a command before it starts.

No output may be written to an input, to another output, or over a file with other content. The main output (`-o`, `--record`)
may replace any existing file, subject to `--overwrite`. Every other output replaces an existing file only if that has the same
content: see `Content`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rtseg.core.errors import SinkError, reason
from rtseg.core.files import partial_name, shortened_name
from rtseg.core.output_content import DESCRIPTIONS, HEAD_BYTES, Content, has_content
from rtseg.core.path_identity import (
    STDIN,
    STDOUT,
    FileKey,
    file_key,
    is_device,
    is_file,
    local_paths,
    parent_keys,
    redirected_file,
)

_MAX_PLAYLIST_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Input:
    """A file that a command reads."""

    path: str
    """The file; `-` for standard input."""

    label: str = "the input"
    """Description for messages: `the input`, `--model`."""


@dataclass(frozen=True)
class Output:
    """A file or folder that a command writes."""

    path: str
    """The file or folder; `-` for standard output."""

    label: str
    """Description for messages: an option, or the input that it belongs to."""

    content: Content = "any"
    """Content of the output."""


def check_paths(inputs: Iterable[Input], outputs: Iterable[Output], *, overwrite: bool = True) -> None:
    """Check that the outputs of a command destroy no data. Writes no files.

    Two paths are equal if they refer to the same file: through links, another spelling, or a file system that ignores case.
    `overwrite=False` refuses every existing output, except for content `any`, which its sink checks.

    Raises:
        SinkError: an output is an input, another output, its temporary name, or in a folder that is replaced; or it would
            replace an existing file with other content; or two outputs are standard output.
    """
    outputs = list(dict.fromkeys(outputs))
    to_stdout = [output.label for output in outputs if output.path == STDOUT]
    if len(to_stdout) > 1:
        raise SinkError(f"{to_stdout[0]} and {to_stdout[1]} both write to standard output; name a file for one of them")
    read: dict[FileKey, Input] = {}
    for entry in _with_playlist_files(inputs):
        for form in local_paths(entry.path):
            if is_file(form):
                read.setdefault(file_key(form), entry)
        if entry.path == STDIN and (key := redirected_file(0)):
            read.setdefault(key, entry)
    if to_stdout and (key := redirected_file(1)) in read:
        raise SinkError(f"standard output is {read[key].label} {read[key].path}; redirect it to another file")
    files = [output for output in outputs if output.path != STDOUT]
    written: dict[FileKey, Output] = {}
    for output in files:
        if is_device(output.path):
            continue
        key = file_key(output.path)
        if key in read:
            raise SinkError(
                f"{_described(output)} would overwrite {read[key].label} {read[key].path}; {_remedy(output)}"
            )
        if key in written:
            raise SinkError(_same_path_message(written[key], output))
        written[key] = output
    for output in files:
        for name in _temporary_names(output):
            key = file_key(name)
            if key in read and output.content == "folder":
                raise SinkError(
                    f"{_described(output)} is written as {name} at first, which is {read[key].label}; {_remedy(output)}"
                )
            if key in written and written[key] is not output:
                raise SinkError(
                    f"{_described(written[key])} is the temporary name of {_described(output)}; {_remedy(written[key])}"
                )
    _check_nesting(read, written)
    for output in files:
        _check_folder(output)
        _check_existing(output, overwrite)


def model_inputs(model: str | Path | None, label: str = "--model") -> list[Input]:
    """Return the existing files of a model path: the model, its weights and its sidecar, or all files of a folder."""
    if model is None:
        return []
    path = Path(model).expanduser()
    try:
        if path.is_dir():
            return [Input(str(file), label) for file in path.iterdir()]
        candidates = (path, path.with_suffix(".bin"), path.with_name(path.name + ".json"))
        return [Input(str(file), label) for file in candidates if file.is_file()]
    except (OSError, ValueError):
        return []  # reading the model raises the error


def _with_playlist_files(inputs: Iterable[Input], depth: int = 2) -> Iterator[Input]:
    """Yield the inputs and the files in playlists among them. Playlists may be nested."""
    for entry in inputs:
        yield entry
        if depth:
            parts = (Input(path, "a part of the input") for path in _playlist_files(Path(entry.path)))
            yield from _with_playlist_files(parts, depth - 1)


def _playlist_files(path: Path) -> list[str]:
    """Return the local files of a playlist (HLS, RFC 8216, or FFmpeg's concat list); empty if it is not a playlist."""
    try:
        if not path.is_file():
            return []
        with path.open("rb") as file:
            head = file.read(8)
            if not head.startswith((b"#EXTM3U", b"ffconcat")):
                return []
            text = (head + file.read(_MAX_PLAYLIST_BYTES)).decode("utf-8", "surrogateescape")
    except (OSError, ValueError):
        return []
    lines = [line.strip() for line in text.splitlines()]
    names = [line for line in lines if line and not line.startswith("#")] if head.startswith(b"#") else []
    names += re.findall(r'URI="([^"]+)"', text) + re.findall(r"(?m)^\s*file\s+'?([^'\n]+)'?", text)
    local = [name.removeprefix("file://").removeprefix("file:").strip() for name in names]
    return [str(path.parent / name) for name in local if "://" not in name]


def option_inputs(**options: str | Path | None) -> list[Input]:
    """Return the existing files in option values: `option_inputs(palette=palette)` has the label `--palette`."""
    labeled = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None]
    return [Input(value, label) for label, value in labeled if is_file(value)]


def side_outputs(**options: str | Path | None) -> list[Output]:
    """Return the outputs in option values: `stats` and `json` are JSON, `jsonl` is JSON lines, the others are images."""
    contents: dict[str, Content] = {"stats": "json", "json": "json", "jsonl": "jsonl"}
    return [
        Output(str(value), f"--{name}", contents.get(name, "image"))
        for name, value in options.items()
        if value is not None and str(value) != ""
    ]


def mask_output(masks: str | Path) -> Output:
    """Return the output of `--masks` for a video: a video if its suffix is .mkv, else a folder."""
    return Output(str(masks), "--masks", "mask video" if Path(masks).suffix.lower() == ".mkv" else "folder")


def _check_nesting(read: dict[FileKey, Input], written: dict[FileKey, Output]) -> None:
    folders = {key: output for key, output in written.items() if output.content == "folder"}
    for output in written.values():
        for key in parent_keys(output.path):
            if key in folders:
                raise SinkError(
                    f"{_described(output)} is in the folder of {_described(folders[key])}, which is replaced as a whole"
                )
            if key in written:
                raise SinkError(
                    f"{_described(output)} is below {_described(written[key])}, which is a file; {_remedy(output)}"
                )
            if key in read:
                raise SinkError(f"{_described(output)} is below {read[key].label} {read[key].path}, which is a file")
    if folders:
        for entry in read.values():
            for key in parent_keys(entry.path):
                if key in folders:
                    raise SinkError(
                        f"{entry.label} {entry.path} is in the folder of {_described(folders[key])}, which is replaced as a whole; "
                        f"{_remedy(folders[key])}"
                    )


def _check_folder(output: Output) -> None:
    """Raise SinkError if a parent of an output exists and is not a folder."""
    for parent in Path(output.path).parents:
        try:
            if parent.is_dir():
                return
            if parent.exists():
                raise SinkError(
                    f"{_described(output)} can't be written: {parent} is a file and not a folder; {_remedy(output)}"
                )
        except (OSError, ValueError):
            return  # creating the folder raises the error


def _check_existing(output: Output, overwrite: bool) -> None:
    if output.content in ("any", "folder"):
        return
    path = Path(output.path)
    try:
        if path.is_dir():
            raise SinkError(f"{_described(output)} is a folder; name a file in it")
        if not path.is_file():
            return  # new, a device or a pipe
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except (OSError, ValueError) as error:
        raise SinkError(f"{_described(output)} can't be written: {reason(error)}") from error
    if not overwrite:
        raise SinkError(f"{_described(output)} exists; leave out --no-overwrite to replace it, or name another file")
    if head and not has_content(path, head, output.content):
        description = DESCRIPTIONS[output.content]
        raise SinkError(f"{_described(output)} exists and is not {description}: it is left as it is; name a new file")


def _same_path_message(first: Output, second: Output) -> str:
    options = first.label.startswith("-") and second.label.startswith("-")
    remedy = "name two files" if options else "process them into different folders"
    return f"{first.label} and {second.label} would both be written to {second.path}; {remedy}"


def _described(output: Output) -> str:
    if output.label.startswith("the "):
        return f"{output.label}, {output.path},"
    return f"{output.label} {output.path}" if output.label.startswith("--") else output.path


def _remedy(output: Output) -> str:
    if output.label.startswith("the "):
        return "name another folder"
    if output.label.startswith("--"):
        return f"give {output.label} another name"
    return "give the output another name with -o"


def _temporary_names(output: Output) -> list[str]:
    path = Path(output.path)
    if not path.name:
        return []
    if output.content == "folder":
        return [str(path.with_name(shortened_name(path.name, end))) for end in (".partial", ".earlier.partial")]
    return [str(path.with_name(partial_name(path)))]
