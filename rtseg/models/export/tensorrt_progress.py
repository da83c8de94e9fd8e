"""Progress of a TensorRT build, which can take ten minutes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def progress_monitor(trt: Any, update: Callable[[float], None]) -> Any:
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
