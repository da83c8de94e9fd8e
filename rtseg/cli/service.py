"""Commands `rtseg service` and `rtseg config`: a systemd unit that runs `rtseg live`."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rtseg.cli.errors import error_handler, print_line
from rtseg.core.errors import OptionError, reason
from rtseg.core.process_title import masked, remember_arguments
from rtseg.core.text_file import read_text

config = typer.Typer(no_args_is_help=True, help="Check the options of `rtseg live` in a systemd unit.")

_OUTPUTS = ("record", "masks", "jsonl", "stats", "snapshots")
_SECRETS_REMEDY = "put it into /etc/rtseg/secrets.env as RTSEG_URL, RTSEG_PUSH or RTSEG_TOKEN"

_UNIT = """\
# Runs `rtseg live` at each boot. For systemd 249 (Ubuntu 22.04, JetPack 6) and newer.
#
#   sudo useradd --system --groups video,render rtseg
#   sudo cp rtseg.service /etc/systemd/system/
#   sudo systemctl enable --now rtseg
#
# After a change: rtseg config check && sudo systemctl daemon-reload && sudo systemctl restart rtseg

[Unit]
Description=rtseg: segmentation of live street video
After=network-online.target nvargus-daemon.service
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart={command}
# Every user can read this file and the arguments above. URLs with passwords (RTSEG_URL, RTSEG_PUSH) and the token of the web page
# (RTSEG_TOKEN) are in this one, which only root can read (chmod 600): RTSEG_URL='rtsp://user:password@camera/stream'
EnvironmentFile=-/etc/rtseg/secrets.env
Environment=HOME=/var/lib/rtseg XDG_CACHE_HOME=/var/cache/rtseg PYTHONUNBUFFERED=1

# rtseg notifies systemd once per second while frames are segmented or a camera is reconnected.
Type=notify
WatchdogSec=30
Restart=always
RestartSec=5
# The first start builds an engine, which takes minutes on a small board.
TimeoutStartSec=30min
TimeoutStopSec=10

# Relative paths, such as `--record drive.mp4`, are in the recordings folder.
User=rtseg
StateDirectory=rtseg rtseg/recordings
StateDirectoryMode=0750
CacheDirectory=rtseg
WorkingDirectory=/var/lib/rtseg/recordings
UMask=0027

# On a Jetson, memory includes that of the GPU.
MemoryMax=2G
TasksMax=512
LimitNOFILE=8192
LimitCORE=0

# The service can write only to its own folders{writable}
ProtectSystem=strict
ProtectHome=read-only
# A CSI camera needs the socket of NVIDIA's camera daemon in /tmp.
PrivateTmp={private_tmp}
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""


def service(
    context: typer.Context,
    arguments: Annotated[list[str], typer.Argument(metavar="LIVE-OPTIONS", help="Options of `rtseg live`.")],
) -> None:
    """Print a systemd unit that runs `rtseg live` at each boot. Its first lines are the commands that install it.

    Examples:

        rtseg service --camera 0 --show web --record drive.mp4 --split-every 60 --keep 10GB > rtseg.service
    """
    with error_handler():
        params = parse_live_options(context, arguments)
        for argument, shown in zip(arguments, masked(arguments), strict=True):
            if shown != argument:
                raise OptionError(
                    f"every user can read a unit, and '{shown}' may contain a password; {_SECRETS_REMEDY}"
                )
        if re.search(r"[\x00-\x1f]", "".join(arguments)):
            raise OptionError("an option contains a line break or another control character; write it in one line")
        python = Path(sys.executable)  # not resolved: the link of a virtual environment selects its packages
        print(unit(python, arguments, params), end="")
        folders = [folder for file in (python, python.resolve(), Path(__file__)) for folder in file.parents]
        hidden = next((folder for folder in folders if not folder.stat().st_mode & 0o001), None)
        if hidden is not None:
            print_line(f"warning: the service's user can't open {hidden}: `chmod o+x {hidden}`, or install elsewhere")


@config.callback()
def _config() -> None:
    """Check the options of `rtseg live` in a systemd unit."""  # With a callback, `check` is a subcommand.


@config.command("check")
def check(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Unit file.")] = Path(
        "/etc/systemd/system/rtseg.service"
    ),
) -> None:
    """Check the options of `rtseg live` in a unit file. Exit code 0 if they are valid."""
    with error_handler():
        try:
            arguments = live_arguments(read_text(path))
        except (OSError, ValueError) as error:
            raise OptionError(f"can't read the unit {path}: {reason(error)}") from error
        parse_live_options(context, arguments)
        print_line(f"{path} is valid: rtseg live {shlex.join(masked(arguments))}")
        if masked(arguments) != arguments:
            print_line(f"warning: {path} may contain a password, and every user can read it; {_SECRETS_REMEDY}")


def parse_live_options(context: typer.Context, arguments: list[str]) -> dict[str, Any]:
    """Return the options of `rtseg live` by name. Raises a usage error if an argument is invalid."""
    remember_arguments(arguments)
    root = context.find_root()
    live = root.command.get_command(root, "live")  # type: ignore[attr-defined]
    return dict(live.make_context("rtseg live", list(arguments)).params)


def unit(python: Path, arguments: list[str], params: dict[str, Any]) -> str:
    """Return the text of the unit file.

    Args:
        python: interpreter with rtseg installed.
        arguments: arguments of `rtseg live`.
        params: the same, parsed.
    """
    outputs = [Path(params[name]) for name in _OUTPUTS if params[name]]
    writable = sorted({str(path.parent) for path in outputs if path.is_absolute()})
    shares_tmp = params["csi"] or any("nvargus" in pipeline for pipeline in params["gst"] or ())
    return _UNIT.format(
        command=" ".join(map(_quote, [str(python), "-m", "rtseg", "live", *arguments])).replace("$", "$$"),
        writable="".join(f"\nReadWritePaths={_quote(folder)}" for folder in writable),
        private_tmp="no" if shares_tmp else "yes",
    )


def live_arguments(text: str) -> list[str]:
    """Return the arguments of `rtseg live` in a unit file, the inverse of `unit`. Raises ValueError if there are none."""
    command = re.search(r'^ExecStart=.*?rtseg"?\s+live(\s.*)?$', text.replace("\\\n", " "), re.MULTILINE)
    if command is None:
        raise ValueError("it has no line `ExecStart=... rtseg live ...`")
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(command[1] or "")]


def _quote(word: str) -> str:
    """Quote a word of a unit file (systemd.syntax(7), systemd.unit(5))."""
    if re.fullmatch(r"[\w@:,.+=/-]+", word):
        return word
    return '"' + re.sub(r'(["\\])', r"\\\1", word).replace("%", "%%") + '"'
