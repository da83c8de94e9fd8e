"""Backends for NVIDIA GPUs: TensorRT and TensorRT for RTX. Both packages have the same API.

The calls used are those that TensorRT 10.3, 10.16, 11.4 and TensorRT for RTX 1.7 share; see docs/engines.md.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import BackendError, EngineMismatch, ModelError
from rtseg.gpu.cuda import Cuda, GpuOutOfMemory
from rtseg.gpu.devices import Gpu, find_gpus
from rtseg.inference import check_images
from rtseg.inference.engine_metadata import check_engine, read_sidecar
from rtseg.inference.tensorrt_loader import import_tensorrt, make_logger, start
from rtseg.inference.tensorrt_stream import BoundContext, OutputTensor, StreamContext

_log = logging.getLogger("rtseg.inference")

STREAM_CONTEXTS = 2
"""Batches in flight: while one is computed, the next is uploaded. Each has its own stream, buffers and execution context."""

_DTYPES = {"HALF": np.float16, "FLOAT": np.float32, "UINT8": np.uint8}
"""NumPy's types by TensorRT's names."""


class TensorRtBackend:
    """A built engine on a GPU; implements `rtseg.inference.Backend`."""

    free_size = False
    """An engine is built for one size."""

    streams = 1
    """A batch uses the whole GPU."""

    def __init__(
        self, engine: Path, *, target: str = "tensorrt", size: tuple[int, int] | None = None, device: str | None = None
    ) -> None:
        """Check the sidecar, load the engine, allocate, and run it once.

        Args:
            engine: an engine file of `rtseg build`, with its sidecar next to it.
            target: `tensorrt` or `tensorrt-rtx`.
            size: requested (width, height); None: the engine's own. An engine has one size.
            device: `cuda:0`, `cuda:1` or only the number; None: the first GPU.

        Raises:
            BackendError: the package or the GPU is missing, or TensorRT or CUDA failed.
            EngineMismatch: the engine was built for another configuration; the message names it and the command that rebuilds it.
            ModelError: the file or its sidecar is missing or damaged.
        """
        if not engine.is_file():
            raise ModelError(f"no engine '{engine}'; `rtseg build` builds one")
        self.name = target
        trt = import_tensorrt(target)
        gpu = choose_gpu(device, target)
        sidecar = read_sidecar(engine)
        check_engine(engine, sidecar, target, trt.__version__, gpu, size)
        facts = sidecar.facts
        self.precision, self.input_size, self.batch = facts.precision, facts.input_size, facts.batch
        self.description = sidecar.description
        self.device = gpu.describe()
        self.gpu = gpu.index
        """CUDA device number of the GPU."""
        self._sidecar = sidecar
        self._lock = threading.Lock()
        self._cuda = Cuda(gpu.index)
        try:
            self._logger = make_logger(trt)
            self._runtime = start(trt.Runtime, self._logger, target)
            self._engine = self._deserialize(engine)
            self.output = self._output_tensor()
            """The engine's output."""
            self._stream_contexts = self._make_stream_contexts()
        except BaseException:
            self._cuda.close()
            raise

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Run the network on images, uint8 `[N, H, W, 3]`; see `Backend.infer`.

        More images than the engine's batch size alternate between the stream contexts, so that copies overlap computation.
        """
        check_images(images, self.input_size)
        outputs = np.empty((len(images), *self.output.shape[1:]), self.output.dtype)
        with self._lock:
            if not self._stream_contexts:
                raise BackendError("the engine was closed")
            self._cuda.make_current()
            for stream_context in self._stream_contexts:
                stream_context.rows = None  # left by a run that failed or was interrupted
            for number, begin in enumerate(range(0, len(images), self.batch)):
                stream_context = self._stream_contexts[number % len(self._stream_contexts)]
                stream_context.collect(outputs)
                stream_context.rows = slice(begin, min(begin + self.batch, len(images)))
                stream_context.host_images[: stream_context.rows.stop - begin] = images[stream_context.rows]
                stream_context.start()
            for stream_context in self._stream_contexts:
                stream_context.collect(outputs)
        return outputs

    def bind(self, image: int, output: int) -> BoundContext:
        """Return an execution context bound to device memory of the caller; several can run concurrently.

        Args:
            image: device address of uint8 `[batch, H, W, 3]`.
            output: device address of memory for `self.output`.

        Raises:
            GpuOutOfMemory: the GPU's memory is full.
            BackendError: TensorRT refuses the addresses.
        """
        context = self._engine.create_execution_context()
        if context is None:
            raise GpuOutOfMemory(
                f"TensorRT can't make an execution context ({self._logger.errors()}); is the GPU's memory full?"
            )
        for name, address in (("image", image), (self.output.name, output)):
            if not context.set_tensor_address(name, address):
                raise BackendError(f"TensorRT does not take the memory for '{name}': {self._logger.errors()}")
        return BoundContext(context, self._logger)

    def capture_graph(self, bound: BoundContext, stream: Any, enqueue: Callable[[], None]) -> Any:
        """Capture the work that `enqueue` puts on a stream, with a run of `bound` in it, as a CUDA graph.

        TensorRT finishes its setup in the first run, which must have ended.

        Returns:
            The graph for `cudaGraphLaunch`; None if this engine can't be captured and each run is enqueued call by call.
        """
        capturable = getattr(bound.context, "is_stream_capturable", None)  # only in TensorRT for RTX
        if capturable is not None and not capturable(int(stream)):
            return None
        graph = self._cuda.capture_graph(stream, enqueue)
        if graph is None:
            self._logger.lines.clear()
        return graph

    def measure(self, seconds: float, warmup_seconds: float) -> dict[str, list[float]]:
        """Measure single runs of the engine.

        Returns:
            Times in milliseconds: `h2d`, `compute` and `d2h` by CUDA events, as trtexec measures them, and `total`, the
            host's time of a whole run as in `infer`, with the CUDA graph.
        """
        times: dict[str, list[float]] = {"h2d": [], "compute": [], "d2h": [], "total": []}
        with self._lock:
            self._cuda.make_current()
            stream_context = self._stream_contexts[0]
            events = [self._cuda.create_timing_event() for _ in range(4)]
            begin = time.perf_counter()
            while (now := time.perf_counter()) - begin < warmup_seconds + seconds:
                stream_context.start()
                stream_context.wait()
                total_ms = (time.perf_counter() - now) * 1e3
                stream_context.enqueue(events)
                stream_context.wait()
                if now - begin >= warmup_seconds:
                    times["total"].append(total_ms)
                    for key, first, last in zip(("h2d", "compute", "d2h"), events, events[1:], strict=False):
                        times[key].append(float(self._cuda.call("cudaEventElapsedTime", first, last)))
        return times

    def layers(self) -> str:
        """Return the engine inspector's description of the layers, as JSON; detailed if the engine was built so."""
        trt = import_tensorrt(self.name)
        return str(self._engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Free contexts, engine and memory. May be called twice."""
        with self._lock:
            self._cuda.make_current_for_cleanup()
            self._stream_contexts = []
            self._engine = self._runtime = None
            self._cuda.close()

    def _deserialize(self, path: Path) -> Any:
        plan = path.read_bytes()
        if self._sidecar.facts.options.get("version_compatible"):
            # Such plans contain the runtime of the version that built them, which is host code.
            self._runtime.engine_host_code_allowed = True
        dla_core = self._sidecar.facts.options.get("dla_core")
        if dla_core is not None:
            self._runtime.DLA_core = dla_core
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineMismatch(
                f"TensorRT refuses {path.name} ({self._logger.errors()}); build it again: {self._sidecar.command}"
            )
        return engine

    def _output_tensor(self) -> OutputTensor:
        """Return the engine's output after checking its tensors against the sidecar."""
        model, (width, height) = self.description, self.input_size
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        actual = {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        scores = (self.batch, len(model.classes), *actual.get("scores", ())[2:])  # [h, w] is the network's choice
        shape = (self.batch, height, width) if model.output == "classes" else scores
        expected = {"image": (self.batch, height, width, 3), model.output: shape}
        if actual != expected:
            raise EngineMismatch(
                f"the engine has the tensors {actual}, not {expected}; build it again: {self._sidecar.command}"
            )
        dtype = np.dtype(_DTYPES[self._engine.get_tensor_dtype(model.output).name])
        return OutputTensor(model.output, shape, dtype)

    def _make_stream_contexts(self) -> list[StreamContext]:
        """Allocate up to `STREAM_CONTEXTS` stream contexts, fewer if the memory is full, but at least one."""
        stream_contexts = [self._make_stream_context()]
        while len(stream_contexts) < STREAM_CONTEXTS:
            try:
                with self._cuda.free_on_error():
                    stream_contexts.append(self._make_stream_context())
            except GpuOutOfMemory:
                self._logger.lines.clear()
                _log.warning(
                    "out of memory on %s for a second batch in flight; running one batch at a time", self.device
                )
                break
        return stream_contexts

    def _make_stream_context(self) -> StreamContext:
        width, height = self.input_size
        stream_context = StreamContext(self._cuda, (self.batch, height, width, 3), self.output, self.bind)
        stream_context.graph = self.capture_graph(stream_context.bound, stream_context.stream, stream_context.enqueue)
        return stream_context


def choose_gpu(device: str | None, target: str) -> Gpu:
    """Return the GPU of a `--device`: `cuda:0`, `cuda:1` or only the number; None: the first.

    Raises:
        BackendError: there is no such GPU.
    """
    gpus = find_gpus()
    if not gpus:
        raise BackendError(
            f"{target} needs an NVIDIA GPU, and the driver shows none; `rtseg doctor` shows what is missing"
        )
    number = (device or "0").removeprefix("cuda:")
    if not number.isdecimal() or int(number) >= len(gpus):
        raise BackendError(
            f"no GPU '{device}': there are {', '.join(f'cuda:{gpu.index} ({gpu.name})' for gpu in gpus)}"
        )
    return gpus[int(number)]
