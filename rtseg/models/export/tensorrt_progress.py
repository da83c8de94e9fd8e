"""Progress bar of a TensorRT build, which can take ten minutes."""

from __future__ import annotations

import sys
from typing import Any

from rtseg.core.progress import Progress


class BuildProgress:
    """Progress of a build in percent. Phases are nested: each is one step of its parent phase.

    TensorRT calls the monitor from its own threads, and exceptions must not reach it. On Ctrl-C the monitor cancels the build;
    `__exit__` raises KeyboardInterrupt after it.
    """

    def __init__(self, trt: Any, quiet: bool) -> None:
        self._progress = Progress("building the engine", 100, unit="%", quiet=quiet)
        self._phases: dict[str, tuple[str | None, int, int]] = {}
        self._percent = 0
        self._exception: BaseException | None = None
        progress = self

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                progress._phases[phase_name] = (parent_phase, max(1, num_steps), 0)

            def step_complete(self, phase_name: str, step: int) -> bool:
                return progress._step(phase_name, step)

            def phase_finish(self, phase_name: str) -> None:
                progress._phases.pop(phase_name, None)

        self.monitor = Monitor()

    def __enter__(self) -> BuildProgress:
        self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._progress.__exit__(kind, error, trace)
        if self._exception is not None:
            raise self._exception

    def _step(self, phase: str, step: int) -> bool:
        try:
            if phase in self._phases:
                parent, steps, _ = self._phases[phase]
                self._phases[phase] = (parent, steps, step + 1)
                now = int(100 * self._completed())
                if now > self._percent:
                    self._progress.advance(now - self._percent)
                    self._percent = now
        except BaseException as error:  # KeyboardInterrupt too must not propagate through native code
            self._exception = error
        return self._exception is None and sys.is_finalizing() is False

    def _completed(self) -> float:
        """Return the completed share of the outermost phase, 0 to 1, including the steps of nested phases."""
        completed = 0.0
        for name, (_, steps, step) in list(self._phases.items()):
            weight, parent = 1.0, self._phases[name][0]
            while parent in self._phases:
                weight /= self._phases[parent][1]
                parent = self._phases[parent][0]
            completed += weight * min(1.0, step / steps)
        return min(1.0, completed)
