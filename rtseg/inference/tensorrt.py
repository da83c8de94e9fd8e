"""TensorRT and TensorRT for RTX: the backends for NVIDIA GPUs. Both packages have one API; the code is the same.

The calls used are those that TensorRT 10.3, 10.16, 11.4 and TensorRT for RTX 1.7 share; see docs/engines.md.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import BackendError, EngineMismatch, ModelError
from rtseg.core.model_info import ModelInfo
from rtseg.gpu.cuda import Cuda, NoMemory
from rtseg.gpu.devices import find_gpus, platform_name
from rtseg.inference import check_images
from rtseg.inference.engine_metadata import check_engine, read_sidecar
from rtseg.inference.tensorrt_loader import import_tensorrt, make_logger, start_runtime

_log = logging.getLogger("rtseg.inference")

STREAM_CONTEXTS = 2
"""While one batch computes, the next is copied in: each slot has its own stream, buffers and execution context."""


@dataclass(frozen=True)
class Run:
    """An execution context over memory that it was given; for one run at a time."""

    context: Any
    logger: Any

    def enqueue(self, stream: Any) -> None:
        """Puts one run on a stream.

        Raises:
            BackendError: TensorRT failed.
        """
        if not self.context.execute_async_v3(int(stream)):
            raise BackendError(f"TensorRT failed while computing: {self.logger.errors()}")


@dataclass
class _StreamContext:
    """One batch on its way: its memory on both sides, its stream, and the recorded run if it could be recorded."""

    run: Run
    stream: Any
    host_images: npt.NDArray[np.uint8]
    host_classes: npt.NDArray[np.uint8]
    device_images: int
    device_classes: int
    graph: Any = None
    rows: slice | None = None


class TensorRtBackend:
    """A built engine on a GPU."""

    def __init__(
        self, engine: Path, *, target: str = "tensorrt", size: tuple[int, int] | None = None, device: str | None = None
    ) -> None:
        """Checks the sidecar, loads the engine, allocates, and runs it once.

        Args:
            engine: an engine file made by `rtseg build`, its sidecar beside it.
            target: `tensorrt` or `tensorrt-rtx`.
            size: (width, height) that is asked for; None: the engine's own. An engine has one size.
            device: `cuda:0`, `cuda:1` or just the number; None: the first GPU.

        Raises:
            BackendError: the package or the GPU is missing, or TensorRT or CUDA failed.
            EngineMismatch: the engine was built for something else; the message says what and how to build it again.
            ModelError: the file or its sidecar is missing or damaged.
        """
        if not engine.is_file():
            raise ModelError(f"no engine '{engine}'; `rtseg build` makes one")
        self.name = target
        trt = import_tensorrt(target)
        gpu = _choose_gpu(device, target)
        sidecar = read_sidecar(engine)
        check_engine(
            engine,
            sidecar,
            target=target,
            tool=trt.__version__,
            platform=platform_name(),
            capability=gpu.capability,
            size=size,
        )
        self._sidecar = sidecar
        self._device = f"{gpu.name}, compute capability {gpu.capability[0]}.{gpu.capability[1]}"
        self._gpu: int = gpu.index
        self._lock = threading.Lock()
        self._cuda = Cuda(gpu.index)
        try:
            self._logger = make_logger(trt)
            self._runtime = start_runtime(trt, self._logger, target)
            self._engine = self._deserialize(engine)
            self._check_tensors()
            self._stream_contexts = self._make_stream_contexts()
        except BaseException:
            self._cuda.close()
            raise

    @property
    def device(self) -> str:
        """The GPU's name and compute capability."""
        return self._device

    @property
    def precision(self) -> str:
        """`fp16`, `fp32` or `int8`, as proven when the engine was built."""
        return self._sidecar.facts.precision

    @property
    def description(self) -> ModelInfo:
        """What the model says of itself."""
        return self._sidecar.description

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the input."""
        return self._sidecar.facts.input_size

    @property
    def gpu(self) -> int:
        """Number of the GPU, as CUDA counts."""
        return self._gpu

    @property
    def uses_cuda_graph(self) -> bool:
        """Whether a run is one launch of a recorded CUDA graph; not every engine can be recorded."""
        return bool(self._stream_contexts) and self._stream_contexts[0].graph is not None

    @property
    def free_size(self) -> bool:
        """False: an engine is built for one size."""
        return False

    @property
    def streams(self) -> int:
        """1: a batch uses the whole GPU."""
        return 1

    @property
    def batch(self) -> int:
        """The batch that the engine was built for; `rtseg build --batch` sets it."""
        return self._sidecar.facts.batch

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Class maps, uint8 `[N, H, W]`, of pictures uint8 `[N, H, W, 3]`; see `Backend.infer`.

        More pictures than the engine's batch go through the slots in turn, copies beside computation.
        """
        check_images(images, self.input_size)
        answers = np.empty(images.shape[:3], dtype=np.uint8)
        batch = self._sidecar.facts.batch
        with self._lock:
            if not self._stream_contexts:
                raise BackendError("the engine was closed")
            self._cuda.use()
            for stream_context in self._stream_contexts:
                stream_context.rows = None  # left by a run that failed or was interrupted half-way
            for number, begin in enumerate(range(0, len(images), batch)):
                stream_context = self._stream_contexts[number % len(self._stream_contexts)]
                self._collect(stream_context, answers)
                stream_context.rows = slice(begin, min(begin + batch, len(images)))
                stream_context.host_images[: stream_context.rows.stop - begin] = images[stream_context.rows]
                self._start(stream_context)
            for stream_context in self._stream_contexts:
                self._collect(stream_context, answers)
        return answers

    def use_gpu(self) -> None:
        """Makes the GPU's context current in this thread."""
        self._cuda.use()

    def over(self, image: int, classes: int) -> Run:
        """The engine over device memory of the caller's own; any number of these run beside each other.

        Args:
            image: device address of uint8 `[batch, H, W, 3]`.
            classes: device address of uint8 `[batch, H, W]`.

        Raises:
            NoMemory: no room for what the engine needs.
            BackendError: TensorRT does not take the memory.
        """
        context = self._engine.create_execution_context()
        if context is None:
            raise NoMemory(
                f"TensorRT can't make an execution context ({self._logger.errors()}); is the GPU's memory full?"
            )
        for name, address in (("image", image), ("classes", classes)):
            if not context.set_tensor_address(name, address):
                raise BackendError(f"TensorRT does not take the memory for '{name}': {self._logger.errors()}")
        return Run(context, self._logger)

    def record(self, run: Run, stream: Any, work: Callable[[], None]) -> Any:
        """What `work`, `run` within it, puts on a stream, as a CUDA graph for `cudaGraphLaunch`.

        TensorRT finishes its set-up in the first run, which must be over.

        Returns:
            The graph; None if this engine can't be recorded: then each run is enqueued call by call.
        """
        capturable = getattr(run.context, "is_stream_capturable", None)  # TensorRT for RTX alone has it
        if capturable is not None and not capturable(int(stream)):
            return None
        graph = self._cuda.recorded(stream, work)
        if graph is None:
            self._logger.lines.clear()
        return graph

    def measure(self, seconds: float = 3.0, warmup_seconds: float = 0.2) -> dict[str, list[float]]:
        """Times of single runs of the engine, milliseconds by CUDA events, as trtexec takes them: `h2d`, `compute`, `d2h`,
        and `total`, which is the host's time of the whole run as `infer` does it (CUDA graph included)."""
        times: dict[str, list[float]] = {"h2d": [], "compute": [], "d2h": [], "total": []}
        with self._lock:
            self._cuda.use()
            stream_context = self._stream_contexts[0]
            marks = [self._cuda.event() for _ in range(4)]
            begin = time.perf_counter()
            while (now := time.perf_counter()) - begin < warmup_seconds + seconds:
                self._start(stream_context)
                self._wait(stream_context)
                total = (time.perf_counter() - now) * 1e3
                self._enqueue(stream_context, marks)
                self._wait(stream_context)
                if now - begin >= warmup_seconds:
                    times["total"].append(total)
                    for key, first, last in zip(("h2d", "compute", "d2h"), marks, marks[1:], strict=False):
                        times[key].append(float(self._cuda.call("cudaEventElapsedTime", first, last)))
        return times

    def layers(self) -> str:
        """What TensorRT's engine inspector tells of each layer, as JSON; detailed if the engine was built so."""
        trt = import_tensorrt(self.name)
        return str(self._engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Gives back contexts, engine and memory."""
        with self._lock:
            self._cuda.use_again()
            self._stream_contexts = []
            self._engine = self._runtime = None
            self._cuda.close()

    def _deserialize(self, path: Path) -> Any:
        plan = path.read_bytes()
        if self._sidecar.facts.options.get("version_compatible"):
            # Such plans carry the run-time of the version that built them, which is host code.
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

    def _check_tensors(self) -> None:
        facts = self._sidecar.facts
        width, height = facts.input_size
        wanted = {"image": (facts.batch, height, width, 3), "classes": (facts.batch, height, width)}
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        found = {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        if found != wanted:
            raise EngineMismatch(
                f"the engine has the tensors {found}, not {wanted}; build it again: {self._sidecar.command}"
            )

    def _make_stream_contexts(self) -> list[_StreamContext]:
        """As many as there is memory for: one at least, and then each batch waits for the one before."""
        stream_contexts = [self._make_stream_context()]
        while len(stream_contexts) < STREAM_CONTEXTS:
            try:
                with self._cuda.all_or_nothing():
                    stream_contexts.append(self._make_stream_context())
            except NoMemory:
                self._logger.lines.clear()
                _log.warning(
                    "out of memory on %s for a second batch in flight; running one batch at a time", self._device
                )
                break
        return stream_contexts

    def _make_stream_context(self) -> _StreamContext:
        facts = self._sidecar.facts
        width, height = facts.input_size
        host_images = self._cuda.pinned_array((facts.batch, height, width, 3))
        host_classes = self._cuda.pinned_array((facts.batch, height, width))
        device_images = self._cuda.device_buffer(host_images.nbytes)
        device_classes = self._cuda.device_buffer(host_classes.nbytes)
        stream_context = _StreamContext(
            run=self.over(device_images, device_classes),
            stream=self._cuda.stream(),
            host_images=host_images,
            host_classes=host_classes,
            device_images=device_images,
            device_classes=device_classes,
        )
        self._enqueue(
            stream_context
        )  # TensorRT finishes its set-up in the first run, which therefore can't be recorded
        self._wait(stream_context)
        stream_context.graph = self.record(
            stream_context.run, stream_context.stream, lambda: self._enqueue(stream_context)
        )
        return stream_context

    def _start(self, stream_context: _StreamContext) -> None:
        if stream_context.graph is not None:
            self._cuda.call("cudaGraphLaunch", stream_context.graph, stream_context.stream)
        else:
            self._enqueue(stream_context)

    def _enqueue(self, stream_context: _StreamContext, marks: list[Any] | None = None) -> None:
        """Puts copy, computation and copy on the stream, with an event before, between and after where `marks` gives four."""

        def mark(number: int) -> None:
            if marks:
                self._cuda.call("cudaEventRecord", marks[number], stream_context.stream)

        mark(0)
        self._cuda.upload(stream_context.device_images, stream_context.host_images, stream_context.stream)
        mark(1)
        stream_context.run.enqueue(stream_context.stream)
        mark(2)
        self._cuda.download(stream_context.host_classes, stream_context.device_classes, stream_context.stream)
        mark(3)

    def _wait(self, stream_context: _StreamContext) -> None:
        self._cuda.call("cudaStreamSynchronize", stream_context.stream)

    def _collect(self, stream_context: _StreamContext, answers: npt.NDArray[np.uint8]) -> None:
        """Waits for what the slot computes, if anything, and puts it where it belongs."""
        if stream_context.rows is not None:
            rows, stream_context.rows = stream_context.rows, None
            self._wait(stream_context)
            answers[rows] = stream_context.host_classes[: rows.stop - rows.start]


def _choose_gpu(device: str | None, target: str) -> Any:
    gpus = find_gpus()
    if not gpus:
        raise BackendError(
            f"{target} needs an NVIDIA GPU, and the driver shows none; `rtseg doctor` says what is missing"
        )
    number = (device or "0").removeprefix("cuda:")
    if not number.isdecimal() or int(number) >= len(gpus):
        raise BackendError(
            f"no GPU '{device}': there are {', '.join(f'cuda:{gpu.index} ({gpu.name})' for gpu in gpus)}"
        )
    return gpus[int(number)]
