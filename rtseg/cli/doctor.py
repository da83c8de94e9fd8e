"""`rtseg doctor` and `rtseg models`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, print_line

Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write it as JSON; - for stdout. Replaces only JSON.")
]


def doctor(json: Json = None, verbose: o.Verbose = False) -> None:
    """Tell what this machine has, what is missing, and how to mend it. Exit code 1 if something must be mended."""
    with error_handler(verbose):
        from rtseg.cli.doctor_checks import examine
        from rtseg.core.errors import printable
        from rtseg.core.path_conflicts import check_paths, side_outputs

        check_paths((), side_outputs(json=json))
        findings = examine()
        if json:
            from rtseg.core.files import write_json

            write_json({"findings": [asdict(finding) for finding in findings]}, json)
        if json != "-":
            marks = {"ok": "ok    ", "absent": "-     ", "broken": "BROKEN"}
            for finding in findings:
                print(printable(f"{marks[finding.state]}  {finding.topic:<16} {finding.detail}"))
                if finding.remedy:
                    print(printable(f"{'':<25}-> {finding.remedy}"))
        if any(finding.state == "broken" for finding in findings):
            raise typer.Exit(1)


def models(json: Json = None, verbose: o.Verbose = False) -> None:
    """List the bundled models and what each says of itself."""
    with error_handler(verbose):
        from rtseg.core.path_conflicts import check_paths, side_outputs
        from rtseg.inference import describe_model
        from rtseg.inference.bundled_models import bundled_models

        check_paths((), side_outputs(json=json))
        known = {name: (path, describe_model(path)) for name, path in bundled_models().items()}
        if json:
            from rtseg.core.files import write_json

            write_json(
                {name: {"file": str(path), **asdict(description)} for name, (path, description) in known.items()}, json
            )
        if json == "-":
            return
        if not known:
            print_line("rtseg: no bundled models in this installation; reinstall rtseg")
            raise typer.Exit(1)
        for name, (path, about) in known.items():
            width, height = about.input_size
            files = [path, path.with_suffix(".bin")]  # OpenVINO keeps the weights beside the network
            size = sum(file.stat().st_size for file in files if file.exists())
            print(f"{name}: {about.network}, {width}x{height}, {about.precision}, {size / 2**20:.1f} MiB")
            print(f"    classes     {', '.join(about.classes)}")
            print(f"    trained on  {about.trained_on}")
            print(f"    license     {about.license}")
            for metric, value in about.metrics.items():
                print(f"    {metric:<11} {value:.4f}")
