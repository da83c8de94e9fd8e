"""The trained models that come with rtseg, and finding a model by name or file."""

from __future__ import annotations

from pathlib import Path

from rtseg.core.cpu import has_vnni
from rtseg.core.errors import ModelError

ASSETS = Path(__file__).parents[1] / "assets"
DEFAULT_MODEL = "small"


def bundled_models() -> dict[str, Path]:
    """Bundled models by name, `small` for `camvid-small.onnx` and so on, the default first.

    What ends in `-int8` is OpenVINO's own form of a model, quantized; see `default_for_cpu`.
    """
    files = (path for path in ASSETS.glob("camvid-*") if path.suffix in (".onnx", ".xml"))
    found = {path.stem.removeprefix("camvid-"): path for path in files}
    return dict(sorted(found.items(), key=lambda item: (item[0] != DEFAULT_MODEL, item[0])))


def default_for_cpu() -> Path | None:
    """The default model in INT8, for processors that compute in it faster than in anything else; None on others.

    It is the same network: `rtseg build small --target openvino --precision int8` proved that it says the same.
    """
    return bundled_models().get(f"{DEFAULT_MODEL}-int8") if has_vnni() else None


def find_model(name_or_file: str | Path | None) -> Path:
    """The file that `--model` means.

    Args:
        name_or_file: a bundled model's name (`small`, `camvid-small`), a file, or None for the default.

    Raises:
        ModelError: neither a bundled model nor a file.
    """
    bundled = bundled_models()
    name = str(name_or_file) if name_or_file is not None else DEFAULT_MODEL
    by_name = bundled.get(name.removeprefix("camvid-"))
    if by_name is not None:
        return by_name
    path = Path(name).expanduser()
    if path.exists():
        return path
    raise ModelError(
        f"no model '{name}': bundled are {', '.join(bundled) or 'none'}; or give a model file (.onnx, .xml, .safetensors, .pt)"
    )


def find_weights(name_or_file: str) -> Path:
    """The FP32 weights that `--from` means: a bundled model's, or a file.

    Raises:
        ModelError: neither a bundled model nor a file.
    """
    path = find_model(name_or_file)
    beside = path.with_suffix(".safetensors")
    return beside if path.parent == ASSETS and beside.exists() else path
