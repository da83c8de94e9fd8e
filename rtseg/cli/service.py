"""Commands `rtseg service` and `rtseg config`."""

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
_EXCLUDED = {"list-cameras", "dry-run", "help", "install-completion", "show-completion"}
_SECRET_VARIABLES = {"url": "RTSEG_URL", "push": "RTSEG_PUSH", "token": "RTSEG_TOKEN"}


@service.command("install", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def install(
    context: typer.Context,
    start: Annotated[bool, typer.Option("--start", help="Start the service now and at each boot.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the files instead of writing them.")] = False,
    root: Annotated[Path, typer.Option("--root", metavar="FOLDER", help="Write below this folder.")] = Path("/"),
    memory_max: Annotated[
        str, typer.Option("--memory-max", help="Memory limit; systemd restarts the service above it.")
    ] = "2G",
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print debug messages and the causes of errors.")
    ] = False,
) -> None:
    """Install a systemd service: the unit, its user, and rtseg.toml. All other options are those of `rtseg live`.

    Examples:

        rtseg service install --camera 0 --show web --record drive.mp4 --split-every 60 --keep 10GB --start

        rtseg service install --dry-run --csi 0 --show web
    """
    with error_handler(verbose):
        from rtseg.cli.config_file import to_toml
        from rtseg.core.errors import OptionError, SinkError
        from rtseg.core.secrets import contains_secret
        from rtseg.live import systemd as s

        table, secrets = split_secrets(to_table(context.args))
        if not table and not secrets:
            raise OptionError("give the options of `rtseg live`, such as `rtseg service install --camera 0 --show web`")
        if any(contains_secret(str(each)) for each in table.get("gst", ())):
            raise OptionError(
                f"--gst contains a password or a URL that can contain one, and {s.CONFIG} can be read by every user; "
                "give the camera with --url"
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
            files[s.SECRETS] = "".join(f"{name}={quote_value(value)}\n" for name, value in secrets.items())
        if dry_run:
            for path, text in files.items():
                print(f"# {path}\n{text if path != s.SECRETS else '# not shown'}")
            return
        try:
            for path, text in files.items():
                backup = back_up_edited(root / path.relative_to("/"), text)
                if backup is not None:
                    print_line(f"kept the previous {path.name} as {backup}")
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
        run_commands(commands)
        print_line(
            f"systemctl status {s.NAME}; journalctl -u {s.NAME} -f" if start else f"systemctl enable --now {s.NAME}"
        )


@service.command("run")
def run(
    path: Annotated[Path, typer.Option("--config", metavar="FILE", help="Configuration file.")] = _CONFIG,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print debug messages and the causes of errors.")
    ] = False,
) -> None:
    """Run `rtseg live` with the options of rtseg.toml. Used by the unit; waits first if earlier runs ended early."""
    with error_handler(verbose):
        from rtseg.cli.config_file import read_config, to_arguments
        from rtseg.live.systemd import pause_before_start

        table = read_config(path)
        check_outputs(check_arguments(to_arguments(table, live_options())), path)
        public, secrets = split_secrets(table)
        arguments = to_arguments(public, live_options())
        state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        pause = pause_before_start(Path(state) / "starts.json") if state else 0.0
        if pause:
            print_line(f"the last run ended early: waiting {pause:g} s")
            time.sleep(pause)
        sys.stdout.flush()
        # The same process becomes `rtseg live`, so that it receives signals and the watchdog of systemd.
        # Passwords are in environment variables, because every user of the machine can read the arguments.
        os.execve(sys.executable, [sys.executable, "-m", "rtseg", "live", *arguments], {**os.environ, **secrets})


@config.callback()
def _config() -> None:
    """Check a configuration file."""  # With a callback, `check` is a subcommand even though it is the only one.


