"""Reads the tensors of torch files, safetensors and `save_pretrained` folders, without ever running code from them."""

from __future__ import annotations

import json
import mmap
import pickle
import pickletools
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtseg.core.errors import ModelError
from rtseg.core.files import utf8_path
from rtseg.core.text_file import read_text

HARMLESS = re.compile(
    r"fastcore\.(foundation|basics)\.\w+"
    r"|numpy\.(_?core\.multiarray\.(scalar|_reconstruct)|ndarray|dtype|dtypes\.\w+)"
    r"|pathlib\.(\w+\.)?\w*Path|argparse\.Namespace|types\.SimpleNamespace|datetime\.\w+"
    r"|omegaconf\.[\w.]+|(pytorch_lightning|lightning|lightning_fabric)\.[\w.]+"
)
"""What training programs leave beside the weights (optimizer settings, paths, options): inert objects stand in for it."""

RUNS_CODE = re.compile(
    r"(posix|nt|os|sys|subprocess|shutil|socket|importlib|runpy|pty|ctypes|webbrowser)\..*"
    r"|(builtins|__builtin__)\.(eval|exec|execfile|compile|open|getattr|__import__)"
)
"""What a pickle names only to run code while it is read."""

STATE_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "state_dict_ema",
    "model",
    "net",
    "network",
    "network_weights",
    "module",
    "weights",
    "params",
)
"""Where training programs keep the weights inside a checkpoint, in the order in which they are looked for."""

