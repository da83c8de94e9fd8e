"""The installer for a Jetson, run against stand-ins for its programs; and the run-time set it installs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[1]
INSTALL = ROOT / "deploy" / "jetson" / "install.sh"
RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"

PYTHON = """#!/bin/bash
# Stands for the system's Python; makes environments whose programs write down what they are asked.
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin" "$3/site"; echo "venv $3" >> "$LOG"
  printf '#!/bin/bash\\n[ "$1" = -c ] && { echo "%s/site"; exit; }\\necho "python $*" >> "$LOG"\\n' "$3" > "$3/bin/python"
  printf '#!/bin/bash\\necho "rtseg $*" >> "$LOG"\\nexit ${DOCTOR:-0}\\n' > "$3/bin/rtseg"
  chmod +x "$3/bin/"*
else
  exec "$REAL_PYTHON" "$@"
fi
"""


class Board:
    """A machine that looks like a Jetson to the installer."""

    def __init__(
        self, folder: Path, *, machine: str = "aarch64", release: str = RELEASE, tensorrt: str | None = "10.3.0"
    ) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.log.touch()
        programs = folder / "bin"
        programs.mkdir()
        for name, text in {"uname": f"#!/bin/sh\necho {machine}\n", "python": PYTHON}.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        (folder / "release").write_text(release)
        packages = folder / "dist-packages"
        (packages / "tensorrt").mkdir(parents=True)
        source = "raise ImportError" if tensorrt is None else f"__version__ = {tensorrt!r}"
        (packages / "tensorrt" / "__init__.py").write_text(source)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "LOG": str(self.log),
            "REAL_PYTHON": sys.executable,
            "PYTHON": str(programs / "python"),
            "PYTHONPATH": str(packages),
            "RTSEG_L4T_RELEASE": str(folder / "release"),
        }

    def install(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(INSTALL), "--prefix", str(self.folder / "env"), *arguments]
        return subprocess.run(command, env={**self.environment, **more}, capture_output=True, text=True, timeout=150)

    @property
    def did(self) -> list[str]:
        return [line.replace(str(self.folder), "").replace(str(ROOT), "") for line in self.log.read_text().splitlines()]


PIP = "python -m pip --disable-pip-version-check install --quiet"


def test_it_installs_checks_and_builds_in_this_order(tmp_path: Path) -> None:
    board = Board(tmp_path)
    done = board.install()
    assert done.returncode == 0, done.stderr
    assert board.did == [
        "venv /env",
        f"{PIP} --requirement /deploy/jetson/requirements.txt --constraint /deploy/jetson/constraints-cuda12.txt",
        f"{PIP} --no-deps --force-reinstall ",
        "rtseg doctor",
        "rtseg build",
    ]
    assert (tmp_path / "env" / "site" / "tensorrt").resolve() == tmp_path / "dist-packages" / "tensorrt"
    assert "TensorRT 10.3.0" in done.stdout


def test_it_can_be_run_again(tmp_path: Path) -> None:
    board = Board(tmp_path)
    assert board.install("--no-build").returncode == 0
    again = board.install("--model", "nano", "--source", "/tmp/rtseg.whl")
    assert again.returncode == 0, again.stderr
    assert board.did.count("venv /env") == 1
    assert board.did[-3:] == [f"{PIP} --no-deps --force-reinstall /tmp/rtseg.whl", "rtseg doctor", "rtseg build nano"]
    assert [path.name for path in (tmp_path / "env" / "site").iterdir()] == ["tensorrt"]


def test_jetpack_7_gets_cuda_13(tmp_path: Path) -> None:
    board = Board(tmp_path, release=RELEASE.replace("R36", "R38"), tensorrt="10.16.1")
    assert board.install().returncode == 0
    assert any("constraints-cuda13.txt" in line for line in board.did)


@pytest.mark.parametrize(
    ("machine", "release", "tensorrt", "says"),
    [
        ("x86_64", RELEASE, "10.3.0", "this is x86_64, not a Jetson"),
        ("aarch64", RELEASE.replace("R36", "R35"), "10.3.0", "R35 is not known here; rtseg needs JetPack 6"),
        ("aarch64", "nonsense", "10.3.0", "is not known here"),
        ("aarch64", RELEASE, None, "sudo apt-get install python3-libnvinfer"),
        ("aarch64", RELEASE, "8.6.2", "TensorRT 8.6.2 is too old"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_made(
    tmp_path: Path, machine: str, release: str, tensorrt: str | None, says: str
) -> None:
    board = Board(tmp_path, machine=machine, release=release, tensorrt=tensorrt)
    done = board.install()
    assert done.returncode == 1
    assert says in done.stderr
    assert board.did == []
    assert not (tmp_path / "env").exists()


def test_a_board_without_jetson_linux(tmp_path: Path) -> None:
    done = Board(tmp_path).install(RTSEG_L4T_RELEASE=str(tmp_path / "missing"))
    assert (done.returncode, "does not run Jetson Linux" in done.stderr) == (1, True)


def test_a_doctor_that_finds_something_broken_stops_it(tmp_path: Path) -> None:
    board = Board(tmp_path)
    done = board.install(DOCTOR="1")
    assert done.returncode == 1
    assert board.did[-1] == "rtseg doctor"


def test_usage(tmp_path: Path) -> None:
    board = Board(tmp_path)
    assert board.install("--nonsense").returncode == 2
    rendered = board.install("--help")
    assert rendered.returncode == 0
    assert "--no-build" in rendered.stdout
    assert board.did == []


def test_the_run_time_set_is_the_project_s_own_without_openvino() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {*project["dependencies"], *project["optional-dependencies"]["jetson"]}
    lines = (ROOT / "deploy" / "jetson" / "requirements.txt").read_text().splitlines()
    given = {line for line in lines if line and not line.startswith("#")}

    def names(requirements: set[str]) -> dict[str, str]:
        plain = {re.sub(r"\s", "", each).split(";")[0] for each in requirements}
        return {re.split(r"[<>=~!]", each)[0].replace("-headless", ""): re.sub(r"^[\w-]+", "", each) for each in plain}

    ours, theirs = names(given), names(wanted)
    assert theirs.pop("openvino", None)
    assert {k: v for k, v in ours.items() if k != "tomli"} == {k: v for k, v in theirs.items() if k != "tomli"}


def test_the_container_copies_what_is_there() -> None:
    text = (ROOT / "deploy" / "jetson" / "Dockerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("COPY"):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
    assert "FROM ${BASE}" in text


@pytest.mark.system("shellcheck")
@pytest.mark.parametrize("script", sorted((ROOT / "deploy").rglob("*.sh")), ids=lambda path: path.name)
def test_shellcheck(script: Path) -> None:
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout
