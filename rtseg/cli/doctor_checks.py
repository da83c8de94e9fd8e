"""Checks of `rtseg doctor`: components of this machine, missing parts, and how to fix them."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rtseg._version import __version__
from rtseg.cli.errors import one_line

State = Literal["ok", "absent", "broken"]

_REINSTALL = {
    "cv2": "apt-get install libgl1 libglib2.0-0, or pip install opencv-python-headless in place of opencv-python"
}
"""Instructions for a package that is installed but can't be imported, by module."""


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    topic: str
    """Component that was checked."""

    state: State
    """`ok`; `absent`: missing, but rtseg runs without it; `broken`: must be fixed."""

    detail: str
    """Result of the check, such as a version or an error."""

    remedy: str = ""
    """Instructions for the user, if any."""


def run_checks() -> list[Finding]:
    """Run all checks. Problems are returned as findings, not raised."""
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
        _models(),
    ]


def _packages() -> Iterator[Finding]:
    from rtseg.inference.openvino import disable_telemetry

    disable_telemetry()
    packages = {"numpy": "numpy", "av": "av", "cv2": "opencv-python", "typer": "typer", "openvino": "openvino"}
    for module, package in packages.items():
        try:
            version = getattr(importlib.import_module(module), "__version__", "") or importlib.metadata.version(package)
        except Exception as error:  # a broken native library can raise any error; the report must continue
            absent = isinstance(error, ModuleNotFoundError) and error.name == module
            remedy = f"pip install {package}" if absent else _REINSTALL.get(module, f"reinstall {package}")
            state: State = "absent" if absent and module == "openvino" else "broken"
            yield Finding(package, state, one_line(str(error)), remedy)
        else:
            yield Finding(package, "ok", str(version))
    for package in ("torch", "onnx"):
        yield _optional(package, "needed only for training and building", "train")


def _optional(package: str, purpose: str, extra: str) -> Finding:
    """Check a package that rtseg runs without."""
    try:
        return Finding(package, "ok", importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return Finding(package, "absent", f"not installed; {purpose}", f'pip install "rtseg[{extra}]"')


def _backends() -> Iterator[Finding]:
    try:
        from rtseg.inference import choose_backend

        choice = choose_backend()
    except Exception as error:  # any error is a finding
        yield Finding("backend", "broken", one_line(str(error)), "pip install openvino")
    else:
        yield Finding("backend", "ok", f"auto selects {choice.backend}: {choice.reason}")


def _gpu() -> Iterator[Finding]:
    import pynvml

    from rtseg.gpu.devices import find_gpus

    gpus = find_gpus()
    if not gpus:
        yield Finding(
            "gpu", "absent", "no NVIDIA GPU found (libcuda.so.1 is missing or reports none)", "the CPU is used"
        )
        return
    for gpu in gpus:
        yield Finding("gpu", "ok", f"cuda:{gpu.index} {gpu.describe()}")
    with suppress(pynvml.NVMLError):  # a Jetson may have no NVML
        pynvml.nvmlInit()
        yield Finding("gpu driver", "ok", str(pynvml.nvmlSystemGetDriverVersion()))


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
            remedy = "this virtual environment hides it: create it with --system-site-packages"
            yield Finding(target, "absent", f"installed in {system[0]}, but not visible here", remedy)
        else:
            where = "on a machine with an NVIDIA GPU" if target == "tensorrt" else "to build engines, on any machine"
            yield Finding(target, "absent", "not installed", f'pip install "rtseg[{target}]" {where}')
    yield _optional("cuda-bindings", "needed to run engines", "tensorrt")


def _engines() -> Finding:
    from rtseg.core.errors import RtsegError
    from rtseg.inference.engine_metadata import default_folder, read_sidecar

    try:
        folder = default_folder()
        names = [path.name for path in sorted(folder.glob("*.engine")) if read_sidecar(path)]
    except RtsegError as error:
        return Finding("engines", "broken", str(error), "`rtseg build` builds engines; remove those without a sidecar")
    where = f"in {folder}"
    if not names:
        return Finding("engines", "absent", f"none {where}", "`rtseg build` builds one")
    return Finding("engines", "ok", f"{', '.join(names)} {where}")


def _encoders() -> Iterator[Finding]:
    try:
        import av
    except ImportError:
        return
    names = [name for name in ("libx264", "libx265", "libvpx-vp9", "libsvtav1", "ffv1") if name in av.codecs_available]
    missing = "" if "libx264" in names else "libx264 is required for H.264: pip install --force-reinstall av"
    yield Finding("encoders", "broken" if missing else "ok", ", ".join(names), missing)
    yield _hardware_codecs()


def _hardware_codecs() -> Finding:
    """Check codecs of NVIDIA GPUs by coding one frame, and those of a Jetson by looking for GStreamer elements."""
    from rtseg.io.codecs import try_nvdec, try_nvenc
    from rtseg.io.gstreamer.process import has_element

    problems = {"nvdec": try_nvdec(), "nvenc": try_nvenc("h264_nvenc")}
    codecs = [name for name, problem in problems.items() if problem is None]
    codecs += [name for name in ("nvv4l2decoder", "nvv4l2h264enc") if has_element(name)]
    if codecs:
        return Finding("hardware codecs", "ok", ", ".join(codecs), "--decoder auto --encoder auto use them")
    reasons = ", ".join(f"{name}: {problem}" for name, problem in problems.items())
    return Finding("hardware codecs", "absent", f"{reasons}; no Jetson codecs in GStreamer", "software codecs are used")


def _telemetry() -> Iterator[Finding]:
    from rtseg.gpu.telemetry import Telemetry

    report = Telemetry().read()
    if report:
        yield Finding("telemetry", "ok", ", ".join(f"{name} {value}" for name, value in report.to_dict().items()))


def _display() -> Finding:
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if display or sys.platform in ("darwin", "win32"):
        return Finding("display", "ok", display or "the desktop")
    problem = "neither DISPLAY nor WAYLAND_DISPLAY is set"
    return Finding("display", "absent", problem, "output files work; windows are not available")


def _cameras() -> Finding:
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    if not devices:
        return Finding("cameras", "absent", "no /dev/video*", "connect one; `ls /dev/video*` lists it")
    inaccessible = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    if inaccessible:
        remedy = "sudo usermod -aG video $USER, then log in again"
        return Finding("cameras", "broken", f"{', '.join(inaccessible)} can't be opened", remedy)
    return Finding("cameras", "ok", ", ".join(devices))


def _models() -> Finding:
    from rtseg.inference.bundled_models import bundled_models

    names = ", ".join(bundled_models())
    if not names:
        return Finding("models", "broken", "none", "reinstall rtseg: its trained models are missing")
    return Finding("models", "ok", names)
