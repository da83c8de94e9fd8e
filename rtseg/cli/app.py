"""The command line. Each command lives in a module of `rtseg.cli`; what it needs is imported when it runs."""

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
from rtseg.cli.image import image
from rtseg.cli.live import live
from rtseg.cli.service import config, service
from rtseg.cli.train import evaluate, train
from rtseg.cli.video import video
from rtseg.core.process_title import hide_passwords, remember_arguments
from rtseg.core.secrets import forget, redact


class _Commands(TyperGroup):
    """The commands; what Typer says of a wrong command line does not repeat its secrets."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer does it."""
        forget()
        remember_arguments(args)
        with _redacted_usage_errors():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """As Typer does it."""
        with _redacted_usage_errors():
            return super().invoke(ctx)


@contextmanager
def _redacted_usage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of Typer's own copy of click, which has no public name for them
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


def _version(wanted: bool) -> None:
    if wanted:
        print(f"rtseg {__version__}")
        raise typer.Exit


@app.callback()
def rtseg(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Color every pixel of street video by what it is: road, car, pedestrian, sky. In real time, honestly measured."""


app.command("video", rich_help_panel="Run")(video)
app.command("live", rich_help_panel="Run")(live)
app.command("image", rich_help_panel="Run")(image)
app.command("demo", rich_help_panel="Run")(demo)
app.command("build", rich_help_panel="Make a model")(build)
app.command("train", rich_help_panel="Make a model")(train)
app.command("eval", rich_help_panel="Make a model")(evaluate)
app.add_typer(service, name="service", rich_help_panel="Run")
app.command("bench", rich_help_panel="Look around")(bench)
app.add_typer(config, name="config", rich_help_panel="Look around")
app.command("models", rich_help_panel="Look around")(models)
app.command("doctor", rich_help_panel="Look around")(doctor)


def main() -> None:
    """Entry point of the console script."""
    hide_passwords()
    threading.excepthook = _print_redacted
    try:
        app()
    except Exception:  # a bug: its traceback may repeat a URL that another library was given
        sys.stderr.write(redact(traceback.format_exc()))
        sys.exit(1)


def _print_redacted(failure: threading.ExceptHookArgs) -> None:
    name = failure.thread.name if failure.thread else "?"
    text = "".join(traceback.format_exception(failure.exc_type, failure.exc_value, failure.exc_traceback))
    sys.stderr.write(redact(f"Exception in thread {name}:\n{text}"))
