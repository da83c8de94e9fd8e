"""`--adaptive`: how much of a live stream is worked on, so that what is shown stays steady where the machine can't keep up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SLOWER_SECONDS = 3
"""So many seconds in a row it must be too much before less is done."""

FASTER_SECONDS = 10
"""So many seconds in a row there must be room before more is done; doubled each time that more turned out to be too much."""

LONGEST_SECONDS = 300
"""What that wait grows to at most."""

ROOM = 0.8
"""More is done where it is expected to need at most this share of the time that there is."""

MOST_LEFT_OUT = 4
"""At the least every so-manieth frame is worked on."""


@dataclass(frozen=True)
class Step:
    """What is done at one moment."""

    model: int
    """0: the model that was asked for; 1: the smaller one."""

    every: int
    """Each so-manieth frame of a camera is worked on; 1: all."""


class Pace:
    """Decides once a second from the run's own numbers. `step` may be read by any thread.

    First comes the smaller model, where there is one, then every second frame, every third, and so on. The way back is the
    same, one step at a time: when the step before is expected to need no more than `ROOM`, by what it was measured to cost.
    """

    def __init__(self, models: Sequence[str], log: Callable[[str], None] = lambda _: None) -> None:
        """Begins with everything.

        Args:
            models: the model's name, and the smaller one's where there is one.
            log: told in a line each time that something changes.
        """
        self._models, self._say = models, log
        self._steps = [Step(model, 1) for model in range(len(models))]
        self._steps += [Step(len(models) - 1, every) for every in range(2, MOST_LEFT_OUT + 1)]
        self._at = 0
        self._cost_ms = 0.0
        self._times_more = 0.0
        """What a frame costs the model that was asked for, in multiples of the smaller one's cost; 0: not known yet."""
        self._busy_for = self._free_for = 0
        self._patience = FASTER_SECONDS
        self._since_faster = LONGEST_SECONDS
        self._changes = 0

    @property
    def step(self) -> Step:
        """What is done now."""
        return self._steps[self._at]

    def second(self, now: Mapping[str, Any]) -> None:
        """Takes the numbers of one second and decides.

        Args:
            now: `capture_fps`, `work_ms` (mean time that one frame needed) and `late` (frames that were too old to be shown)
                of that second, as `rtseg.live.controls.LiveNumbers` describes them.
        """
        self._since_faster += 1
        if not now["work_ms"]:
            return  # nothing was worked on: the camera is away
        if self.step.model and not self._times_more:
            self._times_more = self._cost_ms / now["work_ms"]
        self._cost_ms = now["work_ms"]
        busy = self._share(self._at, now["capture_fps"]) > 1.0 or now["late"] > 0
        free = self._at > 0 and not busy and self._share(self._at - 1, now["capture_fps"]) <= ROOM
        self._busy_for = self._busy_for + 1 if busy else 0
        self._free_for = self._free_for + 1 if free else 0
        if self._busy_for >= SLOWER_SECONDS and self._at + 1 < len(self._steps):
            if self._since_faster < self._patience:  # the last step back was too much: the next one waits longer
                self._patience = min(2 * self._patience, LONGEST_SECONDS)
            self._change(+1, f"can't keep up ({_needs(now)})")
        elif self._free_for >= self._patience:
            self._since_faster = 0
            self._change(-1, f"there is room again ({_needs(now)})")
        elif self._since_faster >= LONGEST_SECONDS:
            self._patience = FASTER_SECONDS

    def to_dict(self) -> dict[str, Any]:
        """For the statistics."""
        return {"model": self._models[self.step.model], "every": self.step.every, "changes": self._changes}

    def _share(self, at: int, capture_fps: float) -> float:
        """The share of all time that a step is expected to need, by what a frame costs now."""
        step = self._steps[at]
        cost_ms = self._cost_ms * (self._times_more if step.model < self.step.model else 1.0)
        return cost_ms * capture_fps / step.every / 1e3

    def _change(self, by: int, why: str) -> None:
        before, self._at = self.step, self._at + by
        if before.model < self.step.model:
            self._times_more = 0.0  # measured anew in the next second
        self._busy_for = self._free_for = 0
        self._changes += 1
        step = self.step
        name = f" on the model {self._models[step.model]}" if len(self._models) > 1 else ""
        frames = "every frame" if step.every == 1 else f"one frame in {step.every}"
        self._say(f"{why}: now {frames}{name}")


def _needs(now: Mapping[str, Any]) -> str:
    late = f", {now['late']} frames too old" if now["late"] else ""
    return f"{now['work_ms']:.0f} ms for a frame, {1e3 / max(now['capture_fps'], 0.1):.0f} ms between two{late}"
