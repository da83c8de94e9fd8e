"""Test double of TensorRT, to build and run engines without a GPU.

`tensorrt(version)` has exactly the names of that version's Python API, as listed by benchmarks/tensorrt_surface.py from NVIDIA's
binding wheels. Its parser reads real ONNX; its engines compute `onnx_models.expected_scores` (or `expected_classes`) on memory that
`Cudart` owns.
"""

from __future__ import annotations

import enum
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda_runtime_double import Cudart
from onnx_models import expected_classes, expected_scores

SURFACE = json.loads((Path(__file__).parent / "data" / "tensorrt_surface.json").read_text())
VERSIONS = tuple(SURFACE)
_NUMPY_TYPES = {"UINT8": np.uint8, "HALF": np.float16, "FLOAT": np.float32}


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class IProgressMonitor:
    pass


def tensorrt(version: str, cudart: Cudart | None = None) -> Any:
    """Return a module with the names of one version of TensorRT."""
    present = set(SURFACE[version]["present"])
    major = int(version.split(".")[0])

    def members(name: str, names: str, start: int = 0) -> Any:
        known = [n for n in names.split() if n in present or n.startswith("_")]
        return enum.IntEnum(name, known, start=start)

    class Layer(SimpleNamespace):
        num_outputs = 1
        num_inputs = property(lambda self: len(self.inputs))

        def get_input(self, index: int) -> Any:
            return self.inputs[index]

        def get_output(self, index: int) -> Any:
            return self.outputs[index]

    module = SimpleNamespace(
        __version__=version,
        ILogger=ILogger,
        IProgressMonitor=IProgressMonitor,
        IConvolutionLayer=type("IConvolutionLayer", (Layer,), {}),
        IDeconvolutionLayer=type("IDeconvolutionLayer", (Layer,), {}),
        DataType=enum.Enum("DataType", ["FLOAT", "HALF", "UINT8", "INT64", "INT8", "INT32"]),
        LayerType=enum.Enum(
            "LayerType",
            ["CONSTANT", "CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "CAST", "QUANTIZE", "DEQUANTIZE"],
        ),
        BuilderFlag=members("BuilderFlag", "FP16 GPU_FALLBACK VERSION_COMPATIBLE"),
        NetworkDefinitionCreationFlag=members("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH STRONGLY_TYPED"),
        ProfilingVerbosity=members("ProfilingVerbosity", "DETAILED"),
        MemoryPoolType=members("MemoryPoolType", "WORKSPACE"),
        HardwareCompatibilityLevel=members("HardwareCompatibilityLevel", "_NONE AMPERE_PLUS"),
        DeviceType=members("DeviceType", "_GPU DLA"),
        LayerInformationFormat=members("LayerInformationFormat", "JSON"),
    )
    assert ("FP16" in module.BuilderFlag.__members__) == (major < 11)

    class Network:
        def __init__(self, flags: int) -> None:
            self.flags, self.layers = flags, []

        num_layers = property(lambda self: len(self.layers))

        def get_layer(self, index: int) -> Any:
            return self.layers[index]

    class OnnxParser:
        """Accepts every operator except `Erf` and those of other domains."""

        def __init__(self, network: Network, logger: Any) -> None:
            self._network, self._errors = network, []

        num_errors = property(lambda self: len(self._errors))

        def get_error(self, index: int) -> Any:
            return self._errors[index]

        def parse(self, model: bytes) -> bool:
            import onnx

            graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model), data_prop=True).graph

            def data_type(element: int) -> Any:
                return module.DataType[onnx.TensorProto.DataType.Name(element).replace("FLOAT16", "HALF")]

            tensors = {
                v.name: SimpleNamespace(
                    name=v.name,
                    dtype=data_type(v.type.tensor_type.elem_type),
                    shape=tuple(d.dim_value for d in v.type.tensor_type.shape.dim),
                )
                for v in (*graph.input, *graph.value_info, *graph.output)
            }
            weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
            for node in graph.node:
                to_uint8 = node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.UINT8
                floats = (module.DataType.FLOAT, module.DataType.HALF)
                if to_uint8 and tensors[node.input[0]].dtype not in floats:
                    raise AssertionError("TensorRT documents conversions to uint8 only for float32 and float16")
                if node.domain or node.op_type == "Erf":
                    self._errors.append(
                        SimpleNamespace(
                            node_operator=lambda n=node: n.op_type,
                            node_name=lambda n=node: n.name,
                            desc=lambda: "no importer\nregistered",
                        )
                    )
                    continue
                kinds = {"Conv": "CONVOLUTION", "QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE"}
                kind = module.LayerType[kinds.get(node.op_type, "CAST")]
                if node.op_type == "DequantizeLinear" and node.input[0] in weights:
                    weights[node.output[0]] = weights[node.input[0]]
                layer = Layer(
                    type=kind,
                    inputs=[tensors[i] for i in node.input if i in tensors],
                    outputs=[tensors[o] for o in node.output],
                )
                if node.op_type == "Conv":
                    layer.kernel_size_nd, layer.num_groups = weights[node.input[1]][2:], 1
                self._network.layers.append(layer)
            return not self._errors

    class Config:
        """Stores the build settings; refuses attributes that the version does not have."""

        def __init__(self) -> None:
            object.__setattr__(self, "settings", {})

        def __setattr__(self, name: str, value: Any) -> None:
            if name not in present:
                raise AttributeError(f"TensorRT {version} has no {name}")
            if name == "progress_monitor":
                object.__setattr__(self, name, value)
            else:
                self.settings[name] = getattr(value, "name", value)

        def set_flag(self, flag: Any) -> None:
            self.settings.setdefault("flags", []).append(flag.name)

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            self.settings[pool.name] = size

        def create_timing_cache(self, data: bytes) -> Any:
            return None if data == b"damaged" else SimpleNamespace(data=data)

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            assert ignore_mismatch is False
            if cache.data == b"of another GPU":
                return False
            self.settings["timing_cache"] = len(cache.data)
            return True

        def get_timing_cache(self) -> Any:
            return SimpleNamespace(serialize=lambda: b"measured") if "timing_cache" in self.settings else None

    class Builder:
        num_DLA_cores = 2  # noqa: N815 (TensorRT's own name)

        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def create_network(self, flags: int) -> Network:
            return Network(flags)

        def create_builder_config(self) -> Config:
            return Config()

        def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
            assert network.flags == 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED), (
                "without strong typing, precisions are only hints"
            )
            monitor = config.progress_monitor
            monitor.phase_start("Building engine", None, 4)
            for step in range(4):
                if not monitor.step_complete("Building engine", step):
                    self._logger.log(ILogger.Severity.ERROR, "canceled")
                    return None
            monitor.phase_finish("Building engine")
            self._logger.log(ILogger.Severity.WARNING, "a warning\nof two lines")
            tensors = {t.name: t for layer in network.layers for t in (*layer.inputs, *layer.outputs)}
            output = "classes" if "classes" in tensors else "scores"
            int8 = any(layer.type is module.LayerType.DEQUANTIZE for layer in network.layers)
            return json.dumps(
                {
                    "version": version,
                    "tensors": {name: (tensors[name].dtype.name, tensors[name].shape) for name in ("image", output)},
                    "settings": config.settings,
                    "int8": int8,
                }
            ).encode()

    class Engine:
        def __init__(self, plan: dict[str, Any]) -> None:
            self._tensors = plan["tensors"]
            self._input_type = "Int8" if plan["int8"] else "Half"

        num_io_tensors = 2

        def get_tensor_name(self, index: int) -> str:
            return list(self._tensors)[index]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(self._tensors[name][1])

        def get_tensor_dtype(self, name: str) -> Any:
            return module.DataType[self._tensors[name][0]]

        def create_execution_context(self) -> Any:
            return Context(self._tensors)

        def create_engine_inspector(self) -> Any:

            def tensor(kind: str) -> dict[str, str]:  # TensorRT 11 has separate keys
                return {"Format/Datatype": kind} if major < 11 else {"Format": "Row major linear", "DataType": kind}

            layers = {"Layers": [{"Name": "conv", "Inputs": [tensor(self._input_type)], "Outputs": [tensor("Half")]}]}
            return SimpleNamespace(get_engine_information=lambda layout: json.dumps(layers))

    class Context:
        def __init__(self, tensors: dict[str, tuple[str, list[int]]]) -> None:
            self._tensors, self._addresses, self._ran = tensors, {}, False

        def set_tensor_address(self, name: str, address: int) -> bool:
            self._addresses[name] = address
            return cudart is None or cudart.takes_addresses

        def execute_async_v3(self, stream: int) -> bool:
            assert cudart is not None
            assert self._ran or not cudart.is_capturing(stream), "the first run can't be captured"
            self._ran = True

            def memory(name: str) -> Any:
                dtype, shape = self._tensors[name]
                return cudart.view(self._addresses[name], tuple(shape), _NUMPY_TYPES[dtype])

            def compute() -> None:
                image, output = (memory(name) for name in self._tensors)
                output[:] = (expected_classes if "classes" in self._tensors else expected_scores)(image)

            return cudart.enqueue(stream, compute)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            if cudart is not None and not cudart.starts:
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self._logger = logger
            self.engine_host_code_allowed = False
            self.DLA_core = -1  # TensorRT's own name

        def deserialize_cuda_engine(self, data: bytes) -> Any:
            plan = json.loads(data)
            assert self.DLA_core == plan["settings"].get("DLA_core", -1), "the engine would run on another DLA core"
            lean = "VERSION_COMPATIBLE" in plan["settings"].get("flags", [])
            if (plan["version"] != version and not lean) or (lean and not self.engine_host_code_allowed):
                self._logger.log(
                    ILogger.Severity.ERROR, "The engine plan file is not compatible with this version of TensorRT"
                )
                return None
            return Engine(plan)

    module.Builder, module.OnnxParser, module.Runtime = Builder, OnnxParser, Runtime
    return module
