"""The documents are true: every command they show exists with every option they give it, and their Python runs."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from rtseg.cli.app import app
from rtseg.inference.bundled_models import bundled_models
from rtseg.synthetic import SyntheticDrive
from rtseg.synthetic.video_file import write_video

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])


def fences(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page that are in one of the languages; "" is a fence without any."""
    blocks: list[str] = []
    inside: list[str] | None = None
    wanted = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            if inside is None:
                inside, wanted = [], line[3:].strip() in languages
            else:
                blocks += ["\n".join(inside)] if wanted else []
                inside = None
        elif inside is not None:
            inside.append(line)
    return blocks


def command_lines(page: Path) -> Iterator[list[str]]:
    for block in fences(page, "sh", ""):
        for line in block.replace("\\\n", " ").splitlines():
            words = (
                shlex.split(line.split(" #")[0].removeprefix("$ "))
                if line.strip() and not line.lstrip().startswith("#")
                else []
            )
            if words and words[0] == "rtseg":
                yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_exists(page: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for words in command_lines(page):
        if words and not words[0].startswith("-"):
            assert words[0] in commands, f"{page.name}: rtseg {' '.join(words)}"
            known = {
                name for parameter in commands[words[0]].params for name in (*parameter.opts, *parameter.secondary_opts)
            }
            known |= {"--help", "-h"}
            for word in words[1:]:
                if word.startswith("-") and word != "-":
                    assert word.split("=")[0] in known, f"{page.name}: rtseg {words[0]} has no {word}"


def test_readme_shows_commands_at_all() -> None:
    assert sum(1 for _ in command_lines(ROOT / "README.md")) >= 8


def test_every_make_target_shown_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in PAGES:
        for block in fences(page, "sh", ""):
            for target in re.findall(r"^make ([a-z]+)", block, flags=re.MULTILINE):
                assert target in targets, f"{page.name}: make {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_linked_exists(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_test_named_in_the_fidelity_tables_exists() -> None:
    """Each row's test is where the row says: in the file of its letter, the file named before it, or test_fidelity.py."""
    text = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    letters = dict(re.findall(r"\b([A-Z]) is\s+`(tests/\w+\.py)`", text))
    assert len(letters) >= 8
    tables = [line for line in text.splitlines() if line.startswith("|")]
    named = re.findall(r"(?:\b([A-Z]) |`(tests/\w+\.py)` )?`(test_\w+)`", "\n".join(tables))
    assert len(named) > 100
    for letter, file, name in named:
        path = ROOT / (file or letters.get(letter, "tests/video/test_verify.py"))
        assert f"def {name}(" in path.read_text(encoding="utf-8"), f"{path.name} has no {name}"


def test_the_tables_of_the_performance_page_are_those_of_the_results() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "performance_tables.py"), "--check"]
    assert subprocess.run(command, timeout=150).returncode == 0, "run python benchmarks/performance_tables.py"


def test_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(SyntheticDrive(160, 120, frames=3), str(tmp_path / "drive.mp4"), quiet=True)
    monkeypatch.chdir(tmp_path)
    blocks = fences(ROOT / "README.md", "python")
    assert blocks
    assert bundled_models(), "no trained model in the package"
    for block in blocks:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(block, "README.md", "exec"), {})
        assert said.getvalue().count("road") == 3
