"""The command line. Each command lives in a module of `rtseg.commands`; what it needs is imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from rtseg import __version__
from rtseg.commands.bench import bench
from rtseg.commands.build import build
from rtseg.commands.demo import demo
from rtseg.commands.doctor import doctor, models
from rtseg.commands.image import image
from rtseg.commands.live import live
from rtseg.commands.service import config, service
from rtseg.commands.train import evaluate, train
from rtseg.commands.video import video

app = typer.Typer(
    name="rtseg",
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
    """Colour every pixel of street video by what it is: road, car, pedestrian, sky. In real time, honestly measured."""


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
    app()
