"""How far TensorRT has come: a build of ten minutes must not look like a crash."""

from __future__ import annotations

import sys
from typing import Any

from rtseg.core.progress import Progress


class BuildProgress:
    """TensorRT's progress as a bar in percent. Phases nest: each fills the step of the phase above it.

    TensorRT calls from its own threads and must not see an exception: Ctrl-C is kept, told to TensorRT as "stop", and raised
    when the build has ended.
    """

    def __init__(self, trt: Any, quiet: bool) -> None:
        self._progress = Progress("building the engine", 100, unit="%", quiet=quiet)
        self._phases: dict[str, tuple[str | None, int, int]] = {}
        self._shown = 0
        self._stopped: BaseException | None = None
        outer = self

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                outer._phases[phase_name] = (parent_phase, max(1, num_steps), 0)

            def step_complete(self, phase_name: str, step: int) -> bool:
                return outer._step(phase_name, step)

            def phase_finish(self, phase_name: str) -> None:
                outer._phases.pop(phase_name, None)

        self.monitor = Monitor()

    def __enter__(self) -> BuildProgress:
        self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._progress.__exit__(kind, error, trace)
        if self._stopped is not None:
            raise self._stopped

    def _step(self, phase: str, step: int) -> bool:
        try:
            if phase in self._phases:
                parent, steps, _ = self._phases[phase]
                self._phases[phase] = (parent, steps, step + 1)
                now = int(100 * self._done())
                if now > self._shown:
                    self._progress.advance(now - self._shown)
                    self._shown = now
        except BaseException as stopped:  # KeyboardInterrupt too: it may not pass through TensorRT's native frames
            self._stopped = stopped
        return self._stopped is None and sys.is_finalizing() is False

    def _done(self) -> float:
        """Share of the outermost phase that is done, with the steps of the phases inside it counted as parts."""
        done = 0.0
        for name, (_, steps, step) in list(self._phases.items()):
            width, above = 1.0, self._phases[name][0]
            while above in self._phases:
                width /= self._phases[above][1]
                above = self._phases[above][0]
            done += width * min(1.0, step / steps)
        return min(1.0, done)
