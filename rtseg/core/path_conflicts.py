"""All paths of a command, compared before work begins: no option may write to an input, to another output, or over a file of
another kind.

The main output (`-o`, `--record`) may replace an existing file, as `--overwrite` says. Any other output replaces an existing
file only if that is of its own kind: see `Content`.
"""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rtseg.core.errors import SinkError
from rtseg.core.files import is_marked_image, partial_name, shortened_name

STDOUT = "-"

Content = Literal["any", "json", "jsonl", "image", "mask video", "folder"]
"""What an output is, and with it which existing file it may replace.

`any`: a main output: any regular file. `json`, `jsonl`, `image`: a JSON object, JSON lines or an image that rtseg wrote.
`mask video`: an .mkv that `--masks` wrote. `folder`: a folder that is replaced as a whole (`rtseg.io.outputs.masks` checks its content).
"""

_KINDS = {
    "json": "a report that rtseg wrote",
    "jsonl": "JSON lines that rtseg wrote",
    "image": "an image that rtseg wrote",
    "mask video": "an .mkv that --masks wrote",
}
_HEAD_BYTES = 65536
_LARGEST_JSON = 256 * 2**20
_LARGEST_PLAYLIST = 4 * 2**20

Key = tuple[int, int, str]


@dataclass(frozen=True)
class Input:
    """A file that a command reads."""

    path: str
    """The file; `-` for standard input."""

    label: str = "the input"
    """For messages: `the input`, `--model`."""


@dataclass(frozen=True)
class Output:
    """A file or folder that a command writes."""

    path: str
    """The file or folder; `-` for standard output."""

    label: str
    """For messages: an option, or what it is the output of."""

    content: Content = "any"
    """What it is."""


def check_paths(inputs: Iterable[Input], outputs: Iterable[Output], *, overwrite: bool = True) -> None:
    """Checks that a command destroys nothing with its outputs. Writes nothing.

    Paths are the same where they lead to the same file: by links, another spelling, or a file system that ignores case.

    Args:
        inputs: all files that are read.
        outputs: all that are written.
        overwrite: False refuses every existing output but those of content `any`, whose sinks check that themselves.

    Raises:
        SinkError: an output is an input, another output, its temporary name, or in a folder that is replaced; or it would
            replace an existing file of another kind; or two outputs go to standard output.
    """
    outputs = list(dict.fromkeys(outputs))
    _check_stdout(outputs)
    files = [output for output in outputs if output.path != STDOUT]
    read: dict[Key, Input] = {}
    for entry in _with_parts(inputs):
        for form in _forms(entry.path):
            if _is_file(form):
                read.setdefault(_key(form), entry)
    written: dict[Key, Output] = {}
    for output in files:
        if _is_device(output.path):
            continue
        key = _key(output.path)
        if key in read:
            raise SinkError(f"{_named(output)} would overwrite {read[key].label} {read[key].path}; {_advice(output)}")
        if key in written:
            raise SinkError(_both(written[key], output))
        written[key] = output
    for output in files:
        for name in _temporary_names(output):
            key = _key(name)
            if key in read and output.content == "folder":
                raise SinkError(
                    f"{_named(output)} is written as {name} at first, which is {read[key].label}; {_advice(output)}"
                )
            if key in written and written[key] is not output:
                raise SinkError(
                    f"{_named(written[key])} is the temporary name of {_named(output)}; {_advice(written[key])}"
                )
    _check_nesting(read, written)
    for output in files:
        _check_folder(output)
        _check_existing(output, overwrite)


def model_inputs(model: str | Path | None, label: str = "--model") -> list[Input]:
    """The files of a model that is named by its path: itself, its weights and its sidecar; a folder's files. Else none."""
    if model is None:
        return []
    path = Path(model).expanduser()
    try:
        if path.is_dir():
            return [Input(str(file), label) for file in path.iterdir()]
        beside = (path, path.with_suffix(".bin"), path.with_name(path.name + ".json"))
        return [Input(str(file), label) for file in beside if file.is_file()]
    except (OSError, ValueError):
        return []  # whoever reads it says what is wrong with it


