"""The bundled trained models, and lookup of a model by name or file."""

from __future__ import annotations

from pathlib import Path

from rtseg.core.cpu import has_vnni
from rtseg.core.errors import ModelError

ASSETS = Path(__file__).parents[1] / "assets"
DEFAULT_MODEL = "small"


def bundled_models() -> dict[str, Path]:
    """Return the bundled models by name, such as `small` for `camvid-small.onnx`, the default first.

    A name that ends in `-int8` is a quantized model in OpenVINO's format; see `default_for_cpu`.
    """
    files = (path for path in ASSETS.glob("camvid-*") if path.suffix in (".onnx", ".xml"))
    models = {path.stem.removeprefix("camvid-"): path for path in files}
    return dict(sorted(models.items(), key=lambda item: (item[0] != DEFAULT_MODEL, item[0])))


def default_for_cpu() -> Path | None:
    """Return the default model in INT8 on CPUs on which INT8 is the fastest precision; None on others.

    It is the same network: `rtseg build small --target openvino --precision int8` verified that the class maps agree.
    """
    return bundled_models().get(f"{DEFAULT_MODEL}-int8") if has_vnni() else None


def find_model(name_or_file: str | Path | None) -> Path:
    """Return the model file for a value of `--model`.

    Args:
        name_or_file: a bundled model's name (`small`, `camvid-small`), a file, or None for the default.

    Raises:
        ModelError: the value is neither a bundled model nor a file.
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
    """Return the FP32 weights for a value of `--from`: those of a bundled model, or a file.

    Raises:
        ModelError: the value is neither a bundled model nor a file.
    """
    path = find_model(name_or_file)
    weights = path.with_suffix(".safetensors")
    return weights if path.parent == ASSETS and weights.exists() else path
