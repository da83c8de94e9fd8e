"""Compiles kernels.cu to kernels.ptx with NVRTC: `make kernels`, for who changes the kernels.

PTX runs on every later card: the driver makes machine code of it when it is loaded. NVRTC 12.0 writes PTX that drivers from
525 on read (CUDA 12.0), JetPack 6's among them.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import sys
from importlib import metadata
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.cu")
PTX = Path(__file__).with_name("kernels.ptx")
ARCHITECTURE = "compute_70"
"""Volta, the oldest that any TensorRT 10 ran on."""

PACKAGE, VERSION = "nvidia-cuda-nvrtc-cu12", "12.0.140"


def source_mark() -> str:
    """The first line of the PTX: which source it was made of."""
    return f"// of kernels.cu, SHA-256 {hashlib.sha256(SOURCE.read_bytes()).hexdigest()}"


def compiled() -> str:
    """The PTX of kernels.cu.

    NVRTC changes the locale of the process that it runs in.

    Raises:
        RuntimeError: NVRTC of this version is not installed, or it refuses the source.
    """
    nvrtc = ctypes.CDLL(str(_library()))

    def call(name: str, *arguments: object) -> None:
        error = getattr(nvrtc, name)(*arguments)
        if error and name != "nvrtcCompileProgram":
            raise RuntimeError(f"{name} failed with {error}")
        if error:
            raise RuntimeError(f"NVRTC refuses {SOURCE.name}:\n{_text(nvrtc, 'ProgramLog', program)}")

    program = ctypes.c_void_p()
    call("nvrtcCreateProgram", ctypes.byref(program), SOURCE.read_bytes(), SOURCE.name.encode(), 0, None, None)
    options = [f"--gpu-architecture={ARCHITECTURE}".encode()]
    call("nvrtcCompileProgram", program, len(options), (ctypes.c_char_p * len(options))(*options))
    text = _text(nvrtc, "PTX", program)
    # Comments hold NVIDIA's banner and build numbers, and an empty line each.
    code = "\n".join(line.rstrip() for line in re.sub(r"//[^\n]*", "", text).splitlines() if line.strip())
    return f"{source_mark()}\n{code}\n"


def _library() -> Path:
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise RuntimeError(f"NVRTC is not installed: pip install {PACKAGE}=={VERSION}") from None
    if package.version != VERSION:
        raise RuntimeError(
            f"NVRTC is {package.version}; the PTX is made by {VERSION}: pip install {PACKAGE}=={VERSION}"
        )
    files = [Path(str(package.locate_file(file))) for file in package.files or ()]
    return next(file for file in files if file.name.startswith("libnvrtc.so"))


def _text(nvrtc: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return buffer.value.decode()


if __name__ == "__main__":
    try:
        PTX.write_text(compiled())
    except RuntimeError as error:
        sys.exit(f"rtseg: {error}")
