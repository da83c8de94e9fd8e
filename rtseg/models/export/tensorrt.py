"""From an ONNX model of the contract to a TensorRT plan. TensorRT 10.3 to 11.x and TensorRT for RTX take the same road.

The network is parsed as strongly typed: every layer computes in the precision that the ONNX graph gives it. TensorRT 11 has no
other way any more, and 10.x behaves the same under this flag, so no precision flag exists here that could be ignored.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rtseg.core.errors import BackendError, ModelError, OptionError, SinkError
from rtseg.gpu.devices import Gpu, find_gpus
from rtseg.inference.tensorrt_loader import import_tensorrt, make_logger
from rtseg.models.export.precision import Share, count_share
from rtseg.models.export.tensorrt_progress import BuildProgress


@dataclass(frozen=True)
class EngineOptions:
    """What TensorRT is told beside the network. The defaults are TensorRT's own."""

    workspace_mib: int | None = None
    """Most memory that one layer may use while it computes, MiB; None: all there is."""

    optimization_level: int | None = None
    """0 (quick build) to 5 (slow build); None: TensorRT's default, 3."""

    hardware_compatible: bool = False
    """The engine runs on every GPU from Ampere on, a little slower. TensorRT alone."""

    version_compatible: bool = False
    """The engine runs on later versions of the same TensorRT. TensorRT alone."""

    compute_capability: str | None = None
    """TensorRT for RTX alone: build for this one, such as `8.6`; None: portable."""

    dla_core: int | None = None
    """TensorRT on a Jetson that has one: run on this deep learning accelerator, and what it can't do on the GPU."""

    def chosen(self) -> dict[str, Any]:
        """Those that are not default, for the sidecar."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def arguments(self) -> str:
        """As `rtseg build` takes them on its command line, with a leading space each."""
        words = {"workspace_mib": "workspace", "dla_core": "dla"}
        parts = []
        for name, value in asdict(self).items():
            option = "--" + words.get(name, name).replace("_", "-")
            parts += [f" {option}"] if value is True else [f" {option} {value}"] if value not in (None, False) else []
        return "".join(parts)


@dataclass(frozen=True)
class EngineTarget:
    """Where the engine will run, as far as it is tied to that."""

    tool: str
    """Version of the package."""

    tag: str
    """In file names: `sm87-trt10.3` or `portable-rtx1.7`."""

    gpu: str
    """Name of the GPU that it is tuned on; empty: none."""

    capabilities: tuple[str, ...]
    """As in `EngineFacts.capabilities`."""


@dataclass(frozen=True)
class Plan:
    """What a build gives."""

    data: bytes
    """The plan, as it goes into the file."""

    share: Share
    """Counted on the parsed network."""

    warnings: tuple[str, ...]
    """What TensorRT warned of."""


def resolve_engine_target(target: str, options: EngineOptions) -> EngineTarget:
    """Where an engine of this target and these options will run.

    Raises:
        BackendError: the package is missing, or TensorRT has no GPU to build on.
        OptionError: options that do not go together, or a compute capability that can't be named.
    """
    trt = import_tensorrt(target)
    short = ".".join(trt.__version__.split(".")[:2])
    if target == "tensorrt-rtx":
        for name in ("hardware_compatible", "version_compatible", "dla_core"):
            if getattr(options, name) not in (None, False):
                option = name.replace("_", "-").removesuffix("-core")
                raise OptionError(
                    f"--{option} is for --target tensorrt; those of tensorrt-rtx are portable as they are"
                )
        if options.compute_capability is None:
            return EngineTarget(trt.__version__, f"portable-rtx{short}", "", ())
        _capability(trt, options.compute_capability)
        return EngineTarget(
            trt.__version__,
            f"sm{options.compute_capability.replace('.', '')}-rtx{short}",
            "",
            (options.compute_capability,),
        )
    if options.compute_capability is not None:
        raise OptionError("TensorRT builds for the GPU it runs on; --compute-capability is for --target tensorrt-rtx")
    gpu = _gpu_for_building()
    if options.hardware_compatible:
        return EngineTarget(trt.__version__, f"ampere-trt{short}", "", ("8.0+",))
    dla = f"-dla{options.dla_core}" if options.dla_core is not None else ""
    return EngineTarget(trt.__version__, f"{gpu.sm}{dla}-trt{short}", gpu.name, (f"{gpu.capability[0]}.{gpu.capability[1]}",))


def build_plan(
    model: bytes, target: str, options: EngineOptions, *, timing_cache: Path | None = None, quiet: bool = False
) -> Plan:
    """Parses and builds.

    Args:
        model: an ONNX file of the contract, its input's shape fixed.
        target: `tensorrt` or `tensorrt-rtx`.
        options: what TensorRT is told.
        timing_cache: measured times of kernels, read and written, which make the next build quicker; TensorRT alone.
        quiet: no progress.

    Raises:
        BackendError: TensorRT is missing or failed; the message has its own words.
        ModelError: the model has operators that TensorRT does not know; they are named with their nodes.
        OptionError: the installed version lacks what an option asks for.
    """
    trt = import_tensorrt(target)
    logger = make_logger(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # pybind11's word for a factory that gave nothing
        raise BackendError(
            f"{target} can't start ({logger.errors()}); `rtseg doctor` looks at GPU and driver"
        ) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parse(trt, network, logger, model)
    config = builder.create_builder_config()
    _configure(trt, builder, config, options)
    cache = None
    if (
        target == "tensorrt" and timing_cache is not None
    ):  # in TensorRT for RTX timing caches do nothing and are deprecated
        kept = timing_cache.read_bytes() if timing_cache.is_file() else b""
        cache = config.create_timing_cache(kept)
        if cache is None or not config.set_timing_cache(cache, False):  # damaged, or of another GPU of this capability
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
    with BuildProgress(trt, quiet) as monitor:
        config.progress_monitor = monitor.monitor
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError(f"{target} can't build the engine: {logger.errors()}")
    if cache is not None and timing_cache is not None:
        _keep(timing_cache, bytes(memoryview(config.get_timing_cache().serialize())))
    warnings = tuple(dict.fromkeys(" ".join(text.split()) for kind, text in logger.lines if kind == "warning"))
    return Plan(bytes(memoryview(plan)), count_share(trt, network), warnings)


def parse(trt: Any, network: Any, logger: Any, model: bytes) -> None:
    """Fills a network from ONNX; raises ModelError that names each node that TensorRT can't take."""
    parser = trt.OnnxParser(network, logger)
    if parser.parse(model):
        return
    problems = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        operator, name = error.node_operator(), error.node_name()
        where = f"operator {operator} (node '{name}')" if operator else "the model"
        problems.append(f"{where}: {' '.join(error.desc().split())[:200]}")
    raise ModelError(f"TensorRT can't take {'; '.join(dict.fromkeys(problems)) or logger.errors()}")


