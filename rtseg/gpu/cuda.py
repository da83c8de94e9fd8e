"""The CUDA calls that TensorRT and the GPU path need, with every return code checked.

Function names and arguments are those of the CUDA Runtime and Driver APIs 12 and 13, as `cuda.bindings` exposes them. Each call
returns a tuple that starts with the error code.
"""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import BackendError

_OUT_OF_MEMORY = 2
"""CUDA's cudaErrorMemoryAllocation, and the driver's CUDA_ERROR_OUT_OF_MEMORY."""

_LEGACY_STREAM = 1
"""CUDA's cudaStreamLegacy: the default stream of the current context. FFmpeg decodes on it."""

_CAPTURE_LOCK = threading.Lock()
"""Allows one stream capture at a time in this process: some calls of other threads are illegal during a capture."""


class GpuOutOfMemory(BackendError):
    """An allocation does not fit into the GPU's memory; a smaller one may."""


class Cuda:
    """One CUDA device. `close` frees its allocations in reverse order."""

    def __init__(self, device: int) -> None:
        """Select a device.

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
        self.make_current()

    def make_current(self) -> None:
        """Make the device current in this thread; CUDA's current device is per thread."""
        self.call("cudaSetDevice", self._device)

    def make_current_for_cleanup(self) -> None:
        """Make the device current in this thread and ignore errors, since CUDA repeats the error of an earlier call."""
        self._runtime.cudaSetDevice(self._device)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime (`cuda...`) or of the driver (`cu...`) by name.

        Returns:
            The results after the error code: None, one value, or a tuple.

        Raises:
            BackendError: the error code is not success; the message contains the function's name and CUDA's error text.
        """
        in_runtime = name.startswith("cuda")
        error, *values = getattr(self._runtime if in_runtime else self._driver, name)(*arguments)
        if int(error) == 0:
            return values[0] if len(values) == 1 else tuple(values) or None
        text = (self._runtime.cudaGetErrorString if in_runtime else self._driver.cuGetErrorString)(error)[1]
        failure = f"CUDA failed in {name}: {(text or b'unknown error').decode()} (code {int(error)})"
        if int(error) == _OUT_OF_MEMORY:
            raise GpuOutOfMemory(
                f"{failure}; end other programs that use the GPU, or build for a smaller --size or --batch"
            )
        raise BackendError(f"{failure}; `rtseg doctor` checks the driver")

    def _own(self, handle: Any, free: Callable[[Any], object]) -> Any:
        """Return a handle that `close` frees. Error codes are ignored then: CUDA repeats those of earlier calls."""
        self._owned.callback(free, handle)
        return handle

    @contextmanager
    def free_on_error(self) -> Iterator[None]:
        """Free the allocations of the block if it raises; otherwise keep them until `close`."""
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

    def create_stream(self) -> Any:
        """Create a stream that does not synchronize with the default stream."""
        stream = self.call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)
        return self._own(stream, self._runtime.cudaStreamDestroy)

    def create_timing_event(self) -> Any:
        """Create an event that records its time."""
        return self._own(self.call("cudaEventCreate"), self._runtime.cudaEventDestroy)

    def create_sync_event(self) -> Any:
        """Create an event for `wait_for_decoder` and `synchronize`; a waiting thread sleeps and does not spin."""
        flags = self._runtime.cudaEventBlockingSync | self._runtime.cudaEventDisableTiming
        return self._own(self.call("cudaEventCreateWithFlags", flags), self._runtime.cudaEventDestroy)

    def load_kernels(self, ptx: bytes, *names: str) -> tuple[Any, ...]:
        """Compile PTX for this device and return its functions."""
        module = self._own(self.call("cuModuleLoadData", ptx + b"\0"), self._driver.cuModuleUnload)
        return tuple(self.call("cuModuleGetFunction", module, name.encode()) for name in names)

    def launch(self, kernel: Any, blocks: tuple[int, int], threads: tuple[int, int], address: int, stream: Any) -> None:
        """Enqueue a kernel whose only argument is a device address."""
        arguments = ((address,), (ctypes.c_void_p,))
        self.call("cuLaunchKernel", kernel, *blocks, 1, *threads, 1, 0, int(stream), arguments, 0)

    def wait_for_decoder(self, stream: Any, event: Any) -> None:
        """Make later work on the stream wait for the present work of the default stream, on which FFmpeg decodes."""
        self.call("cudaEventRecord", event, _LEGACY_STREAM)
        self.call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize(self, stream: Any, event: Any) -> None:
        """Block until the stream has finished its present work."""
        self.call("cudaEventRecord", event, stream)
        self.call("cudaEventSynchronize", event)

    def synchronize_for_cleanup(self, stream: Any) -> None:
        """Block until the stream has finished its present work, and ignore errors."""
        self._runtime.cudaStreamSynchronize(stream)

    def raise_if_unusable(self) -> None:
        """Clear a recoverable error after a failure.

        Raises:
            BackendError: the error is sticky: CUDA does no more work in this process.
        """
        self._runtime.cudaGetLastError()
        self.call("cudaDeviceSynchronize")

    def device_buffer(self, byte_count: int) -> int:
        """Allocate device memory and return its address."""
        return int(self._own(self.call("cudaMalloc", byte_count), self._runtime.cudaFree))

    def pinned_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8) -> npt.NDArray[Any]:
        """Return a zeroed array in page-locked memory, for copies that overlap computation. Invalid after `close`."""
        address, memory = self._pinned(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        self._own(address, self._runtime.cudaFreeHost)
        array = np.frombuffer(memory, dtype).reshape(shape)
        array.fill(0)
        return array

    def pinned_block(self, byte_count: int) -> npt.NDArray[np.uint8]:
        """Return an uninitialized uint8 array in page-locked memory, valid as long as it is referenced, even after `close`."""
        address, memory = self._pinned(byte_count)
        weakref.finalize(memory, self._free_pinned, address).atexit = False
        return np.frombuffer(memory, np.uint8)

    def _pinned(self, byte_count: int) -> tuple[int, Any]:
        address = int(self.call("cudaHostAlloc", byte_count, self._runtime.cudaHostAllocDefault))
        return address, (ctypes.c_uint8 * byte_count).from_address(address)

    def upload(self, device: int, host: npt.NDArray[Any], stream: Any) -> None:
        """Start a copy to the device."""
        to_device = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", device, host.ctypes.data, host.nbytes, to_device, stream)

    def download(self, host: npt.NDArray[Any], device: int, stream: Any) -> None:
        """Start a copy from the device."""
        to_host = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", host.ctypes.data, device, host.nbytes, to_host, stream)

    def capture_graph(self, stream: Any, enqueue: Callable[[], None]) -> Any:
        """Capture the work that `enqueue` puts on the stream, without running it.

        Returns:
            A graph for `cudaGraphLaunch`; None if the work can't be captured.
        """
        with _CAPTURE_LOCK, _no_garbage_collection():
            self.call(
                "cudaStreamBeginCapture", stream, self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
            )
            try:
                enqueue()
                graph = self.call("cudaStreamEndCapture", stream)
            except BackendError:
                self._drop_capture(stream)
                return None
            except BaseException:
                self._drop_capture(stream)
                raise
        try:
            executable = self.call("cudaGraphInstantiate", graph, 0)
        except BackendError:
            self._runtime.cudaGetLastError()
            return None
        finally:
            self.call("cudaGraphDestroy", graph)
        return self._own(executable, self._runtime.cudaGraphExecDestroy)

    def _drop_capture(self, stream: Any) -> None:
        """End a failed capture and clear its error."""
        error, *graph = self._runtime.cudaStreamEndCapture(stream)
        if int(error) == 0:  # the failure was not CUDA's: a partial graph exists
            self._runtime.cudaGraphDestroy(graph[0])
        self._runtime.cudaGetLastError()

    def close(self) -> None:
        """Free everything. May be called twice."""
        self._owned.close()

    def _free_pinned(self, address: int) -> None:
        self.make_current_for_cleanup()  # any thread may drop the last reference
        self._runtime.cudaFreeHost(address)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    # Garbage collection may free GPU memory, which is illegal in a thread that captures a stream.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
