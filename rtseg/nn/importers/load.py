"""Reads the tensors of torch files, safetensors and `save_pretrained` folders, without ever running code from them."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtseg.core.errors import ModelError, printable_name
from rtseg.core.files import utf8_path
from rtseg.core.text_file import read_text
from rtseg.nn.importers.pickled import DAMAGE, STATE_KEYS, Inert, Pickled, read_instructions

HOW_TO_SAVE = (
    "save `model.state_dict()` where the model was trained, or export it there to ONNX with `torch.onnx.export`"
)
"""The end of messages on files that hold more than weights."""

HOW_TO_SAVE_ALONE = "save the weights alone, `model.state_dict()`, where the model was trained"
"""The end of messages on files whose weights could be read but for what is beside them."""


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
    pickled = read_instructions(path)
    stand_ins: list[Any] = [(kind, name) for name, kind in pickled.stand_ins().items()]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rare pickle protocols, before the error that they end in
            # Zip files are mapped, so that an optimizer's state beside the weights is never read.
            with utf8_path(path) as readable:
                return torch.load(readable, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} {_why_refused(pickled, error)}") from error
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


def _why_refused(pickled: Pickled, error: Exception) -> str:
    """The rest of the sentence that starts with the file's name."""
    harmful = pickled.runs()
    if harmful:
        return f"is a pickle that would run `{printable_name(harmful)}` when read; it was not read. Do not trust where it came from"
    names = pickled.names
    unknown = pickled.unknown or re.findall(r"GLOBAL (\S+) was not", str(error))  # a function of torch itself
    if names and names[0].startswith("fastai.learner"):
        return "is a whole fastai Learner (`learn.export`), which can't be read without running code; use `learn.save`"
    told = ", ".join(map(printable_name, unknown[:3]))
    if unknown and pickled.holds_weights():
        return f"holds objects beside the weights ({told}), which are not read; {HOW_TO_SAVE_ALONE}"
    if any(name.startswith("torch.nn.modules.") for name in unknown):
        whole = f"holds a whole pickled module ({printable_name(pickled.module() or unknown[0])})"
        return f"{whole}, which can't be read without running its code; {HOW_TO_SAVE}"
    if unknown:
        return f"holds objects that are no weights ({told}), which are not read; {HOW_TO_SAVE}"
    if pickled.root is not None and names:
        return f"holds what `torch.load(weights_only=True)` does not read ({_one_line(error)}); {HOW_TO_SAVE}"
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
