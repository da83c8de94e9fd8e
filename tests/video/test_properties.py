"""Property tests of options, palettes, lists and titles: a valid result or an rtseg error, never a traceback."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from media import copy_video, write_video

from rtseg.cli.options import parse_names, parse_pixels, parse_protocols, parse_seconds, parse_size
from rtseg.core.errors import OptionError
from rtseg.core.palette import CAMVID_CLASSES, MIN_COLOR_DISTANCE, load_palette
from rtseg.video.batch import parse_jobs
from rtseg.video.completed import LIST_NAME, DoneList

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


# Options


@quick
@given(st.integers(1, 99_999), st.integers(1, 99_999), st.sampled_from("xX"), st.sampled_from(["", " "]))
def test_size_is_parsed(width: int, height: int, times: str, blank: str) -> None:
    assert parse_size(f"{blank}{width}{times}{height}{blank}") == (width, height)
    assert parse_pixels(f"{blank}{width}{times}{height}{blank}") == min(width * height, 2**31 - 1)


@quick
@given(st.integers(0, 200), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_time_is_parsed(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    total = seconds + milliseconds / 1000
    for text, expected in (
        (f"{hours}:{minutes:02}:{seconds:02}.{milliseconds:03}", hours * 3600 + minutes * 60 + total),
        (f"{minutes}:{seconds:02}.{milliseconds:03}", minutes * 60 + total),
        (f"{seconds}.{milliseconds:03}", total),
        (f".{milliseconds:03}", milliseconds / 1000),
    ):
        assert parse_seconds(text, "--start") == pytest.approx(expected)


@quick
@given(st.lists(st.text(min_size=1, max_size=9).filter(lambda name: "," not in name and name.strip()), min_size=1))
def test_names_are_parsed(names: list[str]) -> None:
    assert parse_names(", ".join(names)) == tuple(name.strip() for name in names)


@quick
@given(st.text(max_size=12) | st.from_regex(r"[0-9:.xXkMG+\-e ]{0,30}", fullmatch=True))
@example("9" * 400)
@example("1" + "0" * 300 + ":00")
@example("²")
@example("٣x٤")
@example("99999999999999999M")
def test_any_text_is_a_value_or_an_option_error(text: str) -> None:
    for parse in (
        parse_size,
        parse_names,
        parse_pixels,
        parse_protocols,
        lambda text: parse_seconds(text, "--start"),
        lambda text: parse_jobs(text, 5),
    ):
        try:
            value: Any = parse(text)
        except OptionError:
            continue
        if isinstance(value, float):
            assert math.isfinite(value)
            assert value >= 0
        elif isinstance(value, int):
            assert 1 <= value <= 2**31
        elif parse is parse_size:
            assert min(value) >= 1
        elif parse is parse_protocols:
            assert set(value) <= {"file", "http", "https"}


# Palettes and lists from untrusted files


@quick
@given(JSON | st.dictionaries(st.sampled_from(CAMVID_CLASSES), st.lists(st.integers(-1, 256), min_size=3, max_size=3)))
def test_any_json_is_a_palette_or_an_option_error(data: Any) -> None:
    _load_palette(json.dumps(data).encode())


@quick
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(b'{"sky": ' + b"9" * 5000 + b"}")
@example(b'{"sky": "#\xc2\xb2\xc2\xb2\xc2\xb2"}')
@example(b"\xff\xfe{\0}\0")
def test_any_bytes_are_a_palette_or_an_option_error(data: bytes) -> None:
    _load_palette(data)


def _load_palette(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "palette.json"
        file.write_bytes(data)
        try:
            palette = load_palette(str(file), CAMVID_CLASSES)
        except OptionError:
            return
    assert palette.classes == CAMVID_CLASSES
    assert all(len(color) == 3 and all(0 <= part <= 255 for part in color) for color in palette.colors)
    assert all(distance >= MIN_COLOR_DISTANCE for _, _, distance in palette.similar_colors())


def test_deep_nesting_is_an_error() -> None:
    _load_palette(b"[" * 100_000)
    _check_list(b"[" * 100_000)


@quick
@given(st.binary(max_size=80) | st.lists(JSON, max_size=4).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()))
@example(b'{"output": "a.mp4", "output_state": [true, "x"], "made_with": 3}')
@example(b'{"output": "a.mp4", "output_state": [2, NaN]}')
def test_invalid_list_contains_no_verified_output(data: bytes) -> None:
    _check_list(data)


def _check_list(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.mp4").write_bytes(b"xx")
        (folder / LIST_NAME).write_bytes(data)
        assert DoneList({"alpha": 0.5}).reason_to_process(str(folder / "in.mp4"), str(folder / "a.mp4"))


# Titles

FASTEST = {"libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}, "libx264": {"preset": "ultrafast"}, "mpeg4": {}}
TITLES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm", "ts", "avi"])
@few
@given(title=TITLES, target=st.sampled_from(["mp4", "mov", "mkv", "webm", "avi"]))
@example(title="Straße 50 % <b>&amp;</b> \"x\" 'y' \\ =;#\n2", target="mp4")
@example(title="\u202e日本 🚗\u0301", target="mkv")
def test_title_of_any_characters_is_kept(ending: str, title: str, target: str) -> None:
    """The output has the input's title. MPEG-TS and AVI may change or drop it, but the rest is intact."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        codec = {"webm": "libvpx-vp9", "avi": "mpeg4"}.get(ending, "libx264")
        tags = {"title": title, "comment": title}
        path = write_video(folder / f"in.{ending}", codec=codec, options=FASTEST[codec], metadata=tags)
        copy_video(path, folder / f"out.{target}")
        before, after = _tags(path), _tags(folder / f"out.{target}")
        if ending != "ts" and target != "avi":
            assert after == before


def _tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return {name.lower(): text for name, text in container.metadata.items() if name.lower() in ("title", "comment")}
