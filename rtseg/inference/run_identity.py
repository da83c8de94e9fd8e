"""Report fields that identify a run."""

from __future__ import annotations

from rtseg.core.report import RunIdentity
from rtseg.inference.segmenter import Segmenter


def run_identity(
    command: str, source_name: str, output: str, segmenter: Segmenter, input_size: tuple[int, int] | None = None
) -> RunIdentity:
    """Return the fields that identify a run.

    Args:
        command: subcommand of rtseg.
        source_name: name of the input, without passwords.
        output: name of the output; empty if there is none.
        segmenter: the loaded model.
        input_size: (width, height) of the network's input for the frames of this run; None: the model's default.
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