def _with_parts(inputs: Iterable[Input], depth: int = 2) -> Iterator[Input]:
    """The inputs, and the files that playlists among them name; a playlist may name playlists."""
    for entry in inputs:
        yield entry
        if depth:
            parts = (Input(path, "a part of the input") for path in _named_in_playlist(Path(entry.path)))
            yield from _with_parts(parts, depth - 1)


def _named_in_playlist(path: Path) -> list[str]:
    """The local files that a playlist names (HLS, RFC 8216, or FFmpeg's list of files); none, where it is no playlist."""
    try:
        if not path.is_file():
            return []
        with path.open("rb") as file:
            head = file.read(8)
            if not head.startswith((b"#EXTM3U", b"ffconcat")):
                return []
            text = (head + file.read(_LARGEST_PLAYLIST)).decode("utf-8", "surrogateescape")
    except (OSError, ValueError):
        return []
    lines = [line.strip() for line in text.splitlines()]
    names = [line for line in lines if line and not line.startswith("#")] if head.startswith(b"#") else []
    names += re.findall(r'URI="([^"]+)"', text) + re.findall(r"(?m)^\s*file\s+'?([^'\n]+)'?", text)
    local = [name.removeprefix("file://").removeprefix("file:").strip() for name in names]
    return [str(path.parent / name) for name in local if "://" not in name]


def option_inputs(**options: str | Path | None) -> list[Input]:
    """Existing files named by options: `option_inputs(palette=palette)` labels its file `--palette`."""
    given = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None]
    return [Input(value, label) for label, value in given if _is_file(value)]


def side_outputs(**options: str | Path | None) -> list[Output]:
    """Outputs named by options, those that are given: `stats` and `json` are JSON, `jsonl` JSON lines, others images."""
    known: dict[str, Content] = {"stats": "json", "json": "json", "jsonl": "jsonl"}
    return [
        Output(str(value), f"--{name}", known.get(name, "image"))
        for name, value in options.items()
        if value is not None and str(value) != ""
    ]


def mask_output(masks: str | Path, label: str = "--masks") -> Output:
    """What `--masks` of a video writes: a video for .mkv, else a folder."""
    return Output(str(masks), label, "mask video" if Path(masks).suffix.lower() == ".mkv" else "folder")


def _check_stdout(outputs: Sequence[Output]) -> None:
    labels = [output.label for output in outputs if output.path == STDOUT]
    if len(labels) > 1:
        raise SinkError(f"{labels[0]} and {labels[1]} both write to standard output; name a file for one of them")


def _check_nesting(read: dict[Key, Input], written: dict[Key, Output]) -> None:
    folders = {key: output for key, output in written.items() if output.content == "folder"}
    for output in written.values():
        for key in _parents(output.path):
            if key in folders:
                raise SinkError(
                    f"{_named(output)} is in the folder of {_named(folders[key])}, which is replaced as a whole"
                )
            if key in written:
                raise SinkError(f"{_named(output)} is below {_named(written[key])}, which is a file; {_advice(output)}")
            if key in read:
                raise SinkError(f"{_named(output)} is below {read[key].label} {read[key].path}, which is a file")
    if folders:
        for entry in read.values():
            for key in _parents(entry.path):
                if key in folders:
                    raise SinkError(
                        f"{entry.label} {entry.path} is in the folder of {_named(folders[key])}, which is replaced as a whole; "
                        f"{_advice(folders[key])}"
                    )


def _check_folder(output: Output) -> None:
    """Refuses an output below something that exists and is no folder."""
    for above in Path(output.path).parents:
        try:
            if above.is_dir():
                return
            if above.exists():
                raise SinkError(
                    f"{_named(output)} can't be written: {above} is a file and not a folder; {_advice(output)}"
                )
        except (OSError, ValueError):
            return  # whoever makes the folder says what is wrong


