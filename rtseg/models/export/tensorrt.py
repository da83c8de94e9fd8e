"""Build of a TensorRT plan from an ONNX model of the contract, with one code path for TensorRT 10.3 to 11.x and for RTX.

The network is parsed as strongly typed: each layer computes in the precision that the ONNX graph gives it. TensorRT 11 has only
this mode, and 10.x behaves the same with this flag. So there are no precision flags that TensorRT could ignore.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtseg.core.errors import BackendError, ModelError, OptionError
from rtseg.core.files import write_whole
from rtseg.core.progress import Progress, track_percent
from rtseg.gpu.devices import Gpu, find_gpus
from rtseg.inference.tensorrt_loader import import_tensorrt, make_logger, start
from rtseg.models.export.precision import PrecisionShare, count_share


@dataclass(frozen=True)
class EngineOptions:
    """TensorRT's build options. The defaults are those of TensorRT."""

    workspace_mib: int | None = None
    """Maximum workspace memory of a layer, MiB; None: all available memory."""

    optimization_level: int | None = None
    """0 (quick build) to 5 (slow build); None: TensorRT's default, 3."""

    hardware_compatible: bool = False
    """Build an engine for all GPUs since Ampere, which is slightly slower. Only for TensorRT."""

    version_compatible: bool = False
    """Build an engine that also runs on later versions of the same major TensorRT. Only for TensorRT."""

    compute_capability: str | None = None
    """Build for this compute capability, such as `8.6`; None: portable. Only for TensorRT for RTX."""

    dla_core: int | None = None
    """Run on this deep learning accelerator, with unsupported layers on the GPU. Only for TensorRT on a Jetson with DLA."""


@dataclass(frozen=True)
class EngineTarget:
    """Hardware and runtime version that a built file is limited to."""

    tool: str
    """Version of the compiler's package."""

    tag: str
    """Part of the file name, such as `sm87-trt10.3` or `portable-rtx1.7`."""

    gpu: str
    """Name of the GPU that the engine is tuned on; empty if none."""

    capabilities: tuple[str, ...]
    """Compute capabilities; see `EngineFacts.capabilities`."""


def resolve_engine_target(target: str, options: EngineOptions) -> EngineTarget:
    """Return the hardware and version that an engine of this target and these options will be limited to.

    Raises:
        BackendError: the package is missing, or TensorRT has no GPU to build on.
        OptionError: an option is not for this target, or the compute capability is unknown.
    """
    trt = import_tensorrt(target)
    short = ".".join(trt.__version__.split(".")[:2])
    if target == "tensorrt-rtx":
        for name in ("hardware_compatible", "version_compatible", "dla_core"):
            if getattr(options, name) not in (None, False):
                option = name.replace("_", "-").removesuffix("-core")
                raise OptionError(
                    f"--{option} is for --target tensorrt; engines of tensorrt-rtx are portable without it"
                )
        capability = options.compute_capability
        if capability is None:
            return EngineTarget(trt.__version__, f"portable-rtx{short}", "", ())
        _capability(trt, capability)
        return EngineTarget(trt.__version__, f"sm{capability.replace('.', '')}-rtx{short}", "", (capability,))
    if options.compute_capability is not None:
        raise OptionError("TensorRT builds for the GPU it runs on; --compute-capability is for --target tensorrt-rtx")
    gpu = _gpu_for_building()
    if options.hardware_compatible:
        return EngineTarget(trt.__version__, f"ampere-trt{short}", "", ("8.0+",))
    dla = f"-dla{options.dla_core}" if options.dla_core is not None else ""
    major, minor = gpu.capability
    return EngineTarget(trt.__version__, f"{gpu.sm}{dla}-trt{short}", gpu.name, (f"{major}.{minor}",))


