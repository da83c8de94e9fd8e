"""The few calls of CUDA that TensorRT and the road over the card need, every return code checked.

Names and arguments are those of the CUDA Runtime and Driver APIs 12 and 13, as `cuda.bindings` hands them on; each call
returns a tuple that starts with the error code.
"""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import BackendError

_OUT_OF_MEMORY = 2
"""CUDA's cudaErrorMemoryAllocation, and the driver's CUDA_ERROR_OUT_OF_MEMORY."""

_LEGACY_STREAM = 1
"""CUDA's cudaStreamLegacy: the default stream of the context that is current. FFmpeg decodes on it, in the context it is given."""

_RECORDING = threading.Lock()
"""One recording at a time in this process: what another does for its own may be forbidden during one."""


class NoMemory(BackendError):
    """The GPU has no room for what was asked. Less may fit."""


class Cuda:
    """One device. What it allocates is given back by `close`, in reverse order."""

    def __init__(self, device: int) -> None:
        """Selects a device.

        Raises:
            BackendError: `cuda-bindings` is not installed, or there is no such device.
        """
        try:
            from cuda.bindings import driver, runtime
        except ImportError as error:
            raise BackendError('TensorRT needs cuda-bindings to run engines: pip install "rtseg[tensorrt]"') from error
        self._runtime: Any = runtime
        self._driver: Any = driver
        self._device = device
        self._owned = ExitStack()
        self.use()

    def use(self) -> None:
        """Makes the device current in this thread; CUDA keeps it for each thread apart."""
        self.call("cudaSetDevice", self._device)

    def use_again(self) -> None:
        """As `use`, before things are freed: an error that CUDA repeats from an earlier call must not keep that from happening."""
        self._free("cudaSetDevice", self._device)

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls a function of the run-time by name.

        Returns:
            What it gives beside the error code: nothing, one value, or a tuple.

        Raises:
            BackendError: the error code is not success; the message has the function's name and CUDA's words.
        """
        error, *values = getattr(self._runtime, name)(*arguments)
        if int(error) != 0:
            self._fail(name, error, self._runtime.cudaGetErrorString(error)[1])
        return values[0] if len(values) == 1 else tuple(values) or None

    def call_driver(self, name: str, *arguments: Any) -> Any:
        """As `call`, for a function of the driver's."""
        error, *values = getattr(self._driver, name)(*arguments)
        if int(error) != 0:
            self._fail(name, error, self._driver.cuGetErrorString(error)[1])
        return values[0] if len(values) == 1 else tuple(values) or None

    def _fail(self, name: str, error: Any, text: Any) -> NoReturn:
        words = text.decode() if isinstance(text, bytes) else str(text)
        failure = f"CUDA failed in {name}: {words} (code {int(error)})"
        if int(error) == _OUT_OF_MEMORY:
            raise NoMemory(f"{failure}; end other programs that use the GPU, or build for a smaller --size or --batch")
        raise BackendError(f"{failure}; `rtseg doctor` looks at the driver")

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """What is allocated inside is given back at once if it ends in an exception, and with everything else if not."""
        outer, self._owned = self._owned, ExitStack()
        try:
            yield
        except BaseException:
            self._owned.close()
            raise
        else:
            outer.push(self._owned.pop_all())
        finally:
            self._owned = outer

    def stream(self) -> Any:
        """A stream of its own, which does not wait for the default stream."""
        stream = self.call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)
        self._owned.callback(self._free, "cudaStreamDestroy", stream)
        return stream

    def event(self) -> Any:
        """An event that keeps its time."""
        event = self.call("cudaEventCreate")
        self._owned.callback(self._free, "cudaEventDestroy", event)
        return event

    def kernels(self, ptx: bytes, *names: str) -> tuple[Any, ...]:
        """Functions of PTX, made into machine code for this device."""
        module = self.call_driver("cuModuleLoadData", ptx + b"\0")
        self._owned.callback(self._free_in_driver, "cuModuleUnload", module)
        return tuple(self.call_driver("cuModuleGetFunction", module, name.encode()) for name in names)

    def launch(self, kernel: Any, blocks: tuple[int, int], threads: tuple[int, int], address: int, stream: Any) -> None:
        """Puts a kernel that takes one device address on a stream."""
        arguments = ((address,), (ctypes.c_void_p,))
        self.call_driver("cuLaunchKernel", kernel, *blocks, 1, *threads, 1, 0, int(stream), arguments, 0)

    def fence(self) -> Any:
        """An event for `after_decoder` and `wait`; who waits for it sleeps and does not spin."""
        flags = self._runtime.cudaEventBlockingSync | self._runtime.cudaEventDisableTiming
        event = self.call("cudaEventCreateWithFlags", flags)
        self._owned.callback(self._free, "cudaEventDestroy", event)
        return event

    def after_decoder(self, stream: Any, event: Any) -> None:
        """What is put on the stream from here on begins once all is done that the default stream has been given."""
        self.call("cudaEventRecord", event, _LEGACY_STREAM)
        self.call("cudaStreamWaitEvent", stream, event, 0)

    def wait(self, stream: Any, event: Any) -> None:
        """Returns once all is done that the stream has been given."""
        self.call("cudaEventRecord", event, stream)
        self.call("cudaEventSynchronize", event)

    def settle(self, stream: Any) -> None:
        """As `wait`, after a failure, whatever CUDA says."""
        self._free("cudaStreamSynchronize", stream)

    def check(self) -> None:
        """After a failure: forgets one that passes.

        Raises:
            BackendError: it was one after which CUDA does nothing more in this process.
        """
        self._runtime.cudaGetLastError()
        self.call("cudaDeviceSynchronize")

    def device_buffer(self, byte_count: int) -> int:
        """Address of fresh device memory."""
        address = int(self.call("cudaMalloc", byte_count))
        self._owned.callback(self._free, "cudaFree", address)
        return address

    def pinned_array(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """A zeroed uint8 array in page-locked memory, so that copies run beside the computation. Invalid after `close`."""
        address, memory = self._pinned(int(np.prod(shape)))
        self._owned.callback(self._free, "cudaFreeHost", address)
        array = np.frombuffer(memory, np.uint8).reshape(shape)
        array.fill(0)
        return array

    def pinned_block(self, byte_count: int) -> npt.NDArray[np.uint8]:
        """As `pinned_array`, contents arbitrary; valid and kept for as long as anything looks at it, `close` or not."""
        address, memory = self._pinned(byte_count)
        weakref.finalize(memory, self._free_pinned, address).atexit = False
        return np.frombuffer(memory, np.uint8)

    def _pinned(self, byte_count: int) -> tuple[int, Any]:
        address = int(self.call("cudaHostAlloc", byte_count, self._runtime.cudaHostAllocDefault))
        return address, (ctypes.c_uint8 * byte_count).from_address(address)

    def upload(self, device: int, host: npt.NDArray[np.uint8], stream: Any) -> None:
        """Starts a copy to the device."""
        self.call(
            "cudaMemcpyAsync",
            device,
            host.ctypes.data,
            host.nbytes,
            self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice,
            stream,
        )

    def download(self, host: npt.NDArray[np.uint8], device: int, stream: Any) -> None:
        """Starts a copy from the device."""
        self.call(
            "cudaMemcpyAsync",
            host.ctypes.data,
            device,
            host.nbytes,
            self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost,
            stream,
        )

    def recorded(self, stream: Any, work: Callable[[], None]) -> Any:
        """What `work` puts on the stream, not run but ready for `cudaGraphLaunch`; None: it can't be recorded."""
        with _RECORDING, _no_garbage_collection():
            self.call(
                "cudaStreamBeginCapture", stream, self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
            )
            try:
                work()
                graph = self.call("cudaStreamEndCapture", stream)
            except BackendError:
                self._drop_capture(stream)
                return None
            except BaseException:
                self._drop_capture(stream)
                raise
        try:
            launchable = self.call("cudaGraphInstantiate", graph, 0)
        except BackendError:
            self._runtime.cudaGetLastError()
            return None
        finally:
            self.call("cudaGraphDestroy", graph)
        self._owned.callback(self._free, "cudaGraphExecDestroy", launchable)
        return launchable

    def _drop_capture(self, stream: Any) -> None:
        """Ends a recording that failed, and clears the error it left."""
        error, *graph = self._runtime.cudaStreamEndCapture(stream)
        if int(error) == 0:  # what failed was not CUDA: the half of the run that was recorded
            self._free("cudaGraphDestroy", graph[0])
        self._runtime.cudaGetLastError()

    def close(self) -> None:
        """Frees everything; may be called twice."""
        self._owned.close()

    def _free(self, name: str, handle: Any) -> None:
        # An error here is an earlier one that CUDA reports late; it was raised where it happened.
        getattr(self._runtime, name)(handle)

    def _free_in_driver(self, name: str, handle: Any) -> None:
        getattr(self._driver, name)(handle)

    def _free_pinned(self, address: int) -> None:
        self._free("cudaSetDevice", self._device)  # any thread may be the last to look
        self._free("cudaFreeHost", address)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    # What is collected may free the card's memory, which must not happen in a thread that records.
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