def _configure(trt: Any, builder: Any, config: Any, options: EngineOptions) -> None:
    config.profiling_verbosity = (
        trt.ProfilingVerbosity.DETAILED
    )  # so that the inspector can tell each layer's precision
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
                f"--dla {options.dla_core}: TensorRT {trt.__version__} shows {cores} such accelerators here; leave --dla out"
            )
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _capability(trt: Any, text: str) -> Any:
    """The compute capability's value in TensorRT for RTX's own list."""
    known = {
        name.removeprefix("SM"): value
        for name, value in trt.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    if text.replace(".", "") not in known or "." not in text:
        names = ", ".join(f"{digits[:-1]}.{digits[-1]}" for digits in sorted(known, key=int))
        raise OptionError(
            f"TensorRT for RTX {trt.__version__} can't build for compute capability '{text}': it names {names}; "
            "without it the engine is portable"
        )
    return known[text.replace(".", "")]


def _gpu_for_building() -> Gpu:
    gpus = find_gpus()
    if not gpus:
        raise BackendError(
            "TensorRT builds on the GPU that will run the engine, and the driver shows none; `rtseg doctor` says what is missing, "
            "and --target tensorrt-rtx, openvino and onnx build without one"
        )
    return gpus[0]


def _keep(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SinkError(f"the timing cache '{path}' can't be written: {error.strerror}") from error
