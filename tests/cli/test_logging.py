"""Log records of the library: INFO and DEBUG with -v, warnings always, nothing else on stderr of a program."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from command import rtseg
from media import write_video

from rtseg.cli.errors import error_handler
from rtseg.core.secrets import forget, remember
from rtseg.inference.segmenter import Segmenter


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    drive = write_video(tmp_path / "drive.mp4", frames=3)
    return ["video", str(drive), "-o", str(tmp_path / "out.mp4"), "--model", "nano", "--size", "96x64"]


def test_verbose_shows_info_and_debug_records(command: list[str]) -> None:
    lines = rtseg(*command, "-v").stderr.splitlines()
    assert any(line.startswith("rtseg.inference: loaded ") and "camvid-nano.onnx" in line for line in lines)
    assert any(line.startswith("rtseg.video: decoding ") and "h264" in line for line in lines)
    assert any(line.startswith("rtseg.video: streams copied: ") for line in lines)


def test_default_shows_no_info_records(command: list[str]) -> None:
    assert not [line for line in rtseg(*command).stderr.splitlines() if line.startswith("rtseg.")]


def test_commands_print_the_traceback_of_a_bug_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    remember("hunter2")
    with error_handler():
        try:
            raise ZeroDivisionError("hunter2")
        except ZeroDivisionError:
            logging.getLogger("rtseg.video").exception("printed as the result of the video")
    forget()
    assert re.fullmatch(
        r"Traceback \(most recent call last\):\n.*ZeroDivisionError: \*\*\*\n", capsys.readouterr().err, re.DOTALL
    )


def test_library_logs_and_prints_nothing(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rtseg"), Segmenter("nano", backend="openvino", size=(96, 64)):
        pass
    assert [record.name for record in caplog.records] == ["rtseg.inference"]
    assert capsys.readouterr() == ("", "")
