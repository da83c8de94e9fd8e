"""Commands `rtseg doctor` and `rtseg models`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, print_line
from rtseg.core.errors import printable
from rtseg.core.files import write_json
from rtseg.core.path_conflicts import check_paths, side_outputs


def doctor(json: o.ResultsFile = None, verbose: o.Verbose = False) -> None:
    """Check this machine: report components, missing parts and how to fix them. Exit code 1 if something is broken."""
    with error_handler(verbose):
        from rtseg.cli.doctor_checks import run_checks

        check_paths((), side_outputs(json=json))
        findings = run_checks()
        if json:
            write_json({"findings": [asdict(finding) for finding in findings]}, json)
        if json != "-":
            marks = {"ok": "ok    ", "absent": "-     ", "broken": "BROKEN"}
            for finding in findings:
                print(printable(f"{marks[finding.state]}  {finding.topic:<16} {finding.detail}"))
                if finding.remedy:
                    print(printable(f"{'':<25}-> {finding.remedy}"))
        if any(finding.state == "broken" for finding in findings):
            raise typer.Exit(1)


def models(json: o.ResultsFile = None, verbose: o.Verbose = False) -> None:
    """List the bundled models with their metadata."""
    with error_handler(verbose):
        from rtseg.inference import describe_model
        from rtseg.inference.bundled_models import bundled_models

        check_paths((), side_outputs(json=json))
        known = {name: (path, describe_model(path)) for name, path in bundled_models().items()}
        if json:
            write_json(
                {name: {"file": str(path), **asdict(description)} for name, (path, description) in known.items()}, json
            )
        if json == "-":
            return
        if not known:
            print_line("rtseg: no bundled models in this installation; reinstall rtseg")
            raise typer.Exit(1)
        for name, (path, description) in known.items():
            width, height = description.input_size
            files = [path, path.with_suffix(".bin")]  # OpenVINO stores the weights in a second file
            size = sum(file.stat().st_size for file in files if file.exists())
            print(f"{name}: {description.network}, {width}x{height}, {description.precision}, {size / 2**20:.1f} MiB")
            print(f"    classes     {', '.join(description.classes)}")
            print(f"    trained on  {description.trained_on}")
            print(f"    license     {description.license}")
            for metric, value in description.metrics.items():
                print(f"    {metric:<11} {value:.4f}")
