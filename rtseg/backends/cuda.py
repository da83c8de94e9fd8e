"""The few calls of the CUDA run-time that the TensorRT backend needs, every return code checked.

Names and arguments are those of the CUDA Runtime API 12 and 13, as `cuda.bindings.runtime` hands them on; each call returns a
tuple that starts with the error code.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.errors import BackendError

_OUT_OF_MEMORY = 2
"""CUDA's cudaErrorMemoryAllocation."""


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
            from cuda.bindings import runtime
        except ImportError as error:
            raise BackendError('TensorRT needs cuda-bindings to run engines: pip install "rtseg[tensorrt]"') from error
        self._runtime: Any = runtime
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
            _, text = self._runtime.cudaGetErrorString(error)
            words = text.decode() if isinstance(text, bytes) else str(text)
            failure = f"CUDA failed in {name}: {words} (code {int(error)})"
            if int(error) == _OUT_OF_MEMORY:
                raise NoMemory(
                    f"{failure}; end other programs that use the GPU, or build for a smaller --size or --batch"
                )
            raise BackendError(f"{failure}; `rtseg doctor` looks at the driver")
        return values[0] if len(values) == 1 else tuple(values) or None

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

    def device_buffer(self, byte_count: int) -> int:
        """Address of fresh device memory."""
        address = int(self.call("cudaMalloc", byte_count))
        self._owned.callback(self._free, "cudaFree", address)
        return address

    def pinned_array(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """A zeroed uint8 array in page-locked memory, so that copies run beside the computation. Invalid after `close`."""
        byte_count = int(np.prod(shape))
        address = int(self.call("cudaHostAlloc", byte_count, self._runtime.cudaHostAllocDefault))
        self._owned.callback(self._free, "cudaFreeHost", address)
        array = np.ctypeslib.as_array((ctypes.c_uint8 * byte_count).from_address(address)).reshape(shape)
        array.fill(0)
        return array

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

    def begin_capture(self, stream: Any) -> None:
        """From here on what is put on the stream is recorded, not run."""
        self.call(
            "cudaStreamBeginCapture", stream, self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )

    def end_capture(self, stream: Any) -> Any:
        """The recording since `begin_capture`, ready for `cudaGraphLaunch`."""
        graph = self.call("cudaStreamEndCapture", stream)
        try:
            launchable = self.call("cudaGraphInstantiate", graph, 0)
        finally:
            self.call("cudaGraphDestroy", graph)
        self._owned.callback(self._free, "cudaGraphExecDestroy", launchable)
        return launchable

    def drop_capture(self, stream: Any) -> None:
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
