"""Report fields that identify a run."""

from __future__ import annotations

from rtseg.core.report import RunIdentity
from rtseg.inference.segmenter import Segmenter


def run_identity(
    command: str, source_name: str, output: str, segmenter: Segmenter, input_size: tuple[int, int] | None = None
) -> RunIdentity:
    """Return the fields that identify a run of a subcommand.

    `source_name` is the input without passwords, `output` is empty if there is none, and `input_size` is (width, height) of the
    network's input for the frames of this run; None: the model's default.
    """
    return RunIdentity(
        command=command,
        input=source_name,
        output=output,
        model=segmenter.description.name,
        backend=segmenter.backend,
        precision=segmenter.precision,
        device=segmenter.device,
        input_size=input_size or segmenter.input_size,
    )