def build_plan(
    model: bytes, target: str, options: EngineOptions, timing_cache: Path, progress: Progress | None
) -> tuple[bytes, PrecisionShare, tuple[str, ...]]:
    """Build a plan from a serialized ONNX model of the contract with a fixed input shape.

    TensorRT reads and writes the file `timing_cache`, which makes later builds faster; TensorRT for RTX has none. `progress`
    receives percent.

    Returns:
        The serialized plan, the precision of the parsed network, and warnings of TensorRT.

    Raises:
        BackendError: TensorRT is missing or failed; the message contains TensorRT's messages.
        ModelError: TensorRT does not support operators of the model; the message names them and their nodes.
        OptionError: the installed TensorRT does not support an option.
    """
    trt = import_tensorrt(target)
    logger = make_logger(trt)
    builder = start(trt.Builder, logger, target)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parse(trt, network, logger, model)
    config = builder.create_builder_config()
    _configure(trt, builder, config, options)
    cache = None
    # In TensorRT for RTX, timing caches have no effect and are deprecated.
    if target == "tensorrt":
        stored = timing_cache.read_bytes() if timing_cache.is_file() else b""
        cache = config.create_timing_cache(stored)
        if cache is None or not config.set_timing_cache(cache, False):  # damaged, or of another GPU of this capability
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
    with track_percent(progress, "building the engine") as update:
        monitor = _progress_monitor(trt, update)
        config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    if monitor.exception is not None:
        raise monitor.exception
    if plan is None:
        raise BackendError(f"{target} can't build the engine: {logger.errors()}")
    if cache is not None:
        write_whole(timing_cache, bytes(memoryview(config.get_timing_cache().serialize())))
    warnings = tuple(dict.fromkeys(" ".join(text.split()) for kind, text in logger.lines if kind == "warning"))
    return bytes(memoryview(plan)), count_share(trt, network), warnings


def parse(trt: Any, network: Any, logger: Any, model: bytes) -> None:
    """Parse an ONNX model into a network.

    Raises:
        ModelError: TensorRT does not support the model; the message names each such node.
    """
    parser = trt.OnnxParser(network, logger)
    if parser.parse(model):
        return
    problems = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        operator, name = error.node_operator(), error.node_name()
        where = f"operator {operator} (node '{name}')" if operator else "the model"
        problems.append(f"{where}: {' '.join(error.desc().split())[:200]}")
    raise ModelError(f"TensorRT can't parse {'; '.join(dict.fromkeys(problems)) or logger.errors()}")


def _configure(trt: Any, builder: Any, config: Any, options: EngineOptions) -> None:
    # The inspector then reports the precision of each layer.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.compute_capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capability(trt, options.compute_capability), 0)
    if options.dla_core is not None:
        cores = builder.num_DLA_cores
        if options.dla_core >= cores:
            raise OptionError(
                f"--dla {options.dla_core}: TensorRT {trt.__version__} detects {cores} DLA cores here; leave --dla out"
            )
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _capability(trt: Any, text: str) -> Any:
    """Return the value of a compute capability in TensorRT for RTX's enumeration."""
    known = {
        name.removeprefix("SM"): value
        for name, value in trt.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    if text.replace(".", "") not in known or "." not in text:
        names = ", ".join(f"{digits[:-1]}.{digits[-1]}" for digits in sorted(known, key=int))
        raise OptionError(
            f"TensorRT for RTX {trt.__version__} can't build for compute capability '{text}': it supports {names}; "
            "without it the engine is portable"
        )
    return known[text.replace(".", "")]


def _gpu_for_building() -> Gpu:
    gpus = find_gpus()
    if not gpus:
        raise BackendError(
            "TensorRT builds on the GPU that will run the engine, and no GPU was detected; `rtseg doctor` shows what is missing, "
            "and --target tensorrt-rtx, openvino and onnx build without a GPU"
        )
    return gpus[0]


def _progress_monitor(trt: Any, update: Callable[[float], None]) -> Any:
    """Return a progress monitor of TensorRT that calls `update` with the completed share of the build, 0 to 1.

    Phases are nested: each is one step of its parent phase. TensorRT calls the monitor from its own threads, and exceptions must
    not reach it: one of `update`, such as KeyboardInterrupt, cancels the build and is the monitor's `exception` after it.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.exception: BaseException | None = None
            self._phases: dict[str, tuple[str | None, int, int]] = {}  # parent, number of steps, completed steps

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = (parent_phase, max(1, num_steps), 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                if phase_name in self._phases:
                    parent, steps, _ = self._phases[phase_name]
                    self._phases[phase_name] = (parent, steps, step + 1)
                    update(self._completed())
            except BaseException as error:
                self.exception = error
            return self.exception is None and not sys.is_finalizing()

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

        def _completed(self) -> float:
            """Return the completed share of the outermost phase, 0 to 1, including the steps of nested phases."""
            completed = 0.0
            for parent, steps, step in list(self._phases.values()):
                weight = min(1.0, step / steps)
                while parent in self._phases:
                    parent, parent_steps, _ = self._phases[parent]
                    weight /= parent_steps
                completed += weight
            return min(1.0, completed)

    return Monitor()
