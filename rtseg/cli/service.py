"""`rtseg service` and `rtseg config`."""

from __future__ import annotations

import os
import re
import sys
import time
from itertools import count
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from rtseg.cli.config_file import Option
from rtseg.cli.errors import error_handler, print_line
from rtseg.cli.live import live
from rtseg.core.process_title import is_secret, remember_arguments

service = typer.Typer(no_args_is_help=True, help="Run `rtseg live` as a systemd service, with a configuration file.")
config = typer.Typer(no_args_is_help=True, help="Check a configuration file.")

_CONFIG = Path("/etc/rtseg/rtseg.toml")
_DEVICE_GROUPS = ("video", "render")
_ONE_SHOT = {"list-cameras", "dry-run", "help", "install-completion", "show-completion"}
_SECRET_VARIABLES = {"url": "RTSEG_URL", "push": "RTSEG_PUSH", "token": "RTSEG_TOKEN"}


@service.command("install", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def install(
    context: typer.Context,
    start: Annotated[bool, typer.Option("--start", help="Start it now and with each boot.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the files; write nothing.")] = False,
    root: Annotated[Path, typer.Option("--root", metavar="FOLDER", help="Write below this folder.")] = Path("/"),
    memory_max: Annotated[str, typer.Option("--memory-max", help="End it beyond this; systemd starts it anew.")] = "2G",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the cause of an error.")] = False,
) -> None:
    """Write a systemd unit, its user and rtseg.toml; all other options are those of `rtseg live`.

    Examples:

        rtseg service install --camera 0 --show web --record drive.mp4 --split-every 60 --keep 10GB --start

        rtseg service install --dry-run --csi 0 --show web
    """
    with error_handler(verbose):
        from rtseg.cli.config_file import to_toml
        from rtseg.core.errors import OptionError, SinkError
        from rtseg.core.secrets import holds_secret
        from rtseg.live import systemd as s

        table, secrets = without_secrets(table_of(context.args))
        if not table and not secrets:
            raise OptionError("name what is to run, such as `rtseg service install --camera 0 --show web`")
        if any(holds_secret(str(each)) for each in table.get("gst", ())):
            raise OptionError(
                f"--gst holds a password or a URL that may hold one, and {s.CONFIG} can be read by every user; "
                "name the camera with --url"
            )
        record = Path(str(table.get("record", "")))
        unit = s.Service(
            python=Path(sys.executable),
            writable=(record.parent,) if record.is_absolute() and not record.is_relative_to(s.STATE) else (),
            memory_max=memory_max,
            shares_tmp="csi" in table or any("nvargus" in str(each) for each in table.get("gst", ())),
        )
        files = {s.UNIT: unit.unit(), s.SYSUSERS: s.sysusers(existing_groups()), s.CONFIG: to_toml(table)}
        if secrets:
            files[s.SECRETS] = "".join(f"{name}={quoted(value)}\n" for name, value in secrets.items())
        if dry_run:
            for path, text in files.items():
                print(f"# {path}\n{text if path != s.SECRETS else '# not shown'}")
            return
        try:
            for path, text in files.items():
                kept = keep_edited(root / path.relative_to("/"), text)
                if kept is not None:
                    print_line(f"kept the previous {path.name} as {kept}")
                write_private(root / path.relative_to("/"), text, 0o600 if path == s.SECRETS else 0o644)
                print_line(f"wrote {root / path.relative_to('/')}")
        except OSError as error:
            raise SinkError(
                f"can't write {error.filename}: {(error.strerror or '').lower()}; run it as root"
            ) from error
        commands = [["systemd-sysusers", str(s.SYSUSERS)], ["systemctl", "daemon-reload"]]
        commands += [["systemctl", "enable", "--now", s.NAME]] if start else []
        if root != Path("/"):
            return
        run_all(commands)
        print_line(
            f"systemctl status {s.NAME}; journalctl -u {s.NAME} -f" if start else f"systemctl enable --now {s.NAME}"
        )


@service.command("run")
def run(
    path: Annotated[Path, typer.Option("--config", metavar="FILE", help="The configuration.")] = _CONFIG,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the cause of an error.")] = False,
) -> None:
    """What the unit runs: reads rtseg.toml, waits where earlier runs ended early, becomes `rtseg live`."""
    with error_handler(verbose):
        from rtseg.cli.config_file import read_config, to_arguments
        from rtseg.live.systemd import pause_before_start

        table = read_config(path)
        check_outputs(check_arguments(to_arguments(table, live_options())), path)
        rest, secrets = without_secrets(table)
        arguments = to_arguments(rest, live_options())
        state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        pause = pause_before_start(Path(state) / "starts.json") if state else 0.0
        if pause:
            print_line(f"the last run ended early: waiting {pause:g} s")
            time.sleep(pause)
        sys.stdout.flush()
        # The same process goes on as `rtseg live`, so that signals and systemd's watchdog reach it.
        # Passwords are not in its arguments, which every user of the machine can read.
        os.execve(sys.executable, [sys.executable, "-m", "rtseg", "live", *arguments], {**os.environ, **secrets})


@config.callback()
def _config() -> None:
    """Check a configuration file."""  # With this, Typer keeps `check` a command of its own.


@config.command("check")
def check(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The configuration.")] = _CONFIG,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the cause of an error.")] = False,
) -> None:
    """Say whether a configuration is sound: exit code 0, or 1 and what is wrong."""
    with error_handler(verbose):
        from rtseg.cli.config_file import read_config, to_arguments

        table = read_config(path)
        arguments = to_arguments(table, live_options())
        check_outputs(check_arguments(arguments), path)
        print_line(f"{path} is sound: {len(arguments)} options")
        if without_secrets(table)[1] and path.stat().st_mode & 0o004:
            print_line(f"warning: {path} holds a password and every user can read it: `chmod o-r {path}`")


