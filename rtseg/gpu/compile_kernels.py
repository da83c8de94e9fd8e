"""Compilation of kernels.cu to kernels.ptx with NVRTC: `make kernels`, needed after a change of the kernels.

PTX runs on every later GPU: the driver compiles it to machine code when it loads it. Drivers from version 525 on (CUDA 12.0)
read the PTX of NVRTC 12.0; JetPack 6's driver is one of them.
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
"""Volta, the oldest architecture that any TensorRT 10 supports."""

PACKAGE, VERSION = "nvidia-cuda-nvrtc-cu12", "12.0.140"


def source_mark() -> str:
    """Return the first line of the PTX: the hash of its source."""
    return f"// of kernels.cu, SHA-256 {hashlib.sha256(SOURCE.read_bytes()).hexdigest()}"


def compile_ptx() -> str:
    """Return the PTX of kernels.cu. NVRTC changes the locale of the calling process.

    Raises:
        RuntimeError: this version of NVRTC is not installed, or the source does not compile.
    """
    nvrtc, program = ctypes.CDLL(str(_library())), ctypes.c_void_p()
    option = ctypes.c_char_p(f"--gpu-architecture={ARCHITECTURE}".encode())
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), SOURCE.read_bytes(), SOURCE.name.encode(), 0, None, None)
    if nvrtc.nvrtcCompileProgram(program, 1, ctypes.byref(option)) != 0:
        raise RuntimeError(f"NVRTC refuses {SOURCE.name}:\n{_read_output(nvrtc, 'ProgramLog', program)}")
    text = _read_output(nvrtc, "PTX", program)
    # NVRTC's comments contain NVIDIA's banner and build numbers; each leaves an empty line.
    code = "\n".join(line.rstrip() for line in re.sub(r"//[^\n]*", "", text).splitlines() if line.strip())
    return f"{source_mark()}\n{code}\n"


def _library() -> Path:
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise RuntimeError(f"NVRTC is not installed: pip install {PACKAGE}=={VERSION}") from None
    if package.version != VERSION:
        raise RuntimeError(f"NVRTC is {package.version}; the PTX needs {VERSION}: pip install {PACKAGE}=={VERSION}")
    files = [Path(str(package.locate_file(file))) for file in package.files or ()]
    return next(file for file in files if file.name.startswith("libnvrtc.so"))


def _read_output(nvrtc: ctypes.CDLL, kind: str, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{kind}")(program, buffer)
    return buffer.value.decode()


if __name__ == "__main__":
    try:
        PTX.write_text(compile_ptx())
    except RuntimeError as error:
        sys.exit(f"rtseg: {error}")
