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
from typing import Any

import pytest
import typer.main

import rtseg
from rtseg.cli.app import app
from rtseg.inference.bundled_models import bundled_models
from rtseg.synthetic import SyntheticDrive
from rtseg.synthetic.video_file import write_video

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
LANGUAGES = ("sh", "python", "toml", "json", "text", "")
"""Languages of code blocks that the tests below recognize; a block without a language is program output or a diagram."""


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def fences(page: Path, *languages: str) -> list[str]:
    """Return the code blocks of a page in one of the languages; "" is a block without a language."""
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^```", text, flags=re.MULTILINE)) % 2 == 0, f"{page_id(page)}: a code block without an end"
    blocks = re.findall(r"^```([^\n]*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [code for language, code in blocks if language.strip() in languages]


def command_lines(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each rtseg command in the code blocks and inline code of a page."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in fences(page, "sh", "") for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += re.findall(r"`(rtseg [a-z][^`]*)`", prose.replace("\n", " "))
    for line in lines:
        line = re.sub(r"^(\$ |sudo )+", "", line.split(" #")[0].strip())
        if line.startswith("#") or "=" in line.split(" ")[0]:
            continue
        words = shlex.split(line) if "rtseg" in line else []
        if words and words[0].rsplit("/", 1)[-1] == "rtseg":
            yield words[1:]


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def unknown_words(words: list[str]) -> list[str]:
    """Return the commands and options of a command line that rtseg does not have."""
    command: Any = typer.main.get_command(app)
    options: set[str] = {"--help", "-h", "--version"}
    unknown = []
    for word in words:
        name = word.split("=")[0]
        if hasattr(command, "commands") and not word.startswith("-"):
            if word not in command.commands:
                return [word]
            command = command.commands[word]
            options |= options_of(command)
            if command.context_settings.get("ignore_unknown_options"):  # `service` passes them to `live`
                options |= options_of(typer.main.get_command(app).commands["live"])  # type: ignore[attr-defined]
        elif word.startswith("-") and len(word) > 1 and not word[1].isdigit() and name not in options:
            unknown.append(name)
    return unknown


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_code_blocks_have_a_known_language(page: Path) -> None:
    opening = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[::2]
    assert set(map(str.strip, opening)) <= set(LANGUAGES)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_options_exist(page: Path) -> None:
    for words in command_lines(page):
        assert not unknown_words(words), f"{page_id(page)}: rtseg {' '.join(words)}"


def test_unknown_commands_and_options_are_detected() -> None:
    assert unknown_words(["service", "--camera", "0", "--shwo"]) == ["--shwo"]
    assert unknown_words(["config", "chekc"]) == ["chekc"]
    assert unknown_words(["video", "a.mp4", "-o", "b.mp4", "--legned"]) == ["--legned"]
    assert unknown_words(["service", "--camera", "0", "--show", "web"]) == []


def test_readme_shows_commands() -> None:
    assert sum(1 for _ in command_lines(ROOT / "README.md")) >= 8


def test_readme_starts_with_image_install_line_and_three_commands() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:16])
    assert "](docs/images/overview.jpg)" in first_screen
    assert "pip install" in first_screen
    assert re.findall(r"^rtseg (\w+)", first_screen, flags=re.MULTILINE) == ["demo", "video", "live"]


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"^make ([a-z]+)|`make ([a-z]+)", text, flags=re.MULTILINE):
            assert "".join(target) in targets, f"{page_id(page)}: make {target}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_linked_files_and_headings_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page_id(page)}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", each.lower()).strip().replace(" ", "-") for each in headings}
            assert heading in anchors, f"{page_id(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_files_of_the_repository_exist(page: Path) -> None:
    """Scripts, tests, results and modules that a page names in code font."""
    pattern = r"`(?:python )?((?:tests|benchmarks|deploy|rtseg|examples)/[\w./-]+\.\w+)"
    for name in re.findall(pattern, page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), f"{page_id(page)}: {name}"


def test_api_reference_lists_the_public_names() -> None:
    text = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    for name in set(rtseg.__all__) - {"RtsegError", "__version__"}:
        assert re.search(rf"^::: rtseg\..*\.{name}$", text, flags=re.MULTILINE), name
    assert "::: rtseg.core.errors" in text


def test_the_tables_of_the_performance_page_are_those_of_the_results() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "performance_tables.py"), "--check"]
    assert subprocess.run(command, timeout=150).returncode == 0, "run python benchmarks/performance_tables.py"


def test_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(SyntheticDrive(160, 120, frames=3), str(tmp_path / "drive.mp4"))
    monkeypatch.chdir(tmp_path)
    blocks = fences(ROOT / "README.md", "python")
    assert blocks
    assert bundled_models(), "no trained model in the package"
    for block in blocks:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(block, "README.md", "exec"), {})
        assert output.getvalue().count("road") == 3
