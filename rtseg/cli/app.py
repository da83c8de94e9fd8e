"""Command-line application. Each command is a module of `rtseg.cli` and imports its dependencies when it runs."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rtseg._version import __version__
from rtseg.cli.bench import bench
from rtseg.cli.build import build
from rtseg.cli.demo import demo
from rtseg.cli.doctor import doctor, models
from rtseg.cli.evaluate import evaluate
from rtseg.cli.image import image
from rtseg.cli.live import live
from rtseg.cli.service import config, service
from rtseg.cli.train import train
from rtseg.cli.video import video
from rtseg.core.process_title import hide_passwords, remember_arguments
from rtseg.core.secrets import forget, redact


class _Commands(TyperGroup):
    """Command group that removes secrets from usage errors."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, and remember them for redaction."""
        forget()
        remember_arguments(args)
        with _redacted_usage_errors():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _redacted_usage_errors():
            return super().invoke(ctx)


@contextmanager
def _redacted_usage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # usage errors of Typer's copy of click, which have no public name
        if hasattr(error, "format_message"):
            error.message = redact(error.message)  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    name="rtseg",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        print(f"rtseg {__version__}")
        raise typer.Exit


@app.callback()
def rtseg(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Segment street video in real time: color each pixel by its class, such as road, car, pedestrian or sky."""


app.command("video", rich_help_panel="Run")(video)
app.command("live", rich_help_panel="Run")(live)
app.command("image", rich_help_panel="Run")(image)
app.command("demo", rich_help_panel="Run")(demo)
app.command("build", rich_help_panel="Build and train models")(build)
app.command("train", rich_help_panel="Build and train models")(train)
app.command("eval", rich_help_panel="Build and train models")(evaluate)
app.command("service", rich_help_panel="Run", no_args_is_help=True, context_settings={"ignore_unknown_options": True})(
    service
)
app.command("bench", rich_help_panel="Diagnostics")(bench)
app.add_typer(config, name="config", rich_help_panel="Diagnostics")
app.command("models", rich_help_panel="Diagnostics")(models)
app.command("doctor", rich_help_panel="Diagnostics")(doctor)


def main() -> None:
    """Run the command-line application."""
    hide_passwords()
    threading.excepthook = _print_redacted
    try:
        app()
    except Exception:  # a bug; its traceback can contain a URL with a password
        sys.stderr.write(redact(traceback.format_exc()))
        sys.exit(1)


def _print_redacted(failure: threading.ExceptHookArgs) -> None:
    name = failure.thread.name if failure.thread else "?"
    text = "".join(traceback.format_exception(failure.exc_type, failure.exc_value, failure.exc_traceback))
    sys.stderr.write(redact(f"Exception in thread {name}:\n{text}"))