@config.command("check")
def check(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration file.")] = _CONFIG,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print debug messages and the causes of errors.")
    ] = False,
) -> None:
    """Check a configuration file. Exit code 0 if it is valid, else 1 with an error message."""
    with error_handler(verbose):
        from rtseg.cli.config_file import read_config, to_arguments

        table = read_config(path)
        arguments = to_arguments(table, live_options())
        check_outputs(check_arguments(arguments), path)
        print_line(f"{path} is valid: {len(arguments)} options")
        if split_secrets(table)[1] and path.stat().st_mode & 0o004:
            print_line(f"warning: {path} contains a password and every user can read it: `chmod o-r {path}`")


def live_options() -> list[Option]:
    """Return the options of `rtseg live` that a configuration can contain."""
    options = []
    for parameter in _live_command().params:
        long = next((name for name in parameter.opts if name.startswith("--")), None)
        if long is None or long[2:] in _EXCLUDED:
            continue
        negative = next((name for name in parameter.secondary_opts if name.startswith("--")), None)
        flag = bool(getattr(parameter, "is_flag", False))
        options.append(Option(long[2:], flag, negative, bool(getattr(parameter, "multiple", False))))
    return options


def check_arguments(arguments: list[str]) -> Any:
    """Parse arguments of `rtseg live` and return the context. Raises OptionError if they are invalid."""
    from rtseg.core.errors import OptionError

    remember_arguments(arguments)
    try:
        return _live_command().make_context("live", list(arguments))
    except Exception as error:  # usage errors of Typer's copy of click, which have no public name
        format_message = getattr(error, "format_message", None)
        if format_message is None:
            raise
        raise OptionError(" ".join(str(format_message()).split())) from error


def check_outputs(context: Any, config_file: Path) -> None:
    """Raise SinkError if an output is the configuration file. `rtseg live` checks all other conflicts."""
    from rtseg.core.path_conflicts import Input, Output, check_paths

    paths = {name: context.params.get(name) for name in ("record", "masks", "jsonl", "stats")}
    outputs = [Output(str(value), f"--{name}") for name, value in paths.items() if value is not None]
    check_paths([Input(str(config_file), "the configuration")], outputs)


def to_table(arguments: list[str]) -> dict[str, Any]:
    """Convert arguments of `rtseg live` to a configuration table. Options that were not given are left out."""
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


def split_secrets(table: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Split passwords and tokens from a table, for a file that only root can read.

    Returns:
        The table without secrets, and environment variables with the secrets.
    """
    secrets: dict[str, str] = {}
    for key in ("url", "push"):
        value = table.get(key, ())
        urls = [str(url) for url in (value if _is_list(value) else [value])]
        if any(is_secret(f"--{key}", url) for url in urls):
            # Typer splits the value of the variable at spaces.
            secrets[_SECRET_VARIABLES[key]] = " ".join(re.sub(r"\s", lambda m: quote(m[0]), url) for url in urls)
    if "token" in table:
        secrets[_SECRET_VARIABLES["token"]] = str(table["token"])
    hidden = {key for key, variable in _SECRET_VARIABLES.items() if variable in secrets}
    return {key: value for key, value in table.items() if key not in hidden}, secrets


def quote_value(value: str) -> str:
    """Quote a value for EnvironmentFile= of systemd (systemd.exec(5)): escape backslashes and quotes."""
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'


def existing_groups() -> tuple[str, ...]:
    """Return the existing groups for cameras and GPUs. The service does not start with a group that does not exist."""
    import grp

    names = {group.gr_name for group in grp.getgrall()}
    return tuple(name for name in _DEVICE_GROUPS if name in names)


def write_private(path: Path, text: str, mode: int) -> None:
    """Write a file atomically; it has the given mode at all times. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    partial.replace(path)


def back_up_edited(path: Path, text: str) -> Path | None:
    """Rename an existing file with other content to the first unused name of `NAME.old`, `NAME.old2` … and return it.

    Returns None if there is no such file. Raises OSError.
    """
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") == text:
        return None
    names = (path.with_name(f"{path.name}.old{n if n > 1 else ''}") for n in count(1))
    return path.rename(next(name for name in names if not name.exists()))


def run_commands(commands: list[list[str]]) -> None:
    """Run system programs in order. Raises SinkError at the first failure."""
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