DAMAGE = (OSError, EOFError, ValueError, IndexError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What Python's readers of zip files and pickles raise when bytes were changed. UnicodeError is a ValueError and
NotImplementedError, of unknown compression, a RuntimeError."""

HOW_TO_SAVE = (
    "save `model.state_dict()` where the model was trained, or export it there to ONNX with `torch.onnx.export`"
)
"""The end of messages on files that hold more than weights."""


class Inert:
    """Stands in for an object that is not needed, and does nothing with what it is given."""

    def __new__(cls, *_: object) -> Inert:
        """Takes whatever the file hands over."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


@dataclass(frozen=True)
class Stored:
    """What a checkpoint holds."""

    tensors: dict[str, Tensor]
    """The weights by name, on the CPU; floating point ones as float32, all finite."""

    config: dict[str, Any]
    """`config.json` of a `save_pretrained` folder; else empty."""

    choice: str = ""
    """Which of several networks in the file this is, and how to come by the others, as a sentence; else empty."""


def load(path: Path) -> Stored:
    """Reads the weights in a file or a `save_pretrained` folder.

    Raises:
        ModelError: no such file, damaged, not a checkpoint, a whole pickled module, a pickle that asks to run code, or
            weights that are NaN or infinite.
    """
    if path.is_dir():
        return _load_folder(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    tensors, choice = _find_tensors(content, path)
    return Stored(_check(tensors, path), {}, choice)


def _load_folder(folder: Path) -> Stored:
    config_file = folder / "config.json"
    weights_file = next((f for f in (folder / "model.safetensors", folder / "pytorch_model.bin") if f.is_file()), None)
    if not config_file.is_file() or weights_file is None:
        raise ModelError(
            f"{folder}: a model folder holds config.json and model.safetensors, as `save_pretrained` writes them"
        )
    try:
        config = json.loads(read_text(config_file))
    except (OSError, ValueError) as error:
        raise ModelError(f"{config_file} can't be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{config_file} must hold one JSON object, not a {type(config).__name__}")
    stored = load(weights_file)
    return Stored(stored.tensors, config, stored.choice)


def _load_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with utf8_path(path) as file:
            return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: damaged or not a safetensors file ({_one_line(error)})") from error


def _load_torch(path: Path) -> Any:
    """What `torch.load` makes of the file, with inert stand-ins for what is harmless and refusal of all else."""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"\x89HDF"):
        raise ModelError(
            f"{path} is a Keras or HDF5 file; export the model to ONNX (tf2onnx) and give rtseg the .onnx file"
        )
    is_zip = zipfile.is_zipfile(path)
    if is_zip and _is_torchscript(path):
        raise ModelError(
            f"{path} is a TorchScript program, not a checkpoint; load it with `torch.jit.load`, export it to ONNX with "
            "`torch.onnx.export`, and give rtseg the .onnx file"
        )
    if is_zip:
        _check_sums(path)
    named = _named_in(path)
    stand_ins: list[Any] = [(Inert, name) for name in named if HARMLESS.fullmatch(name)]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rare pickle protocols, before the error that they end in
            # Zip files are mapped, so that an optimizer's state beside the weights is never read.
            with utf8_path(path) as readable:
                return torch.load(readable, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} {_why_refused(named)}") from error
    except Exception as error:  # bytes of a damaged file make torch's reader raise almost anything
        raise ModelError(f"{path}: damaged, cut short, or not a torch checkpoint ({_one_line(error)})") from error


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except DAMAGE as error:
        raise ModelError(f"{path}: damaged or cut short ({_one_line(error)})") from error


def _check_sums(path: Path) -> None:
    """Raises ModelError where bytes of a weight were changed: torch writes their sums, and does not look at them again.

    A file that was saved without them (`torch.serialization.set_crc32_options(False)`) has none that is right.
    """
    right, wrong = 0, ""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                try:
                    with archive.open(entry) as file:
                        while file.read(1 << 20):
                            pass
                    right += entry.file_size > 0
                except zipfile.BadZipFile:
                    wrong = entry.filename
    except DAMAGE as error:
        raise ModelError(f"{path}: damaged or cut short ({_one_line(error)})") from error
    if right and wrong:
        raise ModelError(f"{path}: damaged: '{wrong}' in it is not what was saved; copy or download the file again")


def _named_in(path: Path) -> list[str]:
    """The classes and functions that the pickle names, in its order: that of the outermost object comes first.

    Only reads the pickle's instructions, runs none. A damaged pickle gives what stands before the damage.
    """
    names: dict[str, None] = {}
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inner = next((n for n in archive.namelist() if n.endswith("data.pkl")), None)
                if inner is not None:
                    with archive.open(inner) as file:
                        names.update(dict.fromkeys(_names_in_pickle(file)))
        else:
            # Mapped, because a damaged length would make a plain file's `read` ask for that much memory.
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                for _ in range(4):  # torch's old format: magic number, protocol, machine, then the object
                    names.update(dict.fromkeys(_names_in_pickle(content)))
    except DAMAGE:
        pass  # `torch.load` meets the same damage and says so
    return list(names)


def _names_in_pickle(file: Any) -> Iterator[str]:
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
            yield ".".join(strings[-2:])
        elif isinstance(argument, str):
            strings.append(argument)


def _why_refused(named: list[str]) -> str:
    """The rest of the sentence that starts with the file's name."""
    harmful = [name for name in named if RUNS_CODE.fullmatch(name)]
    if harmful:
        return f"is a pickle that would run `{harmful[0]}` when read; it was not read. Do not trust where it came from"
    unknown = [
        n for n in named if not HARMLESS.fullmatch(n) and not n.startswith(("torch.", "collections.", "_codecs."))
    ]
    modules = [name for name in named if name.startswith("torch.nn.modules.")]
    if named and named[0].startswith("fastai.learner"):
        return "is a whole fastai Learner (`learn.export`), which can't be read without running code; use `learn.save`"
    if modules:
        outermost = next((name for name in named if name in unknown or name in modules), modules[0])
        return (
            f"holds a whole pickled module ({outermost}), which can't be read without running its code; {HOW_TO_SAVE}"
        )
    if unknown:
        return f"holds objects that are no weights ({', '.join(unknown[:3])}), which are not read; {HOW_TO_SAVE}"
    return f"is no torch checkpoint, or is damaged; {HOW_TO_SAVE}"


def _find_tensors(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict inside what was loaded, which may lie deeper: `{"model": …, "opt": …}`, `{"state_dict": …}`.

    With it what `Stored.choice` says.
    """
    choice = ""
    for _ in range(3):
        if not isinstance(content, dict):
            break
        tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if len(tensors) >= 4:  # a dict of weights; a stray number or list beside them (`mask_values`) is no weight
            return tensors, choice
        name = next((key for key in STATE_KEYS if isinstance(content.get(key), (dict, Inert))), None)
        if name is None:
            keys = ", ".join(map(str, list(content)[:5])) or "nothing"
            raise ModelError(f"{path} holds no weights under a name that rtseg knows (it holds {keys}); {HOW_TO_SAVE}")
        others = [f"[{key!r}]{inner}" for key in content if key != name for inner in _networks(content[key])]
        if others:
            choice = (
                f"'{name}' is taken, of {len(others) + 1} networks in the file; for another, save it alone: "
                + " or ".join(f"torch.save(torch.load('{path.name}'){other}, 'other.pth')" for other in others[:2])
            )
        content = content[name]
    raise ModelError(f"{path} holds a {type(content).__name__}, not the weights of a network; {HOW_TO_SAVE}")


def _networks(content: Any, depth: int = 3) -> list[str]:
    """Where state dicts of networks lie inside a part of a checkpoint, as Python's subscripts; an optimizer holds none."""
    if not isinstance(content, dict) or depth == 0:
        return []
    kernels = [key for key, value in content.items() if isinstance(value, Tensor) and value.ndim == 4]
    if len(kernels) >= 4 and all(isinstance(key, str) for key in kernels):
        return [""]
    return [f"[{key!r}]{inner}" for key in content for inner in _networks(content[key], depth - 1)]


def _check(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Plain float32 copies (the file may change later), once they are seen to be whole."""
    checked = {}
    for key, tensor in tensors.items():
        if not key.isprintable():
            raise ModelError(f"{path}: damaged: a weight is named {key!r}")
        if tensor.is_quantized or tensor.layout != torch.strided or tensor.is_complex():
            raise ModelError(
                f"{path}: '{key}' is quantized, sparse or complex; rtseg reads plain floating point weights"
            )
        if tensor.is_floating_point():
            tensor = tensor.detach().to(torch.float32, copy=True)
            if not bool(torch.isfinite(tensor).all()):
                count = int((~torch.isfinite(tensor)).sum())
                raise ModelError(
                    f"{path}: '{key}' holds {count} values that are NaN or infinite; the training went wrong"
                )
        checked[key] = tensor
    return checked


def _one_line(error: BaseException) -> str:
    """The first sentence of the first line; torch's messages go on for many."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.split(". ")[0][:160]
