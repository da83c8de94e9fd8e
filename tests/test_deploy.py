"""Tests of the Jetson installer with test doubles of its programs, and of the requirements that it installs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTALL = ROOT / "deploy" / "jetson" / "install.sh"
RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"

PYTHON = """#!/bin/bash
# Test double of the system's Python. The programs of its virtual environments log their arguments.
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin" "$3/site"; echo "venv $3" >> "$LOG"
  printf '#!/bin/bash\\n[ "$1" = -c ] && { echo "%s/site"; exit; }\\necho "python $*" >> "$LOG"\\n' "$3" > "$3/bin/python"
  printf '#!/bin/bash\\necho "rtseg $*" >> "$LOG"\\nexit ${DOCTOR:-0}\\n' > "$3/bin/rtseg"
  chmod +x "$3/bin/"*
else
  exec "$REAL_PYTHON" "$@"
fi
"""


class FakeJetson:
    """Environment that the installer detects as a Jetson."""

    def __init__(
        self, folder: Path, *, machine: str = "aarch64", release: str | None = RELEASE, tensorrt: str | None = "10.3.0"
    ) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.log.touch()
        programs = folder / "bin"
        programs.mkdir()
        for name, text in {"uname": f"#!/bin/sh\necho {machine}\n", "python": PYTHON}.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        if release is not None:
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
    def calls(self) -> list[str]:
        return [line.replace(str(self.folder), "").replace(str(ROOT), "") for line in self.log.read_text().splitlines()]


PIP = "python -m pip --disable-pip-version-check install --quiet"


def test_installer_installs_then_runs_doctor_then_builds(tmp_path: Path) -> None:
    jetson = FakeJetson(tmp_path)
    done = jetson.install()
    assert done.returncode == 0, done.stderr
    assert jetson.calls == [
        "venv /env",
        f"{PIP} --requirement /deploy/jetson/requirements.txt --constraint /deploy/jetson/constraints-cuda12.txt",
        f"{PIP} --no-deps --force-reinstall ",
        "rtseg doctor",
        "rtseg build",
    ]
    assert (tmp_path / "env" / "site" / "tensorrt").resolve() == tmp_path / "dist-packages" / "tensorrt"
    assert "TensorRT 10.3.0" in done.stdout


def test_installer_can_run_twice(tmp_path: Path) -> None:
    jetson = FakeJetson(tmp_path)
    assert jetson.install("--no-build").returncode == 0
    again = jetson.install("--model", "nano", "--source", "/tmp/rtseg.whl")
    assert again.returncode == 0, again.stderr
    assert jetson.calls.count("venv /env") == 1
    assert jetson.calls[-3:] == [
        f"{PIP} --no-deps --force-reinstall /tmp/rtseg.whl",
        "rtseg doctor",
        "rtseg build nano",
    ]
    assert [path.name for path in (tmp_path / "env" / "site").iterdir()] == ["tensorrt"]


def test_jetpack_7_installs_cuda_13(tmp_path: Path) -> None:
    jetson = FakeJetson(tmp_path, release=RELEASE.replace("R36", "R38"), tensorrt="10.16.1")
    assert jetson.install().returncode == 0
    assert any("constraints-cuda13.txt" in line for line in jetson.calls)


@pytest.mark.parametrize(
    ("machine", "release", "tensorrt", "message"),
    [
        ("x86_64", RELEASE, "10.3.0", "this is x86_64, not a Jetson"),
        ("aarch64", RELEASE.replace("R36", "R35"), "10.3.0", "R35 is not known here; rtseg needs JetPack 6"),
        ("aarch64", "nonsense", "10.3.0", "is not known here"),
        ("aarch64", None, "10.3.0", "does not run Jetson Linux"),
        ("aarch64", RELEASE, None, "sudo apt-get install python3-libnvinfer"),
        ("aarch64", RELEASE, "8.6.2", "TensorRT 8.6.2 is too old"),
    ],
)
def test_missing_prerequisite_is_reported_before_installation(
    tmp_path: Path, machine: str, release: str | None, tensorrt: str | None, message: str
) -> None:
    jetson = FakeJetson(tmp_path, machine=machine, release=release, tensorrt=tensorrt)
    done = jetson.install()
    assert done.returncode == 1
    assert message in done.stderr
    assert jetson.calls == []
    assert not (tmp_path / "env").exists()


def test_installer_stops_if_doctor_fails(tmp_path: Path) -> None:
    jetson = FakeJetson(tmp_path)
    done = jetson.install(DOCTOR="1")
    assert done.returncode == 1
    assert jetson.calls[-1] == "rtseg doctor"


def test_help_and_unknown_option(tmp_path: Path) -> None:
    jetson = FakeJetson(tmp_path)
    assert jetson.install("--nonsense").returncode == 2
    help_run = jetson.install("--help")
    assert help_run.returncode == 0
    assert "--no-build" in help_run.stdout
    assert jetson.calls == []


def test_jetson_requirements_match_the_project_without_openvino() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = {*project["dependencies"], *project["optional-dependencies"]["jetson"]}
    lines = (ROOT / "deploy" / "jetson" / "requirements.txt").read_text().splitlines()
    actual = {line for line in lines if line and not line.startswith("#")}

    def names(requirements: set[str]) -> dict[str, str]:
        plain = {re.sub(r"\s", "", each).split(";")[0] for each in requirements}
        return {re.split(r"[<>=~!]", each)[0].replace("-headless", ""): re.sub(r"^[\w-]+", "", each) for each in plain}

    actual_names, expected_names = names(actual), names(expected)
    assert expected_names.pop("openvino", None)
    assert actual_names == expected_names


def test_dockerfile_copies_only_existing_files() -> None:
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