def live_options() -> list[Option]:
    """What `rtseg live` takes, as a configuration may hold it."""
    options = []
    for parameter in _live_command().params:
        long = next((name for name in parameter.opts if name.startswith("--")), None)
        if long is None or long[2:] in _ONE_SHOT:
            continue
        negative = next((name for name in parameter.secondary_opts if name.startswith("--")), None)
        flag = bool(getattr(parameter, "is_flag", False))
        options.append(Option(long[2:], flag, negative, bool(getattr(parameter, "multiple", False))))
    return options


def check_arguments(arguments: list[str]) -> Any:
    """What the command line makes of the arguments. Raises OptionError where it refuses them."""
    from rtseg.core.errors import OptionError

    remember_arguments(arguments)
    try:
        return _live_command().make_context("live", list(arguments))
    except Exception as error:  # of Typer's own copy of click, which has no public name for them
        say_why = getattr(error, "format_message", None)
        if say_why is None:
            raise
        raise OptionError(" ".join(str(say_why()).split())) from error


def check_outputs(context: Any, config_file: Path) -> None:
    """Raises SinkError where an output of the arguments is the configuration itself; `rtseg live` checks the rest."""
    from rtseg.core.path_conflicts import Input, Output, check_paths

    written = {name: context.params.get(name) for name in ("record", "masks", "jsonl", "stats")}
    outputs = [Output(str(value), f"--{name}") for name, value in written.items() if value is not None]
    check_paths([Input(str(config_file), "the configuration")], outputs)


def table_of(arguments: list[str]) -> dict[str, Any]:
    """The configuration that stands for a command line of `rtseg live`: what was given, nothing of the defaults."""
    from enum import Enum

    context = check_arguments(arguments)
    table: dict[str, Any] = {}
    for parameter in _live_command().params:
        source = context.get_parameter_source(parameter.name)
        long = next((name for name in parameter.opts if name.startswith("--")), None)
        if long is None or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[parameter.name]
        plain = [str(each) if isinstance(each, Path) else each for each in value] if _is_list(value) else value
        table[long[2:]] = plain.value if isinstance(plain, Enum) else str(plain) if isinstance(plain, Path) else plain
    return table


def without_secrets(table: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Takes passwords and tokens out of a table, for a file that only root can read.

    Returns:
        The rest, and environment variables that say the same.
    """
    secrets: dict[str, str] = {}
    for key in ("url", "push"):
        value = table.get(key, ())
        urls = [str(url) for url in (value if _is_list(value) else [value])]
        if any(is_secret(f"--{key}", url) for url in urls):
            # Typer separates the URLs of a variable at spaces.
            secrets[_SECRET_VARIABLES[key]] = " ".join(re.sub(r"\s", lambda m: quote(m[0]), url) for url in urls)
    if "token" in table:
        secrets[_SECRET_VARIABLES["token"]] = str(table["token"])
    hidden = {key for key, variable in _SECRET_VARIABLES.items() if variable in secrets}
    return {key: value for key, value in table.items() if key not in hidden}, secrets


def quoted(value: str) -> str:
    """A value as systemd's EnvironmentFile= takes it (systemd.exec(5)): backslashes and quotes are escaped."""
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'


def existing_groups() -> tuple[str, ...]:
    """Groups of this machine that own cameras and GPUs; a group that does not exist would keep the service from starting."""
    import grp

    names = {group.gr_name for group in grp.getgrall()}
    return tuple(name for name in _DEVICE_GROUPS if name in names)


def write_private(path: Path, text: str, mode: int) -> None:
    """Writes a file whole, with its mode from the beginning. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    partial.replace(path)


def keep_edited(path: Path, text: str) -> Path | None:
    """Renames an existing file with other content to the next free `NAME.old`, `NAME.old2`; returns that name. Raises OSError."""
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") == text:
        return None
    kept = next(kept for n in count(1) if not (kept := path.with_name(f"{path.name}.old{n if n > 1 else ''}")).exists())
    return path.rename(kept)


def run_all(commands: list[list[str]]) -> None:
    """Runs system programs one after the other. Raises SinkError at the first that fails."""
    import subprocess

    from rtseg.core.errors import SinkError

    for command in commands:
        try:
            subprocess.run(command, check=True, timeout=120)
        except (OSError, subprocess.SubprocessError) as error:
            raise SinkError(f"`{' '.join(command)}` failed: {error}") from error


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _live_command() -> Any:
    app = typer.Typer(add_completion=False)
    app.command("live")(live)
    return typer.main.get_command(app)
