"""`rtseg doctor`: what this machine has, what is missing, and how to mend it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rtseg._version import __version__

State = Literal["ok", "absent", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    """What was looked at."""

    state: State
    """`ok`; `absent`: not there, and rtseg runs without it; `broken`: has to be mended."""

    detail: str
    """What was found."""

    remedy: str = ""
    """What to do about it, if anything."""


def examine() -> list[Finding]:
    """Looks at everything; never raises for what it finds."""
    return [
        Finding("rtseg", "ok", __version__),
        Finding("python", "ok", f"{platform.python_version()} at {sys.executable}"),
        Finding("system", "ok", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"),
        *_packages(),
        *_backends(),
        *_gpu(),
        *_tensorrt(),
        _engines(),
        *_encoders(),
        *_telemetry(),
        _display(),
        _cameras(),
        *_models(),
    ]


def _packages() -> Iterator[Finding]:
    from rtseg.inference.openvino import stay_silent

    stay_silent()
    wanted = {"numpy": "numpy", "av": "av", "cv2": "opencv-python", "typer": "typer", "openvino": "openvino"}
    for module, package in wanted.items():
        try:
            version = getattr(importlib.import_module(module), "__version__", "") or importlib.metadata.version(package)
        except Exception as error:  # a broken native library may raise anything; the report must go on
            absent = isinstance(error, ModuleNotFoundError) and error.name == module
            remedy = f"pip install {package}" if absent else _remedy(module, str(error))
            yield Finding(
                package, "absent" if absent and module == "openvino" else "broken", str(error).splitlines()[0], remedy
            )
        else:
            yield Finding(package, "ok", str(version))
    for module in ("torch", "onnx"):
        there = importlib.util.find_spec(module) is not None
        detail = importlib.metadata.version(module) if there else "not installed; needed for training and building only"
        yield Finding(module, "ok" if there else "absent", detail, "" if there else 'pip install "rtseg[train]"')


def _remedy(module: str, message: str) -> str:
    if module == "cv2":
        return "apt-get install libgl1 libglib2.0-0, or pip install opencv-python-headless in place of opencv-python"
    return f"reinstall the package ({message.splitlines()[0]})"


def _backends() -> Iterator[Finding]:
    try:
        from rtseg.inference import choose_backend

        choice = choose_backend()
    except Exception as error:  # same: whatever is wrong is a finding
        yield Finding("backend", "broken", str(error).splitlines()[0], "pip install openvino")
    else:
        yield Finding("backend", "ok", f"auto takes {choice.backend}: {choice.reason}")


def _gpu() -> Iterator[Finding]:
    from rtseg.gpu.devices import find_gpus

    gpus = find_gpus()
    if not gpus:
        yield Finding(
            "gpu", "absent", "no NVIDIA GPU answers (libcuda.so.1 is missing or shows none)", "the processor is used"
        )
        return
    for gpu in gpus:
        major, minor = gpu.capability
        yield Finding("gpu", "ok", f"cuda:{gpu.index} {gpu.name}, compute capability {major}.{minor}")
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
        if answer.returncode == 0 and answer.stdout.strip():
            yield Finding("gpu driver", "ok", "; ".join(sorted(set(answer.stdout.strip().splitlines()))))


def _tensorrt() -> Iterator[Finding]:
    from rtseg.core.errors import BackendError
    from rtseg.inference.tensorrt_loader import import_tensorrt

    for target, modules in (("tensorrt", ("tensorrt",)), ("tensorrt-rtx", ("tensorrt_rtx", "tensorrt_rtx_bindings"))):
        system = sorted(Path("/usr/lib").glob(f"python3*/dist-packages/{modules[0]}"))
        if any(importlib.util.find_spec(module) for module in modules):
            try:
                yield Finding(
                    target, "ok", f"{import_tensorrt(target).__version__}; `rtseg build --target {target}` works here"
                )
            except BackendError as error:
                yield Finding(
                    target, "broken", str(error), f"reinstall {target}, with libraries and driver of one CUDA version"
                )
        elif system and sys.prefix != sys.base_prefix:
            remedy = "this virtual environment hides it: make it with --system-site-packages"
            yield Finding(target, "absent", f"lies in {system[0]}, but can't be seen from here", remedy)
        else:
            where = "on a machine with an NVIDIA GPU" if target == "tensorrt" else "to build engines, on any machine"
            yield Finding(target, "absent", "not installed", f'pip install "rtseg[{target}]" {where}')
    there = importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None
    detail = importlib.metadata.version("cuda-bindings") if there else "not installed; needed to run engines"
    yield Finding(
        "cuda-bindings", "ok" if there else "absent", detail, "" if there else 'pip install "rtseg[tensorrt]"'
    )


def _engines() -> Finding:
    from rtseg.core.errors import RtsegError
    from rtseg.inference.engine_metadata import default_folder, read_sidecar

    try:
        folder = default_folder()
        names = [path.name for path in sorted(folder.glob("*.engine")) if read_sidecar(path)]
    except RtsegError as error:
        return Finding("engines", "broken", str(error), "`rtseg build` makes engines; remove those without a sidecar")
    return Finding(
        "engines",
        "ok" if names else "absent",
        f"{', '.join(names) or 'none'} in {folder}",
        "" if names else "`rtseg build` makes one",
    )


def _encoders() -> Iterator[Finding]:
    try:
        import av
    except ImportError:
        return
    software = [
        name for name in ("libx264", "libx265", "libvpx-vp9", "libsvtav1", "ffv1") if name in av.codecs_available
    ]
    missing = "" if "libx264" in software else "without libx264 there is no H.264: pip install --force-reinstall av"
    yield Finding("encoders", "ok" if "libx264" in software else "broken", ", ".join(software), missing)
    yield _hardware_codecs()


def _hardware_codecs() -> Finding:
    """A card's are tried with one picture; a Jetson's are looked for in GStreamer."""
    from rtseg.io.codecs import try_nvdec, try_nvenc
    from rtseg.io.gstreamer.process import has_element

    tried = {"nvdec": try_nvdec(), "nvenc": try_nvenc("h264_nvenc")}
    found = [name for name, why in tried.items() if why is None]
    found += [name for name in ("nvv4l2decoder", "nvv4l2h264enc") if has_element(name)]
    if found:
        return Finding("hardware codecs", "ok", ", ".join(found), "--decoder auto --encoder auto use them")
    reasons = ", ".join(f"{name}: {why}" for name, why in tried.items())
    return Finding("hardware codecs", "absent", f"{reasons}; no Jetson's in GStreamer", "software decodes and encodes")


def _telemetry() -> Iterator[Finding]:
    from rtseg.gpu.telemetry import Telemetry

    told = Telemetry().read()
    if told:
        yield Finding("telemetry", "ok", ", ".join(f"{name} {value}" for name, value in told.items()))


def _display() -> Finding:
    rendered = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if rendered or sys.platform in ("darwin", "win32"):
        return Finding("display", "ok", rendered or "the desktop")
    return Finding(
        "display",
        "absent",
        "neither DISPLAY nor WAYLAND_DISPLAY is set",
        "files are written as always; there is no window",
    )


def _cameras() -> Finding:
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    if not devices:
        return Finding("cameras", "absent", "no /dev/video*", "plug one in; `ls /dev/video*` shows it")
    closed = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    if closed:
        return Finding(
            "cameras",
            "broken",
            f"{', '.join(closed)} can't be opened",
            "sudo usermod -aG video $USER, then log in again",
        )
    return Finding("cameras", "ok", ", ".join(devices))


def _models() -> Iterator[Finding]:
    from rtseg.inference.bundled_models import bundled_models

    names = list(bundled_models())
    state: State = "ok" if names else "broken"
    yield Finding(
        "models", state, ", ".join(names) or "none", "" if names else "reinstall rtseg: its trained models are missing"
    )