def _check_existing(output: Output, overwrite: bool) -> None:
    path = Path(output.path)
    if output.content in ("any", "folder"):
        return
    try:
        if path.is_dir():
            raise SinkError(f"{_named(output)} is a folder; name a file in it")
        if not path.exists() or not path.is_file():
            return  # a device or a pipe takes what it is given
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise SinkError(f"{_named(output)} can't be written: {text[:1].lower()}{text[1:]}") from error
    if not overwrite:
        raise SinkError(f"{_named(output)} exists; leave out --no-overwrite to replace it, or name another file")
    if head and not _is_of_kind(path, head, output.content):
        kind = _KINDS[output.content]
        raise SinkError(f"{_named(output)} exists and is not {kind}: it is left as it is; name a new file")


def _is_of_kind(path: Path, head: bytes, content: Content) -> bool:
    if content == "image":
        return is_marked_image(path)
    if content == "mask video":
        return _holds_masks(head)
    if content == "jsonl":
        return b"\n" in head and _has(head.split(b"\n", 1)[0], {"camera", "index", "latency_ms", "classes"})
    return path.stat().st_size <= _LARGEST_JSON and _has(path.read_bytes(), {"rtseg"})


def is_mask_video(path: Path) -> bool:
    """Whether a file is a video that `--masks` wrote. False where it can't be read."""
    if path.suffix.lower() != ".mkv":
        return False
    try:
        with path.open("rb") as file:
            return _holds_masks(file.read(_HEAD_BYTES))
    except (OSError, ValueError):
        return False


def _holds_masks(head: bytes) -> bool:
    # Both are in the header that FFmpeg writes before the first frame.
    return head.startswith(b"\x1a\x45\xdf\xa3") and b"V_FFV1" in head and b"CLASSES" in head


def _has(data: bytes, fields: set[str]) -> bool:
    """Whether data is a JSON object with these fields."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and fields <= found.keys()


def _both(first: Output, second: Output) -> str:
    options = first.label.startswith("-") and second.label.startswith("-")
    remedy = "name two files" if options else "process them into different folders"
    return f"{first.label} and {second.label} would both be written to {second.path}; {remedy}"


def _named(output: Output) -> str:
    if output.label.startswith("the "):
        return f"{output.label}, {output.path},"
    return f"{output.label} {output.path}" if output.label.startswith("--") else output.path


def _advice(output: Output) -> str:
    if output.label.startswith("the "):
        return "name another folder"
    if output.label.startswith("--"):
        return f"give {output.label} another name"
    return "give the output another name with -o"


def _temporary_names(output: Output) -> list[str]:
    path = Path(output.path)
    if output.content == "folder":
        endings = (".partial", ".earlier.partial")
        return [str(path.with_name(shortened_name(path.name, end))) for end in endings] if path.name else []
    return [str(path.with_name(partial_name(path)))] if path.name else []


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def _is_device(path: str) -> bool:
    """Whether a path is a device, pipe or socket: several may write to it, and nothing in it is lost."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _forms(path: str) -> Iterator[str]:
    """A path, and the path in a `file:` URL."""
    if path == STDOUT:
        return
    yield path
    url = re.match(r"file:(?://(?:localhost)?(?=/))?", path)
    if url:
        yield path[url.end() :]


def _parents(path: str) -> Iterator[Key]:
    if path == STDOUT:
        return
    try:
        above = Path(os.path.realpath(path)).parents
    except (OSError, ValueError):
        return
    for folder in above:
        yield _key(str(folder))


def _key(path: str) -> Key:
    """The same for each way to name a file: device and number of what exists, and the rest of the path below that.

    The rest is compared without case and in one form of accents: names that differ in that are one file on many disks.
    """
    try:
        there = Path(os.path.realpath(path))
    except (OSError, ValueError):
        return 0, 0, path  # no file can have this name: whoever opens it says so
    rest: list[str] = []
    while True:
        try:
            facts = there.stat()
        except (OSError, ValueError):
            if there.parent == there:
                return 0, 0, path
            rest.insert(0, there.name)
            there = there.parent
        else:
            return facts.st_dev, facts.st_ino, unicodedata.normalize("NFC", "/".join(rest)).casefold()
