"""Reader for the tensors of torch files, safetensors and `save_pretrained` folders. No code in them is ever run."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rtseg.core.errors import ModelError, printable_name
from rtseg.core.files import utf8_path
from rtseg.core.text_file import read_text
from rtseg.nn.importers.pickled import DAMAGE, STATE_KEYS, Inert, Pickled, read_instructions

_SAVE_HINT = (
    "save `model.state_dict()` where the model was trained, or export it there to ONNX with `torch.onnx.export`"
)
"""End of messages about files that contain more than weights."""

_SAVE_ONLY_WEIGHTS_HINT = "save only the weights, `model.state_dict()`, where the model was trained"
"""End of messages about files with readable weights next to objects that can't be read."""


@dataclass(frozen=True)
class Stored:
    """Contents of a checkpoint."""

    tensors: dict[str, Tensor]
    """Weights by name, on the CPU. Floating point tensors are float32 and finite."""

    config: dict[str, Any]
    """Contents of `config.json` of a `save_pretrained` folder; else empty."""

    choice: str = ""
    """Sentence about which of several networks in the file was read, and how to get the others; else empty."""


def load(path: Path) -> Stored:
    """Read the weights in a file or a `save_pretrained` folder.

    Raises:
        ModelError: the file is missing, damaged or not a checkpoint, is a whole pickled module or a pickle that would run
            code, or contains weights that are NaN or infinite.
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
            f"{folder}: a model folder contains config.json and model.safetensors, as `save_pretrained` writes them"
        )
    try:
        config = json.loads(read_text(config_file))
    except (OSError, ValueError) as error:
        raise ModelError(f"{config_file} can't be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{config_file} must contain one JSON object, not a {type(config).__name__}")
    return replace(load(weights_file), config=config)


def _load_safetensors(path: Path) -> Any:
    try:
        with utf8_path(path) as file:
            return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: damaged or not a safetensors file ({one_line(error)})") from error


def _load_torch(path: Path) -> Any:
    """Return the object of `torch.load`, with inert stand-ins for harmless objects; any other object is an error."""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"\x89HDF"):
        raise ModelError(
            f"{path} is a Keras or HDF5 file; export the model to ONNX (tf2onnx) and give rtseg the .onnx file"
        )
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _check_zip(path)
    pickled = read_instructions(path)
    stand_ins: list[Any] = [(kind, name) for name, kind in pickled.stand_ins().items()]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about rare pickle protocols; an error follows
            # Zip files are memory-mapped, so the state of an optimizer is never read.
            with utf8_path(path) as readable:
                return torch.load(readable, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} {_describe_refusal(pickled, error)}") from error
    except Exception as error:  # torch's reader raises almost any error for damaged files
        raise ModelError(f"{path}: damaged, cut short, or not a torch checkpoint ({one_line(error)})") from error


def _check_zip(path: Path) -> None:
    """Raise ModelError for a TorchScript program, and for a file with a wrong checksum, which torch does not verify.

    In a file that was saved without them (`torch.serialization.set_crc32_options(False)`) every checksum is wrong; such a
    file is accepted.
    """
    right, wrong = 0, ""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise ModelError(
                    f"{path} is a TorchScript program, not a checkpoint; load it with `torch.jit.load`, export it to ONNX with "
                    "`torch.onnx.export`, and give rtseg the .onnx file"
                )
            for entry in archive.infolist():
                try:
                    with archive.open(entry) as file:
                        while file.read(1 << 20):
                            pass
                    right += entry.file_size > 0
                except zipfile.BadZipFile:
                    wrong = entry.filename
    except DAMAGE as error:
        raise ModelError(f"{path}: damaged or cut short ({one_line(error)})") from error
    if right and wrong:
        raise ModelError(f"{path}: damaged: '{wrong}' in it is not what was saved; copy or download the file again")


def _describe_refusal(pickled: Pickled, error: Exception) -> str:
    """Describe why a pickle was refused, as the rest of a sentence that starts with the file's name."""
    harmful = pickled.find_code()
    if harmful:
        return f"is a pickle that would run `{printable_name(harmful)}` when read; it was not read. Do not trust its source"
    names = pickled.names
    unknown = pickled.unknown or re.findall(r"GLOBAL (\S+) was not", str(error))  # a function of torch itself
    if names and names[0].startswith("fastai.learner"):
        return "is a whole fastai Learner (`learn.export`), which can't be read without running code; use `learn.save`"
    listed = ", ".join(map(printable_name, unknown[:3]))
    if unknown and pickled.has_weights():
        return f"contains objects next to the weights ({listed}), which need their code to be read; {_SAVE_ONLY_WEIGHTS_HINT}"
    if any(name.startswith("torch.nn.modules.") for name in unknown):
        whole = f"contains a whole pickled module ({printable_name(pickled.module() or unknown[0])})"
        return f"{whole}, which can't be read without running its code; {_SAVE_HINT}"
    if unknown:
        return f"contains objects that are not weights ({listed}), which need their code to be read; {_SAVE_HINT}"
    if pickled.root is not None and names:
        return f"contains objects that `torch.load(weights_only=True)` does not read ({one_line(error)}); {_SAVE_HINT}"
    return f"is not a torch checkpoint, or is damaged; {_SAVE_HINT}"


def _find_tensors(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the state dict in a loaded object, such as `{"model": …, "opt": …}` or `{"state_dict": …}`, and `Stored.choice`."""
    choice = ""
    for _ in range(3):
        if not isinstance(content, dict):
            break
        tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if len(tensors) >= 4:  # a dict of weights, possibly with other entries (`mask_values`)
            return tensors, choice
        name = next((key for key in STATE_KEYS if isinstance(content.get(key), (dict, Inert))), None)
        if name is None:
            keys = ", ".join(map(str, list(content)[:5])) or "nothing"
            raise ModelError(f"{path} contains no weights under a known name (it contains {keys}); {_SAVE_HINT}")
        others = [f"[{key!r}]{inner}" for key in content if key != name for inner in _networks(content[key])]
        if others:
            choice = (
                f"'{name}' is used, of {len(others) + 1} networks in the file; to use another, save it to its own file: "
                + " or ".join(f"torch.save(torch.load('{path.name}'){other}, 'other.pth')" for other in others[:2])
            )
        content = content[name]
    raise ModelError(f"{path} contains a {type(content).__name__}, not the weights of a network; {_SAVE_HINT}")


def _networks(content: Any, depth: int = 3) -> list[str]:
    """Return the paths of the networks' state dicts in a part of a checkpoint, as Python subscripts. Optimizers have none."""
    if not isinstance(content, dict) or depth == 0:
        return []
    kernels = [key for key, value in content.items() if isinstance(value, Tensor) and value.ndim == 4]
    if len(kernels) >= 4 and all(isinstance(key, str) for key in kernels):
        return [""]
    return [f"[{key!r}]{inner}" for key in content for inner in _networks(content[key], depth - 1)]


def _check(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Check that all tensors are plain and finite, and return float32 copies (the memory-mapped file may change later)."""
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
                    f"{path}: '{key}' contains {count} values that are NaN or infinite; the training diverged"
                )
        checked[key] = tensor
    return checked


def one_line(error: BaseException) -> str:
    """Return the first sentence of the first line of an error message. Messages of torch have many lines."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.split(". ")[0][:160]
