"""Names of TensorRT's Python API by version, from the binding wheels on PyPI, which are small.

    python benchmarks/tensorrt_surface.py            # compares with tests/data/tensorrt_surface.json
    python benchmarks/tensorrt_surface.py --write    # writes that file

The bindings are compiled: a name of the Python API is in them as a C string. A linker may store a name as the end of a longer one
(`desc` in `..._desc`); such names count as present, and `exact` lists the names found as complete strings.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSIONS = {"10.3.0": "JetPack 6.2", "10.16.1.11": "JetPack 7.2", "11.4.0.106": "TensorRT 11"}

USED = """
Builder create_network create_builder_config build_serialized_network num_DLA_cores
NetworkDefinitionCreationFlag STRONGLY_TYPED
OnnxParser parse num_errors get_error node_name node_operator desc
num_layers get_layer num_inputs num_outputs get_output get_input name type
LayerType CONSTANT CONVOLUTION DECONVOLUTION MATRIX_MULTIPLY DEQUANTIZE
IConvolutionLayer IDeconvolutionLayer kernel_size_nd num_groups
dtype shape DataType HALF FLOAT
profiling_verbosity ProfilingVerbosity DETAILED
set_memory_pool_limit MemoryPoolType WORKSPACE builder_optimization_level
hardware_compatibility_level HardwareCompatibilityLevel AMPERE_PLUS
set_flag BuilderFlag VERSION_COMPATIBLE GPU_FALLBACK
default_device_type DeviceType DLA DLA_core
create_timing_cache set_timing_cache get_timing_cache serialize
progress_monitor IProgressMonitor phase_start step_complete phase_finish
ILogger log Severity WARNING
Runtime deserialize_cuda_engine engine_host_code_allowed
num_io_tensors get_tensor_name get_tensor_shape get_tensor_dtype create_execution_context create_engine_inspector
get_engine_information LayerInformationFormat JSON
set_tensor_address execute_async_v3
""".split()  # noqa: SIM905 (a list of this many literals is unreadable)
"""Names that rtseg uses."""

REMOVED = ["FP16", "EXPLICIT_BATCH", "PREFER_PRECISION_CONSTRAINTS", "platform_has_fast_fp16"]
"""Names that rtseg must not use: removed in TensorRT 11."""


def names_in(library: bytes) -> tuple[set[str], set[str]]:
    """Return the listed names found as complete strings, and those found at all."""
    strings = {text.decode() for text in re.findall(rb"(?<![\x20-\x7e])[\x20-\x7e]{2,200}(?=\0)", library)}
    names = {*USED, *REMOVED}
    exact = names & strings
    ends = {name for name in names if any(text.endswith(name) for text in strings)}
    return exact, exact | ends


def surface(version: str, folder: Path) -> dict[str, list[str]]:
    """Return the names of one version, whose wheel pip downloads."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(folder),
    ]
    subprocess.run([*command, "--python-version", "3.10", f"tensorrt-cu12-bindings=={version}"], check=True)
    wheel = next(folder.glob(f"tensorrt_cu12_bindings-{version}-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        library = archive.read("tensorrt_bindings/tensorrt.so")
    exact, present = names_in(library)
    return {"present": sorted(present), "exact": sorted(exact), "absent": sorted({*USED, *REMOVED} - present)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file instead of comparing with it")
    write = parser.parse_args().write
    file = Path(__file__).parents[1] / "tests" / "data" / "tensorrt_surface.json"
    with tempfile.TemporaryDirectory() as folder:
        surfaces = {version: {"platform": VERSIONS[version], **surface(version, Path(folder))} for version in VERSIONS}
    for version, names in surfaces.items():
        absent = ", ".join(names["absent"]) or "none"
        print(f"{version} ({names['platform']}): {len(names['present'])} names present, absent: {absent}")
    text = json.dumps(surfaces, indent=1) + "\n"
    if write:
        file.write_text(text, encoding="utf-8")
    elif file.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{file} differs; check the difference, then --write")


if __name__ == "__main__":
    main()
