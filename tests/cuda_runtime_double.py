"""Test double of the CUDA runtime, with "GPU" memory in CPU memory."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

LEGACY = 1
"""CUDA's default stream."""


class Cudart:
    """`cuda.bindings.runtime` on the CPU: tracks live allocations, and runs a stream when it is synchronized."""

    cudaStreamNonBlocking = 1  # noqa: N815 (CUDA's own names, here and below)
    cudaHostAllocDefault = 0  # noqa: N815
    cudaEventBlockingSync, cudaEventDisableTiming = 1, 2  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self) -> None:
        self.alive: dict[int, Any] = {}
        self.calls: list[str] = []
        self.capture_works = self.takes_addresses = self.starts = True
        self.fails: str | None = None
        self.broken = False
        """True after a sticky error: every call fails."""
        self._of_thread = threading.local()
        self._running = threading.RLock()
        self._queues: dict[int, list[Callable[[], None]]] = {LEGACY: []}
        self._event_streams: dict[int, int] = {}
        self._captured: dict[int, list[Callable[[], None]] | None] = {}

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name.startswith("cuda") and callable(value):

            def call(*arguments: Any) -> Any:
                self.calls.append(name)
                if name not in ("cudaSetDevice", "cudaGetErrorString", "cudaGetLastError"):
                    self.current_device()
                    if self.broken:
                        return (700, None)
                return (2,) if self.fails == name else value(*arguments)

            return call
        return value

    def view(self, address: int, shape: tuple[int, ...], dtype: Any = np.uint8) -> Any:
        memory = self.alive[address].view(dtype)
        assert memory.size == np.prod(shape), "a tensor does not have the size of its buffer"
        return memory.reshape(shape)

    def enqueue(self, stream: int, work: Callable[[], None]) -> bool:
        captured = self._captured.get(int(stream))
        if captured is not None:
            captured.append(work)
            return self.capture_works
        self._queues[int(stream)].append(work)
        return True

    def _new(self, value: Any) -> int:
        handle = value.ctypes.data if isinstance(value, np.ndarray) else 1000 + len(self.calls)
        self.alive[handle] = value
        return handle

    def _drop(self, handle: int) -> tuple[int]:
        del self.alive[handle]
        return (0,)

    def current_device(self) -> int:
        """Return this thread's device. CUDA defaults to device 0, which is wrong on a machine with several GPUs."""
        assert hasattr(self._of_thread, "device"), "no device was selected in this thread"
        return int(self._of_thread.device)

    def cudaSetDevice(self, device: int) -> Any:  # noqa: N802
        self._of_thread.device = device
        return (0,)

    def cudaDeviceSynchronize(self) -> Any:  # noqa: N802
        for stream in list(self._queues):
            self.run(stream)
        return (0,)

    def cudaGetErrorString(self, error: int) -> Any:  # noqa: N802
        return 0, b"an illegal memory access was encountered" if error == 700 else b"out of memory"

    def cudaGetLastError(self) -> Any:  # noqa: N802
        return (0,)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:  # noqa: N802
        stream = self._new("stream")
        self._queues[stream] = []
        return 0, stream

    def cudaEventCreate(self) -> Any:  # noqa: N802
        return 0, self._new("event")

    def cudaMalloc(self, size: int) -> Any:  # noqa: N802
        return 0, self._new(np.zeros(size, np.uint8))

    def cudaHostAlloc(self, size: int, flags: int) -> Any:  # noqa: N802
        return 0, self._new(np.zeros(size, np.uint8))

    cudaStreamDestroy = cudaEventDestroy = cudaFree = cudaFreeHost = cudaGraphDestroy = cudaGraphExecDestroy = (  # noqa: N815
        lambda self, handle: self._drop(handle)
    )

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> Any:  # noqa: N802
        self.enqueue(stream, lambda: ctypes.memmove(to, source, size) and None)
        return (0,)

    def is_capturing(self, stream: int) -> bool:
        """Return True while the stream is captured."""
        return self._captured.get(int(stream)) is not None

    def run(self, stream: int) -> None:
        """Run the enqueued work of a stream."""
        assert self._captured.get(stream) is None, "synchronizing invalidates a capture"
        with self._running:
            while self._queues[stream]:
                self._queues[stream].pop(0)()

    def cudaStreamSynchronize(self, stream: int) -> Any:  # noqa: N802
        self.run(stream)
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> Any:  # noqa: N802
        self._captured[stream] = []
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> Any:  # noqa: N802
        work = self._captured.pop(stream)
        return (0, self._new(work)) if self.capture_works else (901, 0)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Any:  # noqa: N802
        return 0, self._new(self.alive[graph])

    def cudaGraphLaunch(self, executable: int, stream: int) -> Any:  # noqa: N802
        self._queues[stream].extend(self.alive[executable])
        return (0,)

    def cudaEventCreateWithFlags(self, flags: int) -> Any:  # noqa: N802
        assert flags == self.cudaEventBlockingSync | self.cudaEventDisableTiming
        return self.cudaEventCreate()

    def cudaEventRecord(self, event: int, stream: int) -> Any:  # noqa: N802
        self._event_streams[event] = stream
        return (0,)

    def cudaEventSynchronize(self, event: int) -> Any:  # noqa: N802
        self.run(self._event_streams[event])
        return (0,)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> Any:  # noqa: N802
        recorded_on = self._event_streams[event]
        self.enqueue(stream, lambda: self.run(recorded_on))
        return (0,)

    def cudaEventElapsedTime(self, first: int, last: int) -> Any:  # noqa: N802
        return 0, 0.25
